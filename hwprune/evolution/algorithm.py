"""The evolution of MetaPruning (section 3.3) behind ask and tell.

    evolution = Evolution(problem, settings, seed=0)
    while not evolution.finished:
        widths = evolution.ask()
        evolution.tell(widths, [accuracy(w) for w in widths])
    print(evolution.best)

Randomness depends on the seed and the number of the generation only, so a search that was interrupted goes
on exactly as it would have without the interruption.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

import numpy as np

from hwprune.errors import ConfigError
from hwprune.evolution.operators import crossover, mutate
from hwprune.evolution.problem import Candidate, Correction, Problem, within
from hwprune.evolution.sampling import Sampler

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from numpy.typing import NDArray

    from hwprune.structure.space import Widths

_ROUNDS = 10  # batches of children tried before random networks make up the shortfall
_EXTRA_GENERATIONS = 3  # granted when the last correction left no network inside the budget


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchSettings:
    """The paper's constants (MetaPruning, section 3.3 and the published search).

    Attributes:
        population: Networks evaluated in each generation.
        parents: The best networks so far that children are made from.
        mutants: Children by mutation in each generation.
        crossovers: Children by crossover; random networks make up the population.
        generations: How many, the random first one included.
        mutation_probability: Chance of each gene of a mutant to change.
        leaders: The best networks that are handed to `on_generation` for measuring.
        fit_children: Move children along a random path to the edge of the budget, in place of the paper's
            rejection of those outside it. Not in the paper; it finds more with as many evaluations
            (docs/search.md).

    Raises:
        ConfigError: Values that make no search; names all of them.
    """

    population: int = 50
    parents: int = 10
    mutants: int = 25
    crossovers: int = 25
    generations: int = 20
    mutation_probability: float = 0.1
    leaders: int = 5
    fit_children: bool = False

    def __post_init__(self) -> None:
        least = {"population": 1, "parents": 1, "mutants": 0, "crossovers": 0, "generations": 1, "leaders": 1}
        problems = [
            f"{name} is {getattr(self, name)!r}, allowed is a whole number from {low}"
            for name, low in least.items()
            if type(getattr(self, name)) is not int or getattr(self, name) < low
        ]
        if not problems and self.mutants + self.crossovers > self.population:
            children = self.mutants + self.crossovers
            problems.append(
                f"mutants + crossovers is {children}, allowed is up to population {self.population}"
            )
        if not 0.0 < self.mutation_probability <= 1.0:
            problems.append(f"mutation_probability is {self.mutation_probability!r}, allowed is 0 < p <= 1")
        if problems:
            known = ", ".join(field.name for field in fields(self))
            raise ConfigError("The search settings cannot work.", got="; ".join(problems), allowed=known)


class Evolution:
    """Proposes networks inside the budget and learns from their scores.

    Args:
        problem: What to optimise.
        settings: The constants of the evolution.
        seed: The same seed and scores give the same networks, whatever else happens.
        initial: Networks to try first; those outside the budget are shrunk into it.

    Attributes:
        problem: The problem with the corrections made so far.
        generation: Number of the generation that `ask` gives.

    Raises:
        BudgetError: No network of the space keeps the limits.
    """

    def __init__(
        self, problem: Problem, settings: SearchSettings, *, seed: int, initial: Sequence[Widths] = ()
    ) -> None:
        self.problem, self.settings, self.generation = problem, settings, 0
        self._seed, self._initial = seed, tuple(initial)
        self._sampler = Sampler(problem)
        self._candidates: dict[Widths, Candidate] = {}
        self._measured: dict[Widths, dict[str, float]] = {}
        self._errors: dict[Widths, dict[str, float]] = {}
        self._asked: list[Widths] | None = None
        self._rescue = False

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """Every network evaluated so far, in order, with its figures after all corrections."""
        return tuple(self._candidates.values())

    @property
    def best(self) -> Candidate | None:
        """The best network inside the budget; None before the first `tell`."""
        return next(iter(self.ranked()), None)

    @property
    def finished(self) -> bool:
        """Whether all generations are done, or the space has no other network inside the budget."""
        if self._asked == []:
            return True
        enough = self.generation >= self.settings.generations
        return enough and (
            self.best is not None or self.generation >= self.settings.generations + _EXTRA_GENERATIONS
        )

    def ranked(self) -> list[Candidate]:
        """The evaluated networks inside the budget, best first; of equal scores the least loaded first."""
        return [c for c, inside in self._by_score() if inside]

    def leaders(self) -> list[Candidate]:
        """The networks to measure after a generation: the best."""
        return self.ranked()[: self.settings.leaders]

    def blocks(self, widths: Sequence[Widths]) -> list[int]:
        """Where the parts of a generation end that have one incumbent, so that workers can share them out.

        The incumbent is looked at anew after the first `parents` networks only.
        """
        return [min(self.settings.parents, len(widths)), len(widths)]

    def incumbent(self, widths: Sequence[Widths], scores: Sequence[float], upcoming: Widths) -> Widths | None:
        """What networks have to beat to become parents: the last of those; None while there are too few.

        Args:
            widths: The networks of this generation that were scored before the block.
            scores: Their scores.
            upcoming: The first network of the block.
        """
        parents = self.settings.parents
        earlier = [(c.score, c.widths) for c in self.ranked()[:parents]]
        ranked = sorted([*earlier, *zip(scores, widths, strict=True)], key=lambda pair: -pair[0])
        return ranked[parents - 1][1] if len(ranked) >= parents else None

    def ask(self) -> list[Widths]:
        """The networks to evaluate next, all new and inside the budget; empty when there are none left."""
        if self._asked is None:
            self._asked = self._propose(np.random.default_rng([self._seed, self.generation]))
        return list(self._asked)

    def resume(self, widths: Sequence[Widths]) -> None:
        """Take over a generation that an interrupted run had asked for, in place of a new one."""
        self._asked, self._rescue = list(widths), False

    def tell(self, widths: Sequence[Widths], scores: Sequence[float]) -> None:
        """Give the scores of the networks that `ask` gave, in the same order.

        Raises:
            ValueError: Other networks than those asked for, or a score that is not a finite number.
        """
        if list(widths) != self._asked or len(scores) != len(widths):
            raise ValueError("tell() needs one score for each network of the last ask(), in its order")
        for net, score in zip(widths, scores, strict=True):
            self._candidates[net] = Candidate(
                widths=net, score=finite(score), values=(), generation=self.generation
            )
        self._update_values(widths)
        self.generation += 1
        self._asked = None

    def correct(self, correction: Correction) -> None:
        """Take in what measuring has taught; networks that now exceed a limit are out.

        Raises:
            BudgetError: After the correction no network of the space is predicted within the limits.
        """
        for known, found in ((self._measured, correction.measured), (self._errors, correction.errors)):
            for net, figures in found.items():
                known[net] = {**known.get(net, {}), **figures}
        self.problem = self.problem.corrected(correction, self._measured, self._errors)
        self._update_values(list(self._candidates))
        self._sampler = Sampler(self.problem)
        self._asked, self._rescue = None, True

    def end(self) -> None:
        """Ask for no more networks."""
        self._asked = []

    def _update_values(self, widths: Sequence[Widths]) -> None:
        if not widths:
            return
        names = [constraint.name for constraint in self.problem.constraints]
        predicted = self.problem.values(np.array(widths, dtype=np.int64)).tolist()
        for net, row in zip(widths, predicted, strict=True):
            measured = self._measured.get(net, {})
            values = tuple(measured.get(name, value) for name, value in zip(names, row, strict=True))
            self._candidates[net] = replace(self._candidates[net], values=values)

    def _by_score(self) -> list[tuple[Candidate, bool]]:
        """Every candidate, best first, and whether it is inside the budget."""
        if not self._candidates:
            return []
        candidates = self.candidates
        load = self.problem.load_of(np.array([candidate.values for candidate in candidates]))
        order = np.lexsort((load, np.array([-candidate.score for candidate in candidates])))
        inside = within(load)
        return [(candidates[i], bool(inside[i])) for i in order]

    def _propose(self, rng: np.random.Generator) -> list[Widths]:
        """One generation: children of the best, then random networks to fill the population."""
        settings, genome = self.settings, self._sampler.genome
        fresh = Fresh(settings.population, self._candidates)
        if self._candidates:
            parents, rescued = self._parents(rng)
            fresh.add(rescued)
            self._breed(fresh, settings.mutants, lambda n: self._mutants(parents, n, rng), rng)
            self._breed(fresh, settings.crossovers, lambda n: self._crossovers(parents, n, rng), rng)
        elif self._initial:
            fresh.add(
                map(tuple, genome.widths(self._sampler.repair(genome.nearest(self._initial), rng)).tolist())
            )
        drawn = self._sampler.draw(fresh.room, rng, known=fresh.known)
        fresh.add(map(tuple, genome.widths(drawn).tolist()))
        self._rescue = False
        return fresh.networks

    def _parents(self, rng: np.random.Generator) -> tuple[NDArray[np.int64], list[Widths]]:
        """The best networks as genomes, and leaders that a correction put outside, shrunk back into it."""
        genome, count = self._sampler.genome, self.settings.parents
        ranked = self._by_score()
        parents = genome.nearest([c.widths for c, inside in ranked if inside][:count])
        rescued = self._rescued(rng)
        return np.concatenate([parents, rescued])[:count], [*map(tuple, genome.widths(rescued).tolist())]

    def _rescued(self, rng: np.random.Generator) -> NDArray[np.int64]:
        """Those of the best networks that the last correction put outside, shrunk back: (N, genes)."""
        best = self._by_score()[: self.settings.parents] if self._rescue else []
        genomes = self._sampler.genome.nearest([c.widths for c, inside in best if not inside])
        return self._sampler.repair(genomes, rng) if len(genomes) else genomes

    def _mutants(self, parents: NDArray[np.int64], count: int, rng: np.random.Generator) -> NDArray[np.int64]:
        chosen = parents[rng.integers(len(parents), size=count)]
        return mutate(self._sampler.genome, chosen, self.settings.mutation_probability, rng)

    def _crossovers(
        self, parents: NDArray[np.int64], count: int, rng: np.random.Generator
    ) -> NDArray[np.int64]:
        pairs = rng.integers(len(parents), size=(2, count))
        return crossover(self._sampler.genome, parents[pairs[0]], parents[pairs[1]], rng)

    def _breed(
        self, fresh: Fresh, count: int, make: Callable[[int], NDArray[np.int64]], rng: np.random.Generator
    ) -> None:
        """Add up to `count` new children inside the budget."""
        sampler = self._sampler
        goal = min(len(fresh.networks) + count, self.settings.population)
        for _ in range(_ROUNDS):
            missing = goal - len(fresh.networks)
            if missing <= 0:
                return
            if self.settings.fit_children:
                inside = sampler.genome.widths(sampler.fit(make(missing + 2), rng))
            else:
                children = sampler.genome.widths(make(4 * missing))
                inside = children[self.problem.feasible(children)]
            fresh.add(map(tuple, inside.tolist()), up_to=missing)


class Fresh:
    """Networks that were neither evaluated nor proposed before, in order, up to a capacity."""

    def __init__(self, capacity: int, known: Iterable[Widths]) -> None:
        self._capacity, self.known = capacity, set(known)
        self.networks: list[Widths] = []

    @property
    def room(self) -> int:
        """How many more there may be."""
        return self._capacity - len(self.networks)

    def add(self, networks: Iterable[Widths], up_to: int | None = None) -> None:
        """Add those of `networks` that are new, at most `up_to` of them."""
        left = self.room if up_to is None else min(up_to, self.room)
        for net in networks:
            if left > 0 and net not in self.known:
                self.known.add(net)
                self.networks.append(net)
                left -= 1


def finite(score: float) -> float:
    """The score as a float.

    Raises:
        ValueError: It is not a finite number.
    """
    if not math.isfinite(score):
        raise ValueError(f"a score must be a finite number, got {score!r}")
    return float(score)
