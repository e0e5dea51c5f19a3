from __future__ import annotations

import numpy as np
import pytest

from hwprune.errors import BudgetError, ConfigError
from hwprune.evolution import Constraint, Correction, Evolution, Problem, SearchSettings

SMALL = SearchSettings(population=10, parents=4, mutants=4, crossovers=4, generations=6)


def run(evolution, accuracy, generations=None):
    """Drive an evolution as a user would; returns every generation's networks."""
    asked = []
    while not evolution.finished and (generations is None or len(asked) < generations):
        widths = evolution.ask()
        if not widths:
            break
        asked.append(widths)
        evolution.tell(widths, [accuracy(w) for w in widths])
    return asked


def test_the_defaults_are_the_papers_constants():
    settings = SearchSettings()
    assert (settings.population, settings.parents, settings.mutants, settings.crossovers) == (50, 10, 25, 25)
    assert (settings.generations, settings.mutation_probability) == (20, 0.1)


def test_wrong_settings_are_all_reported_at_once():
    with pytest.raises(ConfigError) as caught:
        SearchSettings(population=0, parents=-1, generations=2.5, mutation_probability=0.0)
    for name in ("population", "parents", "generations", "mutation_probability"):
        assert name in str(caught.value.got)


def test_children_must_fit_into_the_population():
    with pytest.raises(ConfigError, match="cannot work") as caught:
        SearchSettings(population=20)
    assert "mutants + crossovers is 50" in str(caught.value.got)


def test_every_network_is_new_and_inside_the_budget(toy):
    asked = run(Evolution(toy.problem, SearchSettings(generations=6), seed=0), toy.accuracy)
    assert [len(widths) for widths in asked] == [50] * 6
    everything = [widths for generation in asked for widths in generation]
    assert len(set(everything)) == len(everything)
    assert (toy.latency(np.array(everything)) <= toy.limit).all()
    assert all(type(width) is int for widths in everything for width in widths)


def test_ask_repeats_itself_until_told(toy):
    evolution = Evolution(toy.problem, SMALL, seed=0)
    widths = evolution.ask()
    widths.pop()
    assert len(evolution.ask()) == 10, "changing the answer does not change the question"
    assert evolution.ask() == evolution.ask()
    evolution.tell(evolution.ask(), [0.5] * 10)
    assert evolution.generation == 1


def test_tell_refuses_what_was_not_asked(toy):
    evolution = Evolution(toy.problem, SMALL, seed=0)
    widths = evolution.ask()
    with pytest.raises(ValueError, match="last ask"):
        evolution.tell(widths[1:], [0.1] * 9)
    with pytest.raises(ValueError, match="last ask"):
        evolution.tell(widths, [0.1] * 9)
    with pytest.raises(ValueError, match="finite"):
        evolution.tell(widths, [float("nan")] * 10)
    assert evolution.generation == 0


def test_scores_steer_the_search(toy):
    def narrow_first(widths):
        return -widths[0]

    wide = Evolution(toy.problem, SearchSettings(generations=10), seed=0)
    narrow = Evolution(toy.problem, SearchSettings(generations=10), seed=0)
    run(wide, lambda widths: widths[0])
    run(narrow, narrow_first)
    assert wide.best.widths[0] == 64
    assert narrow.best.widths[0] == 6


def test_children_of_the_best_are_asked_for(toy):
    """Half the children are mutants: they share most genes with one of the ten best."""
    evolution = Evolution(toy.problem, SearchSettings(generations=3), seed=0)
    run(evolution, toy.accuracy, generations=1)
    parents = np.array([c.widths for c in evolution.ranked()[:10]])
    children = np.array(evolution.ask())
    genes_from_parents = (children[:, None] == parents[None]).any(axis=1).mean(axis=1)
    same_as_one = (children[:, None] == parents[None]).mean(axis=2).max(axis=1)
    assert (same_as_one[:25] >= 0.5).all(), "mutants change few genes"
    assert (genes_from_parents[25:] == 1.0).sum() >= 20, "crossovers take all genes from parents"


def test_fitted_children_use_the_budget(toy):
    settings = SearchSettings(generations=6, fit_children=True)
    asked = run(Evolution(toy.problem, settings, seed=0), toy.accuracy)
    children = np.array([widths for generation in asked[1:] for widths in generation])
    use = toy.latency(children) / toy.limit
    assert use.max() <= 1.0 + 1e-9
    assert use.mean() > 0.95


def test_the_best_network_of_a_small_space_is_found(space_of, every_network):
    space = space_of(*[(2, 4, 6, 8)] * 6)
    worth = np.array([3.0, 1.0, 2.0, 5.0, 1.5, 2.5])
    cost = np.array([2.0, 1.0, 1.0, 3.0, 2.0, 1.0])
    constraint = Constraint(name="c", predict=lambda w: w @ cost, limit=40.0, unit="ms")
    problem = Problem(space=space, constraints=(constraint,), accuracy=lambda w: float(np.log(w) @ worth))
    widths = every_network(space)
    inside = widths[problem.feasible(widths)]
    expected = max(problem.accuracy(tuple(row)) for row in inside)
    evolution = Evolution(problem, SearchSettings(), seed=0)
    run(evolution, problem.accuracy)
    assert evolution.best.score == pytest.approx(expected)


def test_a_space_with_few_networks_ends_early(space_of):
    constraint = Constraint(name="c", predict=lambda w: w.sum(axis=1), limit=4.0, unit="ms")
    problem = Problem(space=space_of((1, 2, 3), (1, 2, 3)), constraints=(constraint,), accuracy=sum)
    evolution = Evolution(problem, SMALL, seed=0)
    asked = run(evolution, sum)
    everything = {widths for generation in asked for widths in generation}
    assert everything <= {(1, 1), (1, 2), (2, 1), (1, 3), (3, 1), (2, 2)}
    assert evolution.finished
    assert evolution.best.score == 4


def test_starts_are_tried_first_and_shrunk_into_the_budget(toy):
    small, large = toy.space.uniform(0.3), toy.space.full()
    evolution = Evolution(toy.problem, SMALL, seed=0, initial=[small, large])
    asked = evolution.ask()
    assert asked[0] == small
    assert asked[1] != large
    assert toy.problem.feasible(np.array(asked)).all()


def test_the_seed_and_the_generation_decide(toy):
    one, two = (Evolution(toy.problem, SMALL, seed=5) for _ in range(2))
    assert run(one, toy.accuracy) == run(two, toy.accuracy)
    assert Evolution(toy.problem, SMALL, seed=6).ask() != Evolution(toy.problem, SMALL, seed=5).ask()


def test_a_resumed_generation_replaces_the_question(toy):
    one = Evolution(toy.problem, SMALL, seed=1)
    asked = run(one, toy.accuracy)
    two = Evolution(toy.problem, SMALL, seed=1)
    for widths in asked[:3]:
        two.resume(widths)
        two.tell(widths, [toy.accuracy(w) for w in widths])
    assert run(two, toy.accuracy) == asked[3:]


def test_a_correction_puts_networks_outside_and_rescues_their_kin(toy):
    evolution = Evolution(toy.problem, SMALL, seed=0)
    run(evolution, toy.accuracy, generations=4)
    before = evolution.best
    evolution.correct(Correction(factors={"latency": 1.1}))
    assert all(value <= toy.limit for c in evolution.ranked() for value in c.values)
    assert before.widths not in [c.widths for c in evolution.ranked()], "it used more than 1 / 1.1"
    assert len(evolution.candidates) == 40, "what was evaluated is remembered"
    asked = evolution.ask()
    assert (toy.latency(np.array(asked)) * 1.1 <= toy.limit * (1 + 1e-9)).all()
    shrunk = [w for w in asked if all(a <= b for a, b in zip(w, before.widths, strict=True))]
    assert shrunk, "the best network comes back, shrunk into the budget"


def test_a_measured_figure_stands_in_place_of_the_prediction(toy):
    evolution = Evolution(toy.problem, SMALL, seed=0)
    run(evolution, toy.accuracy, generations=2)
    first, second, *_ = evolution.ranked()
    figures = {first.widths: {"latency": toy.limit * 1.01}, second.widths: {"latency": toy.limit * 0.5}}
    evolution.correct(Correction(measured=figures))
    assert evolution.best.widths == second.widths
    assert evolution.best.values == (toy.limit * 0.5,)
    evolution.correct(Correction(factors={"latency": 0.9}))
    assert evolution.best.values == (toy.limit * 0.5,), "a factor corrects predictions, not measurements"


def test_a_correction_that_leaves_no_network_says_so(toy):
    evolution = Evolution(toy.problem, SMALL, seed=0)
    run(evolution, toy.accuracy, generations=1)
    with pytest.raises(BudgetError, match="No network of this space"):
        evolution.correct(Correction(factors={"latency": 1000.0}))


def test_extra_generations_follow_a_last_correction_that_left_nothing(toy):
    evolution = Evolution(toy.problem, SMALL, seed=0)
    run(evolution, toy.accuracy)
    assert evolution.finished
    evolution.correct(Correction(factors={"latency": 2.0}))
    if evolution.best is None:
        assert not evolution.finished
        run(evolution, toy.accuracy, generations=1)
    assert evolution.finished
    assert evolution.best is not None
