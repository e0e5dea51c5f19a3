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

from hwprune.errors import DeviceError, ModelError
from hwprune.nvml import gpus

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
NO_FALLBACK = "session.disable_cpu_ep_fallback"


def provider_of(profile: TargetProfile) -> str:
    """The provider that a profile asks for: a key of `PROVIDERS`."""
    return str(profile.options.get("provider", "cuda" if profile.on_gpu else "cpu"))


def memory_of(profile: TargetProfile) -> tuple[str, int]:
    """Where inputs and outputs lie; a plugin brings no memory of the GPU with it, so its own copies count."""
    if provider_of(profile) in ("cuda", "tensorrt"):
        return "cuda", profile.gpu_index
    return "cpu", 0


def missing(profile: TargetProfile) -> tuple[str, str] | None:
    """What a profile's provider lacks here, and the command that brings it; None when nothing."""
    import onnxruntime as ort

    provider = provider_of(profile)
    if provider == "cpu":
        return None
    if provider == "tensorrt_rtx":
        if importlib.util.find_spec(_RTX_MODULE) is None:
            return "The TensorRT-RTX provider is not installed.", _RTX_PACKAGE
        capability = next((gpu["gpu_capability"] for gpu in gpus()[profile.gpu_index :]), "")
        if capability and not takes_rtx(capability):
            return (
                f"TensorRT-RTX does not serve compute capability {capability}, only {_RTX_CAPABILITIES}.",
                "use the runtime tensorrt, torch_cuda, or provider = cuda on this GPU",
            )
        return None
    if PROVIDERS[provider] not in ort.get_available_providers():
        return f"This onnxruntime was built without {PROVIDERS[provider]}.", _GPU_PACKAGE
    return None


def takes_rtx(capability: str) -> bool:
    """Whether TensorRT-RTX serves GPUs of a compute capability such as 8.9."""
    major, minor = (int(part) for part in capability.split("."))
    return (major, minor) in ((8, 6), (8, 9)) or major >= 12


def open_on_gpu(onnx: bytes, options: ort.SessionOptions, profile: TargetProfile) -> ort.InferenceSession:
    """A session on the profile's provider.

    Raises:
        ModelError: The provider refuses the network, or leaves a part of it to the CPU.
        DeviceError: ONNX Runtime fell back to another provider.
    """
    import onnxruntime as ort

    wanted = PROVIDERS[provider_of(profile)]
    with contextlib.suppress(AttributeError):
        ort.preload_dlls()  # finds the CUDA libraries of pip's packages; older builds have no such function
    try:
        if provider_of(profile) == "tensorrt_rtx":
            options.add_provider_for_devices(_rtx_devices(profile.gpu_index), _rtx_options(profile))
            session = ort.InferenceSession(onnx, sess_options=options)
        else:
            session = ort.InferenceSession(onnx, options, providers=provider_list(profile))
    except DeviceError:
        raise
    except Exception as error:  # ONNX Runtime's exceptions share no base class of their own
        text = str(error)
        memory = "memory" in text.lower() and "alloc" in text.lower()
        raise (DeviceError if memory else ModelError)(
            "The GPU has too little memory." if memory else f"{wanted} does not take the whole network.",
            where=f"profile {profile.name}",
            got=text[:300],
            do="use a profile with a smaller batch" if memory else "use the runtime torch_cuda or tensorrt",
        ) from error
    session.disable_fallback()  # a failing run must fail, not silently go elsewhere
    check_provider(session.get_providers(), wanted, profile)
    return session


def check_provider(found: list[str], wanted: str, profile: TargetProfile) -> None:
    """Refuse a session that ONNX Runtime made with other providers than asked for.

    Raises:
        DeviceError: `wanted` is not the first of those in force.
    """
    if found[:1] != [wanted]:
        raise DeviceError(
            "ONNX Runtime could not load the provider, and would have run on another one.",
            where=f"profile {profile.name}",
            got=", ".join(found),
            allowed=wanted,
            do="install the CUDA and cuDNN that it was built for: pip install onnxruntime-gpu[cuda,cudnn]; "
            "its log says which library is missing",
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
        )
    return [found[index]]
