"""A front of networks in one evolution: NSGA-II (Deb et al. 2002), as pymoo has it, on score and load.

Compared with one search for each budget on as many evaluations (docs/search.md) it finds the better networks,
for what is good at one budget serves its neighbours too.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from hwprune.evolution.algorithm import Evolution, Fresh, SearchSettings
from hwprune.evolution.problem import Problem, within
from hwprune.evolution.sampling import Sampler

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from hwprune.evolution.problem import Candidate
    from hwprune.structure.space import Widths

_ROUNDS = 10  # broods tried before random networks make up the shortfall
_BELOW = 0.9  # of the tightest level: networks of less load serve no budget
_SPREAD = 3.0  # distribution index of crossover and mutation: children may be far from their parents
_CHANCE = 0.9


class FrontEvolution(Evolution):
    """Proposes networks of all loads up to the limit of the first constraint.

    Its generations are as small as NSGA-II likes them, `parents` for each level, and as many more as give the
    evaluations that one evolution with these settings for each level would have.

    Args:
        problem: What to optimise; the limit of its first constraint is the loosest budget.
        settings: The constants of an evolution for one budget.
        seed: As in `Evolution`.
        starts: Networks to try first at each level.
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
        starts: Sequence[Widths] = (),
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
        super().__init__(problem, own, seed=seed, starts=starts)
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

    def bar(self, widths: Sequence[Widths], scores: Sequence[float], upcoming: Widths) -> Widths | None:
        """What a network of a level has to beat: the last of the `parents` best that keep the level."""
        level = self.levels[int(self._level_of(self._predicted([upcoming]))[0])]
        inside = [one.widths for one in self.ranked() if self._share(one) <= level]
        count = self.settings.parents
        return inside[count - 1] if len(inside) >= count else None

    def _share(self, candidate: Candidate) -> float:
        """Load of the first limit."""
        return candidate.values[0] / self.problem.constraints[0].limit

    def _predicted(self, widths: Sequence[Widths]) -> NDArray[np.float64]:
        first = self.problem.constraints[0]
        return first.values(np.array(widths, dtype=np.int64)) / first.limit

    def _level_of(self, shares: NDArray[np.float64]) -> NDArray[np.int64]:
        """Index of the tightest level that holds each load."""
        places = np.searchsorted(np.array(self.levels) * (1 + 1e-9), shares)
        return np.minimum(places, len(self.levels) - 1)

    def _propose(self, rng: np.random.Generator) -> list[Widths]:
        """One generation: NSGA-II's children of the front; at first starts and random ones of each level."""
        fresh = Fresh(self.settings.population, {one.widths: one for one in self.candidates})
        if self.candidates:
            for _ in range(_ROUNDS):
                children = self._sampler.genome.widths(self._children(rng))
                fresh.add(map(tuple, children[self._useful(children)].tolist()))
                if not fresh.room:
                    break
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
        """An equal part for each level, the tightest first: starts that are moved into it, random ones."""
        first, *others = self.problem.constraints
        for done, level in enumerate(self.levels, start=1):
            tight = replace(self.problem, constraints=(replace(first, limit=level * first.limit), *others))
            sampler = Sampler(tight)
            genome, goal = sampler.genome, done * self.settings.parents
            if self._starts:
                usual = sampler.repair(genome.nearest(self._starts), rng)
                fresh.add(map(tuple, genome.widths(usual).tolist()), up_to=self.settings.parents // 2 or 1)
            drawn = sampler.draw(goal - len(fresh.networks), rng, known=fresh.known)
            fresh.add(map(tuple, genome.widths(drawn).tolist()))

    def _useful(self, widths: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether networks keep all limits and are not far below the tightest level."""
        above: NDArray[np.bool_] = self._predicted(widths.tolist()) >= _BELOW * self.levels[0]
        return self.problem.feasible(widths) & above

    def _children(self, rng: np.random.Generator) -> NDArray[np.int64]:
        """As many children as a generation has networks, of the best by rank and crowding: (N, groups)."""
        from pymoo.algorithms.moo.nsga2 import NSGA2, RankAndCrowding
        from pymoo.core.evaluator import Evaluator
        from pymoo.core.population import Population
        from pymoo.core.problem import Problem as Task
        from pymoo.operators.crossover.sbx import SBX
        from pymoo.operators.mutation.pm import PM
        from pymoo.operators.repair.rounding import RoundingRepair
        from pymoo.problems.static import StaticProblem

        genome, known = self._sampler.genome, self.candidates
        task = Task(n_var=len(genome.sizes), n_obj=2, n_ieq_constr=1, xl=0, xu=genome.full, vtype=int)
        load = self.problem.load_of(np.array([one.values for one in known]))
        shares = np.array([self._share(one) for one in known])
        outside = np.maximum(load - 1.0, _BELOW * self.levels[0] - shares)
        outside = np.where(within(load) & (outside < 1e-6), np.minimum(outside, 0.0), outside)
        figures = {"F": np.column_stack([[-one.score for one in known], shares]), "G": outside[:, None]}
        everyone = Population.new(X=genome.nearest([one.widths for one in known]).astype(float))
        Evaluator().eval(StaticProblem(task, **figures), everyone)
        own: dict[str, Any] = {"prob": _CHANCE, "eta": _SPREAD, "vtype": float, "repair": RoundingRepair()}
        ways = {"crossover": SBX(**own), "mutation": PM(**own), "eliminate_duplicates": True}
        count = min(self.settings.population, len(everyone))
        survivors = RankAndCrowding().do(task, everyone, n_survive=count, random_state=rng)
        algorithm = NSGA2(pop_size=self.settings.population, sampling=survivors, **ways)
        algorithm.setup(task, termination=("n_gen", 10**6), seed=int(rng.integers(2**31)))
        algorithm.tell(infills=algorithm.ask())
        children: NDArray[np.float64] = algorithm.ask().get("X")
        return np.clip(np.rint(children), 0, genome.full).astype(np.int64)
