"""The answer of a search: measured closely, one network after the other."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from hwprune.api.budgets import Budget
from hwprune.api.closed_loop import Loop, first_within
from hwprune.errors import ArtifactError, BudgetError
from hwprune.evolution.problem import Candidate
from hwprune.evolution.search import Limit, SearchOutcome
from hwprune.logbook import Logbook
from hwprune.progress import QUIET
from hwprune.units import parse_bytes, parse_latency

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


def test_one_noisy_measurement_does_not_speak_for_the_others() -> None:
    """The first network was measured to 5 %; the second one is inside, and known more closely."""
    found = outcome(0.98, 0.97)

    class Noisy:
        def networks(self, widths, **options):
            error = 0.05 if widths == [(0,)] else 0.001
            ms = found.candidates[widths[0][0]].values[0]
            result = SimpleNamespace(ms=ms, error_ms=error * ms)
            return [SimpleNamespace(trusted=lambda: result)]

    target = SimpleNamespace(device=Noisy(), base_error_ms=0.0, drift=0.0)
    quantity = parse_latency(f"{LIMIT}ms")
    budget = Budget("size", "ms", 2 * LIMIT, lambda widths: np.full(len(widths), LIMIT), quantity, target)
    assert first_within(found, [budget], QUIET, book()).candidate.widths == (1,)


@pytest.mark.parametrize(("error", "taught"), [(0.03, True), (0.05, False)])
def test_leaders_that_are_known_too_roughly_teach_nothing(error: float, taught: bool) -> None:
    found = outcome(0.9)
    result = SimpleNamespace(ms=97.0, error_ms=error * 97.0, too_noisy=False)
    device = SimpleNamespace(networks=lambda widths, **options: [result for _ in widths])
    model = SimpleNamespace(predict=lambda widths: np.full(len(widths), 90.0))
    target = SimpleNamespace(device=device, base_error_ms=0.0, drift=0.0, model=model)
    budget = Budget("size", "ms", 200.0, model.predict, parse_latency("50%"), target)
    told: list[str] = []
    correction = Loop([budget], SimpleNamespace(note=told.append))(found.candidates, ())
    assert [text.startswith("size: measured 1.078 times") for text in told] == [True] * taught
    assert (correction is not None) == taught
    if correction is not None:
        assert correction.factors == {"size": pytest.approx(97 / 90)}


def test_the_error_of_the_unit_is_part_of_a_latency_in_milliseconds() -> None:
    found = outcome(0.97)
    device = SimpleNamespace(
        networks=lambda widths, **options: [
            SimpleNamespace(trusted=lambda: SimpleNamespace(ms=97.0, error_ms=0.3))
        ]
    )
    target = SimpleNamespace(device=device, base_error_ms=0.8, drift=0.0)
    for text, error in (("100ms", math.hypot(0.3, 97.0 * 0.004)), ("50%", 0.3)):
        budget = Budget("size", "ms", 200.0, lambda widths: np.array([97.0]), parse_latency(text), target)
        (figure,) = first_within(found, [budget], QUIET, book()).figures
        assert figure.error == pytest.approx(error)


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
