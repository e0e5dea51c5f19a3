from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwprune.errors import BudgetError
from hwprune.evolution import Constraint, Problem, Sampler
from hwprune.structure.space import ChannelGroup, SearchSpace


def problem_of(space, predict, limit, **more):
    constraints = [Constraint(name="latency", predict=predict, limit=limit, unit="ms")]
    constraints += [Constraint(name=n, predict=p, limit=m, unit="MACs") for n, (p, m) in more.items()]
    return Problem(space=space, constraints=tuple(constraints), accuracy=lambda widths: 0.0)


def staircase(widths):
    """Fast only at multiples of 8: the latency of a device with a channel multiple."""
    return (-(-widths // 8) * 8.0 + 30.0 * (widths % 8 != 0)).sum(axis=1)


@pytest.mark.parametrize("share", [0.1, 0.2, 0.5, 0.9, 0.99])
def test_every_draw_keeps_the_budget_and_uses_it(toy_of, share):
    problem = toy_of(groups=30, limit=share).problem
    sampler = Sampler(problem)
    drawn = sampler.genome.widths(sampler.draw(500, np.random.default_rng(0)))
    load = problem.load(drawn)
    assert len(np.unique(drawn, axis=0)) == 500
    assert (load <= 1.0).all()
    assert load.mean() > 0.95, "networks far below the budget waste it"


def test_draws_are_diverse(toy_of):
    sampler = Sampler(toy_of(groups=30, limit=0.3).problem)
    ratios = sampler.genome.widths(sampler.draw(500, np.random.default_rng(0))) / 64
    assert (ratios.std(axis=0) > 0.2).all(), "every group takes many widths"
    assert ratios.std(axis=1).mean() > 0.2, "wide and narrow groups go together in one network"
    assert (ratios.max(axis=0) > 0.9).all()


def test_the_seed_decides(toy):
    sampler = Sampler(toy.problem)
    one, two, other = (sampler.draw(50, np.random.default_rng(seed)).tolist() for seed in (1, 1, 2))
    assert one == two
    assert one != other


def test_known_networks_are_not_drawn_again(space_of, every_network):
    space = space_of((1, 2, 3), (1, 2, 3), (1, 2, 3))
    problem = problem_of(space, lambda w: w.sum(axis=1), 6.0)
    sampler = Sampler(problem)
    widths = every_network(space)
    inside = {tuple(row) for row in widths[problem.feasible(widths)].tolist()}
    known = set(list(inside)[:5])
    drawn = sampler.genome.widths(sampler.draw(10, np.random.default_rng(0), known=known)).tolist()
    assert {tuple(row) for row in drawn} <= inside - known


def test_an_exhausted_space_gives_what_it_has(space_of):
    sampler = Sampler(problem_of(space_of((1, 2), (1, 2)), lambda w: w.sum(axis=1), 2.5))
    assert sampler.genome.widths(sampler.draw(10, np.random.default_rng(0))).tolist() == [[1, 1]]


def test_several_limits_hold_together(toy):
    macs = toy.latency(np.array([toy.space.full()]))[0] * 0.3
    problem = problem_of(toy.space, lambda w: w.sum(axis=1), 400.0, macs=(toy.latency, macs))
    sampler = Sampler(problem)
    values = problem.values(sampler.genome.widths(sampler.draw(300, np.random.default_rng(0))))
    assert (values <= [400.0, macs]).all()
    assert (values > np.array([400.0, macs]) * 0.9).any(axis=0).all(), "each limit binds somewhere"


def test_an_unpruned_network_inside_the_budget_leaves_draws_as_they_are(space_of):
    space = space_of(*[tuple(range(1, 32))] * 10)
    sampler = Sampler(problem_of(space, lambda w: w.sum(axis=1), 1e6))
    drawn = sampler.draw(200, np.random.default_rng(0))
    assert drawn.mean() == pytest.approx(15, abs=1), "uniform, not all unpruned"


def test_the_fastest_network_is_not_the_smallest_on_a_staircase(space_of, every_network):
    space = space_of((3, 8, 12, 16), (5, 8, 16), (7, 9, 16))
    best = staircase(every_network(space)).min()
    assert staircase(np.array([space.smallest()]))[0] > best
    sampler = Sampler(problem_of(space, staircase, float(best)))
    assert staircase(sampler.genome.widths(sampler.fastest[None]))[0] == best
    assert sampler.draw(5, np.random.default_rng(0)).tolist() == [sampler.fastest.tolist()]


def test_an_impossible_budget_tells_the_fastest_networks_figure(space_of, every_network):
    space = space_of((3, 8, 12, 16), (5, 8, 16), (7, 9, 16))
    best = staircase(every_network(space)).min()
    with pytest.raises(BudgetError, match="No network of this space") as caught:
        Sampler(problem_of(space, staircase, float(best) - 0.5))
    assert f"{best:.3g} ms" in str(caught.value.allowed)
    assert caught.value.where == "latency"


def test_a_network_that_only_two_changes_together_lead_to_is_found(space_of):
    """Each of the first two groups alone is slower at 16 channels; both together are twice as fast."""
    space = space_of((8, 16, 32), (8, 16, 32), (8, 16, 32))

    def trap(widths):
        both, one = (widths[:, :2] == 16).all(axis=1), (widths[:, :2] == 16).any(axis=1)
        return np.where(both, 20.0, np.where(one, 90.0, 40.0)) + widths.sum(axis=1) / 100

    problem = problem_of(space, trap, 25.0)
    drawn = Sampler(problem).genome.widths(Sampler(problem).draw(3, np.random.default_rng(0)))
    assert len(drawn)
    assert (problem.load(drawn) <= 1.0).all()
    with pytest.raises(BudgetError, match="widths 16 16 8"):
        Sampler(problem_of(space, trap, 15.0))


def test_budgets_that_exclude_each_other_are_told_apart(space_of):
    space = space_of((1, 10), (10,))
    problem = problem_of(space, lambda w: 12.0 - w[:, 0], 5.0, macs=(lambda w: w[:, 0] * 1.0, 5.0))
    with pytest.raises(BudgetError, match="can be met alone") as caught:
        Sampler(problem)
    assert "latency" in str(caught.value.got)
    assert "macs" in str(caught.value.got)


def test_the_impossible_one_of_several_budgets_is_named(space_of):
    space = space_of((1, 10), (10,))
    problem = problem_of(space, lambda w: w.sum(axis=1), 15.0, macs=(lambda w: w.sum(axis=1), 5.0))
    with pytest.raises(BudgetError) as caught:
        Sampler(problem)
    assert caught.value.where == "macs"
    assert "11 MACs" in str(caught.value.allowed)
    problem = problem_of(space, lambda w: w.sum(axis=1), 7.0, macs=(lambda w: w.sum(axis=1), 5.0))
    with pytest.raises(BudgetError) as caught:
        Sampler(problem)
    assert caught.value.where == "latency, macs", "all of them"
    assert "11 ms" in str(caught.value.allowed)
    assert "11 MACs" in str(caught.value.allowed)


def test_a_space_that_is_frozen_altogether_has_one_network():
    space = SearchSpace("t", (1,), (), ())
    with pytest.raises(BudgetError):
        Sampler(problem_of(space, lambda w: np.full(len(w), 2.0), 1.0))


def test_repair_shrinks_what_is_outside_and_keeps_what_is_inside(toy):
    problem = toy.problem
    sampler = Sampler(problem)
    genomes = sampler.genome.random(200, np.random.default_rng(3))
    inside = problem.feasible(sampler.genome.widths(genomes))
    assert 0 < inside.sum() < 200
    repaired = sampler.repair(genomes, np.random.default_rng(4))
    assert problem.feasible(sampler.genome.widths(repaired)).all()
    assert (repaired[inside] == genomes[inside]).all()
    assert (repaired[~inside] <= genomes[~inside]).all(), "nothing grows in a repair"


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(2, 12), min_size=1, max_size=6),
    st.integers(0, 2**32 - 1),
    st.floats(0.0, 1.0),
)
def test_no_latency_however_jagged_breaks_the_limit(sizes, seed, share):
    groups = tuple(ChannelGroup(f"g{i}", n, 1, tuple(range(1, n + 1))) for i, n in enumerate(sizes))
    space, rng = SearchSpace("t", (1,), groups, ()), np.random.default_rng(seed)
    tables = [rng.uniform(0.1, 1.0, n + 1) for n in sizes]

    def jagged(widths):
        return sum(table[widths[:, g]] for g, table in enumerate(tables))

    least, most = sum(t[1:].min() for t in tables), sum(t[1:].max() for t in tables)
    problem = problem_of(space, jagged, least + share * (most - least) + 1e-6)
    sampler = Sampler(problem)  # latency is a sum over groups: the descent must find its minimum
    drawn = sampler.draw(20, rng)
    assert len(drawn) > 0
    assert problem.feasible(sampler.genome.widths(drawn)).all()
