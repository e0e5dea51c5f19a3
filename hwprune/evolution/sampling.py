"""Random networks inside the budget, by construction.

Rejecting random networks until one fits takes for ever under a tight budget. Here every draw ends: a random
network lies on a path that leads from the fastest network through it to the unpruned one, each gene moving
in its own random stretch of the way, and a search along the path finds the last point inside the budget.
Only points whose figures were computed are ever returned, so a latency that is not quite monotone (the
staircase of a device) costs a little of the budget, never a broken limit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hwprune.errors import ImpossibleBudgetError
from hwprune.evolution.operators import Genome
from hwprune.evolution.problem import within

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from numpy.typing import NDArray

    from hwprune.evolution.problem import Constraint, Problem
    from hwprune.structure.space import Widths

_STEPS = 7  # predictions along a path
_ROUNDS = 8  # draws before the space counts as exhausted
_DESCENTS = 20  # sweeps over all single-gene moves in search of the fastest network
_DRAWN, _SLIM = 2048, 4  # random networks, and those of them that further descents begin at


class Sampler:
    """Draws networks that keep every limit of a problem.

    Attributes:
        genome: Translates choice indices into widths.
        fastest: A network that keeps every limit, as choice indices (genes,).

    Raises:
        ImpossibleBudgetError: Even the fastest network exceeds a limit; tells its figure.
    """

    def __init__(self, problem: Problem) -> None:
        self.genome = Genome(problem.space)
        self._problem = problem
        self.fastest: NDArray[np.int64] = np.zeros_like(self.genome.sizes)
        if not within(self._load(self.fastest[None]))[0]:
            self.fastest = _descend(self.genome, problem.load)
        self._fastest_load, self._full_load = self._load(np.stack([self.fastest, self.genome.full]))
        if not within(np.array([self._fastest_load]))[0]:
            self.fastest = _least(self.genome, problem.load)
            self._fastest_load = float(self._load(self.fastest[None])[0])
        if not within(np.array([self._fastest_load]))[0]:
            raise _impossible(problem, self.genome, self.fastest)

    def _load(self, genomes: NDArray[np.int64]) -> NDArray[np.float64]:
        return self._problem.load(self.genome.widths(genomes))

    def draw(
        self, count: int, rng: np.random.Generator, known: Collection[Widths] = frozenset()
    ) -> NDArray[np.int64]:
        """Draw up to `count` different networks inside the budget that use it well.

        Args:
            count: How many.
            rng: Source of randomness; the same state gives the same networks.
            known: Networks not to return again.

        Returns:
            Choice indices, (count, genes); fewer rows when the space has hardly any other networks.
        """
        found: dict[Widths, list[int]] = {}  # by networks: what lies inside missing blocks does not count
        for _ in range(_ROUNDS):
            missing = count - len(found)
            if missing <= 0:
                break
            genomes = self.fit(self.genome.random(missing + 8, rng), rng)
            widths = map(tuple, self.genome.widths(genomes).tolist())
            pairs = zip(widths, genomes.tolist(), strict=True)
            for net, row in pairs:
                if net not in known:
                    found.setdefault(net, row)
        return np.array([*found.values()][:count], dtype=np.int64).reshape(-1, len(self.genome.sizes))

    def fit(self, genomes: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
        """Shrink or grow networks to the edge of the budget: (N, genes) -> (N, genes)."""
        return self._along_paths(genomes, rng, grow=True)

    def repair(self, genomes: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
        """Shrink networks that exceed a limit until they keep it: (N, genes) -> (N, genes)."""
        return self._along_paths(genomes, rng, grow=False)

    def _along_paths(
        self, middle: NDArray[np.int64], rng: np.random.Generator, *, grow: bool
    ) -> NDArray[np.int64]:
        """The last networks inside the budget on random paths fastest (0) -> middle (1) -> unpruned (2)."""
        first = rng.random(middle.shape, dtype=np.float32)
        length = rng.random(middle.shape, dtype=np.float32) * (1 - first)
        paths = _Paths(self.fastest, middle, self.genome.full, first, length)
        load = self._load(middle)
        inside = within(load)
        best = np.where(inside[:, None], middle, self.fastest)
        open_ended = inside & (not grow or bool(within(np.array([self._full_load]))[0]))
        low = np.where(inside, 1.0, 0.0)
        low_load = np.where(inside, load, self._fastest_load)
        high_load = np.where(inside, self._full_load, load)
        rows = np.flatnonzero(~open_ended)
        self._tighten(paths, best, rows, (low, low + 1.0, low_load, high_load))
        return best

    def _tighten(
        self,
        paths: _Paths,
        best: NDArray[np.int64],
        rows: NDArray[np.int64],
        bracket: tuple[NDArray[np.float64], ...],
    ) -> None:
        """Narrow the stretch that holds the limit, keeping in `best` the last point found inside it."""
        low, high, low_load, high_load = (edge[rows] for edge in bracket)
        for step in range(_STEPS):
            # Straight-line guesses home in fast; a halving now and then keeps a curved path from stalling.
            slope = (1.0 - low_load) / np.maximum(high_load - low_load, 1e-12)
            share = np.full(len(rows), 0.5) if step % 3 == 2 else np.clip(slope, 0.05, 0.95)
            place = low + (high - low) * share
            genomes = paths.at(place, rows)
            load = self._load(genomes)
            inside = within(load)
            best[rows[inside]] = genomes[inside]
            low, low_load = np.where(inside, place, low), np.where(inside, load, low_load)
            high, high_load = np.where(inside, high, place), np.where(inside, high_load, load)


class _Paths:
    """Where the genes of N networks stand along their ways from fastest through middle to full."""

    def __init__(
        self,
        fastest: NDArray[np.int64],
        middle: NDArray[np.int64],
        full: NDArray[np.int64],
        first: NDArray[np.float32],
        length: NDArray[np.float32],
    ) -> None:
        self._ends, self._middle = (fastest.astype(np.float32), full.astype(np.float32)), middle
        self._first, self._speed = first, 1 / np.maximum(length, np.float32(1e-3))

    def at(self, place: NDArray[np.float64], rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Choice indices at `place` (N,), 0..2, on the paths `rows` (N,): (N, genes)."""
        beyond = place > 1.0
        part = np.where(beyond, place - 1.0, place).astype(np.float32)[:, None]
        moved = np.clip((part - self._first[rows]) * self._speed[rows], 0.0, 1.0)  # 0..1 of each gene's way
        middle = self._middle[rows].astype(np.float32)
        start = np.where(beyond[:, None], middle, self._ends[0])
        end = np.where(beyond[:, None], self._ends[1], middle)
        return np.rint(start + (end - start) * moved).astype(np.int64)


def _least(genome: Genome, load: Callable[[NDArray[np.int64]], NDArray[np.float64]]) -> NDArray[np.int64]:
    """The network that needs least, of those that descents from several networks end at.

    Latency is jagged: one descent may end where no single group can do better, though two together can.
    """
    drawn = genome.random(_DRAWN, np.random.default_rng(0))
    slim = drawn[np.argsort(load(genome.widths(drawn)), kind="stable")[:_SLIM]]
    ends = np.stack([_descend(genome, load), *(_descend(genome, load, start) for start in slim)])
    best: NDArray[np.int64] = ends[load(genome.widths(ends)).argmin()]
    return best


def _descend(
    genome: Genome,
    load: Callable[[NDArray[np.int64]], NDArray[np.float64]],
    start: NDArray[np.int64] | None = None,
) -> NDArray[np.int64]:
    """Coordinate descent, from the smallest network, for fewer channels are not always faster."""
    best = np.zeros_like(genome.sizes) if start is None else start
    if not len(best):
        return best
    group = np.repeat(np.arange(len(genome.sizes)), genome.sizes)
    choice = np.concatenate([np.arange(size) for size in genome.sizes])
    best_load = load(genome.widths(best[None]))[0]
    for _ in range(_DESCENTS):
        moves = np.repeat(best[None], len(group), axis=0)
        moves[np.arange(len(group)), group] = choice
        gains = best_load - load(genome.widths(moves))
        order = np.argsort(-gains, kind="stable")
        _, first = np.unique(group[order], return_index=True)
        ranked = order[np.sort(first)]  # the best move of each group, best group first
        ranked = ranked[gains[ranked] > 0]
        if not len(ranked):
            break
        joined = np.repeat(best[None], len(ranked), axis=0)
        for place, move in enumerate(ranked):
            joined[place:, group[move]] = choice[move]
        loads = load(genome.widths(joined))
        if loads.min() >= best_load:
            break
        best, best_load = joined[loads.argmin()], loads.min()
    return best


def _impossible(problem: Problem, genome: Genome, fastest: NDArray[np.int64]) -> ImpossibleBudgetError:
    """Say which limits no network keeps, and what the network that needs least of each needs."""
    least = {one.name: _Least.of(genome, one) for one in problem.constraints}
    if alone := [one for one in problem.constraints if least[one.name].value > one.limit]:
        return ImpossibleBudgetError(
            "No network of this space keeps the budget.",
            where=", ".join(one.name for one in alone),
            got=", ".join(one.text(one.limit) for one in alone),
            allowed="; ".join(f"at least {least[one.name].text}" for one in alone),
            do="raise the budget, or allow narrower widths",
        )
    values = problem.values(genome.widths(fastest[None]))[0]
    pairs = list(zip(problem.constraints, values.tolist(), strict=True))
    return ImpossibleBudgetError(
        "Each budget can be met alone, but no network was found that meets all of them.",
        where=", ".join(c.name for c in problem.constraints),
        got="; ".join(f"{c.name} {c.text(value)} with a limit of {c.text(c.limit)}" for c, value in pairs),
        allowed="; ".join(f"alone {one.text}" for one in least.values()),
        do="raise the budgets that the network above exceeds",
    )


@dataclass(frozen=True)
class _Least:
    """The network that needs least of one thing, and how much."""

    constraint: Constraint
    value: float
    widths: Widths
    groups: int

    @classmethod
    def of(cls, genome: Genome, constraint: Constraint) -> _Least:
        """Look for it."""
        widths = genome.widths(_least(genome, constraint.values)[None])
        value = float(constraint.values(widths)[0])
        return cls(constraint, value, tuple(widths[0].tolist()), genome.groups)

    @property
    def text(self) -> str:
        """`1.2 ms (cpu-1t of the network that needs least: widths 8 8 16)`."""
        name, count = self.constraint.name, self.groups
        parts = ["widths " + " ".join(map(str, self.widths[:count]))]
        if gates := self.widths[count:]:
            parts.append(f"{gates.count(0)} of {len(gates)} blocks left out")
        told = ", ".join(parts)
        return f"{self.constraint.text(self.value)} ({name} of the network that needs least: {told})"
