"""Sessions that the host starts, waits for and times: what the runtimes for CPUs share."""

from __future__ import annotations

import gc
import itertools
import time
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from hwprune.errors import DeviceError, ModelError
from hwprune.runtimes.base import Session
from hwprune.runtimes.gpu_errors import gpu_failure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from numpy.typing import NDArray

    from hwprune.runtimes.base import TargetProfile

# A run this long off its core was preempted; less is the clocks' own error.
_AWAY_SHARE, _AWAY_MS = 0.01, 0.02


class HostTimedSession(Session):
    """Runs of one network that take turns, each timed from its start until its end.

    Args:
        runs: What runs the network once; several take turns.
        profile: The conditions.
        settle_s: How long idle threads keep their cores after a run, seconds.
    """

    def __init__(
        self, runs: Sequence[Callable[[], object]], profile: TargetProfile, settle_s: float = 0.0
    ) -> None:
        self._turns = itertools.cycle(runs)
        self._profile = profile
        # While a GPU computes, the host may sleep: its time on the core says nothing.
        self._single = profile.thread_count == 1 and not profile.on_gpu
        self._settle_s = settle_s

    def _time_runs(self, count: int) -> NDArray[np.float64]:
        stamps = np.empty((count + 1, 2), dtype=np.int64)
        turns, wall, core = self._turns, time.perf_counter_ns, time.thread_time_ns
        collecting = gc.isenabled()
        gc.disable()
        try:
            stamps[0] = wall(), core()
            for index, run in zip(range(1, count + 1), turns, strict=False):
                run()
                stamps[index] = wall(), core()
        except Exception as error:  # runtimes' exceptions share no base class of their own
            raise failure("The network failed while it ran.", self._profile, error) from error
        finally:
            if collecting:
                gc.enable()
        wall_ms, core_ms = (np.diff(stamps, axis=0) / 1e6).T
        return self._undisturbed(wall_ms, core_ms)

    def _undisturbed(self, wall_ms: NDArray[np.float64], core_ms: NDArray[np.float64]) -> NDArray[np.float64]:
        """Take off what other programs took: a run on one thread lasts as long as it had the core.

        Measured on two cores shared by four busy programs: wall time of a run 11.5 ms, spread 8 %; time on
        the core 7.5 ms, spread 2.6 %; the few runs that were left alone 7.4 ms.
        """
        away = wall_ms - core_ms
        disturbed = (away > np.maximum(_AWAY_SHARE * wall_ms, _AWAY_MS)) & self._single
        self.stolen_ms += float(away[disturbed].sum())
        return np.where(disturbed, core_ms, wall_ms)

    def _settle(self) -> None:
        if self._settle_s:
            time.sleep(self._settle_s)

    def _close(self) -> None:
        self._turns = itertools.cycle([])


def failure(what: str, profile: TargetProfile, error: Exception) -> DeviceError:
    """The error of a network that a device failed to run."""
    if profile.on_gpu:
        return gpu_failure(what, profile, error)
    where = f"profile {profile.name}, batch {profile.batch}"
    do = "end other programs, or set a smaller `batch` in the target profile; see `hwprune doctor`"
    return DeviceError(what, where=where, got=str(error)[:300], do=do)


def random_values(rng: np.random.Generator, shape: Sequence[int], dtype: Any) -> NDArray[Any]:
    """What an input is filled with: all zeros would time denormals and shortcuts."""
    if np.issubdtype(dtype, np.integer):
        return rng.integers(0, 100, tuple(shape)).astype(dtype)
    return rng.standard_normal(tuple(shape)).astype(dtype)


def static_shape(name: str, sizes: Iterable[object]) -> tuple[int, ...]:
    """The shape of an input or output whose sizes are all fixed.

    Raises:
        ModelError: One is not.
    """
    shape = tuple(sizes)
    if not all(isinstance(size, int) for size in shape):
        raise ModelError(
            "Only networks with static shapes can be timed.",
            where=name,
            got=list(shape),
            do="export the network with a fixed batch size",
        )
    return cast("tuple[int, ...]", shape)
