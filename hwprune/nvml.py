"""NVIDIA's management library: which GPUs there are, and how they run while something is measured on them.

Read only: nothing here changes a clock, a power limit or a mode. The Python module is `nvidia-ml-py`; without
it, or without a driver, there are simply no facts.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import threading
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    Facts = dict[str, Any]

INSTALL = "pip install nvidia-ml-py"
_EVERY_S = 0.2
# NVML renamed these; the old names are all that older modules have, and all that some reasons ever had.
_REASONS = ("nvmlClocksEventReason", "nvmlClocksThrottleReason")
_NOT_REASONS = ("All", "None")
_MILLI = 1e-3


@contextlib.contextmanager
def _library() -> Iterator[Any]:
    """NVML's module, started; None where it or the driver is missing."""
    try:
        nvml: Any = importlib.import_module("pynvml")
    except ImportError:
        yield None
        return
    try:
        nvml.nvmlInit()
    except nvml.NVMLError:
        yield None
        return
    try:
        yield nvml
    finally:
        with contextlib.suppress(nvml.NVMLError):
            nvml.nvmlShutdown()


def installed() -> bool:
    """Whether NVML's Python module is here, driver or not."""
    return importlib.util.find_spec("pynvml") is not None


def gpus() -> list[Facts]:
    """Facts of each NVIDIA GPU that this process may use, in CUDA's order; empty where none can be seen."""
    with _library() as nvml:
        if nvml is None:
            return []
        driver = _ask(nvml, "nvmlSystemGetDriverVersion")
        return [_facts(nvml, handle, driver) for handle in _handles(nvml)]


def gpu_state(index: int) -> Facts:
    """How a GPU runs at this moment; {} where it cannot be seen.

    Returns:
        `sm_mhz`, `sm_max_mhz`, `memory_mhz`, `power_w`, `power_limit_w`, `temperature_c` (None where the GPU
        does not tell) and `throttled_by`: the reasons why its clock is not higher, as NVML names them.
    """
    with _library() as nvml:
        handles = _handles(nvml) if nvml else []
        return _state(nvml, handles[index]) if _readable(handles, index) else {}


class GpuLog:
    """Reads the state of a GPU now and then while a block runs; of other devices it reads nothing.

    Args:
        device: `cpu` or `cuda:N`.
    """

    def __init__(self, device: str) -> None:
        self._index = int(device.partition(":")[2] or 0) if device.startswith("cuda") else None
        self._states: list[Facts] = []
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        if self._index is not None:
            self._thread = threading.Thread(target=self._watch, args=(self._index,), daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self._thread is not None:
            self._thread.join()

    def _watch(self, index: int) -> None:
        with _library() as nvml:
            handles = _handles(nvml) if nvml else []
            if not _readable(handles, index):
                return
            self._states.append(_state(nvml, handles[index]))
            while not self._over.wait(_EVERY_S):
                self._states.append(_state(nvml, handles[index]))

    def summary(self) -> Facts:
        """What `summarise` makes of the states read so far."""
        return summarise(self._states)


def summarise(states: Sequence[Mapping[str, Any]]) -> Facts:
    """States, or summaries of states, as one: [least, most] of each figure, and all reasons; {} of none."""
    found: Facts = {}
    for key in sorted({key for state in states for key in state}):
        values = [value for state in states for value in _listed(state.get(key))]
        if values:
            found[key] = sorted(set(values)) if key == "throttled_by" else [min(values), max(values)]
        elif key == "throttled_by":
            found[key] = []
    return found


def _listed(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]


def _handles(nvml: Any) -> list[Any]:
    """The GPUs in CUDA's order, None for one that cannot be read.

    The order is that of CUDA_VISIBLE_DEVICES where it is set, else that of the bus.
    CUDA sorts GPUs of different kinds by speed unless CUDA_DEVICE_ORDER is PCI_BUS_ID; of one kind the orders
    agree.
    """
    count = _ask(nvml, "nvmlDeviceGetCount") or 0
    handles = [_ask(nvml, "nvmlDeviceGetHandleByIndex", index) for index in range(count)]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return handles
    chosen = []
    for name in filter(None, (part.strip() for part in visible.split(","))):
        if name.isdigit():
            if int(name) >= count:
                break  # as CUDA does: what follows a GPU that is not there is not visible either
            chosen.append(handles[int(name)])
        else:
            handle = _ask(nvml, "nvmlDeviceGetHandleByUUID", name)
            if handle is None:
                break
            chosen.append(handle)
    return chosen


def _readable(handles: Sequence[Any], index: int) -> bool:
    return index < len(handles) and handles[index] is not None


def _facts(nvml: Any, handle: Any, driver: Any) -> Facts:
    if handle is None:  # fallen off the bus, or another user's; its place counts all the same
        return {
            "gpu_name": "unknown",
            "gpu_capability": "unknown",
            "gpu_memory_gib": None,
            "gpu_driver": _text(driver),
        }
    capability = _ask(nvml, "nvmlDeviceGetCudaComputeCapability", handle)
    memory = _ask(nvml, "nvmlDeviceGetMemoryInfo", handle)
    return {
        "gpu_name": _text(_ask(nvml, "nvmlDeviceGetName", handle)),
        "gpu_capability": ".".join(map(str, capability)) if capability else "unknown",
        "gpu_memory_gib": round(memory.total / 2**30, 1) if memory else None,
        "gpu_driver": _text(driver),
    }


def _state(nvml: Any, handle: Any) -> Facts:
    power = _ask(nvml, "nvmlDeviceGetPowerUsage", handle)
    limit = _ask(nvml, "nvmlDeviceGetEnforcedPowerLimit", handle)
    return {
        "sm_mhz": _ask(nvml, "nvmlDeviceGetClockInfo", handle, nvml.NVML_CLOCK_SM),
        "sm_max_mhz": _ask(nvml, "nvmlDeviceGetMaxClockInfo", handle, nvml.NVML_CLOCK_SM),
        "memory_mhz": _ask(nvml, "nvmlDeviceGetClockInfo", handle, nvml.NVML_CLOCK_MEM),
        "power_w": None if power is None else round(power * _MILLI, 1),
        "power_limit_w": None if limit is None else round(limit * _MILLI, 1),
        "temperature_c": _ask(nvml, "nvmlDeviceGetTemperature", handle, nvml.NVML_TEMPERATURE_GPU),
        "throttled_by": _reasons(nvml, handle),
    }


def _reasons(nvml: Any, handle: Any) -> list[str]:
    asked = (_ask(nvml, f"nvmlDeviceGetCurrentClocks{word}Reasons", handle) for word in ("Event", "Throttle"))
    bits = next((answer for answer in asked if answer is not None), 0)
    flags = {
        name.removeprefix(prefix): getattr(nvml, name)
        for prefix in _REASONS
        for name in dir(nvml)
        if name.startswith(prefix)
    }
    return sorted(name for name, flag in flags.items() if name not in _NOT_REASONS and bits & flag)


def _ask(nvml: Any, function: str, *arguments: Any) -> Any:
    """The answer, or None where this GPU, this driver or this version of the module does not know it."""
    try:
        return getattr(nvml, function)(*arguments)
    except (nvml.NVMLError, AttributeError):
        return None


def _text(value: Any) -> str:
    """Older modules answer in bytes."""
    return value.decode() if isinstance(value, bytes) else str(value or "unknown")
