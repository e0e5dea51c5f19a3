"""`hwprune doctor`: can this machine be measured, how noisy is it, what is missing."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from typing import Any

from hwprune.errors import ConfigError, DeviceError, HwpruneError, UsageError
from hwprune.progress import QUIET, Reporter

_LEAST_SPEED_UP = 1.2  # of all cores together; less is no reason to use them
_NOT_WORRYING = {"GpuIdle", "ApplicationsClocksSetting", "UserDefinedClocks", "DisplayClockSetting"}
_MOST_STEAL = 1.0  # percent of a core that a hypervisor may give to others before it is worth a word


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        name: What.
        value: What was found.
        good: Whether it is as it should be; None for what is not here and need not be.
        do: What to do when it is not.
    """

    name: str
    value: str
    good: bool | None = True
    do: str = ""


@dataclass(frozen=True)
class DoctorResult:
    """Everything that was looked at, and the raw facts behind it."""

    findings: tuple[Finding, ...]
    facts: dict[str, Any]


def doctor(*, profile: str = "cpu-1t", seconds: float = 3.0, reporter: Reporter = QUIET) -> DoctorResult:
    """Show devices, runtimes and versions, and how far this machine's latencies can be trusted.

    Args:
        profile: The target profile whose runtime is timed.
        seconds: How long to time it.
        reporter: Told about progress.

    Returns:
        The findings; those that are not good, and runtimes that are not here, say what to do.

    Raises:
        UsageError: `seconds` is not above zero.
    """
    from hwprune import environment, nvml

    if seconds <= 0:
        raise UsageError("--seconds is no time.", got=seconds, allowed="more than 0")
    facts: dict[str, Any] = {
        "device": environment.device_fingerprint(),
        "gpus": nvml.gpus(),
        "libraries": environment.library_versions(),
        "load": environment.machine_load(),
    }
    reporter.note(f"Timing a small network on {profile} for {seconds:g} s ...")
    timed = [_noise(profile, seconds, facts)]
    if facts["device"]["physical_cores"] > 1 and not _on_gpu(profile):
        timed.append(_side_by_side(profile, seconds, facts))
    timed.append(_fastest(profile, seconds, facts))
    after = environment.machine_load()
    findings = [*_machine(facts), *_runtimes(), *_load(facts["load"]), *_taken(facts["load"], after), *timed]
    return DoctorResult(tuple(findings), facts)


def _machine(facts: dict[str, Any]) -> list[Finding]:
    device, gpus = facts["device"], facts["gpus"]
    versions = ", ".join(f"{name} {version}" for name, version in facts["libraries"].items())
    return [
        Finding("cpu", f"{device['model']}, {device['cores']} cores, {device['memory_gib']} GiB"),
        Finding("cpu features", ", ".join(device["features"]) or "none of those that matter"),
        *_gpus(gpus),
        Finding("versions", versions),
    ]


def _gpus(gpus: list[dict[str, Any]]) -> list[Finding]:
    from hwprune import nvml

    if not gpus:
        advice = "" if nvml.installed() else f"to see GPUs, their clocks and temperatures: {nvml.INSTALL}"
        return [Finding("gpus", "none found", None, advice)]
    findings = []
    for index, gpu in enumerate(gpus):
        state = nvml.gpu_state(index)
        facts = (
            f"{gpu['gpu_name']}, compute capability {gpu['gpu_capability']}, {gpu['gpu_memory_gib']} GiB, "
            f"driver {gpu['gpu_driver']}; {state.get('sm_mhz')} of {state.get('sm_max_mhz')} MHz, "
            f"{state.get('power_w')} W, {state.get('temperature_c')} °C"
        )
        slowed = sorted({*state.get("throttled_by", [])} - _NOT_WORRYING)
        advice = f"its clock is held down ({', '.join(slowed)}): let it cool, or end what runs on it"
        findings.append(Finding(f"gpu cuda:{index}", facts, not slowed, advice if slowed else ""))
    return findings


def _runtimes() -> list[Finding]:
    from hwprune.errors import DeviceError
    from hwprune.runtimes.profiles import gpu_choice
    from hwprune.runtimes.registry import all_runtimes

    findings = []
    for runtime in all_runtimes():
        absent = runtime.missing()
        what, do = absent or ("ready", "")
        findings.append(Finding(f"runtime {runtime.name}", what, None if absent else True, do))
    try:
        findings.append(Finding("--device cuda:0", gpu_choice("cuda:0")[1]))
    except DeviceError as error:
        findings.append(Finding("--device cuda:0", error.what, None, error.do or ""))
    return findings


def _load(load: dict[str, Any]) -> list[Finding]:
    cores = load["cores"] or 1
    busy = (load["load_1m"] or 0.0) > 0.5 * cores
    findings = [
        Finding(
            "load",
            f"{load['load_1m']} on {cores} cores",
            not busy,
            "stop other programs before measuring" if busy else "",
        )
    ]
    if load["governor"]:
        steady = load["governor"] == "performance"
        advice = "" if steady else "choose the performance governor: cpupower frequency-set -g performance"
        findings.append(Finding("frequency governor", load["governor"], steady, advice))
    else:
        findings.append(Finding("frequency governor", "the system does not tell"))
    if load["quota_cores"]:
        whole = float(load["quota_cores"]).is_integer()
        advice = "" if whole else "give the container whole cores"
        findings.append(Finding("container quota", f"{load['quota_cores']} cores", whole, advice))
    else:
        findings.append(Finding("container quota", "none"))
    mhz = "the system does not tell" if load["mhz"] is None else f"{load['mhz']:.0f} MHz"
    findings.append(Finding("frequency", mhz))
    return findings


def _taken(before: dict[str, Any], after: dict[str, Any]) -> list[Finding]:
    """What the hypervisor and the container's quota took away while the networks were timed."""
    findings = []
    if before["steal_s"] is not None and after["steal_s"] is not None:
        steal = 100 * (after["steal_s"] - before["steal_s"]) / max(after["clock_s"] - before["clock_s"], 1e-9)
        advice = "ask for a machine of your own, or measure when its other guests are idle"
        good = steal <= _MOST_STEAL
        text = f"{steal:.1f} % of a core while timing"
        findings.append(Finding("taken by the hypervisor", text, good, "" if good else advice))
    if before["throttled"] is None or after["throttled"] is None:
        findings.append(Finding("throttling", "the system does not tell"))
    else:
        count = after["throttled"] - before["throttled"]
        advice = "raise the container's quota, or use a profile with fewer threads" if count else ""
        findings.append(Finding("throttling", f"{count} times while timing", not count, advice))
    return findings


def _on_gpu(profile: str) -> bool:
    """Whether a profile is for a GPU: how many threads of the CPU work side by side says nothing of it."""
    from hwprune.runtimes.profiles import load_profile

    try:
        return load_profile(profile).on_gpu
    except HwpruneError:
        return False


def _side_by_side(profile: str, seconds: float, facts: dict[str, Any]) -> Finding:
    """Whether all cores together are faster than one: virtual cores may share a physical one."""
    from hwprune.latency.noise import thread_speed_up
    from hwprune.runtimes.profiles import load_profile
    from hwprune.runtimes.registry import get_runtime

    name, cores = "cores side by side", facts["device"]["physical_cores"]
    try:
        target = replace(load_profile(profile), threads=cores)
        speed_up = thread_speed_up(get_runtime(target), target, seconds)
    except HwpruneError as error:
        return Finding(name, error.what, False, error.do or "")
    facts["thread_speed_up"] = speed_up
    good = speed_up > _LEAST_SPEED_UP
    advice = (
        "" if good else "use a profile with one thread: these cores share a physical one, or others use them"
    )
    return Finding(name, f"{cores} threads are {speed_up:.2f} times as fast as one", good, advice)


def _fastest(profile: str, seconds: float, facts: dict[str, Any]) -> Finding:
    """Which runtime runs a small network fastest under the conditions of a profile."""
    from hwprune.latency.noise import reference_workload
    from hwprune.latency.side_by_side import side_by_side
    from hwprune.runtimes.profiles import load_profile
    from hwprune.runtimes.registry import serving

    name = "fastest runtime"
    try:
        target = load_profile(profile)
        networks = []
        for one in serving(target.device):
            on = replace(target, runtime=one.name, options={})
            with contextlib.suppress(ConfigError, DeviceError):  # a number format or a device not served
                networks.append((reference_workload(one, on), one, on))
        if not networks:
            return Finding(name, f"no runtime for {target.device} is here", None)
        found = side_by_side(networks, seconds)
        found_ms = {one.name: each.ms for (_, one, _), each in zip(networks, found, strict=True)}
    except HwpruneError as error:
        return Finding(name, error.what, False, error.do or "")
    facts["runtimes_ms"] = found_ms
    ranked = sorted(found_ms, key=lambda one: found_ms[one])
    told = ", ".join(f"{one} {found_ms[one]:.3f} ms" for one in ranked)
    again = "compare them on a file: hwprune bench FILE.onnx --also PROFILE" if len(ranked) > 1 else ""
    text = f"{ranked[0]} (a chain of convolutions under the conditions of {profile}: {told})"
    return Finding(name, text, True, again)


def _noise(profile: str, seconds: float, facts: dict[str, Any]) -> Finding:
    from hwprune.latency.noise import machine_noise
    from hwprune.runtimes.profiles import load_profile
    from hwprune.runtimes.registry import get_runtime

    try:
        target = load_profile(profile)
        noise = machine_noise(get_runtime(target), target, seconds)
    except HwpruneError as error:
        return Finding("noise", error.what, False, error.do or "")
    facts["noise"] = {
        "drift": noise.drift,
        "error": noise.error,
        "bias": noise.bias,
        "slowest": noise.slowest,
    }
    text = (
        f"plain latency drifts by {noise.drift:.1%}; interleaved ± {noise.error:.1%}, off by {noise.bias:.1%}"
    )
    advice = "stop other programs on these cores; latencies measured now should not be trusted"
    return Finding("noise", text, not noise.too_noisy, advice if noise.too_noisy else "")
