from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from hwprune import logbook
from hwprune.errors import ArtifactError, BudgetError, MismatchError, UsageError
from hwprune.evolution import Constraint, Correction, SearchSettings, search
from hwprune.logbook import Logbook

SETTINGS = SearchSettings(population=12, parents=4, mutants=5, crossovers=5, generations=5)


class Killed(BaseException):
    """Stands for Ctrl-C and for any crash."""


def killed_after(count, accuracy):
    """An accuracy that dies when it is asked the `count`-th time."""
    calls = iter(range(count))

    def score(widths):
        if next(calls, None) is None:
            raise Killed
        return accuracy(widths)

    return score


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_search_beats_as_many_random_networks(toy_of, seed):
    toy = toy_of(groups=20)
    outcome = search(toy.problem, seed=seed)
    random = search(toy.problem, SearchSettings(generations=1, population=1000), seed=seed)
    assert len(outcome.candidates) == len(random.candidates) == 1000
    assert outcome.best.score > random.best.score


def test_only_networks_inside_the_budget_are_evaluated_and_each_once(toy):
    outcome = search(toy.problem, SETTINGS, seed=0)
    assert (toy.latency(np.array(toy.evaluated)) <= toy.limit).all()
    assert len(set(toy.evaluated)) == len(toy.evaluated) == 60
    assert [c.widths for c in outcome.candidates] == toy.evaluated


def test_the_outcome_is_plain_data_that_fits_together(toy):
    outcome = search(toy.problem, SETTINGS, seed=3)
    assert outcome.best in outcome.candidates
    assert outcome.best.score == max(c.score for c in outcome.candidates)
    assert outcome.best.values == pytest.approx(toy.latency(np.array([outcome.best.widths])))
    assert outcome.ranked()[0] == outcome.best
    assert (outcome.binding, outcome.limits[0].limit, outcome.seed) == ("latency", toy.limit, 3)
    assert [s.generation for s in outcome.history] == [0, 1, 2, 3, 4]
    scores = [s.best_score for s in outcome.history]
    assert scores == sorted(scores)
    assert scores[-1] == outcome.best.score
    assert outcome.history[-1].budget_use == pytest.approx(outcome.best.values[0] / toy.limit)
    assert json.loads(json.dumps(dataclasses.asdict(outcome)))["best"]["score"] == outcome.best.score


def test_the_same_seed_gives_the_same_outcome(toy):
    assert search(toy.problem, SETTINGS, seed=7) == search(toy.problem, SETTINGS, seed=7)
    assert search(toy.problem, SETTINGS, seed=7) != search(toy.problem, SETTINGS, seed=8)


def test_progress_counts_every_network(toy):
    calls = []
    search(toy.problem, SETTINGS, seed=0, progress=lambda *args, **figures: calls.append((args, figures)))
    assert [done for (done, _), _ in calls] == list(range(1, 61))
    assert {total for (_, total), _ in calls} == {60}
    best = [figures["best"] for _, figures in calls]
    assert best == sorted(best)
    assert calls[-1][1]["generation"] == 4


@pytest.mark.parametrize("count", [0, 1, 11, 12, 13, 30, 47, 59])
def test_a_search_killed_after_any_network_goes_on_to_the_same_outcome(tmp_path, toy, count):
    expected = search(toy.problem, SETTINGS, seed=0)
    state = tmp_path / "search.jsonl"
    toy.evaluated.clear()
    doomed = dataclasses.replace(toy.problem, accuracy=killed_after(count, toy.accuracy))
    with pytest.raises(Killed):
        search(doomed, SETTINGS, seed=0, state=state)
    assert search(toy.problem, SETTINGS, seed=0, state=state) == expected
    assert len(toy.evaluated) == 60, "nothing that was evaluated is evaluated again"


def test_a_finished_search_answers_from_its_state_file(tmp_path, toy):
    state = tmp_path / "search.jsonl"
    first = search(toy.problem, SETTINGS, seed=0, state=state)
    toy.evaluated.clear()
    assert search(toy.problem, SETTINGS, seed=0, state=state) == first
    assert toy.evaluated == []


SCRIPT = """
import sys, time
sys.path.insert(0, {tests!r})
from pathlib import Path
from conftest import Toy
from hwprune.evolution import SearchSettings, search
toy = Toy()
settings = SearchSettings(population=12, parents=4, mutants=5, crossovers=5, generations=5)
slow = lambda done, total, **figures: (print(done, flush=True), time.sleep(0.005))
outcome = search(toy.problem, settings, seed=0, state=Path({state!r}), progress=slow)
print("winner", outcome.best.widths)
"""


@pytest.mark.parametrize("lines", [1, 17, 40])
def test_kill_9_at_any_instant_damages_nothing(tmp_path, toy, lines):
    state = tmp_path / "search.jsonl"
    script = SCRIPT.format(tests=str(Path(__file__).parent), state=str(state))
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        for _ in range(lines):
            assert process.stdout.readline().strip().isdigit()
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    kept = [entry for entry in logbook.read(state)[1] if "score" in entry]
    assert len(kept) >= lines, "what was told is kept"
    assert search(toy.problem, SETTINGS, seed=0, state=state) == search(toy.problem, SETTINGS, seed=0)


def test_the_state_of_another_search_is_refused(tmp_path, toy, toy_of):
    state = tmp_path / "search.jsonl"
    search(toy.problem, SETTINGS, seed=0, state=state, identity="weights 1")
    before = state.read_bytes()
    for changed, problem, settings, seed, identity in (
        ("seed", toy.problem, SETTINGS, 1, "weights 1"),
        ("settings", toy.problem, dataclasses.replace(SETTINGS, parents=3), 0, "weights 1"),
        ("constraints", toy_of(limit=0.5).problem, SETTINGS, 0, "weights 1"),
        ("groups", toy_of(groups=11).problem, SETTINGS, 0, "weights 1"),
        ("identity", toy.problem, SETTINGS, 0, "weights 2"),
    ):
        with pytest.raises(MismatchError) as caught:
            search(problem, settings, seed=seed, state=state, identity=identity)
        assert changed in str(caught.value.got)
        assert caught.value.where == state
    assert state.read_bytes() == before


def test_a_damaged_state_file_is_refused_and_left_alone(tmp_path, toy):
    state = tmp_path / "search.jsonl"
    search(toy.problem, SETTINGS, seed=0, state=state)
    content = bytearray(state.read_bytes())
    content[len(content) // 2] ^= 1
    state.write_bytes(content)
    with pytest.raises(ArtifactError, match="damaged"):
        search(toy.problem, SETTINGS, seed=0, state=state)
    assert state.read_bytes() == content


@pytest.mark.parametrize(
    "entry",
    [
        {"asked": ["1 2 3"]},
        {"asked": [5]},
        {"asked": None},
        {"score": "high"},
        {"score": 0.5},
        {"closed": None},
        {"closed": {}},
        {},
        {"what": 1},
        [],
    ],
)
def test_a_state_file_that_makes_no_sense_is_refused(tmp_path, toy, entry):
    whole, state = tmp_path / "whole.jsonl", tmp_path / "search.jsonl"
    search(toy.problem, SETTINGS, seed=0, state=whole)
    header, entries, _ = logbook.read(whole)
    book = Logbook(state, header["kind"], header["schema_version"], header["head"])
    for one in [*entries[:14], entry]:  # the first generation, begun, scored and closed
        book.add(one)
    with pytest.raises(ArtifactError, match="not consistent"):
        search(toy.problem, SETTINGS, seed=0, state=state)


def test_an_impossible_budget_is_answered_at_once(tmp_path, toy_of):
    toy = toy_of(limit=0.001)
    with pytest.raises(BudgetError, match="No network of this space"):
        search(toy.problem, SETTINGS, seed=0, state=tmp_path / "search.jsonl")
    assert toy.evaluated == []
    assert list(tmp_path.iterdir()) == []


def test_a_score_that_is_no_number_stops_the_search_and_keeps_the_rest(tmp_path, toy):
    scores = iter([0.1, 0.2, float("nan")])
    state = tmp_path / "search.jsonl"
    problem = dataclasses.replace(toy.problem, accuracy=lambda widths: next(scores))
    with pytest.raises(ValueError, match="finite"):
        search(problem, SETTINGS, seed=0, state=state)
    assert logbook.read(state)[1][1:] == [{"score": 0.1}, {"score": 0.2}]


class Device:
    """A device on which everything takes 8 % longer than predicted."""

    def __init__(self, toy):
        self.toy, self.calls = toy, []

    def true(self, widths):
        return 1.08 * float(self.toy.latency(np.array([widths]))[0])

    def measure(self, leaders, earlier):
        self.calls.append([leader.widths for leader in leaders])
        figures = {leader.widths: {"latency": self.true(leader.widths)} for leader in leaders}
        factor = float(
            np.mean(
                [
                    self.true(leader.widths) / self.toy.latency(np.array([leader.widths]))[0]
                    for leader in leaders
                ]
            )
        )
        errors = {net: {"latency": 0.01 * found["latency"]} for net, found in figures.items()}
        return Correction(factors={"latency": factor}, measured=figures, errors=errors)


def test_the_closed_loop_brings_the_answer_inside_the_true_budget(toy):
    device = Device(toy)
    blind = search(toy.problem, SETTINGS, seed=0)
    assert device.true(blind.best.widths) > toy.limit, "otherwise this shows nothing"
    outcome = search(toy.problem, SETTINGS, seed=0, on_generation=device.measure)
    assert device.true(outcome.best.widths) <= toy.limit * (1 + 1e-9)
    assert device.true(outcome.best.widths) > 0.95 * toy.limit
    assert outcome.limits[0].factor == pytest.approx(1.08)
    assert len(outcome.corrections) == len(device.calls) == 5
    assert all(len(leaders) <= SETTINGS.leaders for leaders in device.calls)


@pytest.mark.parametrize("count", [12, 30, 59])
def test_a_killed_closed_loop_measures_nothing_twice(tmp_path, toy, count):
    device = Device(toy)
    expected = search(toy.problem, SETTINGS, seed=0, on_generation=device.measure)
    measured = len(device.calls)
    device.calls.clear()
    doomed = dataclasses.replace(toy.problem, accuracy=killed_after(count, toy.accuracy))
    state = tmp_path / "search.jsonl"
    with pytest.raises(Killed):
        search(doomed, SETTINGS, seed=0, state=state, on_generation=device.measure)
    again = search(toy.problem, SETTINGS, seed=0, state=state, on_generation=device.measure)
    assert again == expected
    assert len(device.calls) == measured


def test_a_kill_while_measuring_repeats_that_measurement_only(tmp_path, toy):
    device = Device(toy)
    expected = search(toy.problem, SETTINGS, seed=0, on_generation=device.measure)
    state = tmp_path / "search.jsonl"

    def dies(leaders, earlier):
        raise Killed

    with pytest.raises(Killed):
        search(toy.problem, SETTINGS, seed=0, state=state, on_generation=dies)
    toy.evaluated.clear()
    assert search(toy.problem, SETTINGS, seed=0, state=state, on_generation=device.measure) == expected
    assert len(toy.evaluated) == 48


@pytest.mark.parametrize("count", [14, 27, 45])
def test_a_hook_that_learns_from_all_it_measured_ends_alike_after_a_kill(tmp_path, toy, count):
    def true_ms(widths):  # how far a prediction is off differs from network to network
        return toy.latency(np.array([widths]))[0] * (1 + 0.01 * (sum(widths) % 13))

    def hook(leaders, earlier):
        known = {net: figures["latency"] for one in earlier for net, figures in one.measured.items()}
        new = {leader.widths: true_ms(leader.widths) for leader in leaders if leader.widths not in known}
        known.update(new)
        ratios = [value / toy.latency(np.array([net]))[0] for net, value in known.items()]
        measured = {net: {"latency": value} for net, value in new.items()}
        return Correction(factors={"latency": float(np.median(ratios))}, measured=measured)

    expected = search(toy.problem, SETTINGS, seed=0, on_generation=hook)
    doomed = dataclasses.replace(toy.problem, accuracy=killed_after(count, toy.accuracy))
    state = tmp_path / "search.jsonl"
    with pytest.raises(Killed):
        search(doomed, SETTINGS, seed=0, state=state, on_generation=hook)
    assert search(toy.problem, SETTINGS, seed=0, state=state, on_generation=hook) == expected


def test_the_binding_constraint_is_told(toy):
    macs = Constraint(name="macs", predict=lambda w: w.sum(axis=1) * 1.0, limit=200.0, unit="MACs")
    problem = dataclasses.replace(toy.problem, constraints=(toy.constraint, macs))
    outcome = search(problem, SETTINGS, seed=0)
    assert outcome.binding == "macs"
    assert all(c.values[1] <= 200 and c.values[0] <= toy.limit for c in outcome.candidates)


class Racing:
    """A score that gives networks below the incumbent an estimate, and remembers what it was asked."""

    def __init__(self, toy):
        self.toy, self.asked = toy, []

    def __call__(self, widths, /):
        return self.toy.accuracy(widths)

    def race(self, networks, incumbent, /):
        for widths in networks:
            self.asked.append((widths, incumbent))
            score = self.toy.accuracy(widths)
            least = self.toy.accuracy(incumbent) if incumbent else 0.0
            yield score if score >= least else least - 0.01


def test_a_race_finds_what_full_scores_find(toy):
    settings = SearchSettings(population=20, parents=5, mutants=8, crossovers=8, generations=6)
    full = search(toy.problem, settings, seed=1)
    racing = Racing(toy)
    raced = search(dataclasses.replace(toy.problem, accuracy=racing), settings, seed=1)
    assert raced.best.widths == full.best.widths
    bars = [incumbent for _, incumbent in racing.asked]
    assert bars[:5] == [None] * 5, "nothing to compare the first networks with"
    assert None not in bars[5:]
    fifth_best = sorted((toy.accuracy(w) for w, _ in racing.asked[:5]), reverse=True)[4]
    assert toy.accuracy(bars[5]) == fifth_best


def test_a_race_that_was_killed_goes_on_as_if_it_had_not_been(toy, tmp_path):
    settings = SearchSettings(population=20, parents=5, mutants=8, crossovers=8, generations=4)
    unbroken = search(dataclasses.replace(toy.problem, accuracy=Racing(toy)), settings, seed=1)

    class Killed(Racing):
        def race(self, networks, incumbent, /):
            for score in super().race(networks, incumbent):
                if len(self.asked) == 33:  # in the middle of a block
                    raise KeyboardInterrupt
                yield score

    state = tmp_path / "search.jsonl"
    with pytest.raises(KeyboardInterrupt):
        search(dataclasses.replace(toy.problem, accuracy=Killed(toy)), settings, seed=1, state=state)
    resumed = search(dataclasses.replace(toy.problem, accuracy=Racing(toy)), settings, seed=1, state=state)
    assert resumed.candidates == unbroken.candidates


class Drifting(Device):
    """A device on which every second layer takes longer than predicted: no factor puts that right."""

    def true(self, widths):
        widths = np.array(widths)
        return float(self.toy.latency(widths[None])[0] + 20 * widths[::2].sum())

    def measure(self, leaders, earlier):
        figures = {leader.widths: {"latency": self.true(leader.widths)} for leader in leaders}
        return Correction(measured=figures, refitted=("latency",))

    def refit(self, networks, measured, errors):
        """Fits what the true latency is made of, by least squares."""

        def parts(widths):
            widths = np.asarray(widths, dtype=float)
            return np.stack([self.toy.latency(widths), widths[:, ::2].sum(axis=1)], axis=1)

        terms = np.linalg.lstsq(parts(networks), measured, rcond=None)[0]
        return lambda widths: parts(widths) @ terms

    def problem(self):
        constraint = dataclasses.replace(self.toy.constraint, refit=self.refit)
        return dataclasses.replace(self.toy.problem, constraints=(constraint,))


def test_a_refitted_predictor_stands_in_for_the_factor(toy):
    device = Drifting(toy)
    outcome = search(device.problem(), SETTINGS, seed=0, on_generation=device.measure)
    assert 0.95 * toy.limit < device.true(outcome.best.widths) <= toy.limit * (1 + 1e-9)
    assert outcome.limits[0].factor == 1.0
    for candidate in outcome.candidates:
        assert candidate.values[0] == pytest.approx(device.true(candidate.widths), rel=1e-6)


@pytest.mark.parametrize("count", [14, 30])
def test_a_killed_search_refits_as_the_unbroken_one_did(tmp_path, toy, count):
    device = Drifting(toy)
    expected = search(device.problem(), SETTINGS, seed=0, on_generation=device.measure)
    doomed = dataclasses.replace(device.problem(), accuracy=killed_after(count, toy.accuracy))
    state = tmp_path / "search.jsonl"
    with pytest.raises(Killed):
        search(doomed, SETTINGS, seed=0, state=state, on_generation=device.measure)
    assert search(device.problem(), SETTINGS, seed=0, state=state, on_generation=device.measure) == expected


def test_a_correction_beyond_reach_ends_a_search_with_what_was_measured_inside(toy):
    """Predictions may say that nothing fits any more; a network measured within the budget is a fact."""

    def measure(leaders, earlier):
        inside = {leader.widths: {"latency": 0.99 * toy.limit} for leader in leaders}
        return Correction(factors={"latency": 100.0}, measured=inside)

    outcome = search(toy.problem, SETTINGS, seed=0, on_generation=measure)
    assert len(outcome.history) == 1
    assert outcome.best.values == (0.99 * toy.limit,)
    with pytest.raises(BudgetError):
        search(toy.problem, SETTINGS, seed=0, on_generation=lambda *_: Correction(factors={"latency": 100.0}))


def test_only_a_predictor_that_can_be_refitted_is(toy):
    with pytest.raises(UsageError, match="names no constraint"):
        toy.problem.corrected(Correction(refitted=("latency",)))


def test_of_networks_that_the_score_does_not_tell_apart_the_largest_comes_first(toy_of):
    outcome = search(toy_of(limit=0.6).problem, SETTINGS, seed=0)
    first, second, third, *_ = outcome.ranked()
    capacity = {first.widths: 1.0, second.widths: 3.0, third.widths: 2.0}
    tied = dataclasses.replace(outcome, noise=first.score - second.score, capacity=capacity)
    assert tied.ranked()[0] == second
    assert dataclasses.replace(tied, noise=0.0).ranked() == outcome.ranked()
    wide = dataclasses.replace(tied, noise=first.score - third.score)
    assert wide.ranked()[:3] == [second, third, first]
    assert wide.ranked()[3:] == outcome.ranked()[3:]
