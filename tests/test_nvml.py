"""NVML through a stand-in that has only names of the real module, `nvidia-ml-py`."""

from __future__ import annotations

import sys
import time
from types import SimpleNamespace

import pytest

from hwprune import environment, nvml
from hwprune.cudadriver import DriverFacts
from hwprune.environment import device_fingerprint

real = pytest.importorskip("pynvml")
UUIDS = ["GPU-a", "GPU-b"]


class Library:
    """Two GPUs; the second does not tell its power. Any name that the real module has not is refused."""

    NVMLError = real.NVMLError

    def __init__(self):
        self.started = 0
        self.mhz = [1980, 1200]
        self.reasons = 0
        constants = ("NVML_CLOCK_SM", "NVML_CLOCK_MEM", "NVML_TEMPERATURE_GPU")
        reasons = [name for name in dir(real) if name.startswith("nvmlClocksEventReason")]
        for name in (*constants, *reasons):
            setattr(self, name, getattr(real, name))
        for name in dir(self):
            if not name.startswith("_") and name not in ("started", "mhz", "reasons"):
                assert hasattr(real, name), name

    def nvmlInit(self):  # noqa: N802 - the library's names
        self.started += 1

    def nvmlShutdown(self):  # noqa: N802
        self.started -= 1

    def nvmlSystemGetDriverVersion(self):  # noqa: N802
        return b"580.65"

    def nvmlDeviceGetCount(self):  # noqa: N802
        return 2

    def nvmlDeviceGetHandleByIndex(self, index):  # noqa: N802
        return index

    def nvmlDeviceGetHandleByUUID(self, uuid):  # noqa: N802
        if uuid not in UUIDS:
            raise real.NVMLError(real.NVML_ERROR_NOT_FOUND)
        return UUIDS.index(uuid)

    def nvmlDeviceGetName(self, handle):  # noqa: N802
        return ["NVIDIA A", "NVIDIA B"][handle]

    def nvmlDeviceGetMemoryInfo(self, handle):  # noqa: N802
        return SimpleNamespace(total=80 * 2**30)

    def nvmlDeviceGetCudaComputeCapability(self, handle):  # noqa: N802
        return [9, 0]

    def nvmlDeviceGetClockInfo(self, handle, kind):  # noqa: N802
        return self.mhz[handle] if kind == real.NVML_CLOCK_SM else 2619

    def nvmlDeviceGetMaxClockInfo(self, handle, kind):  # noqa: N802
        return 1980

    def nvmlDeviceGetPowerUsage(self, handle):  # noqa: N802
        if handle == 1:
            raise real.NVMLError(real.NVML_ERROR_NOT_SUPPORTED)
        return 123_456

    def nvmlDeviceGetEnforcedPowerLimit(self, handle):  # noqa: N802
        return 700_000

    def nvmlDeviceGetTemperature(self, handle, sensor):  # noqa: N802
        assert sensor == real.NVML_TEMPERATURE_GPU
        return 41

    def nvmlDeviceGetCurrentClocksEventReasons(self, handle):  # noqa: N802
        return self.reasons


@pytest.fixture
def library(monkeypatch):
    found = Library()
    monkeypatch.setitem(sys.modules, "pynvml", found)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    yield found
    assert found.started == 0  # whatever starts the library ends it


def test_facts_and_state(library):
    library.reasons = real.nvmlClocksEventReasonSwPowerCap | real.nvmlClocksEventReasonGpuIdle
    assert [gpu["gpu_name"] for gpu in nvml.gpus()] == ["NVIDIA A", "NVIDIA B"]
    facts = device_fingerprint("cuda:0")
    assert facts["gpu_driver"] == "580.65"
    assert facts["gpu_capability"] == "9.0"
    state = nvml.gpu_state(0)
    assert (state["sm_mhz"], state["sm_max_mhz"], state["memory_mhz"]) == (1980, 1980, 2619)
    assert (state["power_w"], state["power_limit_w"], state["temperature_c"]) == (123.5, 700.0, 41)
    assert state["throttled_by"] == ["GpuIdle", "SwPowerCap"]
    assert nvml.gpu_state(1)["power_w"] is None
    assert nvml.gpu_state(2) == {}


def test_reasons_that_only_have_their_old_name_are_told(library, monkeypatch):
    for name in dir(real):
        if name.startswith("nvmlClocksThrottleReason"):
            setattr(library, name, getattr(real, name))
    library.reasons = real.nvmlClocksThrottleReasonReliability | real.nvmlClocksThrottleReasonBoardLimit
    assert nvml.gpu_state(0)["throttled_by"] == ["BoardLimit", "Reliability"]


def test_a_module_from_before_the_renaming_is_asked_by_the_old_names(library, monkeypatch):
    for name in [name for name in vars(library) if name.startswith("nvmlClocksEventReason")]:
        delattr(library, name)
    monkeypatch.delattr(Library, "nvmlDeviceGetCurrentClocksEventReasons")
    assert nvml.gpu_state(0)["throttled_by"] == []  # too old for either name
    library.nvmlClocksThrottleReasonSwPowerCap = real.nvmlClocksThrottleReasonSwPowerCap
    library.nvmlDeviceGetCurrentClocksThrottleReasons = lambda handle: 4
    assert nvml.gpu_state(0)["throttled_by"] == ["SwPowerCap"]


@pytest.mark.parametrize(
    ("visible", "names"),
    [("1", ["B"]), ("1,0", ["B", "A"]), ("GPU-b", ["B"]), ("0,7,1", ["A"]), ("", []), ("GPU-x,0", [])],
)
def test_gpus_are_numbered_as_cuda_numbers_them(library, monkeypatch, visible, names):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert [gpu["gpu_name"][-1] for gpu in nvml.gpus()] == names


def test_a_log_sums_up_what_it_saw(library, monkeypatch):
    monkeypatch.setattr(nvml, "_EVERY_S", 0.001)
    with nvml.GpuLog("cuda:0") as log:
        deadline = time.monotonic() + 30
        library.reasons = real.nvmlClocksEventReasonSwThermalSlowdown
        library.mhz[0] = 1500
        while len(log._states) < 5 and time.monotonic() < deadline:
            time.sleep(0.001)
    found = log.summary()
    assert found["sm_mhz"][0] == 1500
    assert found["temperature_c"] == [41, 41]
    assert "SwThermalSlowdown" in found["throttled_by"]
    with nvml.GpuLog("cpu") as none:
        pass
    assert none.summary() == {}


def test_summaries_are_summed_up_in_turn():
    one = nvml.summarise([{"sm_mhz": 100, "throttled_by": []}, {"sm_mhz": 200, "throttled_by": ["A"]}])
    assert one == {"sm_mhz": [100, 200], "throttled_by": ["A"]}
    other = {"sm_mhz": [50, 120], "throttled_by": ["B"]}
    assert nvml.summarise([one, other, {}]) == {"sm_mhz": [50, 200], "throttled_by": ["A", "B"]}
    assert nvml.summarise([]) == {}


def test_without_the_module_the_driver_tells_which_gpu_it_is(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    gpus_here = {0: DriverFacts("NVIDIA A", "9.0", 1), 1: DriverFacts("NVIDIA B", "8.9", 1)}
    monkeypatch.setattr(environment, "driver_facts", gpus_here.get)
    one, other = (device_fingerprint(f"cuda:{index}") for index in range(2))
    assert one == {"device": "cuda:0", "gpu_name": "NVIDIA A", "gpu_capability": "9.0"}
    assert "gpu_name: NVIDIA A, not NVIDIA B" in environment.device_differences(one, other)


def test_a_gpu_that_cannot_be_read_takes_no_other_with_it(library, monkeypatch):
    def lost(self, index):
        if index == 0:
            raise real.NVMLError(real.NVML_ERROR_GPU_IS_LOST)
        return index

    monkeypatch.setattr(Library, "nvmlDeviceGetHandleByIndex", lost)
    unknown, known = nvml.gpus()
    assert (unknown["gpu_name"], known["gpu_name"]) == ("unknown", "NVIDIA B")
    assert unknown.keys() == known.keys()
    assert nvml.gpu_state(0) == {}
    assert nvml.gpu_state(1)["sm_mhz"] == 1200
    with nvml.GpuLog("cuda:0") as log:
        pass
    assert log.summary() == {}


def test_nothing_is_known_without_the_module_or_a_driver(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert nvml.gpus() == []
    assert nvml.gpu_state(0) == {}
    assert device_fingerprint("cuda:0") == {"device": "cuda:0", "gpu_name": "unknown"}

    class Bare(Library):
        def nvmlInit(self):  # noqa: N802
            raise real.NVMLError(real.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.setitem(sys.modules, "pynvml", Bare())
    assert nvml.gpus() == []
    with nvml.GpuLog("cuda:0") as log:
        pass
    assert log.summary() == {}
