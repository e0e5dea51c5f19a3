"""The answer of a search: measured closely, one network after the other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hwprune.api.budgets import Budget
from hwprune.api.closed_loop import first_within
from hwprune.errors import ArtifactError, BudgetError
from hwprune.evolution.problem import Candidate
from hwprune.evolution.search import Limit, SearchOutcome
from hwprune.logbook import Logbook
from hwprune.progress import QUIET
from hwprune.units import parse_bytes

LIMIT = 100.0


def outcome(*use: float) -> SearchOutcome:
    """Networks of one group, best first, with what the search took their sizes for."""
    candidates = tuple(
        Candidate(widths=(number,), score=1.0 - number / 100, values=(one * LIMIT,), generation=0)
        for number, one in enumerate(use)
    )
    limit = Limit(name="size", limit=LIMIT, unit="bytes", factor=1.0)
    return SearchOutcome(
        best=candidates[0],
        limits=(limit,),
        binding="size",
        history=(),
        candidates=candidates,
        corrections=(),
        seed=0,
    )


class Sizes:
    """A budget whose networks are larger than the search took them for, and how often it was looked at."""

    def __init__(self, found: SearchOutcome, factor: float) -> None:
        self.bytes = {one.widths: factor * one.values[0] for one in found.candidates}
        self.looks = 0

    def exact(self, widths: tuple[int, ...]) -> float:
        self.looks += 1
        return self.bytes[widths]

    def budget(self) -> Budget:
        base, quantity = 2 * LIMIT, parse_bytes("100B", "--size")
        return Budget(
            "size", "bytes", base, lambda widths: np.full(len(widths), LIMIT), quantity, exact=self.exact
        )


def book(path: Path | None = None) -> Logbook:
    return Logbook(path, "answer", 1, {"answer": "x"})


def test_networks_that_will_be_over_like_those_before_are_not_measured() -> None:
    """Twenty that use the whole budget, all of them one percent larger than thought; then one with room."""
    found = outcome(*[0.999] * 20, 0.98)
    sizes = Sizes(found, 1.01)
    assert first_within(found, [sizes.budget()], QUIET, book()).candidate.widths == (20,)
    assert sizes.looks == 2


def test_what_was_measured_before_a_kill_is_not_measured_again(tmp_path: Path) -> None:
    found = outcome(0.999, 0.97)
    sizes = Sizes(found, 1.01)
    path = tmp_path / "answer.jsonl"
    first = first_within(found, [sizes.budget()], QUIET, book(path))
    again = first_within(found, [sizes.budget()], QUIET, book(path))
    assert again == first
    assert sizes.looks == 2


SIZE = {"name": "size", "unit": "bytes", "base": 2.0, "predicted": 1.0, "measured": 1.0, "error": 0.0}
SIZE |= {"budget": "", "limit": None}


@pytest.mark.parametrize("figure", [{"name": 3}, {**SIZE, "base": "2"}, {**SIZE, "base": 0.0}])
def test_measurements_that_mean_nothing_are_told(tmp_path: Path, figure: dict[str, object]) -> None:
    found = outcome(0.97)
    book(tmp_path / "a.jsonl").add({"widths": [0], "figures": [figure]})
    with pytest.raises(ArtifactError, match="cannot be read"):
        first_within(found, [Sizes(found, 1.0).budget()], QUIET, book(tmp_path / "a.jsonl"))


def test_no_network_within_the_budget_names_the_nearest() -> None:
    found = outcome(0.999, 0.995)
    with pytest.raises(BudgetError, match="None of the best") as caught:
        first_within(found, [Sizes(found, 1.02).budget()], QUIET, book())
    assert "nearest of 1" in str(caught.value)
