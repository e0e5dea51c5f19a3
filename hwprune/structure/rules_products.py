"""Rules of convolutions and matrix products: what they read is tied to the weight's input axis. No torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from hwprune.structure.labels import Labelled, Ledger, axes_of, distinct
from hwprune.structure.rules import (
    aligned,
    channel_labels,
    channels_on,
    elementwise,
    freeze_all,
    freeze_others,
    rule,
    tie_broadcast,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hwprune.structure.labels import Labels
    from hwprune.structure.node import Node

_NO_WEIGHT = "reads channels of which a weight has none"


@rule("Conv", "ConvInteger", "com.microsoft.FusedConv")
def conv(node: Node, inputs: Sequence[Any], ledger: Ledger) -> list[Labelled]:
    """Input channels go with the weight's axis 1, outputs with axis 0; conv groups see `_grouped`."""
    x, weight, groups = inputs[0], inputs[1], node.conv_groups
    if x.data and weight.data:
        return freeze_all(node, inputs, ledger)
    read, made = channel_labels(ledger, x, 1), channel_labels(ledger, weight, 0)
    _freeze_positions(ledger, x, weight)
    taken = channel_labels(ledger, weight, 1)
    if groups == 1:
        ledger.tie(read, taken, _NO_WEIGHT)
    else:
        _grouped(node, ledger, read.reshape(groups, -1), taken, made.reshape(groups, -1))
    return [_with_bias(node, inputs, made, ledger)]


def _freeze_positions(ledger: Ledger, x: Labelled, weight: Labelled) -> None:
    """Freeze the labels of a convolution that are no channels."""
    freeze_others(ledger, x, (1,), "reads positions, whose number is fixed")
    freeze_others(ledger, weight, (0, 1), "has kernels of fixed size")


def _with_bias(node: Node, inputs: Sequence[Any], made: Labels, ledger: Ledger) -> Labelled:
    """The output of a convolution that makes some labels; its bias, if there is one, goes with them."""
    if len(inputs) > 2 and inputs[2] is not None and inputs[2].factors:
        ledger.tie(made, channel_labels(ledger, inputs[2], 0))
    return channels_on(made, node.output_shapes[0], 1)


def _grouped(node: Node, ledger: Ledger, read: Labels, taken: Labels, made: Labels) -> None:
    """Conv groups go as a whole; where that leaves nothing to prune, equally many channels of each of them.

    Args:
        node: The convolution.
        ledger: Takes down the ties.
        read: Labels that each conv group reads, (groups, channels).
        taken: Labels of the weight's axis 1, (channels,).
        made: Labels that each conv group makes, (groups, channels).
    """
    if not node.equal_parts or read.shape[1] == 1 or made.shape[1] == 1:
        ledger.freeze(taken, "keeps the channels of a conv group")
        ledger.tie(read, read[:, :1])
        ledger.tie(made, read[:, :1])
        return
    ledger.tie(read, np.broadcast_to(taken, read.shape))
    ledger.keep_in_step(made, "makes equally many channels in each conv group")


@rule("ConvTranspose")
def conv_transpose(node: Node, inputs: Sequence[Any], ledger: Ledger) -> list[Labelled]:
    """Input channels go with the weight's axis 0, outputs with axis 1; conv groups go as a whole."""
    x, weight, groups = inputs[0], inputs[1], node.conv_groups
    if x.data and weight.data:
        return freeze_all(node, inputs, ledger)
    read, taken = channel_labels(ledger, x, 1), channel_labels(ledger, weight, 0)
    made = channel_labels(ledger, weight, 1)
    _freeze_positions(ledger, x, weight)
    ledger.tie(read, taken, _NO_WEIGHT)
    if groups > 1:
        ledger.freeze(made, "keeps the channels of a conv group")
        ledger.tie(taken.reshape(groups, -1), taken.reshape(groups, -1)[:, :1])
        made = np.repeat(taken.reshape(groups, -1)[:, 0], weight.shape[1])
    return [_with_bias(node, inputs, made, ledger)]


@rule("DeformConv")
def deform_conv(node: Node, inputs: Sequence[Any], ledger: Ledger) -> list[Labelled]:
    """As a convolution; offsets and masks stay whole."""
    for tensor in (inputs[2], *inputs[4:]):
        if tensor is not None:
            ledger.freeze_factors(tensor.factors, "holds offsets of fixed number")
    return conv(node, [inputs[0], inputs[1], *inputs[3:4]], ledger)


@rule("Gemm")
def gemm(node: Node, inputs: Sequence[Any], ledger: Ledger) -> list[Labelled]:
    """A product of two matrices, one or both transposed, plus a bias."""
    one, other = (
        _transposed(tensor) if node.attributes.get(name) else tensor
        for name, tensor in zip(("transA", "transB"), inputs[:2], strict=True)
    )
    return [elementwise(ledger, _product(node, one, other, ledger), *inputs[2:])]


def _transposed(tensor: Labelled) -> Labelled:
    return Labelled(tensor.shape[::-1], tuple(factor.T for factor in tensor.factors), tensor.data)


@rule("MatMul", "MatMulInteger")
def matmul(node: Node, inputs: Sequence[Any], ledger: Ledger) -> list[Labelled]:
    """The contracted axes are tied; the labels of the others are those of the result."""
    return [_product(node, inputs[0], inputs[1], ledger)]


def _product(node: Node, one: Labelled, other: Labelled, ledger: Ledger) -> Labelled:
    """(..., m, k) times (..., k, n) -> (..., m, n)."""
    if min(len(one.shape), len(other.shape)) == 1:
        return _vector_product(node, one, other, ledger)
    if one.data and other.data and (one.factors and other.factors):
        node.remark = "multiplies two feature maps (attention)"
        return freeze_all(node, [one, other], ledger)[0]
    ndim = max(len(one.shape), len(other.shape))
    left, right = aligned(one, ndim), aligned(other, ndim)
    read, taken = channel_labels(ledger, left, ndim - 1), channel_labels(ledger, right, ndim - 2)
    ledger.tie(read, taken, _NO_WEIGHT)
    kept = [f for f in left.factors if f.shape[-1] == 1] + [f for f in right.factors if f.shape[-2] == 1]
    if any(left.varying(axis) or right.varying(axis) for axis in range(ndim - 2)):
        tie_broadcast(ledger, _leading(left, ndim), _leading(right, ndim))
    shape = (*np.broadcast_shapes(left.shape[:-2], right.shape[:-2]), left.shape[-2], right.shape[-1])
    return Labelled(shape, distinct(kept), one.data or other.data)


def _vector_product(node: Node, one: Labelled, other: Labelled, ledger: Ledger) -> Labelled:
    """A product with a vector: a row on the left, a column on the right."""
    left, right = one, other
    if len(one.shape) == 1:
        left = Labelled((1, *one.shape), tuple(f[None] for f in one.factors), one.data)
    if len(other.shape) == 1:
        right = Labelled((*other.shape, 1), tuple(f[:, None] for f in other.factors), other.data)
    made = _product(node, left, right, ledger)
    gone = tuple(place for place, flat in ((-2, len(one.shape) == 1), (-1, len(other.shape) == 1)) if flat)
    shape = [size for place, size in enumerate(made.shape) if place - len(made.shape) not in gone]
    return Labelled(tuple(shape), distinct(factor.squeeze(gone) for factor in made.factors), made.data)


def _leading(tensor: Labelled, ndim: int) -> Labelled:
    """The batch axes of a matrix product alone: rows and columns are not broadcast."""
    factors = tuple(f for f in tensor.factors if any(axis < ndim - 2 for axis in axes_of(f)))
    return Labelled((*tensor.shape[:-2], 1, 1), factors, tensor.data)
