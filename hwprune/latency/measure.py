"""Time networks against an interleaved reference, with an error bar, on machines that drift.

On shared cores the same network, timed again a second later, differs by 7-14 %. What drifts is the machine,
so a few runs of the network alternate with a few runs of a fixed reference network; each *block* gives one
ratio of low percentiles (noise only ever adds time), the blocks give the error bar, and the latency is

    median ratio over the blocks  x  the reference's median over the session.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from hwprune.errors import DeviceError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from hwprune.runtimes.base import Session

LOW_PERCENTILE = 25.0
BLOCK_MS = 30.0  # one visit to a session; long enough for a percentile, short against the drift
MIN_BLOCKS, MAX_BLOCKS = 5, 400
MIN_RUNS, MAX_RUNS = 3, 300
NOISE_LIMIT = 0.30  # spread of the reference beyond which even ratios cannot be trusted
ERROR_LIMIT = 0.10
_WARM_UP_WINDOW_MS = 15.0
_WARM_UP_GAIN = 0.02
_SD_OF_MEAN_DEVIATION = 1.2533  # normal distribution: standard deviation / mean absolute deviation
_SD_OF_MEDIAN = 1.2533  # normal distribution: spread of the median / spread of the mean


@dataclass(frozen=True)
class Measurement:
    """The latency of one network.

    Attributes:
        ms: Latency of one run (a whole batch), milliseconds.
        error_ms: One standard error of `ms`, from the spread of the blocks.
        ratio: Latency relative to the reference network's.
        reference_ms: Latency of the reference network, the unit behind `ms`.
        blocks: How many interleaved blocks were taken.
        noise: Relative spread of the reference over the session; 0.01 is a quiet machine.
        stolen: Share of the session's time in which other programs had the core; taken off where the runtime
            can tell.
        samples_ms: Every run of the network, one array per block.
        reference_samples_ms: Every run of the reference, one array per visit: one more than the blocks.
    """

    ms: float
    error_ms: float
    ratio: float
    reference_ms: float
    blocks: int
    noise: float
    stolen: float
    samples_ms: tuple[NDArray[np.float64], ...] = field(repr=False, compare=False)
    reference_samples_ms: tuple[NDArray[np.float64], ...] = field(repr=False, compare=False)

    @property
    def relative_error(self) -> float:
        """`error_ms` as a fraction of `ms`."""
        return self.error_ms / self.ms

    @property
    def too_noisy(self) -> bool:
        """Whether the machine was too noisy for this figure to be trusted."""
        return self.noise > NOISE_LIMIT or self.relative_error > ERROR_LIMIT

    def trusted(self) -> Measurement:
        """This measurement, if it can be trusted.

        Raises:
            DeviceError: The machine was too noisy; says how noisy and what to do.
        """
        if self.too_noisy:
            raise DeviceError(
                "The machine is too noisy for its latencies to be trusted.",
                got=f"error {self.relative_error:.0%}, spread of the reference {self.noise:.0%}",
                allowed=f"error {ERROR_LIMIT:.0%}, spread of the reference {NOISE_LIMIT:.0%}",
                do="stop other programs on these cores and try again; `hwprune doctor` shows what disturbs",
            )
        return self

    def distribution(self) -> dict[str, float]:
        """Percentiles of all runs, milliseconds, as they came: not corrected for drift."""
        runs = np.concatenate(self.samples_ms)
        names = {"min": 0, "p10": 10, "p25": 25, "median": 50, "p75": 75, "p90": 90, "max": 100}
        return {name: float(np.percentile(runs, percent)) for name, percent in names.items()}


def measure(
    session: Session,
    reference: Session,
    *,
    relative_error: float = 0.02,
    max_seconds: float = 10.0,
    reference_ms: float | None = None,
) -> Measurement:
    """Time one network against a reference until the error bar is narrow enough.

    Args:
        session: The network.
        reference: The network to interleave with; it may be the same session.
        relative_error: Standard error to reach, as a fraction of the latency.
        max_seconds: Time after which the error bar is reported as it is.
        reference_ms: The reference's latency known from an earlier session, to keep its unit; by default the
            median over this session.

    Returns:
        The latency; ask `trusted()` where a wrong figure would do harm.

    Raises:
        UsageError: `relative_error` or `max_seconds` is not positive.
    """
    return measure_many(
        [session],
        reference,
        relative_error=relative_error,
        max_seconds=max_seconds,
        reference_ms=reference_ms,
    )[0]


def measure_many(
    sessions: Sequence[Session],
    reference: Session,
    *,
    relative_error: float = 0.02,
    max_seconds: float = 60.0,
    reference_ms: float | None = None,
    seed: int = 0,
    block_ms: float = BLOCK_MS,
) -> list[Measurement]:
    """Time several networks, round-robin, all against one reference.

    Each round visits every network whose error bar is still too wide, in a random order, and the reference
    before and after each of them. So no network owes its figure to a good or a bad second.

    Args:
        sessions: The networks.
        reference: The network to interleave with.
        relative_error: Standard error to reach for each network, as a fraction of its latency.
        max_seconds: Time for all of them together; the first `MIN_BLOCKS` rounds are always completed.
        reference_ms: See `measure`.
        seed: Seed of the order of visits.
        block_ms: Time of one visit to a session; shorter for very many very small networks.

    Returns:
        One measurement per session, in the order of `sessions`.

    Raises:
        UsageError: `relative_error` or `max_seconds` is not positive.
    """
    if relative_error <= 0 or max_seconds <= 0:
        raise UsageError(
            "Error and time of a measurement must be above zero.", got=(relative_error, max_seconds)
        )
    deadline = time.perf_counter() + max_seconds
    standard = _Visitor(reference, block_ms)
    visitors = [_Visitor(session, block_ms) for session in sessions]
    pairs: list[list[float]] = [[] for _ in sessions]
    rng = np.random.default_rng(seed)
    for done in range(MAX_BLOCKS):
        open_ = [i for i, ratios in enumerate(pairs) if done < MIN_BLOCKS or _error(ratios) > relative_error]
        if not open_ or (done >= MIN_BLOCKS and time.perf_counter() > deadline):
            break
        _round(visitors, standard, pairs, rng.permutation(open_))
    return [
        _measurement(visitor, standard, ratios, reference_ms)
        for visitor, ratios in zip(visitors, pairs, strict=True)
    ]


def _round(
    visitors: list[_Visitor], standard: _Visitor, pairs: list[list[float]], order: NDArray[np.int64]
) -> None:
    before = standard.visit()
    for index in order:
        low = visitors[index].visit()
        after = standard.visit()
        pairs[index].append(low / ((before + after) / 2))
        visitors[index].around.extend((len(standard.blocks) - 2, len(standard.blocks) - 1))
        before = after


class _Visitor:
    """One session with its warm-up, its number of runs in a block and all that it was timed at."""

    def __init__(self, session: Session, block_ms: float) -> None:
        self.session = session
        self.blocks: list[NDArray[np.float64]] = []
        self.around: list[int] = []  # visits of the reference before and after each block
        self.runs = int(np.clip(round(block_ms / warm_up(session)), MIN_RUNS, MAX_RUNS))

    def visit(self) -> float:
        """One block; the first run brings code and weights back into the caches and does not count."""
        self.blocks.append(self.session.time_runs(self.runs + 1)[1:])
        self.session.settle()
        return low_percentile(self.blocks[-1])


def warm_up(session: Session, max_seconds: float = 2.0) -> float:
    """Run a session until it no longer gets faster.

    The rule: after three first runs (they allocate memory), windows of about 15 ms are run until the median
    of a window is not more than 2 % below the best window before it, or `max_seconds` are over.

    Returns:
        The median of the best window, milliseconds.
    """
    deadline = time.perf_counter() + max_seconds
    first = session.time_runs(MIN_RUNS)
    runs = int(np.clip(round(_WARM_UP_WINDOW_MS / max(first.min(), 1e-3)), 2, MAX_RUNS))
    best = float(np.median(session.time_runs(runs)))
    while time.perf_counter() < deadline:
        window = float(np.median(session.time_runs(runs)))
        improved = window < best * (1 - _WARM_UP_GAIN)
        best = min(best, window)
        if not improved:
            break
    session.settle()
    return best


def low_percentile(runs_ms: NDArray[np.float64]) -> float:
    """What a block stands for: noise on a shared machine only ever adds time, so a low percentile."""
    return float(np.percentile(runs_ms, LOW_PERCENTILE))


def _error(ratios: Sequence[float]) -> float:
    """Relative standard error of the median ratio, from the mean absolute deviation of the blocks."""
    values = np.asarray(ratios)
    centre = np.median(values)
    deviation = np.abs(values - centre).sum() / max(len(values) - 1, 1) * _SD_OF_MEAN_DEVIATION
    return float(_SD_OF_MEDIAN * deviation / np.sqrt(len(values)) / centre)


def _measurement(
    visitor: _Visitor, standard: _Visitor, ratios: list[float], unit_ms: float | None
) -> Measurement:
    lows = np.array([low_percentile(block) for block in standard.blocks])
    reference_ms = float(np.median(lows)) if unit_ms is None else unit_ms
    ratio = float(np.median(ratios))
    around = sorted(set(visitor.around))
    return Measurement(
        ms=ratio * reference_ms,
        error_ms=_error(ratios) * ratio * reference_ms,
        ratio=ratio,
        reference_ms=reference_ms,
        blocks=len(ratios),
        noise=_spread(lows),
        stolen=_stolen(visitor, standard),
        samples_ms=tuple(visitor.blocks),
        reference_samples_ms=tuple(standard.blocks[index] for index in around),
    )


def _spread(lows: NDArray[np.float64]) -> float:
    centre = float(np.median(lows))
    return float(1.4826 * np.median(np.abs(lows - centre)) / centre)


def _stolen(*visitors: _Visitor) -> float:
    lost_ms = sum(visitor.session.stolen_ms for visitor in visitors)
    timed_ms = sum(float(block.sum()) for visitor in visitors for block in visitor.blocks)
    return lost_ms / (lost_ms + timed_ms)
