"""`profile_space`: measure sampled networks whole, in rounds, until the model predicts well enough.

Kernels timed alone mislead: layout changes at their borders, cold caches, the cost of a run. So whole
networks of the space are run: end to end against a fixed reference for the truth, and under the runtime's
profiler for the shares of their kernels. Some networks only judge the model. Every network is kept in a file
of its own as soon as it is profiled, so a killed profile repeats at most the end-to-end part of one round.
"""

from __future__ import annotations

import logging
import math
import warnings
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from hwprune.errors import ArtifactError, HwpruneError, HwpruneWarning, UsageError
from hwprune.latency.attribution import attribute
from hwprune.latency.bench import ROUND, Bench, Planned, References, is_held_out
from hwprune.latency.calibration import mean_error
from hwprune.latency.device import BASE_SECONDS, NEIGHBOUR_SECONDS
from hwprune.latency.measure import ERROR_LIMIT, NOISE_LIMIT
from hwprune.latency.model import TableModel, judged
from hwprune.latency.records import Journal, NetworkRecord, steady
from hwprune.latency.sampling import planned, pool
from hwprune.latency.staircase import PROBE_SECONDS
from hwprune.latency.table import LatencyTable
from hwprune.progress import silent

if TYPE_CHECKING:
    from pathlib import Path

    from hwprune.progress import Progress
    from hwprune.runtimes.base import Runtime, TargetProfile
    from hwprune.structure.space import SearchSpace, Widths

_log = logging.getLogger(__name__)
MIN_NETWORKS = 32  # before an error is believed: eight of them judge
_GROWTH = 1.3  # the model is fitted again when the table has grown by this factor
_POOL = 200
_ASIDE = 0.1  # of the time at most for each of what is measured beside the networks of the table
_ADAPTIVE_PER_ROUND = 3


class Times(NamedTuple):
    """Seconds at most for each part of a profile; the same in every visit, so that a later one goes on."""

    steps: float
    networks: float
    base: float
    neighbours: float

    @classmethod
    def of(cls, seconds: float) -> Times:
        """Share out the time of the whole."""
        longest = (PROBE_SECONDS, BASE_SECONDS, NEIGHBOUR_SECONDS)
        steps, base, neighbours = (min(one, _ASIDE * seconds) for one in longest)
        return cls(steps, seconds - steps - base - neighbours, base, neighbours)


def profile_space(
    space: SearchSpace,
    base_onnx: bytes,
    profile: TargetProfile,
    runtime: Runtime,
    *,
    folder: Path,
    seed: int = 0,
    max_seconds: float = 120.0,
    max_error: float = 0.03,
    max_networks: int = 2000,
    progress: Progress = silent,
) -> LatencyTable:
    """Build the latency table of a search space on this device.

    Args:
        space: The search space; networks are drawn from its choices.
        base_onnx: The unpruned network.
        profile: The conditions.
        runtime: What runs the networks.
        folder: Where the table goes; an unfinished or smaller profile found there is continued.
        seed: Decides which networks are measured.
        max_seconds: Device time to spend, together with what earlier visits spent. Building networks for a
            GPU comes on top of it.
        max_error: Mean error of end-to-end predictions, as a fraction, at which to stop: the upper end of
            its 95 % confidence interval must be below.
        max_networks: Networks to measure at most; rounded up to whole rounds.
        progress: Called after each network, with `error_percent` once it is known and `at_most_percent`, the
            upper end of its 95 % confidence interval; with `preparing_seconds` where that is apart.

    Returns:
        The table, which also lies in `folder`.

    Raises:
        UsageError: `max_seconds` or `max_error` is not positive.
        MismatchError: `folder` holds the records of another device, profile, model or seed.
        DeviceError: The runtime fails.

    Warns:
        HwpruneWarning: The machine was too noisy for the table to be trusted.
    """
    if max_seconds <= 0 or max_error <= 0:
        raise UsageError("Time and error of a profile must be above zero.", got=(max_seconds, max_error))
    bench = Bench(space, base_onnx, profile, runtime, seed)
    return _Profiler(bench, folder, progress).run(_Limits(max_seconds, max_error, max_networks))


class _Limits(NamedTuple):
    """When to stop."""

    seconds: float
    error: float
    networks: int

    def over(self, spent: float, count: int) -> bool:
        return spent >= self.seconds or count >= self.networks


class _Profiler:
    """The state of `profile_space`."""

    def __init__(self, bench: Bench, folder: Path, progress: Progress) -> None:
        self.bench, self.folder, self.progress = bench, folder, progress
        self.space, self.seed = bench.space, bench.seed
        self.identity = bench.identity()
        self.journal = Journal(folder / "networks", self.identity)
        self.records = self.journal.load()
        self.model: TableModel | None = None
        self.fitted: set[int] = set()  # networks that the model was fitted to
        self.compared = False  # whether it has compared the regressors on them
        self.units_ms = (1.0, 1.0)  # of the table that it was fitted to
        self.error, self.interval = math.inf, (0.0, math.inf)  # over the held-out networks so far

    def run(self, limits: _Limits) -> LatencyTable:
        self.bench.runtime.check(self.bench.profile)
        self.bench.runtime.check_table(self.bench.profile)
        saved = self._saved()
        if saved is not None:
            high = saved.provenance.get("prediction_error", {}).get("interval_95", (0.0, math.inf))[1]
            count = len(self._steady)
            if limits.over(self.spent, count) or (count >= MIN_NETWORKS and high <= limits.error):
                return saved
        if not self._done(limits):
            with self.bench.references() as references:
                while not self._done(limits):
                    self._round(references, limits.seconds)
        same = self.compared and self.fitted == {record.index for record in self._steady}
        table = judged(self._table(), self.space, self.bench.graph, self.model if same else None)
        table.save(self.folder)  # before the builds, which take long and may fail
        if (built := self._with_builds(table)) is not table:
            table = built
            table.save(self.folder)
        _warn_of_noise(table)
        return table

    def _with_builds(self, table: LatencyTable) -> LatencyTable:
        """The table with how far builds of one network differ; it is as good without."""
        try:
            builds = self.bench.builds()
        except HwpruneError as error:
            _log.warning("how far builds of one network differ could not be measured: %s", error.what)
            return table
        return replace(table, provenance={**table.provenance, "builds": builds}) if builds else table

    def _saved(self) -> LatencyTable | None:
        """The table that an earlier visit finished, if it holds all records."""
        try:
            table = LatencyTable.load(self.folder)
        except ArtifactError:
            return None
        kept = {record.index for record in self._steady}
        return table if set(table.networks["network"]) == kept else None

    @property
    def _steady(self) -> list[NetworkRecord]:
        """The records of the state that the machine was in most of the time."""
        return steady(self.records)

    @property
    def spent(self) -> float:
        """Device time so far, earlier visits included."""
        return sum(record.seconds for record in self.records)

    def _done(self, limits: _Limits) -> bool:
        count = len(self._steady)
        if not count:
            return False
        if limits.over(self.spent, count):
            return True
        if count < MIN_NETWORKS:
            return False
        self._judge()
        return self.interval[1] <= limits.error

    def _judge(self) -> None:
        """Error over all held-out networks: those of the last fit, and those that came after it."""
        known = {record.index for record in self._steady}
        if self.model is None or len(known) >= _GROWTH * len(self.fitted) or not self.fitted <= known:
            self._fit()
        if self.model is None:
            return
        new = [one for one in self._steady if one.held_out and one.index not in self.fitted]
        measured_ms = np.array([one.latency_ms(self.units_ms) for one in new])
        predicted_ms = self.model.predict(np.array([one.widths for one in new])) if new else measured_ms
        errors = np.concatenate([self.model.errors, np.abs(predicted_ms / measured_ms - 1)])
        self.error, self.interval = mean_error(errors)

    def _fit(self) -> None:
        table = self._table()
        self.compared = self.model is None
        if self.model is not None:  # which regressors are best is asked at the beginning and at the end
            table = replace(
                table,
                provenance={**table.provenance, "regressors": dict(self.model.cross_validation.regressors)},
            )
        self.model = TableModel.fit(table, self.space, self.bench.graph)
        self.fitted = {record.index for record in self._steady}
        self.units_ms = table.units_ms
        low, high = self.model.relative_error_interval
        _log.info(
            "%d networks in %.0f s: mean error %.1f %% (%.1f-%.1f %%)",
            *(len(self.fitted), self.spent, 100 * self.model.relative_error, 100 * low, 100 * high),
        )

    def _round(self, references: References, max_seconds: float) -> None:
        """Measure the next networks and keep them."""
        left, count = max_seconds - self.spent, len(self.records)
        chosen = self._next()
        for record in self.bench.round(chosen, references, self.journal, max_seconds=left, seed=count):
            self._keep(record, max_seconds)

    def _keep(self, record: NetworkRecord, max_seconds: float) -> None:
        self.records.append(record)
        share = min(max(self.spent / max_seconds, 1e-6), 1.0)
        expected = max(len(self.records), round(len(self.records) / share))
        figures = {"seconds": self.spent, "noise_percent": 100 * record.noise}
        if preparing := sum(record.preparing for record in self.records):
            figures["preparing_seconds"] = preparing
        if self.model is not None:
            figures |= {"error_percent": 100 * self.error, "at_most_percent": 100 * self.interval[1]}
        self.progress(len(self.records), expected, **figures)

    def _next(self) -> list[Planned]:
        """The next networks: some planned, some where the model knows least."""
        taken = {record.index for record in self.records}
        numbers = [i for i in range(len(taken) + ROUND + max(taken, default=0)) if i not in taken][:ROUND]
        chosen = [Planned(i, planned(self.space, i, self.seed), is_held_out(i)) for i in numbers]
        if self.model is not None:
            free = [place for place, one in enumerate(chosen) if not one.held_out][-_ADAPTIVE_PER_ROUND:]
            for place, widths in zip(free, self._least_known(len(free), numbers[0]), strict=True):
                chosen[place] = chosen[place]._replace(widths=widths)
        return chosen

    def _least_known(self, count: int, number: int) -> list[Widths]:
        """Networks of a random pool whose predictions are least certain, relative to their latency."""
        if self.model is None:
            return []
        candidates = pool(self.space, _POOL, np.random.default_rng([self.seed, number, 1]))
        doubt = self.model.uncertainty_ms(candidates) / self.model.predict(candidates)
        return [tuple(candidates[place].tolist()) for place in np.argsort(-doubt)[:count]]

    def _table(self) -> LatencyTable:
        bench = self.bench
        rows = attribute(
            self.records,
            bench.graph,
            self.space,
            bench.profile,
            identity=self.identity,
            reference=bench.reference,
        )
        return LatencyTable.of(rows)


def _warn_of_noise(table: LatencyTable) -> None:
    if left_out := table.provenance.get("left_out"):
        warnings.warn(
            f"{left_out} networks were left out of the latency table: while they were measured the machine "
            "ran at another speed, as when a virtual machine is moved. `hwprune doctor` shows whether it is "
            "steady.",
            HwpruneWarning,
            stacklevel=2,
        )
    error = float((table.networks["error_ms"] / table.networks["latency_ms"]).median())
    if error > ERROR_LIMIT or table.provenance["noise"] > NOISE_LIMIT:
        warnings.warn(
            f"The machine was too noisy: latencies were only measured to {error:.0%}, so the latency table "
            "should not be trusted. Stop other programs on these cores, delete the table's folder and "
            "profile again, or use a profile with one thread; `hwprune doctor` shows what disturbs.",
            HwpruneWarning,
            stacklevel=2,
        )
