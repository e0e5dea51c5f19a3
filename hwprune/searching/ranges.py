"""Latency budgets as they are written: one, or a range for a front."""

from __future__ import annotations

import itertools

import numpy as np

from hwprune.errors import UsageError
from hwprune.units import Quantity, parse_latency

_POINTS = 6
_DIGITS = (4, 5, 7, 9, 12)


def latencies(text: str, points: int = 0) -> tuple[Quantity, ...]:
    """The budgets of a text: that of `60%` or `15ms`, or several of `5ms:20ms`, the loosest first.

    Args:
        text: As it was written.
        points: How many of a range, equal ratios apart; 0 takes 6.

    Raises:
        UsageError: No latency, no range, or so narrow a one that its points fall together.
    """
    if points < 0 or points == 1:
        raise UsageError("This is not a number of points.", got=points, allowed="2, 3, 4 ...; 0: 6")
    if ":" not in text:
        if points:
            raise UsageError("Points need a range of latencies.", got=text, allowed="5ms:20ms or 30%:80%")
        return (parse_latency(text),)
    low, high = (parse_latency(part) for part in text.split(":", 1))
    if low.relative != high.relative or low.value >= high.value:
        raise UsageError(
            "The latency is not a range.", got=repr(text), allowed="5ms:20ms or 30%:80%, the smaller first"
        )
    return _between(low, high, points or _POINTS)


def _between(low: Quantity, high: Quantity, count: int) -> tuple[Quantity, ...]:
    inner = np.geomspace(high.value, low.value, count)[1:-1].tolist()
    # The text is what later verbs read, so the budget is what the text says.
    for digits in _DIGITS:  # as few as keep the budgets apart
        texts = [f"{100 * value:.{digits}g}%" if low.relative else f"{value:.{digits}g}ms" for value in inner]
        budgets = (high, *map(parse_latency, texts), low)
        if all(loose.value > tight.value for loose, tight in itertools.pairwise(budgets)):
            return budgets
    raise UsageError(
        "The range of latencies is too narrow for so many points.",
        got=f"{low.text}:{high.text}, {count} points",
    )
