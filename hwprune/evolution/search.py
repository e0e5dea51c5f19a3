"""Runs an evolution to its end: evaluates, remembers, closes the loop, and can be killed at any time."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

from hwprune.errors import BudgetError
from hwprune.evolution.algorithm import Evolution, SearchSettings, finite
from hwprune.evolution.front import FrontEvolution
from hwprune.evolution.journal import Journal, fingerprint
from hwprune.evolution.problem import ROUNDING, RacingScore
from hwprune.progress import silent

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from hwprune.evolution.journal import Record
    from hwprune.evolution.problem import Candidate, Correction, Problem
    from hwprune.progress import Progress
    from hwprune.structure.space import Widths

_log = logging.getLogger(__name__)


class GenerationHook(Protocol):
    """Closes the loop: measures leaders and says how far the predictions are off."""

    def __call__(self, leaders: Sequence[Candidate], earlier: Sequence[Correction], /) -> Correction | None:
        """Look at the best networks after a generation; return what measuring them taught, if anything.

        Args:
            leaders: The networks to measure.
            earlier: What was answered after earlier generations, also before the search was interrupted: an
                answer that follows from both arguments alone makes a resumed search end as an unbroken one.
        """


@dataclass(frozen=True, kw_only=True, slots=True)
class GenerationSummary:
    """One generation in figures.

    Attributes:
        generation: Its number, from 0.
        evaluated: Networks it evaluated.
        best_score: Best score inside the budget so far.
        mean_score: Mean score of this generation's networks.
        budget_use: Use of the tightest budget by the best network, 1 at the limit.
    """

    generation: int
    evaluated: int
    best_score: float
    mean_score: float
    budget_use: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Limit:
    """A constraint without its predictor.

    Attributes:
        name: As in the constraint.
        limit: The most allowed, in `unit`.
        unit: As in the constraint.
        factor: What predictions were multiplied with in the end.
    """

    name: str
    limit: float
    unit: str
    factor: float


@dataclass(frozen=True, kw_only=True)
class SearchOutcome:
    """What a search found; plain data.

    Attributes:
        best: The best network inside the budget.
        limits: The constraints, in the order of `Candidate.values`.
        binding: Name of the constraint that `best` comes nearest to.
        history: One summary for each generation.
        candidates: Every network evaluated, in order, with its figures after all corrections.
        corrections: What the hook answered after each generation.
        seed: The seed of the search.
        noise: Scores that are less than this apart say nothing: of the best of them the network of most
            capacity comes first.
        capacity: Capacity of each such network.
    """

    best: Candidate
    limits: tuple[Limit, ...]
    binding: str
    history: tuple[GenerationSummary, ...]
    candidates: tuple[Candidate, ...]
    corrections: tuple[Correction | None, ...]
    seed: int
    noise: float = 0.0
    capacity: Mapping[Widths, float] = field(default_factory=dict)

    def ranked(self) -> list[Candidate]:
        """The networks inside the budget, best first, for a caller that measures one after the other."""
        inside = [c for c in self.candidates if self._use(c) <= 1.0 + ROUNDING]
        tied = max((c.score for c in inside), default=0.0) - self.noise

        def key(one: Candidate) -> tuple[float, ...]:
            capacity = self.capacity.get(one.widths, 0.0) if one.score >= tied else 0.0
            return -min(one.score, tied), -capacity, -one.score, self._use(one)

        return sorted(inside, key=key)

    def prefers(self, one: Candidate, better: Candidate) -> bool:
        """Whether a network comes before one of a better score, for that is not told from its own."""
        capacity = [self.capacity.get(each.widths, 0.0) for each in (one, better)]
        return better.score - one.score <= self.noise and capacity[0] > capacity[1]

    def tightened(self, level: float) -> SearchOutcome:
        """The same outcome under a share of the first limit; the history is that of networks inside it."""
        first, *others = self.limits
        tight = replace(self, limits=(replace(first, limit=level * first.limit), *others))
        history, ranked = [], tight.ranked()
        for one in self.history:
            inside = [c for c in ranked if c.generation <= one.generation]
            score, use = (inside[0].score, tight._use(inside[0])) if inside else (math.nan, math.nan)
            history.append(replace(one, best_score=score, budget_use=use))
        return replace(tight, history=tuple(history))

    def _use(self, candidate: Candidate) -> float:
        return max(value / limit.limit for limit, value in zip(self.limits, candidate.values, strict=True))


def search(
    problem: Problem,
    settings: SearchSettings | None = None,
    *,
    seed: int = 0,
    state: Path | None = None,
    progress: Progress = silent,
    on_generation: GenerationHook | None = None,
    initial: Sequence[Widths] = (),
    identity: str = "",
    levels: Sequence[float] = (),
) -> SearchOutcome:
    """Find the best network inside the budget by the paper's evolution, or a front of networks by NSGA-II.

    No network outside the budget is ever evaluated, none is evaluated twice, and the same seed gives the same
    answer, also when the search is killed and started again on the same state file. When the unpruned
    network keeps every limit there is nothing to search for; the caller sees to that.

    Args:
        problem: What to optimise.
        settings: The constants of the evolution; the paper's by default.
        seed: Seed of all randomness.
        state: File that keeps the progress of the search; None keeps nothing.
        progress: Called after each network with the best score so far.
        on_generation: Called with the leaders after each generation; its corrections change the limits' use.
        initial: Networks to try first, for example uniform ones.
        identity: What the scores and predictions depend on, such as checksums of the weights and of the
            latency table. A state file with another identity is refused.
        levels: For a front: shares of the first limit, 1 and below, that networks are wanted at.

    Raises:
        BudgetError: No network keeps the limits; tells the figure of the fastest.
        MismatchError: The state file belongs to another search.
        StorageError: The state file cannot be written.
    """
    settings = settings or SearchSettings()
    evolution = Evolution(problem, settings, seed=seed, initial=initial)
    if levels:
        evolution = FrontEvolution(problem, settings, seed=seed, initial=initial, levels=levels)
        identity = f"{identity} at {levels}"
    journal = Journal(state, fingerprint(problem, evolution.settings, seed, initial, identity))
    history: list[GenerationSummary] = []
    while not evolution.finished:
        record = _begin(evolution, journal)
        if record is None:
            break
        _evaluate(evolution, record, journal, progress)
        evolution.tell(record.widths, record.scores)
        _close(evolution, record, journal, on_generation)
        history.append(_summary(evolution, record))
        _log.info("generation %d: best score %.4f", history[-1].generation, history[-1].best_score)
    return _outcome(evolution, history, journal, seed)


def _begin(evolution: Evolution, journal: Journal) -> Record | None:
    """The next generation, from the state file if it is there; None when no network is left."""
    if evolution.generation < len(journal.records):
        record = journal.records[evolution.generation]
        evolution.resume(record.widths)
        return record
    widths = evolution.ask()
    return journal.begin(widths) if widths else None


def _evaluate(evolution: Evolution, record: Record, journal: Journal, progress: Progress) -> None:
    """Score the networks of a generation that have no score yet, remembering each."""
    settings, done = evolution.settings, len(evolution.candidates)
    total = max(settings.population * settings.generations, done + len(record.widths))
    earlier = [evolution.best.score] if evolution.best else []
    for score in _scores(evolution, record):
        journal.score(finite(score))
        best = max(earlier + record.scores)
        progress(done + len(record.scores), total, best=best, generation=evolution.generation)


def _scores(evolution: Evolution, record: Record) -> Iterator[float]:
    """Scores of the networks of a generation that have none yet.

    With a score that races, a network is dropped when it will not be among the parents.
    """
    accuracy, ends = evolution.problem.accuracy, evolution.blocks(record.widths)
    if not isinstance(accuracy, RacingScore):
        yield from map(accuracy, record.widths[len(record.scores) :])
        return
    while (done := len(record.scores)) < len(record.widths):
        begun = max((end for end in ends if end <= done), default=0)  # also where a killed run's block began
        incumbent = evolution.incumbent(record.widths[:begun], record.scores[:begun], record.widths[begun])
        yield from accuracy.race(record.widths[done : next(end for end in ends if end > done)], incumbent)


def _close(evolution: Evolution, record: Record, journal: Journal, hook: GenerationHook | None) -> None:
    """Ask the hook about the finished generation, once, and apply its answer."""
    if not record.closed:
        earlier = [one.correction for one in journal.records if one.correction is not None]
        journal.close(hook(evolution.leaders(), earlier) if hook else None)
    if record.correction is not None:
        try:
            evolution.correct(record.correction)
        except BudgetError:
            # No other network is predicted within the budget any more, but some were measured within it.
            if not evolution.ranked():
                raise
            evolution.end()


def _summary(evolution: Evolution, record: Record) -> GenerationSummary:
    best = evolution.best
    return GenerationSummary(
        generation=evolution.generation - 1,
        evaluated=len(record.widths),
        best_score=best.score if best else float("nan"),
        mean_score=sum(record.scores) / len(record.scores),
        budget_use=evolution.problem.use(best) if best else float("nan"),
    )


def _outcome(
    evolution: Evolution, history: Sequence[GenerationSummary], journal: Journal, seed: int
) -> SearchOutcome:
    best, problem = evolution.best, evolution.problem
    if best is None:
        raise BudgetError(
            "After correction by measurements no network that was evaluated keeps the budget.",
            where=", ".join(constraint.name for constraint in problem.constraints),
            do="raise the budget a little, or search with more generations",
        )
    return SearchOutcome(
        best=best,
        limits=tuple(
            Limit(name=c.name, limit=c.limit, unit=c.unit, factor=c.factor) for c in problem.constraints
        ),
        binding=problem.binding(best.values).name,
        history=tuple(history),
        candidates=evolution.candidates,
        corrections=tuple(record.correction for record in journal.records),
        seed=seed,
    )
