"""Shares are told in percent and points, any other metric as it is."""

from __future__ import annotations

import pytest

from hwprune.results.metrics import change_text, loss_words, points_lost, text_of


@pytest.mark.parametrize(
    ("base", "value", "text", "lost", "change"),
    [
        (0.92, 0.9, "90.00%", 2.0, "-2.00 points"),
        (32.0, 31.8, "31.8", 0.625, "-0.2 (-0.6 %)"),
        (-0.4, -0.5, "-0.5", 25.0, "-0.1 (-25.0 %)"),
        (-0.5, -0.4, "-0.4", -20.0, "+0.1 (+20.0 %)"),
        (0.0, -3.0, "-3", 0.0, "-3 (-0.0 %)"),
    ],
)
def test_a_metric_is_told_by_what_it_is(base, value, text, lost, change):
    assert text_of(value, base) == text
    assert points_lost(base, value) == pytest.approx(lost)
    assert change_text(base, value) == change


def test_the_unit_of_a_loss_follows_the_metric():
    assert loss_words(0.9, 0.8) == "points"
    assert loss_words(32.0, 31.0) == "%"
