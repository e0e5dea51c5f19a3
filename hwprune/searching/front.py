"""A front of networks, accuracy against latency, from one evolution."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from hwprune.errors import BudgetError, UsageError
from hwprune.evolution.pareto import pareto_front
from hwprune.results import FrontResult, SearchResult
from hwprune.units import Quantity, parse_latency

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hwprune.searching.searcher import Searcher

_POINTS = 6
_DIGITS = (4, 5, 7, 9, 12)


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
    for digits in _DIGITS:  # as few as keep the budgets apart
        texts = [f"{100 * value:.{digits}g}%" if low.relative else f"{value:.{digits}g}ms" for value in inner]
        budgets = (high, *map(parse_latency, texts), low)
        if all(loose.value > tight.value for loose, tight in itertools.pairwise(budgets)):
            return budgets
    raise UsageError("--latency is too narrow a range for so many points.", got=f"{low.text}:{high.text}")


def search_front(searcher: Searcher, span: Span) -> FrontResult:
    """Search the whole range in one evolution, and keep the networks that no other one beats.

    Raises:
        BudgetError: No budget of the range can be met.
    """
    searcher.reporter.note(f"A front at {', '.join(one.text for one in span.budgets)}.")
    first, *others = searcher.budgets
    answers = searcher.front([(replace(first, quantity=one), *others) for one in span.budgets])
    found = [one for one in answers if isinstance(one, SearchResult)]
    refusals = {id(one): one for one in answers if isinstance(one, BudgetError)}
    if not found:
        raise next(iter(refusals.values()))
    for error in refusals.values():
        texts = [budget.text for budget, one in zip(span.budgets, answers, strict=True) if one is error]
        least = f" Allowed: {error.allowed}." if error.allowed else ""
        searcher.reporter.note(f"{', '.join(texts)}: {error.what}{least}")
    points = _undominated(found)
    return FrontResult(
        budget=span.text,
        points=tuple(points),
        searched=len(span.budgets),
        structure=searcher.facts["structure"],
    )


def _undominated(found: Sequence[SearchResult]) -> list[SearchResult]:
    """The fastest first."""
    unique = list({one.widths: one for one in found}.values())
    kept = pareto_front([one.score for one in unique], [one.latency.value for one in unique])
    return [unique[index] for index in kept.tolist()]
