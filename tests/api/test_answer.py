"""The answer of a search: measured closely, one network after the other, and twice."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from outcomes import LIMIT, outcome

from hwprune.api.answer import Looks, first_within, looked_at_twice
from hwprune.api.budgets import Budget
from hwprune.errors import ArtifactError, BudgetError
from hwprune.evolution.search import SearchOutcome
from hwprune.logbook import Logbook
from hwprune.progress import QUIET
from hwprune.units import parse_bytes, parse_latency


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


def looks(path: Path | None = None) -> Looks:
    return Looks(book(path), ())


def test_networks_that_will_be_over_like_those_before_are_not_measured() -> None:
    """Twenty that use the whole budget, all of them one percent larger than thought; then one with room."""
    found = outcome(*[0.999] * 20, 0.98)
    sizes = Sizes(found, 1.01)
    assert first_within(found, [sizes.budget()], QUIET, looks()).candidate.widths == (20,)
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

    target = SimpleNamespace(device=Noisy(), base_error_ms=0.0, drift=0.0, pressure=0.0)
    quantity = parse_latency(f"{LIMIT}ms")
    budget = Budget("size", "ms", 2 * LIMIT, lambda widths: np.full(len(widths), LIMIT), quantity, target)
    assert first_within(found, [budget], QUIET, looks()).candidate.widths == (1,)


def test_the_error_of_the_unit_is_part_of_a_latency_in_milliseconds() -> None:
    found = outcome(0.97)
    device = SimpleNamespace(
        networks=lambda widths, **options: [
            SimpleNamespace(trusted=lambda: SimpleNamespace(ms=97.0, error_ms=0.3))
        ]
    )
    target = SimpleNamespace(device=device, base_error_ms=0.8, drift=0.0, pressure=0.0)
    for text, error in (("100ms", math.hypot(0.3, 97.0 * 0.004)), ("50%", 0.3)):
        budget = Budget("size", "ms", 200.0, lambda widths: np.array([97.0]), parse_latency(text), target)
        (figure,) = first_within(found, [budget], QUIET, looks()).figures
        assert figure.error == pytest.approx(error)


def test_what_was_measured_before_a_kill_is_not_measured_again(tmp_path: Path) -> None:
    found = outcome(0.999, 0.97)
    sizes = Sizes(found, 1.01)
    path = tmp_path / "answer.jsonl"
    first = first_within(found, [sizes.budget()], QUIET, looks(path))
    again = first_within(found, [sizes.budget()], QUIET, looks(path))
    assert again == first
    assert sizes.looks == 2


SIZE = {"name": "size", "unit": "bytes", "base": 2.0, "predicted": 1.0, "measured": 1.0, "error": 0.0}
SIZE |= {"budget": "", "limit": None}


@pytest.mark.parametrize("figure", [{"name": 3}, {**SIZE, "base": "2"}, {**SIZE, "base": 0.0}])
def test_measurements_that_mean_nothing_are_told(tmp_path: Path, figure: dict[str, object]) -> None:
    found = outcome(0.97)
    book(tmp_path / "a.jsonl").add({"widths": [0], "figures": [figure]})
    with pytest.raises(ArtifactError, match="cannot be read"):
        first_within(found, [Sizes(found, 1.0).budget()], QUIET, looks(tmp_path / "a.jsonl"))


def test_no_network_within_the_budget_names_the_nearest() -> None:
    found = outcome(0.999, 0.995)
    with pytest.raises(BudgetError, match="None of the best") as caught:
        first_within(found, [Sizes(found, 1.02).budget()], QUIET, looks())
    assert "nearest of 1" in str(caught.value)


class Unsteady:
    """A device on which some networks take longer when they are looked at again, beside their neighbours."""

    def __init__(self, found: SearchOutcome, later: dict[int, float]) -> None:
        self.ms = [one.values[0] for one in found.candidates]
        self.later = later
        self.looks: list[int] = []

    def networks(self, widths, **_):
        self.looks += [net for (net,) in widths]
        return [self.measured(self.ms[net]) for (net,) in widths]

    def neighbours(self, widths):
        """The network itself comes first."""
        ((net,), *pairs) = widths
        self.looks.append(net)
        return [self.measured(ms) for ms in (self.later.get(net, 1.0) * self.ms[net], *(1.0 for _ in pairs))]

    def affordable_pairs(self, base_ms: float) -> int:
        return 1

    @staticmethod
    def measured(ms: float):
        result = SimpleNamespace(ms=ms, error_ms=0.002 * ms, relative_error=0.002)
        result.trusted = lambda: result
        return result

    def budget(self) -> Budget:
        def predict(widths):
            return np.full(len(widths), LIMIT)

        group = SimpleNamespace(name="g", choices=(1, 2))
        model = SimpleNamespace(predict=predict, space=SimpleNamespace(groups=(group,)))
        target = SimpleNamespace(
            device=self, base_ms=2 * LIMIT, base_error_ms=0.0, drift=0.0, pressure=0.0, model=model
        )
        return Budget("cpu", "ms", 2 * LIMIT, predict, parse_latency("50%"), target)


def test_an_answer_that_a_second_look_finds_over_its_budget_is_not_taken(tmp_path: Path) -> None:
    found = outcome(0.98, 0.96, 0.94)
    device, told = Unsteady(found, {0: 1.06}), []
    reporter = SimpleNamespace(stage=QUIET.stage, note=told.append)
    kept = looks(tmp_path / "answer.jsonl")
    answer = looked_at_twice(found, [device.budget()], reporter, kept)
    assert answer.candidate.widths == (1,)
    assert device.looks == [0, 0, 1, 1]
    assert len(told) == 1
    assert told[0].startswith("cpu: by both looks at it the answer uses 103.9% of the budget")
    again = looked_at_twice(found, [device.budget()], QUIET, looks(tmp_path / "answer.jsonl"))
    assert again.candidate.widths == (1,), "what both looks found was kept"
    assert device.looks[4:] == [1], "only the second look at the answer is taken anew"


def test_two_looks_are_known_no_closer_than_they_agree() -> None:
    found = outcome(0.90)
    for later, error in ((1.0, 0.002 * 90), (1.04, 0.02 * 90)):
        answer = looked_at_twice(found, [Unsteady(found, {0: later}).budget()], QUIET, looks())
        (figure,) = answer.figures
        assert figure.measured == pytest.approx(90 * (1 + later) / 2)
        assert figure.error == pytest.approx(error)
