from __future__ import annotations

import math

import numpy as np
import pytest

from hwprune.errors import UsageError
from hwprune.evolution import Constraint, Correction, Problem


def total(widths):
    return widths.sum(axis=1)


def first(widths):
    return widths[:, 0] * 10.0


@pytest.fixture
def problem(space_of):
    constraints = (
        Constraint(name="latency", predict=total, limit=20.0, unit="ms"),
        Constraint(name="macs", predict=first, limit=100.0, unit="MACs"),
    )
    return Problem(space=space_of((4, 8), (4, 16)), constraints=constraints, accuracy=lambda w: sum(w) / 24)


def test_load_is_the_use_of_the_tightest_budget(problem):
    widths = np.array([[4, 4], [8, 16], [8, 4]])
    assert problem.load(widths).tolist() == [0.4, 1.2, 0.8]
    assert problem.feasible(widths).tolist() == [True, False, True]
    assert problem.values(widths).tolist() == [[8, 40], [24, 80], [12, 80]]


def test_a_network_exactly_at_its_limit_is_inside(problem):
    assert problem.feasible(np.array([[4, 16]]))[0]
    assert problem.load(np.array([[4, 16]]))[0] == 1.0


def test_binding_names_the_constraint_nearest_to_its_limit(problem):
    assert problem.binding((19.0, 20.0)).name == "latency"
    assert problem.binding((1.0, 20.0)).name == "macs"


def test_correction_scales_one_constraint_and_keeps_the_rest(problem):
    corrected = problem.corrected(Correction(factors={"latency": 1.5}))
    assert corrected.values(np.array([[4, 4]])).tolist() == [[12, 40]]
    assert problem.values(np.array([[4, 4]])).tolist() == [[8, 40]], "the original is untouched"
    again = corrected.corrected(Correction(factors={"macs": 2.0}))
    assert again.values(np.array([[4, 4]])).tolist() == [[12, 80]]


def test_correction_of_an_unknown_constraint_is_refused(problem):
    with pytest.raises(UsageError, match="no constraint") as caught:
        problem.corrected(Correction(factors={"power": 1.0}))
    assert caught.value.got == "power"


@pytest.mark.parametrize("limit", [0.0, -1.0, math.nan, math.inf])
def test_a_limit_must_be_a_number_above_zero(limit):
    with pytest.raises(UsageError, match="limit"):
        Constraint(name="latency", predict=total, limit=limit, unit="ms")


def test_a_problem_needs_constraints_with_different_names(problem):
    with pytest.raises(UsageError, match="needs a budget"):
        Problem(space=problem.space, constraints=(), accuracy=problem.accuracy)
    twice = (problem.constraints[0], problem.constraints[0])
    with pytest.raises(UsageError, match="twice"):
        Problem(space=problem.space, constraints=twice, accuracy=problem.accuracy)


@pytest.mark.parametrize(
    ("unit", "value", "text"),
    [
        ("ms", 14.2, "14.2 ms"),
        ("ms", 0.25, "250 µs"),
        ("MACs", 3e8, "300 M MACs"),
        ("bytes", 12.0, "12 bytes"),
    ],
)
def test_figures_are_told_with_their_unit(unit, value, text):
    assert Constraint(name="c", predict=total, limit=1.0, unit=unit).text(value) == text
