"""Small spaces with known best networks, so that every claim can be checked by brute force."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from hwprune.evolution import Constraint, Problem
from hwprune.structure.space import ChannelGroup, SearchSpace


def make_space(*choices: tuple[int, ...]) -> SearchSpace:
    """A space whose groups have exactly these choices."""
    groups = (ChannelGroup(f"g{i}", allowed[-1], 1, allowed) for i, allowed in enumerate(choices))
    return SearchSpace("toy", (1, 3, 8, 8), tuple(groups), ())


class Toy:
    """A chain of layers: latency grows with neighbouring widths, accuracy with each width's logarithm."""

    def __init__(self, groups: int = 12, width: int = 64, limit: float = 0.4, seed: int = 0) -> None:
        self.space = make_space(*[(width,)] * groups).with_choices()
        rng = np.random.default_rng(seed)
        self.cost, self.worth = rng.uniform(0.5, 2.0, groups), rng.uniform(0.1, 1.0, groups)
        full = self.latency(np.array([self.space.full()]))[0]
        self.limit = limit * float(full)
        self.evaluated: list[tuple[int, ...]] = []

    def latency(self, widths):
        table = np.asarray(widths, dtype=float)
        return (table * np.roll(table, 1, axis=1) * self.cost).sum(axis=1) + 20 * table.sum(axis=1)

    def accuracy(self, widths):
        self.evaluated.append(widths)
        worth = float(np.dot(self.worth, np.log(np.array(widths))))
        return worth / float(np.dot(self.worth, np.log(np.array(self.space.full()))))

    @property
    def constraint(self) -> Constraint:
        return Constraint(name="latency", predict=self.latency, limit=self.limit, unit="ms")

    @property
    def problem(self) -> Problem:
        return Problem(space=self.space, constraints=(self.constraint,), accuracy=self.accuracy)


@pytest.fixture
def toy() -> Toy:
    return Toy()


@pytest.fixture
def toy_of():
    return Toy


@pytest.fixture
def space_of():
    return make_space


@pytest.fixture
def every_network():
    """All networks of a space as an array (N, groups)."""
    return lambda space: np.array(list(itertools.product(*[group.choices for group in space.groups])))
