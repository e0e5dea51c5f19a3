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


def value(followed: Followed, node: Node, place: int, keeps: Keeps) -> Array:
    """The constant that shapes the outputs of an operator, for the batch of the unpruned network.

    Args:
        followed: The channels of the graph's tensors.
        node: The operator, one of `SHAPED`.
        place: Which of its inputs the constant is.
        keeps: What `Followed.keeps` says of the widths of the pruned network.
    """
    old, kind = np.asarray(node.value(place)), node.operator
    before = followed.graph.shapes.get(node.inputs[0], ())
    if kind in ("Reshape", "Expand", "ConstantOfShape", "Resize"):
        return _target(followed, node, old, keeps)
    if kind == "Tile":
        sizes = followed.sizes(node.outputs[0], keeps)
        new = [n if b == 1 else o for o, b, n in zip(old.tolist(), before, sizes, strict=True)]
        return np.array(new, dtype=old.dtype)
    if kind == "Slice":
        return _starts(followed, node, old, keeps)
    axis = int(node.attributes.get("axis", 0)) % len(before)
    if kind == "Split":
        parts = tuple(followed.sizes(name, keeps)[axis] for name in node.outputs)
        return np.array(parts, dtype=old.dtype)
    return _indices(followed, node, old, axis, keeps)


def _target(followed: Followed, node: Node, old: Array, keeps: Keeps) -> Array:
    """The shape that an operator gives to its output; 0, -1 and 1 follow by themselves."""
    sizes = followed.sizes(node.outputs[0], keeps)
    if sizes == node.output_shapes[0]:
        return old
    if node.operator == "Expand":
        sizes = sizes[len(sizes) - len(old) :]
    new = np.array(sizes, dtype=old.dtype)
    return np.where(old < 2, old, new) if node.operator in ("Reshape", "Expand") else new


def _indices(followed: Followed, node: Node, old: Array, axis: int, keeps: Keeps) -> Array:
    """Which positions a Gather takes, counted in what is left."""
    kept = followed.kept(node.inputs[0], axis, keeps)
    if old.ndim != 1 or kept.all():
        return old
    left = followed.kept(node.outputs[0], axis, keeps)
    return np.asarray((np.cumsum(kept) - 1)[old[left] % len(kept)], dtype=old.dtype)


def _starts(followed: Followed, node: Node, old: Array, keeps: Keeps) -> Array:
    """Where a Slice begins when channels before it are gone."""
    starts = old.copy()
    for position, (axis, part) in enumerate((node.slices() or {}).items()):
        kept = followed.kept(node.inputs[0], axis, keeps)
        if not kept.all() and part.step > 0:
            first = range(len(kept))[part.start :].start if part.start < len(kept) else len(kept)
            starts[position] = int(kept[:first].sum())
    return starts


def ends(node: Node, starts: Array, sizes: Sequence[int]) -> Array:
    """Where a Slice ends, for parts that lost channels; bounds of other axes stay.

    Args:
        node: The operator.
        starts: Where it begins in the pruned network.
        sizes: Shape of its output in the pruned network.
    """
    found = np.array(node.value(2))
    for position, (axis, part) in enumerate((node.slices() or {}).items()):
        if sizes[axis] != node.output_shapes[0][axis] and part.step > 0:
            found[position] = starts[position] + sizes[axis]
    return found
