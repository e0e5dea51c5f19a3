"""ONNX Runtime's providers for GPUs: what each needs, its options, and proof that it took the network.

Where a provider's libraries cannot be loaded, or it does not know an operator, ONNX Runtime goes on with the
CPU and only logs it. So the providers in force are read back, and `session.disable_cpu_ep_fallback` makes
operators that were left to the CPU an error.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.util
from typing import TYPE_CHECKING, Any

from hwprune.cudadriver import driver_facts
from hwprune.errors import DeviceError, ModelError
from hwprune.nvml import gpus
from hwprune.nvml import installed as nvml_installed
from hwprune.runtimes.gpu_errors import is_out_of_memory, out_of_memory
from hwprune.runtimes.probes import conv_chain

if TYPE_CHECKING:
    import onnxruntime as ort

    from hwprune.runtimes.base import TargetProfile

PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "tensorrt_rtx": "NvTensorRTRTXExecutionProvider",
}
_RTX_MODULE = "onnxruntime_ep_nv_tensorrt_rtx"
_GPU_PACKAGE = "pip uninstall -y onnxruntime && pip install onnxruntime-gpu (only one of them at a time)"
_RTX_PACKAGE = "pip install onnxruntime-ep-nv-tensorrt-rtx beside onnxruntime 1.24 or newer"
_RTX_CAPABILITIES = "8.6, 8.9, 12.0 and above"
_DRIVER = (
    "install the driver: sudo apt-get install nvidia-driver-580, then restart; in a container: "
    "docker run --gpus all; `nvidia-smi` must list the GPU"
)
_LIBRARIES = {
    "cuda": "install the CUDA and cuDNN that it was built for: pip install onnxruntime-gpu[cuda,cudnn]",
    "tensorrt": "install the TensorRT that it was built for, `pip install tensorrt`, and put the folder of "
    "its libnvinfer.so on LD_LIBRARY_PATH",
    "tensorrt_rtx": "update the driver to one for CUDA 13, and uninstall onnxruntime-gpu, which it does not "
    "work beside",
}
NO_FALLBACK = "session.disable_cpu_ep_fallback"


def provider_of(profile: TargetProfile) -> str:
    """The provider that a profile asks for: a key of `PROVIDERS`."""
    return str(profile.options.get("provider", "cuda" if profile.on_gpu else "cpu"))


def memory_of(profile: TargetProfile) -> tuple[str, int]:
    """Where inputs and outputs lie; a plugin brings no memory of the GPU with it, so its own copies count."""
    if provider_of(profile) in ("cuda", "tensorrt"):
        return "cuda", profile.gpu_index
    return "cpu", 0


def gpu_settings(profile: TargetProfile) -> dict[str, str | int | bool]:
    """Which GPU it is, for ONNX Runtime itself does not tell."""
    facts = driver_facts(profile.gpu_index)
    if facts is None:
        return {"gpu": "unknown", "capability": "unknown"}
    return {"gpu": facts.name, "capability": facts.capability}


def missing(profile: TargetProfile) -> tuple[str, str] | None:
    """What a profile's provider lacks here, and the command that brings it; None when nothing."""
    if provider_of(profile) == "cpu":
        return None
    return _missing_package(provider_of(profile)) or _missing_gpu(profile)


def _missing_package(provider: str) -> tuple[str, str] | None:
    import onnxruntime as ort

    if provider == "tensorrt_rtx":
        if importlib.util.find_spec(_RTX_MODULE) is None:
            return "The TensorRT-RTX provider is not installed.", _RTX_PACKAGE
        return None
    if PROVIDERS[provider] not in ort.get_available_providers():
        return f"This onnxruntime was built without {PROVIDERS[provider]}.", _GPU_PACKAGE
    return None


def _missing_gpu(profile: TargetProfile) -> tuple[str, str] | None:
    """What NVML says against the profile's GPU; without its module only a session tells."""
    found, index = gpus(), profile.gpu_index
    if not found:
        return ("There is no NVIDIA GPU here, or no driver for it.", _DRIVER) if nvml_installed() else None
    if index >= len(found):
        return (
            f"There is no GPU cuda:{index}.",
            f"use one of cuda:0 ... cuda:{len(found) - 1}; see `nvidia-smi -L`",
        )
    capability = found[index].get("gpu_capability", "unknown")
    if provider_of(profile) == "tensorrt_rtx" and capability != "unknown" and not takes_rtx(capability):
        return (
            f"TensorRT-RTX does not serve compute capability {capability}, only {_RTX_CAPABILITIES}.",
            "use the runtime tensorrt, torch_cuda, or provider = cuda on this GPU",
        )
    return None


def takes_rtx(capability: str) -> bool:
    """Whether TensorRT-RTX serves GPUs of a compute capability such as 8.9."""
    major, minor = (int(part) for part in capability.split("."))
    return (major, minor) in ((8, 6), (8, 9)) or major >= 12


def open_on_gpu(onnx: bytes, options: ort.SessionOptions, profile: TargetProfile) -> ort.InferenceSession:
    """A session on the profile's provider.

    Raises:
        ModelError: The provider refuses the network, or leaves a part of it to the CPU.
        DeviceError: The provider cannot be loaded, or the GPU has too little memory.
    """
    import onnxruntime as ort

    wanted = PROVIDERS[provider_of(profile)]
    with contextlib.suppress(AttributeError):
        ort.preload_dlls()  # finds the CUDA libraries of pip's packages; older builds have no such function
    try:
        session = _session(onnx, options, profile)
    except DeviceError:
        raise
    except Exception as error:  # ONNX Runtime's exceptions share no base class of their own
        text = str(error)
        if is_out_of_memory(text):
            raise out_of_memory(profile, text) from error
        _check_loads(profile)  # without its libraries everything is left to the CPU, which is refused alike
        raise ModelError(
            f"{wanted} does not take the whole network.",
            where=f"profile {profile.name}",
            got=text[:300],
            do="use the runtime torch_cuda or tensorrt",
        ) from error
    session.disable_fallback()  # a failing run must fail, not silently go elsewhere
    check_provider(session.get_providers(), profile)
    return session


def _session(onnx: bytes, options: ort.SessionOptions, profile: TargetProfile) -> ort.InferenceSession:
    import onnxruntime as ort

    if provider_of(profile) == "tensorrt_rtx":
        options.add_provider_for_devices(_rtx_devices(profile.gpu_index), _rtx_options(profile))
        return ort.InferenceSession(onnx, sess_options=options, enable_fallback=0)
    # Else a session that fails is tried again on the CPU, and that error takes the place of the first.
    return ort.InferenceSession(onnx, options, providers=provider_list(profile), enable_fallback=0)


def _check_loads(profile: TargetProfile) -> None:
    """Refuse a provider that cannot even run a small network, which may be left to the CPU.

    Raises:
        DeviceError: Its libraries, the driver or the GPU are missing.
    """
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 3
    try:
        found = _session(conv_chain([4, 4]), options, profile).get_providers()
    except DeviceError:
        raise
    except Exception as error:  # as above
        raise _unusable(profile, str(error)[:300]) from error
    check_provider(found, profile)


def check_provider(found: list[str], profile: TargetProfile) -> None:
    """Refuse a session that ONNX Runtime made with other providers than the profile's.

    Raises:
        DeviceError: It is not the first of those in force.
    """
    if found[:1] != [PROVIDERS[provider_of(profile)]]:
        raise _unusable(profile, ", ".join(found))


def _unusable(profile: TargetProfile, got: str) -> DeviceError:
    provider = provider_of(profile)
    return DeviceError(
        "ONNX Runtime could not load the provider, and would have run on another one.",
        where=f"profile {profile.name}",
        got=got,
        allowed=PROVIDERS[provider],
        do=f"{_LIBRARIES[provider]}; its log says which library is missing; `nvidia-smi` must list the GPU",
    )


def provider_list(profile: TargetProfile) -> list[tuple[str, dict[str, str]]]:
    """Providers in order of preference, with options: text, as ONNX Runtime wants it."""
    index = str(profile.gpu_index)
    graph = "1" if profile.options.get("cuda_graph") else "0"
    cuda = {
        "device_id": index,
        "cudnn_conv_algo_search": "EXHAUSTIVE",
        "use_tf32": "1" if profile.options.get("tf32") else "0",
        "enable_cuda_graph": graph if provider_of(profile) == "cuda" else "0",
    }
    if provider_of(profile) == "cuda":
        return [(PROVIDERS["cuda"], cuda)]
    tensorrt = {"device_id": index, "trt_cuda_graph_enable": graph}
    return [(PROVIDERS["tensorrt"], tensorrt), (PROVIDERS["cuda"], cuda)]


def _rtx_options(profile: TargetProfile) -> dict[str, str]:
    return {"enable_cuda_graph": "1" if profile.options.get("cuda_graph") else "0"}


@functools.cache
def _register_rtx() -> None:
    """Make the plugin known, once in a process."""
    import onnxruntime as ort

    plugin: Any = importlib.import_module(_RTX_MODULE)
    ort.register_execution_provider_library(PROVIDERS["tensorrt_rtx"], plugin.get_library_path())


def _rtx_devices(index: int) -> list[Any]:
    import onnxruntime as ort

    _register_rtx()
    found = [one for one in ort.get_ep_devices() if one.ep_name == PROVIDERS["tensorrt_rtx"]]
    if index >= len(found):
        raise DeviceError(
            "TensorRT-RTX finds no such GPU.",
            got=f"cuda:{index}",
            allowed=f"{len(found)} GPUs of compute capability {_RTX_CAPABILITIES}",
            do="use the runtime tensorrt, torch_cuda, or provider = cuda on this GPU; see `nvidia-smi -L`",
        )
    return [found[index]]
