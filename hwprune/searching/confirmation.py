"""The answer of a search: the best network that was measured within every budget, twice.

The first look is short, and tells of its own second only: programs beside it come and go, and slow a large
network more than a small one, so that a share of the unpruned network's latency wanders too. So the network
that is to be the answer is measured again, over several seconds, among those one step away from it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from hwprune.errors import ArtifactError, BudgetError
from hwprune.latency.width_sweep import MOST_MEASURED, Inversion, inversions
from hwprune.payloads import misfits
from hwprune.results import Figure, acceptance
from hwprune.structure.space import Widths

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hwprune.evolution.problem import Candidate
    from hwprune.evolution.search import SearchOutcome
    from hwprune.latency.measure import Measurement
    from hwprune.logbook import Logbook
    from hwprune.progress import Reporter
    from hwprune.searching.latency_model import LatencyModel
    from hwprune.searching.limits import Budget

_TIGHT: dict[str, Any] = {"relative_error": 0.005, "max_seconds": 8.0}
_WORTH_TELLING = 0.001  # of a score
_ATTEMPTS = 12  # networks measured before giving up
_FEWER = 3  # pairs beside a network, once a second look was in vain


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


@dataclass(frozen=True)
class _Measured:
    """What the file of an answer keeps of one network.

    Attributes:
        widths: The network.
        figures: What it needs, by all looks so far.
        looks: How often it was looked at, once or twice.
        inversions: What the second look found beside it.
    """

    widths: Widths
    figures: tuple[Figure, ...]
    looks: int = 1
    inversions: tuple[Inversion, ...] = ()


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
        self._known: dict[Widths, _Measured] = {}
        try:
            for one in map(_checked, kept.entries):
                self._known[one.widths] = replace(one, figures=in_units_of(budgets, one.figures))
        except ValueError as error:
            raise ArtifactError(
                "What was measured for this answer cannot be read.",
                where=kept.path,
                got=error,
                do="delete the file and search again",
            ) from error

    def figures(self, widths: Widths) -> tuple[Figure, ...]:
        """What a network needs; nothing before it was looked at."""
        return self._known[widths].figures if widths in self._known else ()

    def finished(self, answer: Answer) -> Answer | None:
        """The answer with what was found beside it, if it was looked at twice."""
        known = self._known.get(answer.candidate.widths)
        return replace(answer, inversions=known.inversions) if known and known.looks > 1 else None

    def add(self, widths: Widths, figures: tuple[Figure, ...]) -> None:
        """Keep what the first look at a network has found."""
        self._add(_Measured(widths, figures))

    def finish(self, answer: Answer) -> None:
        """Keep what both looks have found."""
        self._add(_Measured(answer.candidate.widths, answer.figures, 2, answer.inversions))

    def _add(self, one: _Measured) -> None:
        self._known[one.widths] = one
        self._kept.add(asdict(one))


def looked_at_twice(
    outcome: SearchOutcome, budgets: Sequence[Budget], reporter: Reporter, looks: Looks
) -> Answer:
    """The best network that keeps every budget by two looks at it; the margins too, where one does.

    Args:
        outcome: The networks, and their figures as the search knows them.
        budgets: All that is measured or counted; the first is the latency on the first device.
        reporter: Told about progress.
        looks: What was measured before, and is kept.

    Raises:
        BudgetError: None does.
        DeviceError: The machine is too noisy to trust.
    """
    most = MOST_MEASURED
    while True:
        answer = first_within(outcome, budgets, reporter, looks)
        if finished := looks.finished(answer):
            return finished
        answer = _second_look(answer, budgets, reporter, most)
        looks.finish(answer)
        if _with_margin(answer.figures, budgets):
            return answer
        most = _FEWER  # compiling neighbours takes long on some devices
        worst = max(answer.figures, key=lambda one: one.high_use)
        reporter.note(
            f"{worst.name}: by both looks at it a network uses {worst.high_use:.1%} of the budget, with the "
            "error; others are looked at."
        )


def _second_look(answer: Answer, budgets: Sequence[Budget], reporter: Reporter, most: int) -> Answer:
    """The answer by both looks at it, and the inversions among it and its neighbours on the first device."""
    widths, first = answer.candidate.widths, budgets[0]
    if first.target is None:
        raise ValueError("the first budget is no latency")
    if not any(one.device for one in budgets):
        return replace(answer, inversions=_among_neighbours(first.target, widths, most)[1])
    with reporter.stage("Measuring the answer again, and its neighbours", "networks"):
        own, found = _among_neighbours(first.target, widths, most)
        second = {one.name: _figure(widths, one) for one in budgets[1:] if one.device}
        if own is not None and _close(own):
            second[first.name] = _latency_figure(first, own, answer.figures[0].predicted)
        elif first.device is not None and first.quantity is not None:
            second[first.name] = _figure(widths, first)  # alone, which is closer
    figures = tuple(_mean_of_looks(one, second.get(one.name, one)) for one in answer.figures)
    return replace(answer, figures=figures, inversions=found)


def _among_neighbours(
    target: LatencyModel, widths: Widths, most: int
) -> tuple[Measurement | None, tuple[Inversion, ...]]:
    """A network measured over the seconds that some pairs of networks around it take, and these."""
    device, own = target.device, None

    def measure(pairs: Sequence[Widths]) -> list[Measurement]:
        nonlocal own
        if device is None:
            return []
        own, *rest = device.neighbours([widths, *pairs], always=1)
        return rest

    affordable = device.affordable_pairs(target.base_ms, others=1) if device else 0
    found = inversions(target.model, {"chosen": widths}, measure, min(most, affordable))
    return own, found


def _close(result: Measurement) -> bool:
    """Whether a look is close enough to count as much as the first."""
    return not result.too_noisy and result.relative_error <= 2 * _TIGHT["relative_error"]


def _mean_of_looks(first: Figure, second: Figure) -> Figure:
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
            if not (found := looks.figures(candidate.widths)):
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
        got=f"nearest of {len(missed)}: {worst.text(worst.value)}, known to {worst.text(worst.error or 0.0)}",
        allowed=f"{worst.text(worst.limit or 0.0)}, the error included",
        do="let less run beside it, profile longer (`hwprune profile --max-time 5m`), or ask for a slightly "
        "larger budget",
    )


def why_not_the_best(outcome: SearchOutcome, answer: Candidate) -> str:
    """Why the answer is not the network of the best score that the search's progress told of; "" if it is."""
    best = max(outcome.candidates, key=lambda one: one.score)
    if best.score - answer.score <= _WORTH_TELLING:
        return ""
    why = "is a network that measurements put over the budget, or too near to it"
    if outcome.prefers(answer, best):
        why = "has fewer MACs, and so few images do not tell the two apart"
    return f"The answer scores {answer.score:.4g}. The best of the search, {best.score:.4g}, {why}."


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


def _checked(entry: Any) -> _Measured:
    if wrong := misfits(entry, _Measured):
        raise ValueError(f"unexpected fields: {', '.join(wrong)}")
    figures = tuple(Figure(**row) for row in entry["figures"])
    found = tuple(Inversion(**row) for row in entry["inversions"])
    return _Measured(tuple(entry["widths"]), figures, entry["looks"], found)


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
    return all(one.keeps(acceptance.SEARCH) for one in found)


def _with_margin(found: Sequence[Figure], budgets: Sequence[Budget]) -> bool:
    pairs = zip(found, budgets, strict=True)
    return all(one.keeps(acceptance.SEARCH, budget.margin) for one, budget in pairs)


def _figure(widths: Widths, budget: Budget) -> Figure:
    """What a network needs of one thing: closely measured, or counted, where that is possible."""
    predicted = float(budget.predict(np.array([widths], dtype=np.int64))[0])
    if budget.only_predicted:
        return budget.figure(predicted)
    if budget.device is not None:
        return _latency_figure(budget, budget.device.networks([widths], **_TIGHT)[0].trusted(), predicted)
    return budget.figure(predicted, budget.exact(widths) if budget.exact else predicted, 0.0)


def _latency_figure(budget: Budget, result: Measurement, predicted: float) -> Figure:
    """A latency as it was measured; the error of its unit is part of it."""
    error_ms = float(np.hypot(result.error_ms, budget.unit_error * result.ms))
    return budget.figure(predicted, result.ms, error_ms)
