"""Labels: which channel every element of a tensor belongs to. No torch.

Each axis of each weight that may be pruned has one label for each of its positions. Operators that move data
move the labels; operators that compute tie labels that must go together, or freeze those that must stay. A
*channel* is a class of tied labels (`components`). Label 0 is `FIXED`: an element that always stays.

A tensor has *factors*: arrays of labels that broadcast to its shape, of size 1 along each axis that they do
not depend on. An element is kept as long as all of its labels are. A feature map (N, C, H, W) has one factor
(1, C, 1, 1), a weight (O, I, 3, 3) has two, (O, 1, 1, 1) and (1, I, 1, 1).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from numpy.typing import NDArray

    Labels = NDArray[np.int64]

FIXED = 0


@dataclass(frozen=True)
class Labelled:
    """A tensor's shape and its labels.

    Attributes:
        shape: Its shape in the unpruned network.
        factors: Label arrays, each of as many axes as the tensor.
        data: Whether it depends on the network's inputs; weights and what is computed of them do not.
    """

    shape: tuple[int, ...]
    factors: tuple[Labels, ...] = ()
    data: bool = True

    def varying(self, axis: int) -> list[Labels]:
        """The factors that depend on an axis."""
        return [factor for factor in self.factors if factor.shape[axis] > 1]

    def line(self, axis: int) -> Labels:
        """The labels along one axis, at the first position of all others, or `FIXED`: (size,)."""
        for factor in self.varying(axis):
            first = tuple(slice(None) if place == axis else 0 for place in range(factor.ndim))
            return np.asarray(factor[first])
        return np.full(self.shape[axis], FIXED, dtype=np.int64)


def axes_of(factor: Labels) -> tuple[int, ...]:
    """The axes that a factor depends on."""
    return tuple(axis for axis, size in enumerate(factor.shape) if size > 1)


def varies(factor: Labels, axis: int) -> bool:
    """Whether labels differ along an axis."""
    return not np.array_equal(np.broadcast_to(factor.take([0], axis), factor.shape), factor)


def compress(factor: Labels) -> Labels:
    """The same labels without the axes along which they are constant."""
    for axis in axes_of(factor):
        if not varies(factor, axis):
            factor = factor.take([0], axis)
    return factor


def rows_of(factor: Labels, axes: Sequence[int]) -> Labels:
    """The labels as a matrix, one row for each position along some axes: (rows, rest)."""
    order = (*axes, *(axis for axis in range(factor.ndim) if axis not in axes))
    return factor.transpose(order).reshape(math.prod(factor.shape[axis] for axis in axes), -1)


def spread(labels: Labels, ndim: int, axis: int) -> Labels:
    """Labels of one axis (size,) as a factor of a tensor of `ndim` axes."""
    return labels.reshape([-1 if place == axis else 1 for place in range(ndim)])


def distinct(factors: Iterable[Labels]) -> tuple[Labels, ...]:
    """Compressed factors without those that say nothing and without repetitions."""
    kept: list[Labels] = []
    for factor in map(compress, factors):
        if factor.any() and not any(np.array_equal(factor, other) for other in kept):
            kept.append(factor)
    return tuple(kept)


@dataclass
class Ledger:
    """What the operators of one pass over a graph said about labels.

    Attributes:
        canonical: Label -> the label of its class, as far as earlier passes found them; 0 when it is frozen.
        first: Whether this is the first pass, which only ties: what does not fit yet may fit when all ties
            are known.
        because: Makes a whole reason of one that lacks the operator whose rule runs.
        ties: Pairs of label arrays that are one channel each.
        frozen: Label -> why it stays.
        steps: Matrices of labels, of each of whose rows equally many must go.
        mixed: Labels that a statistic over channels has seen: the pruned network is not the masked one.
    """

    canonical: Labels
    first: bool = False
    because: Callable[[str], str] = str
    ties: list[tuple[Labels, Labels]] = field(default_factory=list)
    frozen: dict[int, str] = field(default_factory=dict)
    steps: list[tuple[Labels, str]] = field(default_factory=list)
    mixed: set[int] = field(default_factory=set)

    def tie(self, one: Labels, other: Labels, reason: str = "meets a constant size") -> None:
        """Make each pair of labels, broadcast, one channel; what meets `FIXED` stays."""
        first, second = (side.ravel() for side in np.broadcast_arrays(one, other))
        differs = first != second
        first, second = first[differs], second[differs]
        against = (first == FIXED) | (second == FIXED)
        if against.any():
            self.freeze(np.maximum(first, second)[against], reason)
        if not against.all():
            self.ties.append((first[~against], second[~against]))

    def freeze(self, labels: Labels, reason: str) -> None:
        """Keep the channels of these labels, for a reason that begins with the operator."""
        for label in () if self.first else np.unique(labels).tolist():
            if label != FIXED:
                self.frozen.setdefault(label, self.because(reason))

    def freeze_factors(self, factors: Iterable[Labels], reason: str) -> None:
        """Keep the channels of some factors; see `freeze`."""
        for factor in factors:
            self.freeze(factor, reason)

    def keep_in_step(self, rows: Labels, reason: str) -> None:
        """Of each row of a matrix of labels equally many must go."""
        if rows.any() and len(rows) > 1:
            changes = (rows[:, 1:] != rows[:, :-1]).any(axis=0)
            new = np.append(True, changes)  # a channel's positions count once
            self.steps.append((rows[:, new], self.because(reason)))

    def mix(self, factors: Iterable[Labels]) -> None:
        """A statistic over these channels changes when some of them go."""
        for factor in factors:
            self.mixed.update(np.unique(factor).tolist())


def components(count: int, pairs: Sequence[tuple[Labels, Labels]]) -> Labels:
    """The smallest label of each label's class: (count,).

    Args:
        count: Number of labels.
        pairs: Pairs of arrays of labels that belong together.
    """
    parent = np.arange(count)
    if not pairs:
        return parent
    one, other = (np.concatenate(side) for side in zip(*pairs, strict=True))
    while True:
        first, second = parent[one], parent[other]
        differs = first != second
        if not differs.any():
            return parent
        one, other, first, second = one[differs], other[differs], first[differs], second[differs]
        np.minimum.at(parent, np.maximum(first, second), np.minimum(first, second))
        while True:  # every label points to the root of its class
            further = parent[parent]
            if np.array_equal(further, parent):
                break
            parent = further
