"""Time runs on a GPU by pairs of events on a stream, one run queued ahead, as trtexec does.

The run ahead keeps the GPU busy while the host starts the next one, so that the host's time is not counted.
That fails where a run is shorter than what the host needs for it: the GPU waits between an event and the run
behind it. So several short runs share one pair of events, and where the host is slower all the same, a
warning says so.
"""

from __future__ import annotations

import functools
import logging
import math
import time
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

_log = logging.getLogger(__name__)
LEAST_PAIR_MS = 0.2  # events resolve half a microsecond, and recording two takes the host some more
_MOST_RUNS = 64
_TRIAL_RUNS = 5
_HOST_SHARE = 0.8  # of the GPU's time; trtexec warns at the same


class RunQueue(NamedTuple):
    """A network on a stream.

    Attributes:
        launch: Starts a run; returns before it is over.
        event: Makes an event.
        record: Records an event behind what was started.
        elapsed_ms: Milliseconds between two events.
        wait: Waits until all is over.
    """

    launch: Callable[[], object]
    event: Callable[[], Any]
    record: Callable[[Any], object]
    elapsed_ms: Callable[[Any, Any], float]
    wait: Callable[[], object]


def runs_per_pair(queue: RunQueue, profile_name: str, copies: int = 1) -> int:
    """How many runs share a pair of events: 1, unless a run is very short. Part of the warm-up.

    Args:
        queue: The network.
        profile_name: Its target profile, for the warning.
        copies: Of the network, which take turns: the first run of each is not timed.
    """
    for _ in range(copies):
        queue.launch()
    queue.wait()
    before, after = queue.event(), queue.event()
    queue.launch()
    queue.record(before)
    started = time.perf_counter()
    for _ in range(_TRIAL_RUNS):
        queue.launch()
    host_ms = 1e3 * (time.perf_counter() - started) / _TRIAL_RUNS
    queue.record(after)
    queue.wait()
    run_ms = queue.elapsed_ms(before, after) / _TRIAL_RUNS
    if host_ms > _HOST_SHARE * run_ms:
        _warn_of_host(profile_name, host_ms, run_ms)
    return min(max(1, math.ceil(LEAST_PAIR_MS / max(run_ms, 1e-6))), _MOST_RUNS)


def times_ms(queue: RunQueue, count: int, runs: int) -> list[float]:
    """GPU time of a run, `count` times, each the mean of `runs` runs between two events."""
    events = [(queue.event(), queue.event()) for _ in range(count)]
    queue.launch()
    for before, after in events:
        queue.record(before)
        for _ in range(runs):
            queue.launch()
        queue.record(after)
    queue.wait()
    return [queue.elapsed_ms(before, after) / runs for before, after in events]


@functools.cache
def _told(profile_name: str, size: int) -> list[str]:
    """Whether a profile's user was warned: a table has hundreds of networks.

    Args:
        profile_name: The profile.
        size: Of the network, a power of two: what is said of a tiny probe says nothing of the user's network.
    """
    return []


def _warn_of_host(profile_name: str, host_ms: float, run_ms: float) -> None:
    told = _told(profile_name, math.frexp(run_ms)[1])
    if not told:
        told.append(profile_name)
        _log.warning(
            "profile %s: the host needs %.3f ms to start a run and the GPU %.3f ms for it, so latencies may "
            "be the host's; use cuda_graph = true, a larger batch, or a machine with idle cores",
            *(profile_name, host_ms, run_ms),
        )
