"""The answer of a search: measured closely, one network after the other, and twice."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from outcomes import LIMIT, outcome

from hwprune.errors import ArtifactError, BudgetError
from hwprune.evolution.search import SearchOutcome
from hwprune.logbook import Logbook
from hwprune.progress import QUIET
from hwprune.searching.confirmation import Looks, first_within, looked_at_twice
from hwprune.searching.limits import Budget
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

    target = SimpleNamespace(device=Noisy(), base_error_ms=0.0, drift=0.0, contention=0.0)
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
    target = SimpleNamespace(device=device, base_error_ms=0.8, drift=0.0, contention=0.0)
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

    def __init__(self, found: SearchOutcome, later: dict[int, float], *, contention: float = 0.0) -> None:
        self.ms = [one.values[0] for one in found.candidates]
        self.later, self.contention = later, contention
        self.error, self.noisy = 0.002, False  # of the second look
        self.pairs = 1
        self.looks: list[int] = []

    def networks(self, widths, **_):
        self.looks += [net for (net,) in widths]
        return [self.measured(self.ms[net]) for (net,) in widths]

    def neighbours(self, widths, always):
        """The network itself comes first."""
        assert always == 1
        ((net,), *pairs) = widths
        self.looks.append(net)
        own = self.measured(self.later.get(net, 1.0) * self.ms[net], self.error, self.noisy)
        return [own, *(self.measured(1.0) for _ in pairs)]

    def affordable_pairs(self, base_ms: float, others: int) -> int:
        assert others == 1
        return self.pairs

    @staticmethod
    def measured(ms: float, error: float = 0.002, noisy: bool = False):
        result = SimpleNamespace(ms=ms, error_ms=error * ms, relative_error=error, too_noisy=noisy)
        result.trusted = lambda: result
        return result

    def budget(self, text: str = "50%", name: str = "cpu") -> Budget:
        def predict(widths):
            return np.full(len(widths), LIMIT)

        group = SimpleNamespace(name="g", choices=(1, 2))
        model = SimpleNamespace(predict=predict, space=SimpleNamespace(groups=(group,), canonical=np.asarray))
        target = SimpleNamespace(
            device=self,
            base_ms=2 * LIMIT,
            base_error_ms=0.0,
            drift=0.0,
            contention=self.contention,
            model=model,
        )
        return Budget(name, "ms", 2 * LIMIT, predict, parse_latency(text) if text else None, target)


def test_an_answer_that_a_second_look_finds_over_its_budget_is_not_taken(tmp_path: Path) -> None:
    found = outcome(0.98, 0.96, 0.94)
    device, told = Unsteady(found, {0: 1.06}), []
    reporter = SimpleNamespace(stage=QUIET.stage, note=told.append)
    answer = looked_at_twice(found, [device.budget()], reporter, looks(tmp_path / "answer.jsonl"))
    assert answer.candidate.widths == (1,)
    assert device.looks == [0, 0, 1, 1]
    assert len(told) == 1
    assert told[0].startswith("cpu: by both looks at it a network uses 103.9% of the budget")


def test_both_looks_are_kept_when_the_search_is_killed(tmp_path: Path) -> None:
    found = outcome(0.98, 0.96)
    device, path = Unsteady(found, {0: 1.06}), tmp_path / "answer.jsonl"
    answer = looked_at_twice(found, [device.budget()], QUIET, looks(path))
    before = len(device.looks)
    assert looked_at_twice(found, [device.budget()], QUIET, looks(path)) == answer
    assert len(device.looks) == before


def test_a_kill_between_the_looks_loses_the_second_only(tmp_path: Path) -> None:
    found = outcome(0.98)
    device, path = Unsteady(found, {}), tmp_path / "answer.jsonl"
    first_within(found, [device.budget()], QUIET, looks(path))
    looked_at_twice(found, [device.budget()], QUIET, looks(path))
    assert device.looks == [0, 0]


def test_a_network_that_loses_its_room_at_the_second_look_gives_way_to_one_that_keeps_it() -> None:
    found = outcome(0.94, 0.93, 0.92)
    device = Unsteady(found, {0: 1.05}, contention=0.1)  # 5 % of the budget are to stay free
    budget = device.budget()
    assert budget.margin == 0.05
    answer = looked_at_twice(found, [budget], QUIET, looks())
    assert answer.candidate.widths == (1,)
    assert answer.figures[0].high_use <= 0.95


def test_where_no_network_keeps_the_room_the_best_within_the_budget_is_taken() -> None:
    found = outcome(0.98, 0.97)
    device = Unsteady(found, {}, contention=0.1)
    assert looked_at_twice(found, [device.budget()], QUIET, looks()).candidate.widths == (0,)
    assert sorted(device.looks) == [0, 0, 1], "one look says that the other has no room either"


def test_two_looks_are_known_no_closer_than_they_agree() -> None:
    found = outcome(0.90)
    for later, error in ((1.0, 0.002 * 90), (1.04, 0.02 * 90)):
        answer = looked_at_twice(found, [Unsteady(found, {0: later}).budget()], QUIET, looks())
        (figure,) = answer.figures
        assert figure.measured == pytest.approx(90 * (1 + later) / 2)
        assert figure.error == pytest.approx(error)


@pytest.mark.parametrize("trouble", [{"error": 0.03}, {"noisy": True}, {"pairs": 0}])
def test_a_second_look_that_tells_little_is_taken_alone(trouble: dict[str, float]) -> None:
    found = outcome(0.90)
    device = Unsteady(found, {0: 1.5})
    vars(device).update(trouble)
    (figure,) = looked_at_twice(found, [device.budget()], QUIET, looks()).figures
    assert figure.measured == pytest.approx(90), "not by the look among neighbours"
    assert device.looks == [0] * (2 if device.pairs == 0 else 3)


def test_a_noisy_second_look_is_no_matter_where_latency_is_not_limited() -> None:
    found = outcome(0.90)
    device = Unsteady(found, {0: 1.5})
    device.noisy = True
    (figure,) = looked_at_twice(found, [device.budget("")], QUIET, looks()).figures
    assert figure.measured == pytest.approx(90)
    assert device.looks == [0, 0]


def test_every_device_is_looked_at_twice() -> None:
    found = outcome(0.90)
    first, other = Unsteady(found, {}), Unsteady(found, {})
    answer = looked_at_twice(found, [first.budget(), other.budget(name="npu")], QUIET, looks())
    assert [one.name for one in answer.figures] == ["cpu", "npu"]
    assert first.looks == other.looks == [0, 0]


def test_what_is_only_predicted_is_not_looked_at() -> None:
    found = outcome(0.90)
    budget = Unsteady(found, {}).budget()
    budget.target.device = None
    (figure,) = looked_at_twice(found, [budget], QUIET, looks()).figures
    assert figure.measured is None


def test_a_refusal_tells_the_error_that_is_part_of_it() -> None:
    found = outcome(0.98)
    with pytest.raises(BudgetError) as caught:
        looked_at_twice(found, [Unsteady(found, {0: 1.03}).budget()], QUIET, looks())
    got = str(caught.value).split("got:")[1].split("allowed")[0].strip()
    assert got == "nearest of 1: 99.5 ms, known to 1.47 ms", "inside, but not by its error"
