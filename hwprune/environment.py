"""What machine this is and how quiet it is, as plain data: for table provenance and for `hwprune doctor`."""

from __future__ import annotations

import os
import platform
import time
from importlib import metadata
from pathlib import Path
from typing import Any

from hwprune.cudadriver import driver_facts
from hwprune.nvml import gpus
from hwprune.runtimes.base import physical_cores

# What decides which kernels a CPU runs; two machines that agree in these share their latency tables.
IDENTITY = ("device", "architecture", "model", "family", "features")
_FEATURES = [
    "sse4_2",
    "avx",
    "avx2",
    "fma",
    "f16c",
    "avx512f",
    "avx512bw",
    "avx512vl",
    "avx512_vnni",
    "avx512_bf16",
    "avx_vnni",
    "amx_tile",
    "amx_int8",
    "amx_bf16",
    "asimd",
    "asimddp",
    "asimdhp",
    "i8mm",
    "bf16",
    "sve",
    "sve2",
]
_LIBRARIES = (
    *("hwprune", "numpy", "onnx", "onnxruntime", "onnxruntime-gpu", "openvino", "pandas"),
    *("scikit-learn", "torch", "torchvision", "tensorrt", "pycuda", "cuda-bindings"),
)
_CPU = Path("/sys/devices/system/cpu")
_CGROUP = Path("/sys/fs/cgroup")


def device_fingerprint(device: str = "cpu") -> dict[str, Any]:
    """What a device is: the part of a table's provenance that must not differ.

    Args:
        device: `cpu` or `cuda:N`.

    Returns:
        JSON-able facts; those named in `IDENTITY` identify the device, the others are for the reader.
    """
    if device != "cpu":
        return {"device": device, **_gpu_facts(int(device.partition(":")[2] or 0))}
    info = _cpuinfo()
    return {
        "device": "cpu",
        "architecture": platform.machine(),
        "model": info.get("model name") or info.get("CPU part") or platform.processor() or "unknown",
        "family": "/".join(info.get(key, "?") for key in ("cpu family", "model", "stepping")),
        "features": [name for name in _FEATURES if name in _flags(info)],
        "cores": os.cpu_count() or 1,
        "physical_cores": physical_cores(),
        "memory_gib": round(_memory_bytes() / 2**30, 1),
        "hypervisor": "hypervisor" in _flags(info),
        "system": f"{platform.system()} {platform.release()}",
        "libc": " ".join(platform.libc_ver()),
    }


def device_differences(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """In what two fingerprints are different devices, as `key: this, not that`."""
    return [
        f"{key}: {one.get(key)}, not {other.get(key)}"
        for key in sorted({*IDENTITY, *(k for k in (*one, *other) if k.startswith("gpu_"))})
        if one.get(key) != other.get(key)
    ]


def library_versions() -> dict[str, str]:
    """Versions of the libraries that matter to figures and files; those not installed are left out."""
    versions = {"python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def machine_load() -> dict[str, Any]:
    """What disturbs measurements at this moment; facts that the system does not tell are None.

    Returns:
        load_1m: Processes that ran or waited, mean of the last minute.
        runnable: Threads that run or wait for a core now.
        cores: Logical cores that this process may use.
        governor: Frequency governor of the first core.
        mhz: Current frequency of the first core.
        steal_s: Time that the hypervisor gave to others since boot, over all cores.
        clock_s: A clock, to compare two of these.
        quota_cores: Cores that the container's quota allows; None without a quota.
        throttled: How often the container was stopped for its quota since it started.
    """
    quota, throttled = _cgroup_cpu()
    return {
        "load_1m": _load(),
        "runnable": _runnable(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "governor": _read(_CPU / "cpu0/cpufreq/scaling_governor") or None,
        "mhz": _number(_cpuinfo().get("cpu MHz", "")),
        "steal_s": _steal_s(),
        "clock_s": round(time.monotonic(), 3),
        "quota_cores": quota,
        "throttled": throttled,
    }


def _gpu_facts(index: int) -> dict[str, Any]:
    """What NVML tells; without its Python module, what the driver itself does."""
    found = gpus()
    if index < len(found):
        return found[index]
    if (facts := driver_facts(index)) is None:
        return {"gpu_name": "unknown"}
    return {"gpu_name": facts.name, "gpu_capability": facts.capability}


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _cpuinfo() -> dict[str, str]:
    """The first processor's block of /proc/cpuinfo."""
    block = _read(Path("/proc/cpuinfo")).split("\n\n")[0]
    lines = (line.partition(":") for line in block.splitlines() if ":" in line)
    return {key.strip(): value.strip() for key, _, value in lines}


def _flags(info: dict[str, str]) -> set[str]:
    return set((info.get("flags") or info.get("Features") or "").split())


def _memory_bytes() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return 0


def _load() -> float | None:
    try:
        return round(os.getloadavg()[0], 2)
    except OSError:
        return None


def _runnable() -> int | None:
    fields = _read(Path("/proc/loadavg")).split()
    return int(fields[3].partition("/")[0]) if len(fields) > 3 else None


def _steal_s() -> float | None:
    fields = _read(Path("/proc/stat")).splitlines()[:1]
    times = [int(value) for value in fields[0].split()[1:9]] if fields else []
    return round(times[7] / os.sysconf("SC_CLK_TCK"), 3) if len(times) == 8 else None


def _cgroup_cpu() -> tuple[float | None, int | None]:
    """Quota in cores and number of throttled periods, for cgroup v2 and v1."""
    limit = _read(_CGROUP / "cpu.max").split()
    if not limit:
        v1 = _CGROUP / "cpu"
        limit = [_read(v1 / "cpu.cfs_quota_us"), _read(v1 / "cpu.cfs_period_us")]
    quota, period = (_number(text) for text in (*limit, "", "")[:2])
    cores = quota / period if quota and period and quota > 0 else None
    statistics = _read(_CGROUP / "cpu.stat") or _read(_CGROUP / "cpu" / "cpu.stat")
    counts = dict(line.split() for line in statistics.splitlines() if len(line.split()) == 2)
    return cores, int(counts["nr_throttled"]) if "nr_throttled" in counts else None
