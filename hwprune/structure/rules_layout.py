"""Rules of operators that move data: they are executed on labels as on any other array. No torch."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np

from hwprune.structure.labels import Labelled, Ledger, axes_of, distinct, rows_of, varies
from hwprune.structure.rules import freeze_all, rule, tie_broadcast

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from hwprune.structure.labels import Labels
    from hwprune.structure.node import Node


def _blocks(before: Sequence[int], after: Sequence[int]) -> Iterator[tuple[range, range]]:
    """The runs of axes that a reshape turns into each other, as short as they can be."""
    i = j = 0
    while i < len(before) or j < len(after):
        first, start = i, j
        left = right = 1
        while i < len(before) or j < len(after):
            if left <= right and i < len(before) and not (left == right and i > first and j > start):
                left, i = left * before[i], i + 1
            elif j < len(after) and not (left == right and i > first and j > start):
                right, j = right * after[j], j + 1
            else:
                break
            if left == right and i > first and j > start:
                break
        yield range(first, i), range(start, j)


def reshaped(tensor: Labelled, shape: Sequence[int]) -> tuple[Labelled, list[tuple[Labels, list[int]]]]:
    """The tensor in another shape; and factors that depend on several axes of one block, with these axes."""
    blocks = list(_blocks(tensor.shape, shape))
    factors: list[Labels] = []
    split: list[tuple[Labels, list[int]]] = []
    for factor in tensor.factors:
        wide, result, several = list(factor.shape), [1] * len(shape), []
        for old, new in blocks:
            if any(factor.shape[axis] > 1 for axis in old):
                for axis in old:
                    wide[axis] = tensor.shape[axis]
                for axis in new:
                    result[axis] = shape[axis]
                several.append([axis for axis in new if shape[axis] > 1])
        made = np.broadcast_to(factor, wide).reshape(result)
        factors.append(made)
        split.extend((made, axes) for axes in several if len(axes) > 1)
    return Labelled(tuple(shape), distinct(factors), tensor.data), split


def _in_step(ledger: Ledger, node: Node, factor: Labels, axes: Sequence[int]) -> None:
    """An axis of channels became several: of one, equally many positions go at each place of the others."""
    varying = [axis for axis in axes if varies(factor, axis)]
    if len(varying) < 2:
        return
    last = next((axis for axis in reversed(varying) if node.follows(axis)), varying[-1])
    rows = rows_of(factor, [axis for axis in varying if axis != last])
    ledger.keep_in_step(rows, "divides channels into equal parts")


@rule("Reshape", "Flatten", "Squeeze", "Unsqueeze")
def reshape(node: Node, inputs: Sequence[Any], ledger: Ledger) -> list[Labelled]:
    """The labels in another shape."""
    result, split = reshaped(inputs[0], node.output_shapes[0])
    for factor, axes in split:
        _in_step(ledger, node, factor, axes)
    return [result]


@rule("Transpose")
def transpose(node: Node, inputs: Sequence[Any], _ledger: Ledger) -> list[Labelled]:
    """The axes in another order."""
    ndim = len(inputs[0].shape)
    return [_permuted(inputs[0], [axis % ndim for axis in node.attributes.get("perm", range(ndim)[::-1])])]


def _permuted(tensor: Labelled, order: Sequence[int]) -> Labelled:
    shape = tuple(tensor.shape[axis] for axis in order)
    return Labelled(shape, tuple(factor.transpose(order) for factor in tensor.factors), tensor.data)


@rule("DepthToSpace", "SpaceToDepth")
def depth_to_space(node: Node, inputs: Sequence[Any], ledger: Ledger) -> list[Labelled]:
    """PixelShuffle and its inverse: reshape, transpose, reshape."""
    x, size = inputs[0], int(node.attributes["blocksize"])
    n, c, h, w = x.shape
    if node.operator == "SpaceToDepth":
        parts, order = (n, c, h // size, size, w // size, size), (0, 3, 5, 1, 2, 4)
    elif node.attributes.get("mode", b"DCR") == b"CRD":
        parts, order = (n, c // size**2, size, size, h, w), (0, 1, 4, 2, 5, 3)
    else:
        parts, order = (n, size, size, c // size**2, h, w), (0, 3, 4, 1, 5, 2)
    moved = _permuted(reshaped(x, parts)[0], order)
    return [reshaped(moved, node.output_shapes[0])[0]]


@rule("Concat")
def concat(node: Node, inputs: Sequence[Any], ledger: Ledger) -> list[Labelled]:
    """One after the other along the axis; along all others their labels are tied."""
    tensors = [tensor for tensor in inputs if tensor is not None]
    axis = int(node.attributes["axis"]) % len(tensors[0].shape)
    joined = _joined(ledger, tensors, axis)
    first = _across(tensors[0], axis)
    for other in (_across(tensor, axis) for tensor in tensors[1:]):
        tie_broadcast(ledger, first, other)
        first = Labelled(first.shape, distinct((*first.factors, *other.factors)))
    data = any(tensor.data for tensor in tensors)
    return [Labelled(node.output_shapes[0], distinct((joined, *first.factors)), data)]


def _joined(ledger: Ledger, tensors: Sequence[Labelled], axis: int) -> Labels:
    """The labels along an axis of several tensors, one after the other."""
    found = []
    for tensor in tensors:
        along = tensor.varying(axis)
        for further in along[1:]:
            ledger.tie(along[0], further)
        found.append(along[0] if along else np.zeros((1,) * len(tensor.shape), dtype=np.int64))
    sizes = np.broadcast_shapes(*(_without(part.shape, axis) for part in found))
    wide = [
        np.broadcast_to(part, [tensor.shape[a] if a == axis else size for a, size in enumerate(sizes)])
        for part, tensor in zip(found, tensors, strict=True)
    ]
    return np.concatenate(wide, axis)


def _across(tensor: Labelled, axis: int) -> Labelled:
    """A tensor without one axis: size 1, and no labels there."""
    factors = tuple(factor for factor in tensor.factors if factor.shape[axis] == 1)
    return Labelled(_without(tensor.shape, axis), factors)


def _without(shape: Sequence[int], axis: int) -> tuple[int, ...]:
    return tuple(1 if place == axis else size for place, size in enumerate(shape))


@rule("Split")
def split(node: Node, inputs: Sequence[Any], ledger: Ledger) -> list[Labelled]:
    """Parts along an axis; equal ones must stay equal."""
    x, axis = inputs[0], int(node.attributes.get("axis", 0)) % len(inputs[0].shape)
    sizes = [shape[axis] for shape in node.output_shapes]
    ends = [*itertools.accumulate(sizes, initial=0)]
    _step_parts(ledger, x, axis, [range(a, b) for a, b in itertools.pairwise(ends)])
    return [
        Labelled(shape, distinct(_cut(f, axis, slice(start, stop)) for f in x.factors), x.data)
        for shape, (start, stop) in zip(node.output_shapes, itertools.pairwise(ends), strict=True)
    ]


def _cut(factor: Labels, axis: int, part: slice) -> Labels:
    if factor.shape[axis] == 1:
        return factor
    return factor[tuple(part if place == axis else slice(None) for place in range(factor.ndim))]


def _step_parts(ledger: Ledger, x: Labelled, axis: int, parts: Sequence[range]) -> None:
    """Parts of equal length lose equally many channels each: how they were cut follows from their number."""
    if len(parts) < 2 or len({len(part) for part in parts}) > 1:
        return
    for factor in x.varying(axis):
        if set(axes_of(factor)) == {axis}:
            line = factor.ravel()
            ledger.keep_in_step(np.stack([line[part] for part in parts]), "cuts channels into equal parts")


@rule("Slice")
def slice_(node: Node, inputs: Sequence[Any], ledger: Ledger) -> list[Labelled]:
    """A part of each axis, perhaps backwards."""
    x, bounds = inputs[0], node.slices()
    if bounds is None:
        return freeze_all(node, inputs, ledger)
    factors = []
    for factor in x.factors:
        for axis, part in bounds.items():
            if factor.shape[axis] > 1 and not _slicable(range(factor.shape[axis])[part], factor.shape[axis]):
                ledger.freeze(factor, "takes single positions")
            factor = _cut(factor, axis, part)
        factors.append(factor)
    for axis, part in bounds.items():
        parts = [range(x.shape[axis])[other] for other in node.parts.get(axis, ())]
        if parts and range(x.shape[axis])[part] == parts[0]:  # once for all of them
            _step_parts(ledger, x, axis, parts)
    return [Labelled(node.output_shapes[0], distinct(factors), x.data)]


def _slicable(part: range, size: int) -> bool:
    """Whether a part can be cut out when positions are missing: neighbours, or all of them backwards."""
    return abs(part.step) == 1 and (part.step > 0 or len(part) == size)


@rule("Gather")
def gather(node: Node, inputs: Sequence[Any], ledger: Ledger) -> list[Labelled]:
    """Positions of an axis in another order; a single one drops the axis, and what it is taken from stays."""
    x, axis = inputs[0], int(node.attributes.get("axis", 0)) % len(inputs[0].shape)
    index = node.value(1)
    if index is None or not x.varying(axis):
        if any(x.varying(axis)) or index is None:
            return freeze_all(node, inputs, ledger)
        index = np.zeros(inputs[1].shape, dtype=np.int64)
    if index.ndim != 1:
        for factor in x.varying(axis):
            ledger.freeze(factor, "takes single positions")
    factors = []
    for factor in x.factors:
        if factor.shape[axis] > 1 and index.ndim == 1:
            factors.append(np.take(factor, index, axis))
        elif factor.shape[axis] == 1:
            shape = (*factor.shape[:axis], *(1,) * index.ndim, *factor.shape[axis + 1 :])
            factors.append(factor.reshape(shape))
    return [Labelled(node.output_shapes[0], distinct(factors), x.data)]


@rule("Pad")
def pad(node: Node, inputs: Sequence[Any], ledger: Ledger) -> list[Labelled]:
    """Constants around it have no channel; mirrored positions have that of what they mirror."""
    x, amounts = inputs[0], node.pads(len(inputs[0].shape))
    mode = node.attributes.get("mode", b"constant").decode()
    if amounts is None or mode not in ("constant", "reflect", "edge", "wrap"):
        return freeze_all(node, inputs, ledger)
    factors = [_padded(factor, amounts, mode) for factor in x.factors]
    return [Labelled(node.output_shapes[0], distinct(factors), x.data)]


def _padded(factor: Labels, amounts: Sequence[tuple[int, int]], mode: Any) -> Labels:
    """A padded factor; negative amounts cut positions off. Axes that it does not depend on stay."""
    around = [amount if size > 1 else (0, 0) for amount, size in zip(amounts, factor.shape, strict=True)]
    inside = tuple(
        slice(max(-a, 0), size - max(-b, 0)) for (a, b), size in zip(around, factor.shape, strict=True)
    )
    return np.pad(factor[inside], [(max(a, 0), max(b, 0)) for a, b in around], mode=mode)


@rule("Expand")
def expand(node: Node, inputs: Sequence[Any], ledger: Ledger) -> list[Labelled]:
    """An axis of size 1 that is repeated may become as long as needed: it gets new labels."""
    x, shape = inputs[0], node.output_shapes[0]
    lead = (1,) * (len(shape) - len(x.shape))
    factors = [factor.reshape(lead + factor.shape) for factor in x.factors]
    grown = [a for a, (o, n) in enumerate(zip(lead + x.shape, shape, strict=True)) if o == 1 < n]
    given = node.value(1)
    fresh = _fresh(node, grown, 1, 0 if given is None else len(shape) - len(given))
    return [Labelled(shape, distinct((*factors, *fresh)), x.data)]


def _fresh(node: Node, axes: Sequence[int], place: int, offset: int = 0) -> list[Labels]:
    """New labels for axes whose size follows the channels, or may do so for what the export tells."""
    return [
        node.fresh(axis) for axis in axes if node.follows(axis - offset, place) or (axis and not node.open)
    ]


@rule("ConstantOfShape")
def constant_of_shape(node: Node, _inputs: Sequence[Any], _ledger: Ledger) -> list[Labelled]:
    """A constant of any size."""
    shape = node.output_shapes[0]
    fresh = _fresh(node, [axis for axis, size in enumerate(shape) if size > 1], 0)
    return [Labelled(shape, distinct(fresh), False)]


@rule("Tile")
def tile(node: Node, inputs: Sequence[Any], ledger: Ledger) -> list[Labelled]:
    """As often as asked for, one after the other."""
    x, repeats = inputs[0], node.value(1)
    if repeats is None:
        return freeze_all(node, inputs, ledger)
    times = [int(count) for count in repeats]
    factors = [
        np.tile(factor, [count if size > 1 else 1 for count, size in zip(times, factor.shape, strict=True)])
        for factor in x.factors
    ]
    fresh = _fresh(node, [a for a, count in enumerate(times) if count > 1 and x.shape[a] == 1], 1)
    return [Labelled(node.output_shapes[0], distinct((*factors, *fresh)), x.data)]
