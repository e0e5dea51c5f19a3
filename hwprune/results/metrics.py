"""How a metric is told: what lies between 0 and 1 as a share, in percent and points, any other as it is.

A task of the user's own may have any number that is higher for better networks: a share such as mIoU,
decibels, or an error with its sign turned.
"""

from __future__ import annotations


def is_share(*values: float) -> bool:
    """Whether all these figures of one metric can be shares."""
    return all(0.0 <= value <= 1.0 for value in values)


def text_of(value: float, *others: float, digits: int = 2) -> str:
    """A figure of a metric: `92.31%`, or the number itself.

    Args:
        value: The figure.
        others: Further figures of the same metric, for whether it is a share.
        digits: Digits of the percentage.
    """
    return f"{value:.{digits}%}" if is_share(value, *others) else f"{value:.4g}"


def points_lost(base: float, value: float) -> float:
    """By how much a figure is below another one: points of shares, else percent of the other one."""
    if is_share(base, value):
        return 100 * (base - value)
    return 100 * (base - value) / abs(base) if base else 0.0


def change_text(base: float, value: float, digits: int = 2) -> str:
    """What stands behind a change: `-0.31 points`, or `-0.2 (-0.6 %)` of what is no share."""
    if is_share(base, value):
        return f"{-points_lost(base, value):+.{digits}f} points"
    return f"{value - base:+.4g} ({-points_lost(base, value):+.1f} %)"


def loss_words(base: float, value: float) -> str:
    """The unit of `points_lost`: `points`, or `%` of what is no share."""
    return "points" if is_share(base, value) else "%"
