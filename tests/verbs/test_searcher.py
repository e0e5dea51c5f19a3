"""What a search tells about its answer."""

from __future__ import annotations

from dataclasses import replace

from outcomes import outcome

from hwprune.searching.confirmation import why_not_the_best


def test_a_better_score_than_the_answer_is_explained() -> None:
    found = outcome(0.99, 0.9)
    best, answer, *_ = found.candidates
    assert why_not_the_best(found, best) == ""
    told = why_not_the_best(found, answer)
    assert told.startswith(
        "The answer scores 0.99. The best of the search, 1, is a network that measurements"
    )


def test_a_tie_is_no_measurement_over_the_budget() -> None:
    found = outcome(0.99, 0.9, 0.8)
    best, answer, third, *_ = found.candidates
    tied = replace(found, noise=0.015, capacity={best.widths: 1.0, answer.widths: 2.0, third.widths: 3.0})
    assert "fewer MACs" in why_not_the_best(tied, answer)
    assert "over the budget" in why_not_the_best(tied, third), "too far behind for a tie"
    less = replace(tied, capacity={best.widths: 2.0, answer.widths: 1.0})
    assert "over the budget" in why_not_the_best(less, answer)
