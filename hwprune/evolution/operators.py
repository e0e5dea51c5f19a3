"""Networks as choice indices; the operators of the paper (MetaPruning, section 3.3) and of NSGA-II on them.

A *genome* is one row of small integers: for each channel group the index of the chosen width, for each block
its gate. Everything here works on many genomes at once, as arrays (N, genes).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from hwprune.structure.space import SearchSpace, Widths


class Genome:
    """Translates between choice indices and the networks of a space.

    Attributes:
        sizes: Number of choices of each gene, (genes,).
        full: Indices of the unpruned network, (genes,).
        groups: How many of the genes are widths.
    """

    def __init__(self, space: SearchSpace) -> None:
        self._space, self.groups = space, len(space.groups)
        self.sizes = np.array([len(gene.choices) for gene in space.genes], dtype=np.int64)
        self.full: NDArray[np.int64] = self.sizes - 1
        self._choices = np.zeros((len(space.genes), int(self.sizes.max(initial=0))), dtype=np.int64)
        for row, gene in zip(self._choices, space.genes, strict=True):
            row[: len(gene.choices)] = gene.choices
        self._columns = np.arange(len(space.genes))

    def widths(self, genomes: NDArray[np.int64]) -> NDArray[np.int64]:
        """Indices (..., genes) -> networks in their canonical form (..., genes)."""
        widths: NDArray[np.int64] = self._choices[self._columns, genomes]
        return self._space.canonical(widths) if self._space.blocks else widths

    def nearest(self, widths: Sequence[Widths]) -> NDArray[np.int64]:
        """Widths of N networks -> indices of the nearest choices, (N, genes)."""
        table = np.array(widths, dtype=np.int64).reshape(len(widths), len(self.sizes))
        genomes = np.empty_like(table)
        for group, size in enumerate(self.sizes):
            distance = np.abs(table[:, group, None] - self._choices[group, :size])  # (N, choices)
            genomes[:, group] = distance.argmin(axis=1)
        return genomes

    def revived(
        self, children: NDArray[np.int64], parents: Sequence[NDArray[np.int64]], rng: np.random.Generator
    ) -> NDArray[np.int64]:
        """Children whose blocks have insides: a parent's that has the block, or else random ones.

        What is inside a block that is left out is as small as it can be, and says nothing.

        Args:
            children: (N, genes).
            parents: The parents of each, (N, genes) for each parent.
            rng: Source of randomness.
        """
        children = children.copy()
        for gate, inside in self._space.insides:
            if not len(inside):
                continue
            have: NDArray[np.bool_] = np.stack(parents)[:, :, gate] > 0  # (parents, N)
            first = np.stack(parents)[have.argmax(axis=0), np.arange(len(children))][:, inside]
            drawn = rng.integers(self.sizes[inside], size=first.shape)
            count = have.sum(axis=0)
            rows = np.flatnonzero((children[:, gate] > 0) & (count < len(parents)))
            children[np.ix_(rows, inside)] = np.where(count[:, None] > 0, first, drawn)[rows]
        return children

    def random(self, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """Uniform draws of every group's choices, and of the share of blocks that stay: (count, genes)."""
        drawn = rng.integers(self.sizes, size=(count, len(self.sizes)))
        if self._space.blocks:
            gates = drawn[:, len(self._space.groups) :]
            gates[:] = rng.random(gates.shape) < rng.random((count, 1))
        return drawn


def mutate(
    genome: Genome, parents: NDArray[np.int64], probability: float, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Move each gene, with `probability`, to another choice drawn uniformly: (N, genes) -> (N, genes)."""
    chosen = (rng.random(parents.shape) < probability) & (genome.sizes > 1)
    step = rng.integers(1, np.maximum(genome.sizes, 2), size=parents.shape)
    return genome.revived(np.where(chosen, (parents + step) % genome.sizes, parents), [parents], rng)


def crossover(
    genome: Genome, mothers: NDArray[np.int64], fathers: NDArray[np.int64], rng: np.random.Generator
) -> NDArray[np.int64]:
    """Take each gene from one of two parents by a fair coin: (N, genes) twice -> (N, genes)."""
    children = np.where(rng.random(mothers.shape) < 0.5, mothers, fathers)
    return genome.revived(children, [mothers, fathers], rng)


def simulated_binary_crossover(
    genome: Genome,
    mothers: NDArray[np.int64],
    fathers: NDArray[np.int64],
    index: float,
    rng: np.random.Generator,
) -> NDArray[np.int64]:
    """Half of the genes of each child near one of its parents': (N, genes) twice -> (N, genes).

    Deb and Agrawal, "Simulated binary crossover for continuous search space" (1995); the smaller the
    distribution `index`, the farther from the parents. Rounded to whole choices.
    """
    u = rng.random(mothers.shape)
    power = 1.0 / (index + 1.0)
    spread = np.where(u <= 0.5, (2 * u) ** power, (1 / (2 * (1 - u))) ** power)
    near, far = np.where(rng.random(mothers.shape) < 0.5, (mothers, fathers), (fathers, mothers))
    child = 0.5 * ((1 + spread) * near + (1 - spread) * far)
    children = _rounded(genome, np.where(rng.random(mothers.shape) < 0.5, child, mothers))
    return genome.revived(children, [mothers, fathers], rng)


def polynomial_mutation(
    genome: Genome, parents: NDArray[np.int64], index: float, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Move one gene on average, mostly to a choice nearby: (N, genes) -> (N, genes).

    Deb and Goyal, "A combined genetic adaptive search" (1996); `index` as above. Rounded to whole choices.
    """
    u = rng.random(parents.shape)
    power = 1.0 / (index + 1.0)
    step = np.where(u < 0.5, (2 * u) ** power - 1, 1 - (2 * (1 - u)) ** power)
    step = np.where(genome.sizes == 2, 1 - 2 * parents, step)  # a gate has one other value
    chosen = rng.random(parents.shape) < 1.0 / max(len(genome.sizes), 1)
    moved = _rounded(genome, np.where(chosen, parents + step * (genome.sizes - 1), parents))
    return genome.revived(moved, [parents], rng)


def _rounded(genome: Genome, genes: NDArray[np.float64]) -> NDArray[np.int64]:
    return np.clip(np.rint(genes), 0, genome.full).astype(np.int64)
