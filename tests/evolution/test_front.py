"""NSGA-II over all budgets of a front."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hwprune.evolution import Constraint, Correction, Problem, SearchSettings, search
from hwprune.evolution.front import FrontEvolution

LEVELS = tuple((np.geomspace(0.6, 0.3, 5) / 0.6).tolist())
SETTINGS = SearchSettings(
    population=24, parents=8, mutants=10, crossovers=10, generations=6, fit_children=True
)


def front_of(toy, seed=0, **options):
    return search(toy.problem, SETTINGS, seed=seed, levels=LEVELS, **options)


def best_at(outcome, level, limit):
    return max(one.score for one in outcome.candidates if one.values[0] <= level * limit)


def test_a_front_is_better_than_as_many_evaluations_in_separate_searches(toy_of):
    gains = []
    for seed in range(3):
        toy, alone = toy_of(limit=0.6), toy_of(limit=0.6)
        outcome = front_of(toy, seed)
        for level in LEVELS[1:]:
            tight = replace(alone.constraint, limit=level * alone.limit)
            found = search(replace(alone.problem, constraints=(tight,)), SETTINGS, seed=seed)
            gains.append(best_at(outcome, level, toy.limit) - found.best.score)
        assert len(toy.evaluated) == len(set(toy.evaluated)) == len(LEVELS) * 24 * 6
    assert np.mean(gains) > 0.002
    assert np.mean(np.array(gains) > 0) > 0.7


def test_no_network_is_outside_the_loosest_budget_or_far_below_the_tightest(toy_of):
    toy = toy_of(limit=0.6)
    shares = toy.latency(np.array(front_of(toy) and toy.evaluated)) / toy.limit
    assert shares.max() <= 1.0
    assert shares.min() >= 0.9 * min(LEVELS)
    counts, _ = np.histogram(shares, bins=[0, *sorted(LEVELS)])
    assert (counts > 20).all(), "every level has its networks"


def test_the_same_seed_gives_the_same_front_also_after_a_kill(toy_of, tmp_path: Path):
    whole = front_of(toy_of(limit=0.6), seed=3)
    assert front_of(toy_of(limit=0.6), seed=3).candidates == whole.candidates
    assert front_of(toy_of(limit=0.6), seed=4).candidates != whole.candidates
    killed, state = toy_of(limit=0.6), tmp_path / "state.jsonl"

    def score(widths):
        if len(killed.evaluated) == 150:
            raise KeyboardInterrupt
        return killed.accuracy(widths)

    with pytest.raises(KeyboardInterrupt):
        search(replace(killed.problem, accuracy=score), SETTINGS, seed=3, levels=LEVELS, state=state)
    again = toy_of(limit=0.6)
    resumed = search(again.problem, SETTINGS, seed=3, levels=LEVELS, state=state)
    assert resumed.candidates == whole.candidates
    assert len(again.evaluated) == len(whole.candidates) - 150


def test_the_best_network_of_each_level_is_measured_and_corrections_move_the_levels(toy_of):
    toy, seen = toy_of(limit=0.6), []

    def measured(leaders, earlier):
        seen.append([leader.values[0] / toy.limit for leader in leaders])
        return None if earlier else Correction(factors={"latency": 1.2})

    outcome = front_of(toy, on_generation=measured)
    for shares in seen[1:]:
        assert len(LEVELS) - 1 <= len(shares) <= len(LEVELS), "one may be the best at two levels"
        assert all(share <= level for share, level in zip(shares[::-1], LEVELS, strict=False))
    last = np.array([one.widths for one in outcome.candidates if one.generation == 17])
    assert (1.2 * toy.latency(last)).max() <= toy.limit


def test_networks_race_against_those_of_their_own_level(toy_of):
    """A network for a tight budget is not held against the best of a loose one."""
    toy = toy_of(limit=0.6)
    bars = []

    class Racing:
        def __call__(self, widths):
            return toy.accuracy(widths)

        def race(self, networks, incumbent):
            bars.append((networks, incumbent))
            return iter([toy.accuracy(net) for net in networks])

    search(replace(toy.problem, accuracy=Racing()), SETTINGS, seed=0, levels=LEVELS)
    compared = 0
    for networks, incumbent in bars:
        if incumbent is not None:
            loads = toy.latency(np.array([*networks, incumbent])) / toy.limit
            level = min(level for level in LEVELS if level >= loads[0] - 1e-9)
            assert loads[-1] <= level + 1e-9
            assert loads[:-1].max() <= level + 1e-9
            compared += 1
    assert compared > len(LEVELS)


def test_the_same_search_in_other_levels_is_another_one(toy_of, tmp_path: Path):
    state = tmp_path / "state.jsonl"
    front_of(toy_of(limit=0.6), state=state)
    with pytest.raises(Exception, match="belongs to something else"):
        search(toy_of(limit=0.6).problem, SETTINGS, levels=LEVELS[:3], state=state)


def test_a_generation_is_as_small_as_the_parents_of_all_levels(toy_of):
    evolution = FrontEvolution(toy_of(limit=0.6).problem, SETTINGS, seed=0, levels=LEVELS)
    assert len(evolution.ask()) == 8 * len(LEVELS)
    assert evolution.settings.generations == 18


@pytest.mark.parametrize("factor", [0.5, 0.8, 1.3, 2.0])
@pytest.mark.parametrize("levels", [(1.0, 0.97), (1.0, 0.9), (1.0, 0.8)])
def test_corrections_that_empty_the_range_do_not_end_the_search(toy_of, levels, factor):
    def measured(leaders, earlier):
        return None if earlier else Correction(factors={"latency": factor})

    toy = toy_of(limit=0.5)
    outcome = search(toy.problem, SETTINGS, levels=levels, on_generation=measured)
    assert max(one.generation for one in outcome.candidates) == 17
    assert outcome.ranked()


def test_another_limit_may_keep_every_network_below_the_levels(toy_of):
    toy = toy_of(limit=0.9)

    def macs(widths):
        return np.asarray(widths, dtype=float).sum(axis=1)

    second = Constraint(name="macs", predict=macs, limit=0.3 * 64 * 12, unit="MACs")
    problem = replace(toy.problem, constraints=(toy.constraint, second))
    outcome = search(problem, SETTINGS, levels=(1.0, 0.9))
    widths = np.array([one.widths for one in outcome.candidates])
    assert (macs(widths) <= second.limit).all()
    assert len(widths) == 2 * 24 * 6
    first = [one.score for one in outcome.candidates if one.generation == 0]
    assert outcome.best.score > max(first), "it still evolves"


def test_a_space_with_fewer_networks_than_asked_is_searched_to_its_end(space_of):
    space = space_of((1, 2), (1, 2), (1, 2))
    limit = Constraint(name="latency", predict=lambda w: w.sum(axis=1), limit=5.9, unit="ms")
    problem = Problem(space=space, constraints=(limit,), accuracy=lambda widths: float(sum(widths)))
    outcome = search(problem, SETTINGS, levels=(1.0, 0.95))
    assert len(outcome.candidates) == 7
    assert outcome.best.score == 5.0


def test_a_tightened_outcome_has_the_history_of_its_own_level(toy_of):
    outcome = front_of(toy_of(limit=0.6))
    tight = outcome.tightened(LEVELS[-1])
    assert tight.ranked()[0].score == tight.history[-1].best_score < outcome.history[-1].best_score
    assert all(one.budget_use <= 1.0 for one in tight.history)
    assert [one.evaluated for one in tight.history] == [one.evaluated for one in outcome.history]
