"""`hwprune search`: train PruningNet, evolve under the budget, measure what is returned."""

from __future__ import annotations

import contextlib
import math
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hwprune.api import judge
from hwprune.api.device import Device
from hwprune.api.project import Project, digest
from hwprune.config import ScoreName
from hwprune.errors import BudgetError, UsageError
from hwprune.evolution.algorithm import SearchSettings
from hwprune.evolution.problem import Constraint, Correction, Problem
from hwprune.evolution.sampling import Sampler
from hwprune.evolution.search import search as evolve
from hwprune.latency.curves import MOST_MEASURED, inversions
from hwprune.latency.model import LatencyModel
from hwprune.latency.table import LatencyTable
from hwprune.progress import QUIET, Reporter
from hwprune.results import SearchResult
from hwprune.units import Quantity, format_ms, parse_latency

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from hwprune.evolution.problem import AccuracyScore, Candidate
    from hwprune.evolution.search import SearchOutcome
    from hwprune.latency.measure import Measurement
    from hwprune.structure.space import Widths
    from hwprune.training.history import History

    Predict = Callable[[NDArray[np.int64]], NDArray[np.float64]]

_LATENCY = "latency"
_QUICK = {"relative_error": 0.02, "max_seconds": 2.0}  # for leaders during the search
_TIGHT = {"relative_error": 0.005, "max_seconds": 8.0}  # for the answer
_DRIFTS = 2.0  # spreads of the machine's own speed that a budget in milliseconds keeps free ...
_MOST_MARGIN = 0.03  # ... and the most of the budget that it may cost
_WORTH_TELLING = 0.001
_ATTEMPTS = 12  # networks measured for the answer before giving up


def search(
    *,
    latency: str,
    project: Path = Path("."),
    device: str = "",
    profile: str = "",
    score: ScoreName | None = None,
    generations: int = 0,
    population: int = 0,
    seed: int | None = None,
    reporter: Reporter = QUIET,
) -> SearchResult:
    """Find the best network within the latency budget; trains PruningNet first if that is not done yet.

    Args:
        latency: The budget: 15ms, 800us, 0.015s, or 60% of the unpruned network on this device.
        project: The project folder.
        device: cpu or cuda:0; "" takes the project's.
        profile: A target profile; "" takes the project's or the device's default.
        score: pruningnet, or macs (no images needed); by default what the data allows.
        generations: Generations of the evolution; 0 takes the project's.
        population: Networks of one generation; 0 takes the project's.
        seed: Seed of the evolution; by default the project's, which always decides the split of the data.
        reporter: Told about progress.

    Returns:
        The network with its predicted and measured latency; also written to the work folder.

    Raises:
        UsageError: The budget cannot be understood.
        BudgetError: No network keeps it; tells the fastest network's latency.
        ArtifactError: `hwprune profile` has not been run here, or for another model or device.
    """
    budget = parse_latency(latency)
    if seed is not None and not 0 <= seed < 2**31:
        raise UsageError("--seed is not a seed.", got=seed, allowed="0 to 2147483647")
    opened = Project(project)
    settings = replace(
        opened.config.search,
        score=score or opened.config.search.score,
        generations=generations or opened.config.search.generations,
    )
    if population:
        half, parents = population // 2, min(settings.parents, population)
        settings = replace(settings, population=population, mutants=half, crossovers=half, parents=parents)
    opened = opened.with_config(search=settings)
    seed = opened.config.seed if seed is None else seed
    return _Search(opened, budget, device, profile, seed, reporter).run()


class _Search:
    """The steps of one search."""

    def __init__(
        self, project: Project, budget: Quantity, device: str, profile: str, seed: int, reporter: Reporter
    ) -> None:
        self.project, self.budget, self.seed, self.reporter = project, budget, seed, reporter
        self.target = project.target(device, profile)
        self.space = project.space(self.target.name)
        self.base_ms = project.profiled(self.target.name).base_ms
        table = LatencyTable.load(project.table_folder(self.target.name))
        base_onnx = project.base_onnx(self.target.name)
        self.device = Device(base_onnx, self.space, self.target, self.base_ms)
        table.check_matches(self.target, self.device.runtime, self.space)
        self.model = LatencyModel.fit(table, self.space, base_onnx)
        self.drift = table.drift
        self.table_name = digest(table.networks.to_csv())

    def run(self) -> SearchResult:
        """All steps; writes and returns the result."""
        base_ms = self.base_ms
        limit_ms = self.budget.of(base_ms)
        if base_ms <= limit_ms:
            self.reporter.note(f"The unpruned network meets {self.budget.text} already: it is the answer.")
            result = self._result(self.space.full(), limit_ms, base_meets_budget=True)
        else:
            self.reporter.note(
                f"Budget {self.budget.text}: {format_ms(limit_ms)}; the unpruned network takes "
                f"{format_ms(base_ms)}."
            )
            result = self._evolve(limit_ms, self._aim_ms(limit_ms))
        result.save(self.project.path("search.json"))
        return result

    def _aim_ms(self, limit_ms: float) -> float:
        """What to search for: a budget in milliseconds shall also hold in another hour of this machine.

        A share of the unpruned network's latency needs no margin, for both drift together.
        """
        if self.budget.relative:
            return limit_ms
        margin = min(_DRIFTS * self.drift, _MOST_MARGIN)
        if margin > _WORTH_TELLING:
            self.reporter.note(f"The machine's own speed wanders: aiming {margin:.1%} below the budget.")
        return limit_ms * (1 - margin)

    def _evolve(self, limit_ms: float, aim_ms: float) -> SearchResult:
        """Train the judge, evolve, and measure the answer."""
        problem = self._problem(limit_ms, judge.macs_score(self.space))
        Sampler(problem)  # an impossible budget is told before PruningNet is trained in vain
        kind = judge.score_kind(self.project)
        made: dict[str, Any] = {}
        if kind == "pruningnet":
            score, history = self._pruningnet()
            path = judge.checkpoint_path(self.project, self.space)
            made = {"pruningnet": path.name, "pruningnet_history": tuple(history.to_payload())}
            problem = replace(problem, accuracy=score)
        outcome = self._outcome(problem, aim_ms, kind, made)
        best, measured = self._first_within(outcome, limit_ms, aim_ms)
        most = min(MOST_MEASURED, self.device.affordable_pairs(self.base_ms))
        odd = inversions(self.model, {"chosen": best.widths}, self.device.neighbours, most)
        return self._result(
            best.widths, limit_ms, measured_ms=measured.ms, error_ms=measured.error_ms, score=best.score,
            score_kind=kind, inversions=tuple(asdict(one) for one in odd),
            predicted_ms=float(self._predict(np.array([best.widths]))[0]), **made,
            **_trail(outcome),
        )  # fmt: skip

    def _problem(self, limit_ms: float, accuracy: AccuracyScore) -> Problem:
        constraint = Constraint(name=_LATENCY, predict=self._predict, limit=limit_ms, unit="ms")
        return Problem(space=self.space, constraints=(constraint,), accuracy=accuracy)

    def _outcome(self, problem: Problem, aim_ms: float, kind: str, made: dict[str, Any]) -> SearchOutcome:
        """The search at the aim; at the budget itself when that is all that can be met."""
        aimed = self._problem(aim_ms, problem.accuracy)
        with contextlib.suppress(BudgetError):
            return self._run_evolution(aimed, kind, made)
        return self._run_evolution(problem, kind, made)

    def _predict(self, widths: NDArray[np.int64]) -> NDArray[np.float64]:
        return self.model.predict(widths)

    def _pruningnet(self) -> tuple[AccuracyScore, History]:
        net, history = judge.train_pruningnet(self.project, self.space, self.reporter)
        score = judge.accuracy_score(self.project, net)
        judge.sanity(net, score, self.project.num_classes)
        return score, history

    def _run_evolution(self, problem: Problem, kind: str, made: dict[str, Any]) -> SearchOutcome:
        config = self.project.config
        own = {item.name for item in fields(SearchSettings)}
        settings = SearchSettings(**{k: v for k, v in asdict(config.search).items() if k in own})
        identity = digest(kind, made.get("pruningnet"), self.table_name)
        key = digest(identity, settings, problem.constraints[0].limit, self.seed)
        with self.reporter.stage("Search", "networks") as progress, _kept(problem.accuracy):
            return evolve(
                problem,
                settings,
                seed=self.seed,
                state=self.project.path(f"search-{key}.json"),
                progress=progress,
                on_generation=_Loop(self.device, self._predict),
                starts=judge.starts(self.space),
                identity=identity,
            )

    def _first_within(
        self, outcome: SearchOutcome, limit_ms: float, aim_ms: float
    ) -> tuple[Candidate, Measurement]:
        """The best network whose measured latency, with its error, is within the aim, or else the budget."""
        fastest, within = float("inf"), None
        with self.reporter.stage("Measuring the answer", "networks") as progress:
            ranked = outcome.ranked()[:_ATTEMPTS]
            for count, candidate in enumerate(ranked, start=1):
                measured = self.device.networks([candidate.widths], **_TIGHT)[0].trusted()
                progress(count, len(ranked), measured_ms=measured.ms)
                high_ms = measured.ms + measured.error_ms
                if high_ms <= aim_ms:
                    return candidate, measured
                within = within or ((candidate, measured) if high_ms <= limit_ms else None)
                fastest = min(fastest, measured.ms)
        if within is not None:
            return within
        raise BudgetError(
            "None of the best networks that were found was measured within the budget.",
            got=f"fastest of {len(ranked)}: {format_ms(fastest)}",
            allowed=format_ms(limit_ms),
            do="profile longer (`hwprune profile --max-time 5m`) or ask for a slightly larger budget",
        )

    def _result(self, widths: Widths, limit_ms: float, **found: Any) -> SearchResult:
        space = self.space
        unpruned = {
            "predicted_ms": self.base_ms,
            "measured_ms": self.base_ms,
            "error_ms": 0.0,
            "base_meets_budget": False,
            "score": 1.0,
            "score_kind": "macs",
        }
        return SearchResult(
            model=space.model,
            widths=widths,
            groups=tuple(group.name for group in space.groups),
            full_widths=space.full(),
            budget=self.budget.text,
            limit_ms=limit_ms,
            base_ms=self.base_ms,
            macs=int(space.macs(widths)),
            params=int(space.params(widths)),
            base_macs=int(space.macs(space.full())),
            base_params=int(space.params(space.full())),
            profile=self.target.name,
            seed=self.seed,
            images=bool(self.project.config.data.source),
            structure=self.project.structure(),
            **{**unpruned, **found},
        )


@contextlib.contextmanager
def _kept(score: AccuracyScore) -> Iterator[None]:
    """Write what a PruningNet's score has evaluated, however the search ends."""
    try:
        yield
    finally:
        if outcomes := getattr(score, "outcomes", None):
            outcomes.save()


class _Loop:
    """Closes the loop: measures the leaders of a generation and corrects the predictions by them."""

    def __init__(self, device: Device, predict: Predict) -> None:
        self.device, self.predict = device, predict

    def __call__(self, leaders: Sequence[Candidate], earlier: Sequence[Correction], /) -> Correction | None:
        known = {net: figures[_LATENCY] for one in earlier for net, figures in one.measured.items()}
        new = [leader.widths for leader in leaders if leader.widths not in known]
        if not new:
            return None
        results = self.device.networks(new, **_QUICK)
        # a burst of another program must not steer the search
        found = {net: result.ms for net, result in zip(new, results, strict=True) if not result.too_noisy}
        if not found:
            return None
        known.update(found)
        ratios = np.array([*known.values()]) / self.predict(np.array([*known]))
        measured = {net: {_LATENCY: ms} for net, ms in found.items()}
        return Correction(factors={_LATENCY: float(np.median(ratios))}, measured=measured)


def _finite(figures: dict[str, float]) -> dict[str, float | None]:
    """A generation that left no network inside the corrected budget has no best score."""
    return {name: value if math.isfinite(value) else None for name, value in figures.items()}


def _trail(outcome: SearchOutcome) -> dict[str, Any]:
    factors = [c.factors.get(_LATENCY, 1.0) if c else 1.0 for c in outcome.corrections]
    return {
        "history": tuple(_finite(asdict(summary)) for summary in outcome.history),
        "candidates": tuple((c.score, c.values[0]) for c in outcome.candidates),
        "corrections": tuple(factors),
    }
