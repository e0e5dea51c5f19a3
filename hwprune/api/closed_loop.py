"""The closed loop: networks are measured on every device that is at hand, and correct the predictions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hwprune.errors import BudgetError
from hwprune.evolution.problem import Correction

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hwprune.api.budgets import Budget
    from hwprune.evolution.problem import Candidate
    from hwprune.evolution.search import SearchOutcome
    from hwprune.progress import Reporter
    from hwprune.results import Figure
    from hwprune.structure.space import Widths

_QUICK = {"relative_error": 0.02, "max_seconds": 2.0}  # for leaders during the search
_TIGHT = {"relative_error": 0.005, "max_seconds": 8.0}  # for the answer
_ATTEMPTS = 12  # networks measured for the answer before giving up


class Loop:
    """Measures the leaders of a generation and corrects the predictions by them: a `GenerationHook`."""

    def __init__(self, budgets: Sequence[Budget]) -> None:
        self._budgets = [one for one in budgets if one.quantity is not None and (one.device or one.exact)]

    def __call__(self, leaders: Sequence[Candidate], earlier: Sequence[Correction], /) -> Correction | None:
        """Measure the leaders that were not measured before; None when that taught nothing."""
        known: dict[Widths, dict[str, float]] = {}
        for one in earlier:
            for net, figures in one.measured.items():
                known.setdefault(net, {}).update(figures)
        fresh: dict[Widths, dict[str, float]] = {}
        errors: dict[Widths, dict[str, float]] = {}
        for budget in self._budgets:
            new = [leader.widths for leader in leaders if budget.name not in known.get(leader.widths, {})]
            for net, (value, error) in _quickly(budget, new).items():
                fresh.setdefault(net, {})[budget.name] = value
                errors.setdefault(net, {})[budget.name] = error
        if not fresh:
            return None
        for net, figures in fresh.items():
            known.setdefault(net, {}).update(figures)
        return Correction(factors=self._factors(known), measured=fresh, errors=errors)

    def _factors(self, known: dict[Widths, dict[str, float]]) -> dict[str, float]:
        """What each budget's predictions are to be multiplied with, by all that was measured."""
        factors = {}
        for budget in self._budgets:
            measured = {net: figures[budget.name] for net, figures in known.items() if budget.name in figures}
            if measured:
                predicted = budget.predict(np.array([*measured], dtype=np.int64))
                factors[budget.name] = float(np.median(np.array([*measured.values()]) / predicted))
        return factors


def _quickly(budget: Budget, networks: Sequence[Widths]) -> dict[Widths, tuple[float, float]]:
    """Figures of networks, and their errors, as a few seconds give them; too noisy ones are left out."""
    if not networks:
        return {}
    if budget.exact is not None:
        return {net: (budget.exact(net), 0.0) for net in networks}
    if budget.device is None:
        return {}
    results = budget.device.networks(networks, **_QUICK)
    # a burst of another program must not steer the search
    return {
        net: (result.ms, result.error_ms)
        for net, result in zip(networks, results, strict=True)
        if not result.too_noisy
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


def first_within(outcome: SearchOutcome, budgets: Sequence[Budget], reporter: Reporter) -> Answer:
    """The best network whose figures, measured closely and with their errors, keep every budget.

    One that keeps the margins too is preferred to a better one that does not.

    Raises:
        BudgetError: None of the best networks does.
    """
    ranked, second, missed = outcome.ranked()[:_ATTEMPTS], None, []
    verb = "Measuring" if any(budget.device for budget in budgets) else "Checking"
    with reporter.stage(f"{verb} the answer", "networks") as progress:
        for count, candidate in enumerate(ranked, start=1):
            found = tuple(_figure(candidate.widths, budget) for budget in budgets)
            progress(count, len(ranked), use=max(one.high_use for one in found))
            if all(one.high_use <= 1.0 for one in found):
                if _with_margin(found, budgets):
                    return Answer(candidate, found)
                second = second or Answer(candidate, found)
            missed.append(found)
    if second is not None:
        return second
    nearest = min(missed, key=lambda found: max(one.high_use for one in found))
    worst = max(nearest, key=lambda one: one.high_use)
    raise BudgetError(
        "None of the best networks that were found was measured within the budget.",
        where=worst.title,
        got=f"nearest of {len(ranked)}: {worst.text(worst.value)}",
        allowed=worst.text(worst.limit or 0.0),
        do="profile longer (`hwprune profile --max-time 5m`) or ask for a slightly larger budget",
    )


def _with_margin(found: Sequence[Figure], budgets: Sequence[Budget]) -> bool:
    return all(one.high_use <= 1 - budget.margin for one, budget in zip(found, budgets, strict=True))


def _figure(widths: Widths, budget: Budget) -> Figure:
    """What a network needs of one thing: closely measured, or counted, where that is possible."""
    predicted = float(budget.predict(np.array([widths], dtype=np.int64))[0])
    if budget.only_predicted:
        return budget.figure(predicted)
    if budget.device is not None:
        result = budget.device.networks([widths], **_TIGHT)[0].trusted()
        return budget.figure(predicted, result.ms, result.error_ms)
    return budget.figure(predicted, budget.exact(widths) if budget.exact else predicted, 0.0)
