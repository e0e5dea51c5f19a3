"""Time networks against interleaved references, with an error bar, on machines that drift.

On shared cores the same network, timed again a second later, differs by 7-14 %. What drifts is the machine,
so a few runs of the network alternate with a few runs of a fixed reference network; each *block* gives one
ratio of low percentiles (noise only ever adds time), the blocks give the error bar, and the latency is

    median ratio over the blocks  x  the reference's median over the session.

One reference takes out what slows all networks alike. Neighbours on the machine also take cache and memory
bandwidth, and that slows a network the more the larger it is. So a second, *heavy* reference may be given. A
network between the two is measured against their geometric mean, weighted by where its own latency lies
(`Measurement.share`). In a quiet hour that brought the wandering of 18 networks, over windows of 13 s, from
0.77 % to 0.66 %; `benchmarks/two_references.py` shows it.
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

LOW_PERCENTILE = 10.0
BLOCK_MS = 30.0  # one visit to a session; long enough for a percentile, short against the drift
MIN_BLOCKS, MAX_BLOCKS = 5, 400
MIN_RUNS, MAX_RUNS = 3, 300
APART = 1.05  # references whose latencies differ by less cannot tell two kinds of drift apart
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
        ratio: Latency relative to that of the references, by `unit_ms`.
        share: Weight of the heavy reference: 0 for a network no slower than the light one, 1 for one no
            faster than the heavy one.
        reference_ms: Latency of the (light) reference network, the unit behind `ms`.
        heavy_ms: Latency of the heavy reference; that of the light one when there is no other.
        blocks: How many interleaved blocks were taken.
        noise: Relative spread of the reference over the session; 0.01 is a quiet machine.
        stolen: Share of the session's time in which other programs had the core; taken off where the runtime
            can tell.
        samples_ms: Every run of the network, one array per block.
        reference_samples_ms: Every run of the references, light then heavy, one array per visit, over the
            session.
    """

    ms: float
    error_ms: float
    ratio: float
    share: float
    reference_ms: float
    heavy_ms: float
    blocks: int
    noise: float
    stolen: float
    samples_ms: tuple[NDArray[np.float64], ...] = field(repr=False, compare=False)
    reference_samples_ms: tuple[tuple[NDArray[np.float64], ...], ...] = field(repr=False, compare=False)

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


def unit_ms(share: float, reference_ms: float, heavy_ms: float) -> float:
    """What the ratio of a network is multiplied with: the geometric mean of both references, weighted."""
    return float(reference_ms ** (1 - share) * heavy_ms**share)


def measure(
    session: Session,
    reference: Session,
    *,
    heavy: Session | None = None,
    relative_error: float = 0.02,
    max_seconds: float = 10.0,
    units_ms: tuple[float, ...] = (),
) -> Measurement:
    """Time one network against a reference until the error bar is narrow enough.

    Args:
        session: The network.
        reference: The network to interleave with; it may be the same session.
        heavy: A second, slower reference; see the top of this module.
        relative_error: Standard error to reach, as a fraction of the latency.
        max_seconds: Time after which the error bar is reported as it is.
        units_ms: The references' latencies known from an earlier session, to keep their unit; by default
            their medians over this session.

    Returns:
        The latency; ask `trusted()` where a wrong figure would do harm.

    Raises:
        UsageError: `relative_error` or `max_seconds` is not positive.
    """
    return measure_many(
        [session],
        reference,
        heavy=heavy,
        relative_error=relative_error,
        max_seconds=max_seconds,
        units_ms=units_ms,
    )[0]


def measure_many(
    sessions: Sequence[Session],
    reference: Session,
    *,
    heavy: Session | None = None,
    relative_error: float = 0.02,
    max_seconds: float = 60.0,
    units_ms: tuple[float, ...] = (),
    seed: int = 0,
    block_ms: float = BLOCK_MS,
    always: int = 0,
) -> list[Measurement]:
    """Time several networks, round-robin, all against the same references.

    Each round visits every network whose error bar is still too wide, in a random order, and a reference
    before and after each of them; two references take turns. So no network owes its figure to a good or a
    bad second.

    Args:
        sessions: The networks.
        reference: The network to interleave with.
        heavy: A second, slower reference; see the top of this module.
        relative_error: Standard error to reach for each network, as a fraction of its latency.
        max_seconds: Time for all of them together; the first `MIN_BLOCKS` rounds are always completed.
        units_ms: See `measure`.
        seed: Seed of the order of visits.
        block_ms: Time of one visit to a session; shorter for very many very small networks.
        always: So many of the first networks are visited in every round, however well they are known.

    Returns:
        One measurement per session, in the order of `sessions`.

    Raises:
        UsageError: `relative_error` or `max_seconds` is not positive, or not one unit for each reference.
    """
    if units_ms and len(units_ms) != 1 + (heavy is not None):
        raise UsageError("Every reference has one unit.", where="units_ms", got=units_ms)
    if relative_error <= 0 or max_seconds <= 0:
        raise UsageError(
            "Error and time of a measurement must be above zero.", got=(relative_error, max_seconds)
        )
    deadline = time.perf_counter() + max_seconds
    standards = _Standards([reference] if heavy is None else [reference, heavy], block_ms)
    visitors = [_Visitor(session, block_ms) for session in sessions]
    rng = np.random.default_rng(seed)
    for done in range(MAX_BLOCKS):
        open_ = [
            i
            for i, visitor in enumerate(visitors)
            if done < MIN_BLOCKS or _error(standards.ratios(visitor)[0]) > relative_error
        ]
        if not open_ or (done >= MIN_BLOCKS and time.perf_counter() > deadline):
            break
        standards.visit()
        for index in rng.permutation(sorted({*open_, *range(always)})):
            visitors[index].visit(standards.visits)
            standards.visit()
    return [_measurement(visitor, standards, units_ms) for visitor in visitors]


class _Visitor:
    """One session with its warm-up, its number of runs in a block and all that it was timed at."""

    def __init__(self, session: Session, block_ms: float) -> None:
        self.session = session
        self.blocks: list[NDArray[np.float64]] = []
        self.lows_ms: list[float] = []
        self.places: list[float] = []  # when each block was, counted in visits to the references
        self.runs = int(np.clip(round(block_ms / warm_up(session)), MIN_RUNS, MAX_RUNS))
        self._stolen_before_ms = session.stolen_ms

    @property
    def stolen_ms(self) -> float:
        """What other programs took during the blocks; a session may have been in use before."""
        return self.session.stolen_ms - self._stolen_before_ms

    def visit(self, place: float) -> None:
        """One block; the first run brings code and weights back into the caches and does not count."""
        self.blocks.append(self.session.time_runs(self.runs + 1)[1:])
        self.lows_ms.append(low_percentile(self.blocks[-1]))
        self.places.append(place)
        self.session.settle()


class _Standards:
    """The references: visited in turns, interpolated in between."""

    def __init__(self, sessions: Sequence[Session], block_ms: float) -> None:
        self.all = [_Visitor(session, block_ms) for session in sessions]
        self.visits = 0

    def visit(self) -> None:
        """One block of the reference whose turn it is."""
        self.all[self.visits % len(self.all)].visit(self.visits + 0.5)
        self.visits += 1

    def ratios(self, visitor: _Visitor) -> tuple[NDArray[np.float64], float]:
        """A network's blocks relative to the references around them, and the heavy one's share in these."""
        logs = [np.interp(visitor.places, one.places, np.log(one.lows_ms)) for one in self.all]
        own = np.log(visitor.lows_ms)
        light, heavy = logs[0], logs[-1]
        between = float(np.median(heavy - light))
        share = float(np.median(own - light)) / between if between > np.log(APART) else 0.0
        share = min(max(share, 0.0), 1.0)
        return np.exp(own - (1 - share) * light - share * heavy), share


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


def _error(ratios: NDArray[np.float64]) -> float:
    """Relative standard error of the median ratio, from the mean absolute deviation of the blocks."""
    centre = np.median(ratios)
    deviation = np.abs(ratios - centre).sum() / max(len(ratios) - 1, 1) * _SD_OF_MEAN_DEVIATION
    return float(_SD_OF_MEDIAN * deviation / np.sqrt(len(ratios)) / centre)


def _measurement(visitor: _Visitor, standards: _Standards, units_ms: tuple[float, ...]) -> Measurement:
    light = standards.all[0]
    session_ms = [float(np.median(one.lows_ms)) for one in standards.all]
    units = units_ms or tuple(session_ms)
    ratios, share = standards.ratios(visitor)
    ratio = float(np.median(ratios))
    ms = ratio * unit_ms(share, units[0], units[-1])
    return Measurement(
        ms=ms,
        error_ms=_error(ratios) * ms,
        ratio=ratio,
        share=share,
        reference_ms=units[0],
        heavy_ms=units[-1],
        blocks=len(ratios),
        noise=spread(np.array(light.lows_ms)),
        stolen=_stolen(visitor, *standards.all),
        samples_ms=tuple(visitor.blocks),
        reference_samples_ms=tuple(tuple(one.blocks) for one in standards.all),
    )


def spread(values: NDArray[np.float64]) -> float:
    """Relative standard deviation, by the median deviation: one bad value does not count."""
    centre = float(np.median(values))
    return float(1.4826 * np.median(np.abs(values - centre)) / centre)


def _stolen(*visitors: _Visitor) -> float:
    lost_ms = sum(visitor.stolen_ms for visitor in visitors)
    timed_ms = sum(float(block.sum()) for visitor in visitors for block in visitor.blocks)
    return lost_ms / (lost_ms + timed_ms)
