"""Gates of blocks among the genes of a search; in this toy network a layer costs something however thin."""

from __future__ import annotations

import numpy as np
import pytest

from hwprune.errors import ImpossibleBudgetError
from hwprune.evolution import Constraint, Evolution, Problem, SearchSettings
from hwprune.evolution.operators import Genome, crossover, mutate, polynomial_mutation
from hwprune.evolution.sampling import Sampler
from hwprune.searching.initial import initial_population
from hwprune.structure.layers import Block, ChannelGroup, ChannelMap, Layer, Product, Run, Tensor
from hwprune.structure.space import SearchSpace

BLOCKS, WIDTH = 8, 32


def space_of_blocks() -> SearchSpace:
    """One group inside each block: block i is the layers i.a and i.b."""
    choices = tuple(range(4, WIDTH + 1, 4))
    groups = tuple(ChannelGroup(f"s.{i}.a", WIDTH, 1, choices) for i in range(BLOCKS))
    layers, products, blocks = [], [], []
    stage = ChannelMap.frozen(16)
    for i in range(BLOCKS):
        inside = ChannelMap((Run(i, 0, WIDTH),))
        for name, reads, makes in ((f"s.{i}.a", stage, inside), (f"s.{i}.b", inside, stage)):
            axes = tuple((axis, m) for axis, m in ((0, makes), (1, reads)) if m.groups)
            weight = Tensor(f"{name}.weight", (makes.size, reads.size, 1, 1), axes)
            layers.append(Layer(name, "conv", reads, makes, (weight,)))
            products.append(Product(name, makes, reads, 64))
        inner = (f"s.{i}.a", f"s.{i}.b")
        blocks.append(Block(f"s.{i}", f"x{i}", f"x{i + 1}", inner, (2 * i, 2 * i + 1)))
    return SearchSpace(
        "toy", (1, 16, 8, 8), groups, tuple(layers), products=tuple(products), blocks=tuple(blocks)
    )


SPACE = space_of_blocks()


def latency(networks):
    """A block costs 1, and up to 1 more by its width."""
    table = np.asarray(networks, dtype=float)
    return 1 + (table[:, BLOCKS:] * (1 + table[:, :BLOCKS] / WIDTH)).sum(axis=1)


def accuracy(network):
    table = np.array(network, dtype=float)
    return float((table[BLOCKS:] * np.log(table[:BLOCKS])).sum())


def problem(share: float) -> Problem:
    limit = share * float(latency([SPACE.full()])[0])
    constraint = Constraint(name="latency", predict=latency, limit=limit, unit="ms")
    return Problem(space=SPACE, constraints=(constraint,), accuracy=accuracy)


def test_genomes_are_networks_in_their_canonical_form():
    genome, rng = Genome(SPACE), np.random.default_rng(0)
    networks = genome.widths(genome.random(200, rng))
    assert (networks == SPACE.canonical(networks)).all()
    closed = networks[:, BLOCKS:] == 0
    assert (networks[:, :BLOCKS][closed] == 4).all()
    assert genome.widths(genome.nearest(networks)).tolist() == networks.tolist()
    shares = closed.mean(axis=1)
    assert shares.min() <= 0.125
    assert shares.max() >= 0.875


def test_draws_keep_the_budget_and_differ_in_depth():
    asked = problem(0.3)
    sampler, rng = Sampler(asked), np.random.default_rng(0)
    networks = sampler.genome.widths(sampler.draw(60, rng))
    assert len({tuple(one) for one in networks.tolist()}) == 60
    assert asked.feasible(networks).all()
    assert len(set(networks[:, BLOCKS:].sum(axis=1).tolist())) >= 3


def test_what_widths_cannot_reach_depth_can():
    widths_alone = SearchSpace("toy", SPACE.input_shape, SPACE.groups, SPACE.layers, products=SPACE.products)

    def full_depth(networks):
        return latency(np.hstack([networks, np.ones_like(networks)]))

    limit = 0.3 * float(latency([SPACE.full()])[0])
    constraint = Constraint(name="latency", predict=full_depth, limit=limit, unit="ms")
    with pytest.raises(ImpossibleBudgetError):
        Sampler(Problem(space=widths_alone, constraints=(constraint,), accuracy=lambda _: 0.0))
    Sampler(problem(0.3))


def test_the_first_networks_are_of_all_kinds_and_in_the_budget():
    asked = problem(0.6)
    first = np.array(initial_population(asked))
    depth, widths = first[:, BLOCKS:].sum(axis=1), first[:, :BLOCKS].max(axis=1)
    inside = asked.feasible(first)
    assert (inside & (depth == BLOCKS)).any(), "widths alone"
    assert (inside & (depth < BLOCKS) & (widths == WIDTH)).any(), "depth alone"
    assert (inside & (depth < BLOCKS) & (widths < WIDTH) & (widths > 4)).any(), "both"


@pytest.mark.parametrize("share", [0.3, 0.6])
def test_evolution_finds_the_best_depth(share):
    asked = problem(share)
    settings = SearchSettings(population=40, mutants=20, crossovers=20, generations=12, fit_children=True)
    evolution = Evolution(asked, settings, seed=0, initial=initial_population(asked))
    while not evolution.finished:
        networks = evolution.ask()
        evolution.tell(networks, [accuracy(one) for one in networks])
    even = max(
        accuracy(SPACE.check([width] * BLOCKS + [1] * kept + [0] * (BLOCKS - kept)))
        for kept in range(BLOCKS + 1)
        for width in SPACE.groups[0].choices
        if asked.feasible(np.array([SPACE.check([width] * BLOCKS + [1] * kept + [0] * (BLOCKS - kept))]))[0]
    )
    assert evolution.best is not None
    assert evolution.best.score >= even


@pytest.mark.parametrize("parents", [1, 2])
def test_a_block_that_comes_back_has_the_inside_of_a_parent_or_a_random_one(parents):
    genome, rng = Genome(SPACE), np.random.default_rng(0)
    without = np.repeat(genome.nearest([SPACE.check([4] * BLOCKS + [0] * BLOCKS)]), 400, axis=0)
    other = np.repeat(genome.nearest([SPACE.check([20] * BLOCKS + [1] * BLOCKS)]), 400, axis=0)
    if parents == 1:
        children = genome.widths(mutate(genome, without, 0.3, rng))
        inside = children[:, :BLOCKS][children[:, BLOCKS:] > 0]
        assert set(inside.tolist()) == set(SPACE.groups[0].choices)
    else:
        children = genome.widths(crossover(genome, without, other, rng))
        inside = children[:, :BLOCKS][children[:, BLOCKS:] > 0]
        assert len(inside)
        assert set(inside.tolist()) == {20}


def test_gates_mutate_in_fronts_as_often_as_widths():
    genome, rng = Genome(SPACE), np.random.default_rng(0)
    parents = np.repeat(genome.full[None], 4000, axis=0)
    children = polynomial_mutation(genome, parents, 3.0, rng)
    moved = (children != parents).mean(axis=0)
    assert moved[BLOCKS:].mean() == pytest.approx(1 / (2 * BLOCKS), rel=0.2)


def test_uniform_depth_is_spread_over_the_stage():
    gates = SPACE.uniform(1.0, 0.5)[BLOCKS:]
    assert sum(gates) == BLOCKS // 2
    assert max(len(run) for run in "".join(map(str, gates)).split("1")) <= 2
    assert SPACE.uniform(1.0, 0.0)[BLOCKS:] == (0,) * BLOCKS
    assert SPACE.uniform(0.5) == SPACE.uniform(0.5, 1.0)
