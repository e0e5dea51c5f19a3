"""Constants of an ONNX graph that say how large tensors are, in a pruned network. No torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from hwprune.structure.follow import Followed
    from hwprune.structure.node import Node

    Array = NDArray[Any]
    Keeps = NDArray[np.bool_]

# Which input of an operator that only moves data is the constant that shapes its outputs.
SHAPED = {
    "Reshape": 1,
    "Expand": 1,
    "ConstantOfShape": 0,
    "Split": 1,
    "Slice": 1,
    "Tile": 1,
    "Gather": 1,
    "Resize": 3,
}


class ConstantShapes:
    """New values of the constants of a graph.

    `keeps` is what `Followed.keeps` says of the widths of a pruned network: canonical label -> whether it
    is kept.

    Args:
        followed: The channels of the graph's tensors.
    """

    def __init__(self, followed: Followed) -> None:
        self.followed = followed

    def value(self, node: Node, place: int, keeps: Keeps) -> Array:
        """The constant that shapes the outputs of an operator, for the batch of the unpruned network.

        Args:
            node: The operator, one of `SHAPED`.
            place: Which of its inputs the constant is.
            keeps: As above.
        """
        old, kind = np.asarray(node.value(place)), node.operator
        if kind in ("Reshape", "Expand", "ConstantOfShape", "Resize"):
            return self._target(node, old, keeps)
        if kind == "Tile":
            before, sizes = self._full(node), self.followed.sizes(node.outputs[0], keeps)
            new = [n if b == 1 else o for o, b, n in zip(old.tolist(), before, sizes, strict=True)]
            return np.array(new, dtype=old.dtype)
        if kind == "Slice":
            return self._starts(node, old, keeps)
        axis = int(node.attributes.get("axis", 0)) % len(self._full(node))
        if kind == "Split":
            sizes = tuple(self.followed.sizes(name, keeps)[axis] for name in node.outputs)
            return np.array(sizes, dtype=old.dtype)
        return self._indices(node, old, axis, keeps)

    def _full(self, node: Node) -> tuple[int, ...]:
        """The shape of the operator's first input in the unpruned network."""
        return self.followed.graph.shapes[node.inputs[0]]

    def _target(self, node: Node, old: Array, keeps: Keeps) -> Array:
        """The shape that an operator gives to its output; 0, -1 and 1 follow by themselves."""
        sizes = self.followed.sizes(node.outputs[0], keeps)
        if sizes == node.output_shapes[0]:
            return old
        if node.operator == "Expand":
            sizes = sizes[len(sizes) - len(old) :]
        new = np.array(sizes, dtype=old.dtype)
        return np.where(old < 2, old, new) if node.operator in ("Reshape", "Expand") else new

    def _indices(self, node: Node, old: Array, axis: int, keeps: Keeps) -> Array:
        """Which positions a Gather takes, counted in what is left."""
        kept = self.followed.kept(node.inputs[0], axis, keeps)
        if old.ndim != 1 or kept.all():
            return old
        left = self.followed.kept(node.outputs[0], axis, keeps)
        return np.asarray((np.cumsum(kept) - 1)[old[left] % len(kept)], dtype=old.dtype)

    def _starts(self, node: Node, old: Array, keeps: Keeps) -> Array:
        """Where a Slice begins when channels before it are gone."""
        starts, ndim = old.copy(), len(node.output_shapes[0])
        for position, (axis, step) in enumerate(_axes_and_steps(node, len(old))):
            kept = self.followed.kept(node.inputs[0], axis % ndim, keeps)
            if not kept.all() and step > 0:
                first = int(old[position])
                first = range(len(kept))[first:].start if first < len(kept) else len(kept)
                starts[position] = int(kept[:first].sum())
        return starts

    def ends(self, node: Node, starts: Array, sizes: Sequence[int]) -> Array:
        """Where a Slice ends, for parts that lost channels; bounds of other axes stay.

        Args:
            node: The operator.
            starts: Where it begins in the pruned network.
            sizes: Shape of its output in the pruned network.
        """
        ends = np.array(node.value(2))
        for position, (axis, step) in enumerate(_axes_and_steps(node, len(starts))):
            axis %= len(sizes)
            if sizes[axis] != node.output_shapes[0][axis] and step > 0:
                ends[position] = starts[position] + sizes[axis]
        return ends

    def conv_groups(self, node: Node, keeps: Keeps) -> int:
        """Groups of a convolution: all channels, over those of one group, which the weight's axis 1 holds."""
        tensor = node.outputs[0] if node.operator == "ConvTranspose" else node.inputs[0]
        return self.followed.sizes(tensor, keeps)[1] // self.followed.sizes(node.inputs[1], keeps)[1]


def _axes_and_steps(node: Node, count: int) -> list[tuple[int, int]]:
    """Axis and step of each bound of a Slice."""
    axes = node.ints("axes", 3) or list(range(count))
    return list(zip(axes, node.ints("steps", 4) or [1] * count, strict=False))
