"""Verdicts: figures with intervals against limits. Pure: nothing is measured, read or written here.

An interval is three standard errors wide on either side. The blocks of one session do not show all that
two sessions of one network differ by (where their memory lies, how many runs make a low percentile), so a
standard error is never taken to be less than `LEAST_ERROR`. On pretended devices of known latencies, with
noise of 2 to 10 % and a drift of 20 %, at least 95 of 100 such intervals held the true ratio.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING

from hwprune.results.acceptance import BENCH, keeps

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

LEAST_ERROR = 0.003
_NONE: Mapping[str, float] = MappingProxyType({})


class Verdict(StrEnum):
    """What a gate says."""

    PASS = "pass"
    REGRESSION = "regression"
    OVER_BUDGET = "over budget"
    LESS_ACCURATE = "accuracy too low"
    TOO_NOISY = "too noisy to tell"
    MEASURED = "measured"  # nothing was limited

    @property
    def exit_code(self) -> int:
        """0 for a pass, 1 for a failure, 3 when there is no telling."""
        return _EXIT_CODES[self]


_EXIT_CODES = {
    Verdict.PASS: 0,
    Verdict.MEASURED: 0,
    Verdict.REGRESSION: 1,
    Verdict.OVER_BUDGET: 1,
    Verdict.LESS_ACCURATE: 1,
    Verdict.TOO_NOISY: 3,
}
# A limit that is surely broken decides, however uncertain another one is.
_GRAVEST_FIRST = (
    Verdict.LESS_ACCURATE,
    Verdict.REGRESSION,
    Verdict.OVER_BUDGET,
    Verdict.TOO_NOISY,
    Verdict.PASS,
)


@dataclass(frozen=True)
class Estimate:
    """A measured figure and the interval that the truth is in.

    Attributes:
        value: The figure.
        low: Lower end of the interval.
        high: Upper end of the interval.
    """

    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Limit:
    """What a figure may be at most.

    Attributes:
        breach: The verdict for a figure above it: `REGRESSION`, `OVER_BUDGET` or `LESS_ACCURATE`.
        text: As the user wrote it: `5%`, `60%`, `15ms`.
        most: The limit in `unit`.
        unit: `ratio` (to the baseline's latency), `ms`, or, exactly known, `errors` (share of the test images
            that are classified wrongly) or `points` (of top-1 lost against the baseline).
    """

    breach: Verdict
    text: str
    most: float
    unit: str


@dataclass(frozen=True, kw_only=True)
class Check:
    """One limit and what was found.

    Attributes:
        limit: The limit.
        found: The figure, in the limit's unit.
        verdict: The verdict on it.
    """

    limit: Limit
    found: Estimate
    verdict: Verdict


def estimate(value: float, *relative_errors: float) -> Estimate:
    """A figure with its interval.

    Args:
        value: The figure, above zero.
        relative_errors: Standard errors from independent sources, as fractions of it.
    """
    half = BENCH * math.hypot(LEAST_ERROR, *relative_errors) * value
    return Estimate(value, max(value - half, 0.0), value + half)


def judge(limit: Limit, found: Estimate, *, trusted: bool = True) -> Check:
    """Compare a figure with its limit.

    Args:
        limit: The limit.
        found: The figure.
        trusted: Whether the machine was quiet enough for the interval to mean anything.

    Returns:
        A pass if all of the interval keeps the limit, a breach if none of it does; else too noisy to tell.
    """
    if trusted and keeps(found.high, limit.most):
        verdict = Verdict.PASS
    elif trusted and not keeps(found.low, limit.most):
        verdict = limit.breach
    else:
        verdict = Verdict.TOO_NOISY
    return Check(limit=limit, found=found, verdict=verdict)


def judge_all(
    limits: Iterable[Limit],
    latency: Estimate,
    ratio: Estimate | None,
    *,
    accuracies: Mapping[str, float] = _NONE,
    trusted: bool,
) -> tuple[Check, ...]:
    """Compare a network with all its limits.

    Args:
        limits: The limits; those without a figure are passed over.
        latency: Its latency, milliseconds.
        ratio: Its latency relative to the baseline's; None without a baseline.
        accuracies: Its `errors` and the `points` that it lost, where these are known.
        trusted: See `judge`; accuracies do not depend on the machine.
    """
    exact = {unit: Estimate(value, value, value) for unit, value in accuracies.items()}
    figures = {"ms": latency, "ratio": ratio, **exact}
    found = [(limit, figure) for limit in limits if (figure := figures.get(limit.unit)) is not None]
    return tuple(judge(limit, figure, trusted=trusted or limit.unit in exact) for limit, figure in found)


def overall(checks: Iterable[Check]) -> Verdict:
    """The gravest verdict of all; `MEASURED` when there is none."""
    given = {check.verdict for check in checks}
    return next((verdict for verdict in _GRAVEST_FIRST if verdict in given), Verdict.MEASURED)
