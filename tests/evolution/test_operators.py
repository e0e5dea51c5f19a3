from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwprune.evolution.operators import Genome, crossover, mutate
from hwprune.structure.space import ChannelGroup, SearchSpace

choices = st.sets(st.integers(1, 64), min_size=1, max_size=6).map(lambda found: tuple(sorted(found)))


def space(*groups):
    return SearchSpace("t", (1,), tuple(ChannelGroup(f"g{i}", g[-1], 1, g) for i, g in enumerate(groups)), ())


@given(st.lists(choices, min_size=1, max_size=5), st.integers(0, 2**32 - 1))
def test_indices_and_widths_are_two_forms_of_one_network(groups, seed):
    genome = Genome(space(*groups))
    drawn = genome.random(20, np.random.default_rng(seed))
    widths = genome.widths(drawn)
    assert all(width in groups[g] for row in widths.tolist() for g, width in enumerate(row))
    assert genome.nearest([tuple(row) for row in widths.tolist()]).tolist() == drawn.tolist()
    assert genome.widths(genome.full).tolist() == [g[-1] for g in groups]


def test_nearest_takes_widths_that_are_no_choice():
    assert Genome(space((4, 8, 16), (10, 20))).nearest([(11, 1), (13, 99)]).tolist() == [[1, 0], [2, 1]]


@given(st.lists(choices, min_size=1, max_size=5), st.floats(0.01, 1.0), st.integers(0, 2**32 - 1))
def test_operators_stay_inside_the_space(groups, probability, seed):
    rng, genome = np.random.default_rng(seed), Genome(space(*groups))
    parents = genome.random(10, rng)
    children = mutate(genome, parents, probability, rng)
    assert ((children >= 0) & (children < genome.sizes)).all()
    mixed = crossover(genome, parents, children, rng)
    assert ((mixed == parents) | (mixed == children)).all()


def test_a_mutating_gene_always_moves_and_to_any_other_choice_equally_often():
    genome = Genome(space(tuple(range(1, 6)), (7,)))
    parents = np.full((40_000, 2), (2, 0))
    children = mutate(genome, parents, 1.0, np.random.default_rng(0))
    counts = np.bincount(children[:, 0], minlength=5)
    assert counts[2] == 0, "a gene that mutates must change"
    assert counts[[0, 1, 3, 4]] == pytest.approx(10_000, rel=0.05)
    assert (children[:, 1] == 0).all(), "a group with one choice has nowhere to go"


def test_mutation_probability_is_per_gene():
    genome = Genome(space(*[tuple(range(1, 32))] * 50))
    parents = genome.random(2000, np.random.default_rng(1))
    changed = mutate(genome, parents, 0.1, np.random.default_rng(2)) != parents
    assert changed.mean() == pytest.approx(0.1, abs=0.005)
    assert changed.mean(axis=0) == pytest.approx(0.1, abs=0.04), "the same for every gene"


def test_crossover_tosses_a_fair_coin_for_each_gene():
    mothers, fathers = np.zeros((4000, 10), dtype=int), np.ones((4000, 10), dtype=int)
    children = crossover(Genome(space(*[(1, 2)] * 10)), mothers, fathers, np.random.default_rng(0))
    assert children.mean(axis=0) == pytest.approx(0.5, abs=0.04)
    assert len(np.unique(children, axis=0)) > 900, "genes are tossed one by one"
