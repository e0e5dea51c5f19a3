"""Which runtimes there are, and the one that a target profile asks for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hwprune.errors import DeviceError, nearest
from hwprune.runtimes.fake import FakeRuntime
from hwprune.runtimes.onnxruntime import OnnxRuntime
from hwprune.runtimes.openvino import OpenVino
from hwprune.runtimes.tensorrt import TensorRt
from hwprune.runtimes.torch_cuda import TorchCudaRuntime

if TYPE_CHECKING:
    from hwprune.runtimes.base import Runtime, TargetProfile

_RUNTIMES: dict[str, type[Runtime]] = {
    "onnxruntime": OnnxRuntime,
    "openvino": OpenVino,
    "tensorrt": TensorRt,
    "torch_cuda": TorchCudaRuntime,
    "fake": FakeRuntime,
}
_DEVICES = {
    "onnxruntime": ("cpu", "cuda"),
    "openvino": ("cpu",),
    "tensorrt": ("cuda",),
    "torch_cuda": ("cuda",),
    "fake": ("cpu",),
}


def runtime_names() -> list[str]:
    """All runtimes by name, installed or not."""
    return sorted(_RUNTIMES)


def all_runtimes() -> list[Runtime]:
    """One of each, installed or not."""
    return [_RUNTIMES[name]() for name in runtime_names()]


def serving(device: str) -> list[Runtime]:
    """The runtimes that are installed and serve a kind of device, but for the pretended one."""
    kind = device.partition(":")[0]
    names = (name for name in runtime_names() if kind in _DEVICES[name] and name != "fake")
    return [runtime for name in names if (runtime := _RUNTIMES[name]()).available()]


def get_runtime(profile: TargetProfile) -> Runtime:
    """The runtime for a profile, checked: its libraries are here and it knows the profile's options.

    Raises:
        DeviceError: Unknown runtime, not installed, or it does not serve that device.
        ConfigError: The profile has options that the runtime does not know.
    """
    if profile.runtime not in _RUNTIMES:
        raise DeviceError(
            "The runtime is unknown.",
            where=f"profile {profile.name}",
            got=profile.runtime,
            allowed=nearest(profile.runtime, _RUNTIMES),
        )
    devices = _DEVICES[profile.runtime]
    if profile.device.partition(":")[0] not in devices:
        raise DeviceError(
            "The runtime does not serve that device.",
            where=f"profile {profile.name}, runtime {profile.runtime}",
            got=profile.device,
            allowed=", ".join(devices),
        )
    runtime = _RUNTIMES[profile.runtime]()
    runtime.check(profile)
    return runtime
