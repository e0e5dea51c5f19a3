"""The one rule for whether a figure keeps a limit: its value and some of its standard errors are within it.

How many standard errors are asked for depends on who asks:

| who | standard errors | why |
|---|---|---|
| search, for its answer | 1 | the answer will be measured again, in another hour |
| export, for the file | 0 | the figure is the last look at it, and stands as it is |
| `bench`, for CI | 3 on either side | a verdict must not change from run to run; in between it cannot tell |
"""

from __future__ import annotations

SEARCH, EXPORT, BENCH = 1.0, 0.0, 3.0  # standard errors
_ROUNDING = 1e-9


def use(value: float, limit: float, error: float = 0.0, errors: float = 0.0) -> float:
    """The part of a limit that is used: `(value + errors * error) / limit`.

    Args:
        value: The figure.
        limit: The most that it may be.
        error: One standard error of the figure, in its unit.
        errors: How many of them count; negative ones give the lower end of its interval.
    """
    return (value + errors * error) / limit


def keeps(value: float, limit: float, error: float = 0.0, errors: float = 0.0, margin: float = 0.0) -> bool:
    """Whether a figure keeps a limit; see `use`.

    Args:
        value: The figure.
        limit: The most that it may be; 0 for what may not be lost at all.
        error: One standard error of the figure, in its unit.
        errors: How many of them count.
        margin: The part of the limit to keep free.
    """
    return value + errors * error <= limit * (1 - margin) + _ROUNDING * abs(limit)
