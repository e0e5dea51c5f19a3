"""How far this machine can be trusted: one small network timed against itself, and on all cores."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from hwprune.latency.measure import low_percentile, measure
from hwprune.runtimes.probes import conv_chain

if TYPE_CHECKING:
    from hwprune.runtimes.base import Runtime, TargetProfile

_CHANNELS = (64,) * 9  # about a millisecond on one server core


@dataclass(frozen=True)
class MachineNoise:
    """What timing a network against itself shows.

    Attributes:
        drift: Relative spread of its plain latency over the blocks: what a naive benchmark would suffer.
        error: Relative standard error that interleaving reached in the same time.
        bias: How far the interleaved ratio is from 1, its true value.
        slowest: The slowest block relative to the median one: throttling and preemption show here.
        stolen: Share of the time in which other programs had the core.
        too_noisy: Whether latencies measured now should not be trusted.
    """

    drift: float
    error: float
    bias: float
    slowest: float
    stolen: float
    too_noisy: bool


def reference_workload(runtime: Runtime, profile: TargetProfile) -> bytes:
    """A small network that is always the same: what other networks of one machine can be related to.

    Raises:
        DeviceError: The runtime is not here.
    """
    return runtime.lower(conv_chain(_CHANNELS, size=14), profile)


def thread_speed_up(runtime: Runtime, profile: TargetProfile, seconds: float = 2.0) -> float:
    """How many times faster a small network runs on the profile's threads than on one of them.

    Two virtual cores may share one physical core, and a hypervisor may move them there from one minute to the
    next: then it is about 1.

    Raises:
        DeviceError: The runtime is not here.
    """
    content = runtime.lower(conv_chain(_CHANNELS, size=28), profile)
    alone = replace(profile, threads=1)
    with runtime.compile(content, profile) as network, runtime.compile(content, alone) as one:
        return 1 / measure(network, one, relative_error=0.01, max_seconds=seconds).ratio


def machine_noise(runtime: Runtime, profile: TargetProfile, seconds: float = 2.0) -> MachineNoise:
    """Time a small network against a twin of itself.

    Raises:
        DeviceError: The runtime is not here.
    """
    content = reference_workload(runtime, profile)
    with runtime.compile(content, profile) as network, runtime.compile(content, profile) as twin:
        result = measure(network, twin, relative_error=1e-4, max_seconds=seconds)
    lows = np.array([low_percentile(block) for block in result.samples_ms])
    return MachineNoise(
        drift=result.noise,
        error=result.relative_error,
        bias=abs(result.ratio - 1.0),
        slowest=float(lows.max() / np.median(lows)),
        stolen=result.stolen,
        too_noisy=result.too_noisy,
    )
