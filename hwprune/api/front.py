"""A front of networks, accuracy against latency, from one PruningNet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from hwprune.errors import BudgetError, ImpossibleBudgetError, UsageError
from hwprune.evolution.pareto import pareto_front
from hwprune.results import FrontResult, SearchResult
from hwprune.units import Quantity, parse_latency

if TYPE_CHECKING:
    from hwprune.api.searcher import Searcher

_POINTS = 6


@dataclass(frozen=True)
class Span:
    """A range of latency budgets.

    Attributes:
        text: As the user wrote it.
        budgets: The budgets to search, the loosest first, equal ratios apart.
    """

    text: str
    budgets: tuple[Quantity, ...]


def span_of(latency: str | Sequence[str], points: int) -> tuple[Span | None, tuple[str, ...]]:
    """The range that a command asks for, if any, and its latencies with the loosest budget in its place.

    Raises:
        UsageError: Several ranges, one that cannot be understood, or points without a range.
    """
    texts = [latency] if isinstance(latency, str) else list(latency)
    ranges = [index for index, text in enumerate(texts) if ":" in text.rpartition("=")[2]]
    if len(ranges) > 1 or (points and not ranges) or (ranges and ranges[0] > 0):
        raise UsageError(
            "A front needs one range of latencies, on the first device.",
            got=" ".join(texts) or "no --latency",
            allowed="--latency 5ms:20ms --points 8",
        )
    if points < 0 or points == 1:
        raise UsageError("--points is not a number of points.", got=points, allowed="2, 3, 4 ...")
    if not ranges:
        return None, tuple(texts)
    place, sign, value = texts[0].rpartition("=")
    low, high = (parse_latency(part) for part in value.split(":", 1))
    if low.relative != high.relative or low.value >= high.value:
        raise UsageError(
            "--latency is not a range.", got=repr(value), allowed="5ms:20ms or 30%:80%, the smaller first"
        )
    budgets = _between(low, high, points or _POINTS)
    return Span(value, budgets), (f"{place}{sign}{high.text}", *texts[1:])


def _between(low: Quantity, high: Quantity, count: int) -> tuple[Quantity, ...]:
    inner = np.geomspace(high.value, low.value, count)[1:-1].tolist()
    # The text is what later verbs read, so the budget is what the text says.
    texts = (f"{100 * value:.4g}%" if low.relative else f"{value:.5g}ms" for value in inner)
    return (high, *map(parse_latency, texts), low)


def search_front(searcher: Searcher, span: Span) -> FrontResult:
    """Search every budget of the range and keep the networks that no other one beats.

    The budgets share the judge and its evaluations, and each search begins with the networks that the looser
    budgets gave.

    Raises:
        BudgetError: No budget of the range can be met.
    """
    found: list[SearchResult] = []
    refusals: list[BudgetError] = []
    for number, quantity in enumerate(span.budgets, start=1):
        searcher.reporter.note(f"Budget {number} of {len(span.budgets)}: {quantity.text}.")
        budgets = (replace(searcher.budgets[0], quantity=quantity), *searcher.budgets[1:])
        try:
            found.append(searcher.judged(searcher.run(budgets, [one.widths for one in found[:-4:-1]])))
        except BudgetError as error:
            searcher.reporter.note(f"{quantity.text}: {error.what}")
            refusals.append(error)
            if isinstance(error, ImpossibleBudgetError):
                break  # the tighter ones are impossible too
    if not found:
        raise refusals[-1]
    points = _undominated(found)
    return FrontResult(
        budget=span.text,
        points=tuple(points),
        searched=len(span.budgets),
        structure=searcher.project.structure(),
    )


def _undominated(found: Sequence[SearchResult]) -> list[SearchResult]:
    """The fastest first."""
    unique = list({one.widths: one for one in found}.values())
    kept = pareto_front([one.score for one in unique], [one.latency.value for one in unique])
    return [unique[index] for index in kept.tolist()]
