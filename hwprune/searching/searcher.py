"""The steps of a search: a score, an evolution inside the budgets, and an answer that was measured."""

from __future__ import annotations

import contextlib
import math
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from hwprune.errors import ArtifactError, BudgetError
from hwprune.evolution.operators import Genome
from hwprune.evolution.problem import Problem, RacingScore
from hwprune.evolution.sampling import Sampler
from hwprune.evolution.search import search as evolve
from hwprune.latency.breakdown import layer_times
from hwprune.logbook import Logbook
from hwprune.payloads import digest
from hwprune.results import SearchResult, acceptance
from hwprune.searching.closed_loop import Loop
from hwprune.searching.confirmation import Looks, in_units_of, looked_at_twice, why_not_the_best
from hwprune.searching.device_speed import Speeds
from hwprune.searching.initial import initial_population, macs_score
from hwprune.units import format_value

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from hwprune.evolution.algorithm import SearchSettings
    from hwprune.evolution.problem import AccuracyScore, Correction
    from hwprune.evolution.search import SearchOutcome
    from hwprune.progress import Reporter
    from hwprune.results import Figure
    from hwprune.searching.latency_model import LatencyModel
    from hwprune.searching.limits import Budget
    from hwprune.searching.scoring import Scoring
    from hwprune.structure.space import Widths

_WORTH_TELLING = 0.001
_FAR_OFF = 0.2  # from the prediction
_IN_FULL = 12  # networks that may be measured for the answer


class Searcher:
    """Searches a space, once or for several budgets, with one score.

    Args:
        scoring: What scores its networks.
        budgets: What to keep an eye on; the first is the latency on the first device.
        settings: Of the evolution.
        seed: Its seed.
        folder: Where what is found on the way is kept, so that a search goes on.
        facts: What results tell beside what is found: `model`, `images`, `structure`, `epochs`.
        reporter: Told about progress.
    """

    def __init__(
        self,
        scoring: Scoring,
        budgets: Sequence[Budget],
        settings: SearchSettings,
        seed: int,
        folder: Path,
        facts: Mapping[str, Any],
        reporter: Reporter,
    ) -> None:
        self.scoring, self.space = scoring, scoring.space
        self.budgets, self.settings, self.seed, self.reporter = tuple(budgets), settings, seed, reporter
        self.folder, self.facts = folder, facts
        self.targets = [one.target for one in budgets if one.target is not None]
        self._now: dict[str, LatencyModel] = {}
        self._about([self.budgets])
        self._speeds = Speeds(folder / "speeds.jsonl")
        for target in self.targets:
            if target.device is None:
                reporter.note(f"{target.name} is not at hand: its latencies are predicted, not measured.")

    def _about(self, points: Sequence[Sequence[Budget]]) -> None:
        """Say what is searched for, on the devices as they were profiled: scores do not follow a drift."""
        any_score = macs_score(self.space)
        self.scoring.problems = [
            self._problem(budgets, any_score, margin=False)
            for budgets in points
            if any(one.quantity for one in budgets)
        ]

    def drawn(self) -> Widths:
        """A network just inside the tightest budget."""
        genes = Sampler(self.scoring.problems[-1]).draw(1, np.random.default_rng(self.seed))
        (network,) = Genome(self.space).widths(genes).tolist()
        return tuple(network)

    def run(self) -> SearchResult:
        """Find the best network within the budgets.

        Raises:
            BudgetError: No network keeps them.
        """
        budgets = tuple(self._as_of_now(one) for one in self.budgets)
        if all(one.met_by_base for one in budgets):
            return self._unpruned(budgets)
        self._tell([budgets])
        return self._evolve(budgets)

    def front(self, points: Sequence[Sequence[Budget]]) -> list[SearchResult | BudgetError]:
        """Find the best network at each of several budgets for the first thing, in one evolution.

        Args:
            points: The budgets of each point, the loosest first.

        Returns:
            A result for each point, or why there is none.
        """
        self._about(points)
        here = [tuple(self._as_of_now(one) for one in budgets) for budgets in points]
        open_ = [budgets for budgets in here if not all(one.met_by_base for one in budgets)]
        met = here[: len(here) - len(open_)]  # the loosest
        possible, refused = self._possible(open_)  # told before anything is trained
        if open_:
            self._tell(open_)
        answers = self._answers(possible) if possible else []
        return [*(self.judged(self._unpruned(budgets)) for budgets in met), *answers, *refused]

    def _possible(
        self, points: Sequence[tuple[Budget, ...]]
    ) -> tuple[list[tuple[Budget, ...]], list[BudgetError]]:
        """The points that some network keeps, and why there are no tighter ones."""
        for number, budgets in enumerate(points):
            try:
                Sampler(self._problem(budgets, macs_score(self.space), margin=False))
            except BudgetError as error:
                return [*points[:number]], [error] * (len(points) - number)
        return [*points], []

    def _answers(self, points: Sequence[tuple[Budget, ...]]) -> list[SearchResult | BudgetError]:
        """One evolution for all points, and an answer for each."""
        problem, asked = (
            self._problem(points[0], self.scoring.score, margin=False),
            _levels(points, margin=False),
        )
        try:
            outcome, levels = self._outcome(points, problem, front=True)
        except BudgetError as error:
            return [error] * len(points)
        found: list[SearchResult | BudgetError] = []
        for budgets, level in zip(points, levels, strict=True):
            kept = self._answer_path(problem, budgets, asked)
            try:
                known = self._known(kept, budgets)
                found.append(known or self._answered(outcome.tightened(level), budgets, kept))
            except BudgetError as error:
                found.append(error)
        return found

    def _as_of_now(self, budget: Budget) -> Budget:
        """The budget; one in milliseconds on its device as that is now, see `LatencyModel.as_of_now`."""
        if budget.target is None or not budget.in_milliseconds:
            return budget
        if budget.name not in self._now:
            self._now[budget.name] = now = budget.target.as_of_now(self._speeds)
            if now.speed != 1:
                before, after = (format_value(ms, "ms") for ms in (budget.base, now.base_ms))
                self.reporter.note(
                    f"{budget.name}: the unpruned network takes {after} now, and took {before} when it was "
                    "profiled. The budget is kept as the device is now."
                )
        return budget.at(self._now[budget.name])

    def _current(self, target: LatencyModel) -> LatencyModel:
        """A target as it is now, where that was measured."""
        return self._now.get(target.name, target)

    def _unpruned(self, budgets: Sequence[Budget]) -> SearchResult:
        self.reporter.note(f"The unpruned network meets {_texts(budgets)} already: it is the answer.")
        return self._result(
            self.space.full(),
            figures=tuple(one.base_figure() for one in budgets),
            base_meets_budget=True,
            score=1.0,
            score_kind="macs",
        )

    def judged(self, result: SearchResult) -> SearchResult:
        """The result with a score, also where the unpruned network was the answer without any."""
        return replace(result, **self.scoring.figures(result.widths), **self.scoring.made)

    def _tell(self, points: Sequence[Sequence[Budget]]) -> None:
        """Say what the budgets are, those of a front's loosest point, and how far below them it aims."""
        for number, one in enumerate(points[0]):
            if one.quantity is not None and one.limit is not None:
                limit, base = (format_value(value, one.unit) for value in (one.limit, one.base))
                self.reporter.note(
                    f"Budget {one.quantity.text} ({one.name}): {limit}; the unpruned network takes {base}."
                )
            if (most := max(budgets[number].margin for budgets in points)) > _WORTH_TELLING:
                upto = "up to " if len(points) > 1 else ""
                self.reporter.note(f"{one.name}: {one.wandering}; aiming {upto}{most:.1%} below the budget.")

    def _evolve(self, budgets: Sequence[Budget]) -> SearchResult:
        """Evolve, and measure the answer; an answer that was found before is not measured again."""
        problem = self._problem(budgets, macs_score(self.space), margin=False)
        Sampler(problem)  # an impossible budget is told before anything is trained in vain
        if (known := self._known(self._answer_path(problem, budgets), budgets)) is not None:
            return known
        score = self.scoring.score
        kept = self._answer_path(problem, budgets)  # which depends on the weights that were trained
        outcome, _ = self._outcome([budgets], replace(problem, accuracy=score))
        return self._answered(outcome, budgets, kept)

    def _answered(self, outcome: SearchOutcome, budgets: Sequence[Budget], kept: Path) -> SearchResult:
        """The best network of an outcome that was measured within the budgets."""
        outcome = self.scoring.with_ties(_in_full(outcome, self.scoring.score))
        book = Logbook(kept.with_suffix(".jsonl"), "answer", 1, {"answer": kept.stem})
        answer = looked_at_twice(outcome, budgets, self.reporter, Looks(book, budgets))
        widths = answer.candidate.widths
        self._warn(answer.figures)
        if why := why_not_the_best(outcome, answer.candidate):
            self.reporter.note(why)
        result = self._result(
            widths,
            figures=answer.figures,
            binding=max((one for one in answer.figures if one.budget), key=lambda one: one.use).name,
            **self.scoring.figures(widths),
            spent=self.scoring.spent(outcome),
            inversions=tuple(asdict(one) for one in answer.inversions),
            **self.scoring.made,
            **_trail(outcome, budgets),
        )
        result.save(kept)
        return result

    def _answer_path(
        self,
        problem: Problem,
        budgets: Sequence[Budget],
        levels: Sequence[float] = (),
    ) -> Path:
        """The file of an answer; the texts of the budgets are part of it, and decide the margins."""
        key = digest(self._key(problem, levels), _texts(budgets))
        return self.folder / f"answer-{key}.json"

    def _known(self, kept: Path, budgets: Sequence[Budget]) -> SearchResult | None:
        """The answer of an earlier run, if the device still keeps it; one that cannot be read is no loss."""
        if not kept.exists():
            return None
        try:
            found = SearchResult.load(kept)
        except ArtifactError as error:
            self.reporter.note(f"The search is done again, for its answer cannot be read: {error.what}")
            return None
        if not all(one.keeps(acceptance.SEARCH) for one in in_units_of(budgets, found.figures)):
            self.reporter.note(
                "The device is slower than when this search was done: the answer is looked for again."
            )
            return None
        self.reporter.note(f"This search was done before; delete {kept} to do it again.")
        return found

    def _warn(self, figures: Sequence[Figure]) -> None:
        """Say where a table does not describe its device any more; the answer is measured all the same."""
        for one in figures:
            if one.unit == "ms" and one.is_measured and abs(one.value / one.predicted - 1) > _FAR_OFF:
                self.reporter.note(
                    f"{one.name}: measured {one.text(one.value)}, predicted {one.text(one.predicted)}. The "
                    "latency table does not describe the device as it is now; profile again when it is quiet."
                )

    def _problem(self, budgets: Sequence[Budget], accuracy: AccuracyScore, *, margin: bool) -> Problem:
        constraints = tuple(one.constraint(margin=margin) for one in budgets if one.quantity is not None)
        return Problem(space=self.space, constraints=constraints, accuracy=accuracy)

    def _outcome(
        self, points: Sequence[Sequence[Budget]], problem: Problem, *, front: bool = False
    ) -> tuple[SearchOutcome, tuple[float, ...]]:
        """The search with the margins kept, or without when only the budgets can be met; and its levels."""
        aimed = self._problem(points[0], problem.accuracy, margin=True)
        levels = _levels(points, margin=True) if front else ()
        with contextlib.suppress(BudgetError):
            return self._run_evolution(aimed, points[0], levels), levels
        levels = _levels(points, margin=False) if front else ()
        return self._run_evolution(problem, points[0], levels), levels

    def _identity(self) -> str:
        """Stands for everything that scores and predictions depend on; a score by its weights."""
        tables = [(one.table, self._current(one).speed) for one in self.targets]
        groups = [gene.choices for gene in self.space.genes]
        return digest(self.scoring.fingerprint(), self.facts["structure"], tables, groups)

    def _key(self, problem: Problem, levels: Sequence[float]) -> str:
        """Stands for one search."""
        limits = [(one.name, one.limit) for one in problem.constraints]
        return digest(self._identity(), self.settings, limits, self.seed, levels, self.facts["epochs"])

    def _run_evolution(
        self,
        problem: Problem,
        budgets: Sequence[Budget],
        levels: Sequence[float],
    ) -> SearchOutcome:
        with self.reporter.stage("Search", "networks") as progress:
            return evolve(
                problem,
                self.settings,
                seed=self.seed,
                state=self.folder / f"search-{self._key(problem, levels)}.jsonl",
                progress=progress,
                on_generation=Loop(budgets, self.reporter),
                initial=initial_population(problem),
                identity=self._identity(),
                levels=levels,
            )

    def _result(self, widths: Widths, **found: Any) -> SearchResult:
        space, target = self.space, self._current(self.targets[0])
        times = layer_times(target.model, (space.full(), widths))
        return SearchResult(
            widths=widths,
            groups=tuple(group.name for group in space.groups),
            blocks=tuple(block.name for block in space.blocks),
            full_widths=space.full(),
            profile=target.name,
            target=target.profile.to_payload(),
            seed=self.seed,
            layer_times={
                name: (target.speed * base_us, target.speed * us) for name, (base_us, us) in times.items()
            },
            held_out=tuple((*row,) for row in target.model.judged_ms.tolist()),
            devices=tuple(one.conditions for one in self.targets),
            **{"binding": "", "base_meets_budget": False, **self.facts, **found},
        )


def _levels(points: Sequence[Sequence[Budget]], *, margin: bool) -> tuple[float, ...]:
    """What the points of a front ask of the first thing, as shares of the loosest one's."""
    aims = [(one.limit or 0.0) * (1 - one.margin if margin else 1) for one, *_ in points]
    return tuple(aim / aims[0] for aim in aims)


def _in_full(outcome: SearchOutcome, score: AccuracyScore) -> SearchOutcome:
    """The outcome with the best networks scored in full, where a race stopped early on them.

    An estimate is below what the leaders had, but these may be outside the budget by what was measured since.
    """
    if not isinstance(score, RacingScore):
        return outcome
    scores = {one.widths: score(one.widths) for one in outcome.ranked()[:_IN_FULL]}
    rescored = (replace(one, score=scores.get(one.widths, one.score)) for one in outcome.candidates)
    return replace(outcome, candidates=tuple(rescored))


def _trail(outcome: SearchOutcome, budgets: Sequence[Budget]) -> dict[str, Any]:
    """How the search went, for reports."""
    networks = np.array([one.widths for one in outcome.candidates], dtype=np.int64)
    first = budgets[0]
    names = [one.name for one in outcome.limits]
    if first.name in names:  # as corrected in the end, or measured
        latencies_ms = [one.values[names.index(first.name)] for one in outcome.candidates]
    else:
        latencies_ms = first.predict(networks).tolist()
    return {
        "history": tuple(_finite(asdict(summary)) for summary in outcome.history),
        "candidates": tuple((c.score, ms) for c, ms in zip(outcome.candidates, latencies_ms, strict=True)),
        "corrections": tuple(_correction_facts(one, budgets) for one in outcome.corrections),
    }


def _correction_facts(correction: Correction | None, budgets: Sequence[Budget]) -> dict[str, Any]:
    """What a generation's measurements taught, as plain data."""
    if correction is None:
        return {"factors": {}, "measured": (), "checks": (), "refitted": ()}
    predict = {one.name: one.predict for one in budgets}
    checks = tuple(
        (name, float(predict[name](np.array([net]))[0]), value, correction.errors.get(net, {}).get(name))
        for net, figures in correction.measured.items()
        for name, value in figures.items()
    )
    measured = tuple((net, dict(figures)) for net, figures in correction.measured.items())
    return {
        "factors": dict(correction.factors),
        "measured": measured,
        "checks": checks,
        "refitted": correction.refitted,
    }


def _texts(budgets: Sequence[Budget]) -> str:
    return ", ".join(one.quantity.text for one in budgets if one.quantity is not None)


def _finite(summary: dict[str, float]) -> dict[str, float | None]:
    """A generation that left no network inside the corrected budget has no best score."""
    return {name: value if math.isfinite(value) else None for name, value in summary.items()}
