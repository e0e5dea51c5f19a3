"""A front of networks, accuracy against latency, from one evolution."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from hwprune.errors import BudgetError, UsageError
from hwprune.evolution.pareto import pareto_front
from hwprune.results import FrontResult, SearchResult
from hwprune.searching.ranges import latencies

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hwprune.searching.searcher import Searcher
    from hwprune.units import Quantity


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
    if not ranges:
        return None, tuple(texts)
    place, sign, value = texts[0].rpartition("=")
    budgets = latencies(value, points)
    return Span(value, budgets), (f"{place}{sign}{budgets[0].text}", *texts[1:])


def search_front(searcher: Searcher, span: Span) -> FrontResult:
    """Search the whole range in one evolution; see `front_of`."""
    points = front_of(searcher, span.budgets)
    return FrontResult(
        budget=span.text,
        points=tuple(points),
        searched=len(span.budgets),
        structure=searcher.facts["structure"],
    )


def front_of(searcher: Searcher, limits: Sequence[Quantity]) -> list[SearchResult]:
    """The networks of an evolution under several limits of the first latency that no other one beats.

    Args:
        searcher: What searches.
        limits: The limits, the loosest first.

    Returns:
        The networks, the fastest first.

    Raises:
        BudgetError: No limit can be kept.
    """
    searcher.reporter.note(f"A front at {', '.join(one.text for one in limits)}.")
    first, *others = searcher.budgets
    answers = searcher.front([(replace(first, quantity=one), *others) for one in limits])
    found = [one for one in answers if isinstance(one, SearchResult)]
    refusals = {id(one): one for one in answers if isinstance(one, BudgetError)}
    if not found:
        raise next(iter(refusals.values()))
    for error in refusals.values():
        texts = [budget.text for budget, one in zip(limits, answers, strict=True) if one is error]
        least = f" Allowed: {error.allowed}." if error.allowed else ""
        searcher.reporter.note(f"{', '.join(texts)}: {error.what}{least}")
    unique = list({one.widths: one for one in found}.values())
    kept = pareto_front([one.score for one in unique], [one.latency.value for one in unique])
    return [unique[index] for index in kept.tolist()]
