"""The one rule for whether a figure keeps its limit."""

from __future__ import annotations

import pytest

from hwprune.results import Figure
from hwprune.results.acceptance import BENCH, EXPORT, SEARCH, keeps, use


@pytest.mark.parametrize(
    ("value", "errors", "margin", "kept"),
    [
        (10.0, EXPORT, 0.0, True),
        (10.001, EXPORT, 0.0, False),
        (9.9, SEARCH, 0.0, True),
        (9.95, SEARCH, 0.0, False),
        (9.8, SEARCH, 0.02, False),
        (9.6, SEARCH, 0.02, True),
        (9.75, BENCH, 0.0, False),
        (10.2, -BENCH, 0.0, True),
    ],
)
def test_value_and_errors_are_within_what_the_margin_leaves(value, errors, margin, kept):
    assert keeps(value, 10.0, 0.1, errors, margin) is kept


def test_a_limit_of_nothing_is_kept_by_nothing_alone():
    assert keeps(0.0, 0.0)
    assert keeps(-1.0, 0.0)
    assert not keeps(0.5, 0.0)


def test_the_use_of_a_limit_is_a_share_of_it():
    assert use(5.0, 10.0) == 0.5
    assert use(5.0, 10.0, 1.0, SEARCH) == 0.6


def test_a_figure_without_a_limit_keeps_it():
    figure = Figure(name="macs", unit="MACs", base=2.0, predicted=1.0)
    assert figure.met
    assert figure.keeps(SEARCH)
    assert not Figure(
        name="cpu-1t", unit="ms", base=2.0, predicted=1.0, measured=1.0, error=0.01, budget="1ms", limit=1.0
    ).keeps(SEARCH)
