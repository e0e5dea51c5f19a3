"""A front of networks in one evolution: NSGA-II (Deb et al. 2002) on score and load.

What is good at one budget serves its neighbours too. With a score without noise that finds better networks
than one search for each budget on as many evaluations; with a PruningNet two seeds did not tell them apart
(docs/search.md).
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from hwprune.errors import BudgetError
from hwprune.evolution.algorithm import Evolution, Fresh, SearchSettings
from hwprune.evolution.operators import polynomial_mutation, simulated_binary_crossover
from hwprune.evolution.pareto import crowding, ranks
from hwprune.evolution.sampling import Sampler

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from hwprune.evolution.problem import Candidate, Problem
    from hwprune.structure.space import Widths

_ROUNDS = 10  # broods tried before random networks make up the shortfall
_BELOW = 0.9  # of the tightest level: networks of less load serve no budget
_INDEX = 3.0  # distribution index of crossover and mutation: children may be far from their parents


class FrontEvolution(Evolution):
    """Proposes networks of all loads up to the limit of the first constraint.

    Its generations are as small as NSGA-II likes them, `parents` for each level, and as many more as give the
    evaluations that one evolution with these settings for each level would have.

    Args:
        problem: What to optimise; the limit of its first constraint is the loosest budget.
        settings: The constants of an evolution for one budget.
        seed: As in `Evolution`.
        initial: Networks to try first at each level.
        levels: Shares of the first limit, 1 and below, at which networks are wanted.

    Raises:
        BudgetError: No network of the space keeps the limits.
    """

    def __init__(
        self,
        problem: Problem,
        settings: SearchSettings,
        *,
        seed: int,
        initial: Sequence[Widths] = (),
        levels: Sequence[float],
    ) -> None:
        generations = math.ceil(settings.population * settings.generations / settings.parents)
        own = replace(
            settings,
            population=settings.parents * len(levels),
            generations=generations,
            mutants=0,
            crossovers=0,
        )
        super().__init__(problem, own, seed=seed, initial=initial)
        self.levels = sorted(levels)

    def leaders(self) -> list[Candidate]:
        """The best network at each level."""
        ranked = self.ranked()
        best = (next((one for one in ranked if self._share(one) <= level), None) for level in self.levels)
        return list({one.widths: one for one in best if one is not None}.values())

    def blocks(self, widths: Sequence[Widths]) -> list[int]:
        """Where the networks of each level end; `ask` gives them in order of their loads."""
        if not widths:
            return []
        places = self._level_of(self._predicted(widths))
        return [*(np.flatnonzero(np.diff(places)) + 1).tolist(), len(widths)]

    def incumbent(self, widths: Sequence[Widths], scores: Sequence[float], upcoming: Widths) -> Widths | None:
        """What a network of a level has to beat: the last of the `parents` best that keep the level."""
        level = self.levels[int(self._level_of(self._predicted([upcoming]))[0])]
        earlier = [(one.score, one.widths) for one in self.ranked() if self._share(one) <= level]
        tighter = zip(scores, widths, strict=True)  # a generation comes in order of its loads
        inside = sorted([*earlier, *tighter], key=lambda pair: -pair[0])
        count = self.settings.parents
        return inside[count - 1][1] if len(inside) >= count else None

    def _share(self, candidate: Candidate) -> float:
        """Load of the first limit."""
        return candidate.values[0] / self.problem.constraints[0].limit

    def _predicted(self, widths: Sequence[Widths]) -> NDArray[np.float64]:
        first = self.problem.constraints[0]
        table = np.array(widths, dtype=np.int64).reshape(len(widths), len(self._sampler.genome.sizes))
        return first.values(table) / first.limit

    def _level_of(self, shares: NDArray[np.float64]) -> NDArray[np.int64]:
        """Index of the tightest level that holds each load."""
        places = np.searchsorted(np.array(self.levels) * (1 + 1e-9), shares)
        return np.minimum(places, len(self.levels) - 1)

    def _propose(self, rng: np.random.Generator) -> list[Widths]:
        """One generation: NSGA-II's children of the front; at first initial and random ones of each level."""
        fresh = Fresh(self.settings.population, (one.widths for one in self.candidates))
        if self.candidates:
            rescued = self._sampler.genome.widths(self._rescued(rng))
            fresh.add(map(tuple, rescued.tolist()))
            self._breed_front(fresh, rng)
        else:
            self._begin(fresh, rng)
        drawn = self._sampler.draw(fresh.room, rng, known=fresh.known)
        fresh.add(map(tuple, self._sampler.genome.widths(drawn).tolist()))
        self._rescue = False
        return self._by_load(fresh.networks)

    def _by_load(self, networks: list[Widths]) -> list[Widths]:
        """The least loaded first, as `blocks` needs them."""
        if not networks:
            return []
        return [networks[place] for place in np.argsort(self._predicted(networks), kind="stable").tolist()]

    def _begin(self, fresh: Fresh, rng: np.random.Generator) -> None:
        """An equal part for each level, the tightest first: initial ones moved into it, random ones."""
        first, *others = self.problem.constraints
        for done, level in enumerate(self.levels, start=1):
            tight = replace(self.problem, constraints=(replace(first, limit=level * first.limit), *others))
            try:
                sampler = Sampler(tight)
            except BudgetError:  # of this level, with the margin that it is aimed below
                continue
            genome, goal = sampler.genome, done * self.settings.parents
            if self._initial:
                usual = sampler.repair(genome.nearest(self._initial), rng)
                fresh.add(map(tuple, genome.widths(usual).tolist()), up_to=self.settings.parents // 2 or 1)
            drawn = sampler.draw(goal - len(fresh.networks), rng, known=fresh.known)
            fresh.add(map(tuple, genome.widths(drawn).tolist()))

    def _breed_front(self, fresh: Fresh, rng: np.random.Generator) -> None:
        """Add children of the front that keep all limits and are not far below the tightest level."""
        inside, floor = self.ranked(), _BELOW * self.levels[0]
        if not any(self._share(one) >= floor for one in inside):
            floor = 0.0  # other limits keep every network below the levels
        parents = self._survivors([one for one in inside if self._share(one) >= floor])
        for _ in range(_ROUNDS if len(parents) else 0):
            children = self._sampler.genome.widths(self._children(parents, rng))
            useful = self.problem.feasible(children) & (self._predicted(children.tolist()) >= floor)
            fresh.add(map(tuple, children[useful].tolist()))
            if not fresh.room:
                break

    def _children(self, parents: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
        """As many children as a generation has networks, of parents chosen in tournaments: (N, genes)."""
        genome, count = self._sampler.genome, self.settings.population
        rivals = rng.integers(len(parents), size=(2, count, 2))
        mothers, fathers = parents[rivals.min(axis=2)]  # the better one comes first
        children = simulated_binary_crossover(genome, mothers, fathers, _INDEX, rng)
        return polynomial_mutation(genome, children, _INDEX, rng)

    def _survivors(self, inside: Sequence[Candidate]) -> NDArray[np.int64]:
        """As many networks as a generation has, the best by rank and then crowding: (N, genes)."""
        scores, shares = [one.score for one in inside], [self._share(one) for one in inside]
        rank = ranks(scores, shares)
        best = np.lexsort((-crowding(scores, shares, rank), rank))[: self.settings.population]
        return self._sampler.genome.nearest([inside[place].widths for place in best])
