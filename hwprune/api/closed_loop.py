"""The closed loop: networks are measured on every device that is at hand, and correct the predictions."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hwprune.errors import BudgetError
from hwprune.evolution.problem import Correction
from hwprune.latency.drift import drifted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from hwprune.api.budgets import Budget
    from hwprune.evolution.problem import Candidate
    from hwprune.evolution.search import SearchOutcome
    from hwprune.progress import Reporter
    from hwprune.results import Figure
    from hwprune.structure.space import Widths

_log = logging.getLogger(__name__)

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
        for budget in self._budgets:
            new = [leader.widths for leader in leaders if budget.name not in known.get(leader.widths, {})]
            for net, value in _quickly(budget, new).items():
                fresh.setdefault(net, {})[budget.name] = value
        if not fresh:
            return None
        for net, figures in fresh.items():
            known.setdefault(net, {}).update(figures)
        before = {name for one in earlier for name in one.refitted}
        return self._correction(known, before, fresh)

    def _correction(
        self, known: dict[Widths, dict[str, float]], before: set[str], fresh: dict[Widths, dict[str, float]]
    ) -> Correction:
        """A factor for each budget's predictions, by all that was measured; a refit where none does."""
        factors, refitted = {}, []
        for budget in self._budgets:
            rows = {net: figures[budget.name] for net, figures in known.items() if budget.name in figures}
            networks, figures = np.array([*rows], dtype=np.int64), np.array([*rows.values()])
            if not rows:
                continue
            if budget.name in before or _has_drifted(budget, networks, figures):
                _log.info("%s: the latency model is refitted, for a factor does not do", budget.name)
                refitted.append(budget.name)
            else:
                factors[budget.name] = float(np.median(figures / budget.predict(networks)))
        return Correction(factors=factors, measured=fresh, refitted=tuple(refitted))


def _has_drifted(budget: Budget, networks: NDArray[np.int64], measured: NDArray[np.float64]) -> bool:
    """Whether the device of a latency is seen to have changed in more than its speed."""
    if budget.target is None or budget.device is None:
        return False
    return drifted(budget.target.model, networks, measured)


def _quickly(budget: Budget, networks: Sequence[Widths]) -> dict[Widths, float]:
    """Figures of networks as they can be had in a few seconds; those that are too noisy are left out."""
    if not networks:
        return {}
    if budget.exact is not None:
        return {net: budget.exact(net) for net in networks}
    if budget.device is None:
        return {}
    results = budget.device.networks(networks, **_QUICK)
    # a burst of another program must not steer the search
    return {net: result.ms for net, result in zip(networks, results, strict=True) if not result.too_noisy}


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


def base_figures(budgets: Sequence[Budget]) -> tuple[Figure, ...] | None:
    """What the unpruned network needs of each thing, measured again; None when that exceeds a budget.

    A share of its own latency needs no measurement.
    """
    figures = []
    for one in budgets:
        if one.device is None or one.quantity is None or one.quantity.relative:
            figures.append(one.base_figure())
            continue
        result = one.device.base()
        figures.append(one.figure(one.base, result.ms, result.error_ms))
        if figures[-1].high_use > 1.0:
            return None
    return tuple(figures)
