"""`hwprune doctor`: can this machine be measured, how noisy is it, what is missing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hwprune.errors import HwpruneError
from hwprune.progress import QUIET, Reporter


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        name: What.
        value: What was found.
        good: Whether it is as it should be.
        do: What to do when it is not.
    """

    name: str
    value: str
    good: bool = True
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
        The findings; those that are not good say what to do.
    """
    from hwprune import environment

    facts: dict[str, Any] = {
        "device": environment.device_fingerprint(),
        "gpus": environment.gpus(),
        "libraries": environment.library_versions(),
        "load": environment.machine_load(),
    }
    findings = [*_machine(facts), *_runtimes(), *_load(facts["load"])]
    reporter.note(f"Timing a small network on {profile} for {seconds:g} s ...")
    findings.append(_noise(profile, seconds, facts))
    return DoctorResult(tuple(findings), facts)


def _machine(facts: dict[str, Any]) -> list[Finding]:
    device, gpus = facts["device"], facts["gpus"]
    names = ", ".join(gpu["gpu_name"] for gpu in gpus) or "none found"
    versions = ", ".join(f"{name} {version}" for name, version in facts["libraries"].items())
    return [
        Finding("cpu", f"{device['model']}, {device['cores']} cores, {device['memory_gib']} GiB"),
        Finding("cpu features", ", ".join(device["features"]) or "none of those that matter"),
        Finding("gpus", names),
        Finding("versions", versions),
    ]


def _runtimes() -> list[Finding]:
    from hwprune.runtimes.registry import all_runtimes

    return [
        Finding(f"runtime {runtime.name}", "ready", True)
        if runtime.available()
        else Finding(f"runtime {runtime.name}", "not installed", True, runtime.install)
        for runtime in all_runtimes()
    ]


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
    if load["quota_cores"]:
        whole = float(load["quota_cores"]).is_integer()
        advice = "" if whole else "give the container whole cores"
        findings.append(Finding("container quota", f"{load['quota_cores']} cores", whole, advice))
    return findings


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
