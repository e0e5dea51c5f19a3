"""The closed loop: networks are measured on every device that is at hand, and correct the predictions."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from hwprune.errors import ArtifactError, BudgetError
from hwprune.evolution.problem import Correction
from hwprune.latency.drift import drifted
from hwprune.payloads import misfits
from hwprune.progress import QUIET
from hwprune.results import Figure
from hwprune.structure.space import Widths

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from hwprune.api.budgets import Budget
    from hwprune.evolution.problem import Candidate
    from hwprune.evolution.search import SearchOutcome
    from hwprune.logbook import Logbook
    from hwprune.progress import Reporter

    _Figures = dict[Widths, dict[str, float]]

_QUICK = {"relative_error": 0.02, "max_seconds": 2.0}  # for leaders during the search
_AT_ONCE = 8  # networks in memory at a time; the leaders of a front may be many
_MOST_ERROR = 0.04  # relative: leaders that are known less closely teach nothing
_TIGHT = {"relative_error": 0.005, "max_seconds": 8.0}  # for the answer
_WORTH_TELLING = 0.005  # change of a correction
_ATTEMPTS = 12  # networks measured for the answer before giving up


class Loop:
    """Measures the leaders of a generation and corrects the predictions by them: a `GenerationHook`.

    Args:
        budgets: What is limited.
        reporter: Told by how much predictions are off, for a correction may put the best network outside.
    """

    def __init__(self, budgets: Sequence[Budget], reporter: Reporter = QUIET) -> None:
        self._reporter = reporter
        self._budgets = [one for one in budgets if one.quantity is not None and (one.device or one.exact)]

    def __call__(self, leaders: Sequence[Candidate], earlier: Sequence[Correction], /) -> Correction | None:
        """Measure the leaders that were not measured before; None when that taught nothing."""
        known = _together(one.measured for one in earlier)
        fresh: dict[Widths, dict[str, float]] = {}
        errors: dict[Widths, dict[str, float]] = {}
        for budget in self._budgets:
            new = [leader.widths for leader in leaders if budget.name not in known.get(leader.widths, {})]
            for net, (value, error) in _quickly(budget, new).items():
                fresh.setdefault(net, {})[budget.name] = value
                errors.setdefault(net, {})[budget.name] = error
        if not fresh:
            return None
        this = Correction(measured=fresh, errors=errors)
        known = _together((known, fresh))
        before = {name for one in earlier for name in one.refitted}
        factors, refitted = self._lessons(known, _together(one.errors for one in (*earlier, this)), before)
        self._tell(factors, set(refitted) - before, earlier[-1].factors if earlier else {})
        return replace(this, factors=factors, refitted=refitted)

    def _tell(self, factors: Mapping[str, float], refitted: set[str], before: Mapping[str, float]) -> None:
        for name, factor in factors.items():
            if abs(factor / before.get(name, 1.0) - 1) > _WORTH_TELLING:
                self._reporter.note(
                    f"{name}: measured {factor:.3f} times what was predicted; predictions follow."
                )
        for name in sorted(refitted):
            self._reporter.note(
                f"{name}: one factor does not explain what was measured; the model is refitted."
            )

    def _lessons(
        self, known: _Figures, errors: _Figures, before: set[str]
    ) -> tuple[dict[str, float], tuple[str, ...]]:
        """A factor for each budget's predictions, by all that was measured; a refit where none does."""
        factors, refitted = {}, []
        for budget in self._budgets:
            name = budget.name
            rows = {net: figures[name] for net, figures in known.items() if name in figures}
            if not rows:
                continue
            networks, figures = np.array([*rows], dtype=np.int64), np.array([*rows.values()])
            noise = np.array([errors.get(net, {}).get(name, 0.0) for net in rows])
            if name in before or _has_drifted(budget, networks, figures, noise):
                refitted.append(name)
            else:
                factors[name] = float(np.median(figures / budget.predict(networks)))
        return factors, tuple(refitted)


def _together(found: Iterable[Mapping[Widths, Mapping[str, float]]]) -> _Figures:
    """Figures of networks from several measurements in one; the last one of a figure counts."""
    whole: _Figures = {}
    for one in found:
        for net, figures in one.items():
            whole.setdefault(net, {}).update(figures)
    return whole


def _has_drifted(
    budget: Budget, networks: NDArray[np.int64], measured: NDArray[np.float64], errors: NDArray[np.float64]
) -> bool:
    """Whether the device of a latency is seen to have changed in more than its speed."""
    if budget.target is None or budget.device is None:
        return False
    return drifted(budget.target.model, networks, measured, errors)


def _quickly(budget: Budget, networks: Sequence[Widths]) -> dict[Widths, tuple[float, float]]:
    """Figures of networks, and their errors, as a few seconds give them; too noisy ones are left out."""
    if not networks:
        return {}
    if budget.exact is not None:
        return {net: (budget.exact(net), 0.0) for net in networks}
    if budget.device is None:
        return {}
    parts = [networks[first : first + _AT_ONCE] for first in range(0, len(networks), _AT_ONCE)]
    results = [result for part in parts for result in budget.device.networks(part, **_QUICK)]
    # a burst of another program must not steer the search
    return {
        net: (result.ms, result.error_ms)
        for net, result in zip(networks, results, strict=True)
        if not result.too_noisy and result.error_ms <= _MOST_ERROR * result.ms
    }


@dataclass(frozen=True)
class Answer:
    """The network that is returned.

    Attributes:
        candidate: As the search evaluated it.
        figures: What it needs, measured where that is possible.
    """

    candidate: Candidate
    figures: tuple[Figure, ...]


@dataclass(frozen=True)
class _Measured:
    """What the file of an answer keeps of one network."""

    widths: Widths
    figures: tuple[Figure, ...]


def first_within(
    outcome: SearchOutcome, budgets: Sequence[Budget], reporter: Reporter, kept: Logbook
) -> Answer:
    """The best network whose figures, measured closely and with their errors, keep every budget.

    One that keeps the margins too is preferred to a better one that does not. What the closer measurements
    show to be over its budget, by as much as the networks before it were, is not measured.

    Args:
        outcome: The networks, and their figures as the search knows them.
        budgets: All that is measured or counted.
        reporter: Told about progress.
        kept: Where figures are kept, so that a search that was killed measures no network again.

    Raises:
        BudgetError: None of the best networks does.
    """
    known = {net: in_units_of(budgets, figures) for net, figures in _figures(kept).items()}
    over = _Overrun(outcome)
    second: Answer | None = None
    missed: list[tuple[Figure, ...]] = []
    verb = "Measuring" if any(budget.device for budget in budgets) else "Checking"
    with reporter.stage(f"{verb} the answer", "networks") as progress:
        for candidate in outcome.ranked():
            if len(missed) == _ATTEMPTS or over.expects(candidate):
                continue
            if (found := known.get(candidate.widths, ())) == ():
                found = tuple(_figure(candidate.widths, budget) for budget in budgets)
                kept.add(asdict(_Measured(candidate.widths, found)))
                progress(len(missed) + 1, _ATTEMPTS, use=max(one.high_use for one in found))
            if all(one.high_use <= 1.0 for one in found):
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


def _figures(kept: Logbook) -> dict[Widths, tuple[Figure, ...]]:
    """What was measured before a search was killed.

    Raises:
        ArtifactError: An entry is not what this module writes.
    """
    try:
        return dict(map(_checked, kept.entries))
    except ValueError as error:
        raise ArtifactError(
            "What was measured for this answer cannot be read.",
            where=kept.path,
            got=error,
            do="delete the file and search again",
        ) from error


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


def _with_margin(found: Sequence[Figure], budgets: Sequence[Budget]) -> bool:
    return all(one.high_use <= 1 - budget.margin for one, budget in zip(found, budgets, strict=True))


def _figure(widths: Widths, budget: Budget) -> Figure:
    """What a network needs of one thing: closely measured, or counted, where that is possible."""
    predicted = float(budget.predict(np.array([widths], dtype=np.int64))[0])
    if budget.only_predicted:
        return budget.figure(predicted)
    if budget.device is not None:
        result = budget.device.networks([widths], **_TIGHT)[0].trusted()
        return budget.figure(
            predicted, result.ms, float(np.hypot(result.error_ms, budget.unit_error * result.ms))
        )
    return budget.figure(predicted, budget.exact(widths) if budget.exact else predicted, 0.0)
