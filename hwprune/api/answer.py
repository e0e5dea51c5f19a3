"""The answer of a search: the best network that was measured within every budget, twice.

The first look is short, and tells of its own second only: neighbours on the machine come and go, and slow a
large network more than a small one, so that a share of the unpruned network's latency wanders too. So the
network that is to be the answer is measured again, for longer, together with those one step away from it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from hwprune.errors import ArtifactError, BudgetError
from hwprune.latency.curves import MOST_MEASURED, Inversion, inversions
from hwprune.payloads import misfits
from hwprune.results import Figure
from hwprune.structure.space import Widths

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hwprune.api.budgets import Budget
    from hwprune.api.targets import Target
    from hwprune.evolution.problem import Candidate
    from hwprune.evolution.search import SearchOutcome
    from hwprune.latency.measure import Measurement
    from hwprune.logbook import Logbook
    from hwprune.progress import Reporter

_TIGHT = {"relative_error": 0.005, "max_seconds": 8.0}
_ATTEMPTS = 12  # networks measured before giving up


@dataclass(frozen=True)
class Answer:
    """The network that is returned.

    Attributes:
        candidate: As the search evaluated it.
        figures: What it needs, measured where that is possible.
        inversions: Steps from it to a wider network that is the faster, on the first device.
    """

    candidate: Candidate
    figures: tuple[Figure, ...]
    inversions: tuple[Inversion, ...] = ()

    @property
    def within(self) -> bool:
        """Whether it keeps every budget, errors included."""
        return _within(self.figures)


@dataclass(frozen=True)
class _Measured:
    """What the file of an answer keeps of one network."""

    widths: Widths
    figures: tuple[Figure, ...]


class Looks:
    """What networks were measured to need for this answer, kept in a file for a search that is killed.

    Args:
        kept: The file.
        budgets: What is measured; figures of an earlier run are told in their milliseconds.

    Raises:
        ArtifactError: An entry is not what this class writes.
    """

    def __init__(self, kept: Logbook, budgets: Sequence[Budget]) -> None:
        self._kept = kept
        try:
            earlier = dict(map(_checked, kept.entries))
        except ValueError as error:
            raise ArtifactError(
                "What was measured for this answer cannot be read.",
                where=kept.path,
                got=error,
                do="delete the file and search again",
            ) from error
        self._known = {net: in_units_of(budgets, figures) for net, figures in earlier.items()}

    def get(self, widths: Widths) -> tuple[Figure, ...]:
        """What is known of a network; nothing before it was looked at."""
        return self._known.get(widths, ())

    def add(self, widths: Widths, figures: tuple[Figure, ...]) -> None:
        """Keep what a look has found, in place of what was known."""
        self._known[widths] = figures
        self._kept.add(asdict(_Measured(widths, figures)))


def looked_at_twice(
    outcome: SearchOutcome, budgets: Sequence[Budget], reporter: Reporter, looks: Looks
) -> Answer:
    """The best network that keeps every budget at a second look too.

    Args:
        outcome: The networks, and their figures as the search knows them.
        budgets: All that is measured or counted; the first is the latency on the first device.
        reporter: Told about progress.
        looks: What was measured before, and is kept.

    Raises:
        BudgetError: None does.
        DeviceError: The machine is too noisy to trust.
    """
    while True:
        answer = _again(first_within(outcome, budgets, reporter, looks), budgets, reporter)
        looks.add(answer.candidate.widths, answer.figures)
        if answer.within:
            return answer
        worst = max(answer.figures, key=lambda one: one.high_use)
        reporter.note(
            f"{worst.name}: by both looks at it the answer uses {worst.high_use:.1%} of the budget, with the "
            "error; the next network is looked at."
        )


def _again(answer: Answer, budgets: Sequence[Budget], reporter: Reporter) -> Answer:
    """The answer by both looks at it, and what was seen around it at the second."""
    widths, first = answer.candidate.widths, budgets[0]
    if first.target is None:
        raise ValueError("the first budget is no latency")
    own, found = _beside(first.target, widths, reporter)
    second = {one.name: _figure(widths, one) for one in budgets[1:] if one.device}
    if own is not None:
        second[first.name] = _of(first, own, answer.figures[0].predicted)
    figures = tuple(_both(one, second.get(one.name, one)) for one in answer.figures)
    return replace(answer, figures=figures, inversions=found)


def _beside(
    target: Target, widths: Widths, reporter: Reporter
) -> tuple[Measurement | None, tuple[Inversion, ...]]:
    """A network measured among those that differ from it by one step, and the inversions found there."""
    device = target.device
    own: list[Measurement] = []
    if device is None:
        return None, inversions(target.model, {"chosen": widths}, lambda _: [], 0)

    def measure(pairs: Sequence[Widths]) -> list[Measurement]:
        this, *rest = device.neighbours([widths, *pairs])
        own.append(this.trusted())
        return rest

    most = min(MOST_MEASURED, device.affordable_pairs(target.base_ms))
    with reporter.stage("Measuring the answer again, and its neighbours", "networks"):
        found = inversions(target.model, {"chosen": widths}, measure, most)
    return (own[0] if own else None), found


def _both(first: Figure, second: Figure) -> Figure:
    """A figure by two looks: their mean, known no closer than each of them and than they agree."""
    if first.measured is None or second.measured is None:
        return first
    apart = abs(first.measured - second.measured) / 2
    return replace(
        first,
        measured=(first.measured + second.measured) / 2,
        error=max(first.error or 0.0, second.error or 0.0, apart),
    )


def first_within(
    outcome: SearchOutcome, budgets: Sequence[Budget], reporter: Reporter, looks: Looks
) -> Answer:
    """The best network whose figures, measured closely and with their errors, keep every budget.

    One that keeps the margins too is preferred to a better one that does not. What the closer measurements
    show to be over its budget, by as much as the networks before it were, is not measured.

    Args:
        outcome: The networks, and their figures as the search knows them.
        budgets: All that is measured or counted.
        reporter: Told about progress.
        looks: What was measured before; a search that was killed measures no network again.

    Raises:
        BudgetError: None of the best networks does.
    """
    over = _Overrun(outcome)
    second: Answer | None = None
    missed: list[tuple[Figure, ...]] = []
    verb = "Measuring" if any(budget.device for budget in budgets) else "Checking"
    with reporter.stage(f"{verb} the answer", "networks") as progress:
        for candidate in outcome.ranked():
            if len(missed) == _ATTEMPTS or over.expects(candidate):
                continue
            if not (found := looks.get(candidate.widths)):
                found = tuple(_figure(candidate.widths, budget) for budget in budgets)
                looks.add(candidate.widths, found)
                progress(len(missed) + 1, _ATTEMPTS, use=max(one.high_use for one in found))
            if _within(found):
                if _with_margin(found, budgets):
                    return Answer(candidate, found)
                second = second or Answer(candidate, found)
            missed.append(found)
            over.learn(candidate, found)
    if second is not None:
        return second
    if not missed:
        raise BudgetError(
            "After correction by measurements no network that was evaluated keeps the budget.",
            allowed=", ".join(f"{one.name} {one.quantity.text}" for one in budgets if one.quantity),
            do="raise the budget a little, or search with more generations",
        )
    nearest = min(missed, key=lambda found: max(one.high_use for one in found))
    worst = max(nearest, key=lambda one: one.high_use)
    raise BudgetError(
        "None of the best networks that were found was measured within the budget.",
        where=worst.title,
        got=f"nearest of {len(missed)}: {worst.text(worst.value)}",
        allowed=worst.text(worst.limit or 0.0),
        do="profile longer (`hwprune profile --max-time 5m`) or ask for a slightly larger budget",
    )


def in_units_of(budgets: Sequence[Budget], figures: Sequence[Figure]) -> tuple[Figure, ...]:
    """Figures of an earlier run as milliseconds of now, where a budget is in milliseconds.

    A measurement is a multiple of the unpruned network's latency, and holds when that has changed.
    """
    units = {one.name: one.base for one in budgets if one.in_milliseconds}
    return tuple(_in_unit(one, units.get(one.name, one.base)) for one in figures)


def _in_unit(figure: Figure, base_ms: float) -> Figure:
    if figure.measured is None or figure.base == base_ms:
        return figure
    change = base_ms / figure.base
    error = None if figure.error is None else figure.error * change
    return replace(figure, base=base_ms, measured=figure.measured * change, error=error)


def _checked(entry: Any) -> tuple[Widths, tuple[Figure, ...]]:
    if wrong := misfits(entry, _Measured):
        raise ValueError(f"unexpected fields: {', '.join(wrong)}")
    return tuple(entry["widths"]), tuple(Figure(**row) for row in entry["figures"])


class _Overrun:
    """How far close measurements exceed what the search took the networks' figures for."""

    def __init__(self, outcome: SearchOutcome) -> None:
        self._limits = outcome.limits
        self._ratios: list[list[float]] = []

    def learn(self, candidate: Candidate, found: Sequence[Figure]) -> None:
        """Take in what was measured of one network, with no more error than others will have too."""
        least = _TIGHT["relative_error"]
        high = {one.name: one.value + min(one.error or 0.0, least * one.value) for one in found}
        row = zip(self._limits, candidate.values, strict=True)
        self._ratios.append([high.get(limit.name, value) / value for limit, value in row])

    def expects(self, candidate: Candidate) -> bool:
        """Whether a network would be over a limit too."""
        if not self._ratios:
            return False
        factors = np.median(np.array(self._ratios), axis=0)
        limits = np.array([limit.limit for limit in self._limits])
        return bool((np.array(candidate.values) * factors > limits).any())


def _within(found: Sequence[Figure]) -> bool:
    return all(one.high_use <= 1.0 for one in found)


def _with_margin(found: Sequence[Figure], budgets: Sequence[Budget]) -> bool:
    return all(one.high_use <= 1 - budget.margin for one, budget in zip(found, budgets, strict=True))


def _figure(widths: Widths, budget: Budget) -> Figure:
    """What a network needs of one thing: closely measured, or counted, where that is possible."""
    predicted = float(budget.predict(np.array([widths], dtype=np.int64))[0])
    if budget.only_predicted:
        return budget.figure(predicted)
    if budget.device is not None:
        return _of(budget, budget.device.networks([widths], **_TIGHT)[0].trusted(), predicted)
    return budget.figure(predicted, budget.exact(widths) if budget.exact else predicted, 0.0)


def _of(budget: Budget, result: Measurement, predicted: float) -> Figure:
    """A latency as it was measured; the error of its unit is part of it."""
    error_ms = float(np.hypot(result.error_ms, budget.unit_error * result.ms))
    return budget.figure(predicted, result.ms, error_ms)
