"""Guessing scores from known ones: right for additive scores, and worth it for others."""

from __future__ import annotations

import numpy as np
import pytest

from hwprune.errors import ConfigError
from hwprune.evolution import SearchSettings, search
from hwprune.evolution.prerank import AdditiveGuess

SETTINGS = {"population": 20, "parents": 5, "mutants": 8, "crossovers": 8, "generations": 5}


def test_an_additive_score_is_guessed_right(toy):
    rng = np.random.default_rng(0)
    known = [toy.space.sample(rng) for _ in range(200)]
    guess = AdditiveGuess(toy.space.full(), known, [toy.accuracy(net) for net in known])
    fresh = [toy.space.sample(rng) for _ in range(50)]
    truth = [toy.accuracy(net) for net in fresh]
    assert np.corrcoef(guess(np.array(fresh)), truth)[0, 1] > 0.99


def test_one_network_is_enough_for_a_guess(toy):
    guess = AdditiveGuess(toy.space.full(), [toy.space.full()], [0.7])
    assert guess(np.array([toy.space.smallest()])) == pytest.approx(0.7)


def test_preranked_children_find_more_with_as_many_evaluations(toy_of):
    def best(prerank: int) -> float:
        toys = [toy_of(groups=20, limit=0.3, seed=seed) for seed in range(6)]
        settings = SearchSettings(**SETTINGS, prerank=prerank)
        found = [search(one.problem, settings, seed=seed).best.score for seed, one in enumerate(toys)]
        assert {len(one.evaluated) for one in toys} == {100}
        return float(np.mean(found))

    assert best(8) > best(1)


def test_preranked_children_keep_the_budget_and_follow_the_seed(toy):
    settings = SearchSettings(**SETTINGS, prerank=4, fit_children=True)
    first, again = (search(toy.problem, settings, seed=3) for _ in range(2))
    assert first == again
    assert toy.problem.feasible(np.array([one.widths for one in first.candidates])).all()


def test_a_setting_that_cannot_be_is_told():
    with pytest.raises(ConfigError, match="search settings"):
        SearchSettings(prerank=0)
