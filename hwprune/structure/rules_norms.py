"""Rules of normalisation, pools, reductions, Softmax and quantisation. No torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from hwprune.structure.labels import Labelled, Ledger, axes_of, distinct, rows_of
from hwprune.structure.rules import (
    channel_labels,
    channels_on,
    elementwise,
    freeze_all,
    freeze_others,
    rule,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hwprune.structure.labels import Labels
    from hwprune.structure.node import Node

_FIXED_VECTORS = "normalises channels by fixed vectors"
_NORM_GROUPS = "keeps equally many channels of each norm group"


@rule("BatchNormalization")
def batch_norm(node: Node, inputs: Sequence[Any], ledger: Ledger) -> list[Labelled]:
    """Scale, shift, mean and variance go with the channels."""
    x = inputs[0]
    labels = channel_labels(ledger, x, 1)
    for vector in inputs[1:]:
        ledger.tie(labels, channel_labels(ledger, vector, 0), _FIXED_VECTORS)
    if node.attributes.get("training_mode"):  # how weights are standardised
        ledger.mix(f for f in x.factors if set(axes_of(f)) - {1})
    return [x, *_further(node, x)]


def _further(node: Node, x: Labelled) -> list[Labelled]:
    """All outputs but the first, without labels."""
    return [Labelled(shape, (), x.data) for shape in node.output_shapes[1:]]


@rule("InstanceNormalization")
def instance_norm(_node: Node, inputs: Sequence[Any], ledger: Ledger) -> list[Labelled]:
    """Scale and shift go with the channels; of instances of several (GroupNorm) equally many go."""
    x = inputs[0]
    for factor in x.factors:
        axes = axes_of(factor)
        if axes == (1,):
            for vector in inputs[1:]:
                ledger.tie(factor.ravel(), channel_labels(ledger, vector, 0), _FIXED_VECTORS)
            continue
        ledger.mix([factor])
        if 1 in axes:
            rows = np.moveaxis(np.broadcast_to(factor, _over(factor, x.shape)), 1, 0).reshape(x.shape[1], -1)
            ledger.keep_in_step(rows, _NORM_GROUPS)
    return [x]


def _over(factor: Labels, shape: Sequence[int]) -> tuple[int, ...]:
    return tuple(size if own > 1 else 1 for own, size in zip(factor.shape, shape, strict=True))


@rule("GroupNormalization")
def group_norm(node: Node, inputs: Sequence[Any], ledger: Ledger) -> list[Labelled]:
    """Equally many channels of each norm group; scale and shift go with them, or stay, one for a group."""
    x, groups = inputs[0], int(node.attributes["num_groups"])
    labels = channel_labels(ledger, x, 1)
    ledger.mix([labels])
    ledger.keep_in_step(labels.reshape(groups, -1), _NORM_GROUPS)
    for vector in inputs[1:]:
        if vector.shape[0] == len(labels):
            ledger.tie(labels, channel_labels(ledger, vector, 0), _FIXED_VECTORS)
        else:
            ledger.freeze_factors(vector.factors, "has one scale for each norm group")
    return [x]


@rule("LayerNormalization", "RMSNormalization")
def layer_norm(node: Node, inputs: Sequence[Any], ledger: Ledger) -> list[Labelled]:
    """Scale and shift go with the normalised axes."""
    x = inputs[0]
    start = int(node.attributes.get("axis", -1)) % len(x.shape)
    ledger.mix(f for f in x.factors if max(axes_of(f), default=-1) >= start)
    return [elementwise(ledger, x, *inputs[1:3]), *_further(node, x)]


@rule("MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "LpPool", "GlobalLpPool")
@rule("Resize", "Upsample", "GridSample")
def pool(node: Node, inputs: Sequence[Any], ledger: Ledger) -> list[Labelled]:
    """Channels stay, each one label for all positions."""
    x, shape = inputs[0], node.output_shapes[0]
    if len(shape) != len(x.shape) or shape[1] != x.shape[1]:
        return freeze_all(node, inputs, ledger)
    labels = channel_labels(ledger, x, 1)
    freeze_others(ledger, x, (1,), "reads positions, whose number is fixed")
    if node.operator == "GridSample":
        ledger.freeze_factors(inputs[1].factors, "holds positions")
    return [channels_on(labels, size, 1, x.data) for size in node.output_shapes]


@rule("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin")
@rule("ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceLogSumExp")
def reduce(node: Node, inputs: Sequence[Any], ledger: Ledger) -> list[Labelled]:
    """Labels of summed axes are dropped; a mean over channels becomes one over those that are left."""
    x, given = inputs[0], node.ints("axes", 1)
    if given is None and node.attributes.get("noop_with_empty_axes"):
        return [x]
    axes = {axis % len(x.shape) for axis in (given if given is not None else range(len(x.shape)))}
    kept = []
    for factor in x.factors:
        gone = axes & set(axes_of(factor))
        rest = [axis for axis in axes_of(factor) if axis not in gone]
        if gone:
            ledger.mix([factor])
            if rest:
                ledger.keep_in_step(rows_of(factor, rest), "sums up equally many channels of each part")
        else:
            kept.append(factor if node.attributes.get("keepdims", 1) else factor.squeeze(tuple(axes)))
    return [Labelled(node.output_shapes[0], distinct(kept), x.data)]


@rule("Softmax", "LogSoftmax", "Hardmax", "CumSum", "LpNormalization", "ArgMax", "ArgMin", "TopK")
def over_channels(node: Node, inputs: Sequence[Any], ledger: Ledger) -> list[Labelled]:
    """Positions along the operator's axis depend on each other: channels there stay."""
    x = inputs[0]
    axis = _own_axis(node, len(x.shape))
    for factor in x.varying(axis):
        if axes_of(factor) == (axis,) or node.operator not in ("Softmax", "LogSoftmax"):
            ledger.freeze(factor, "works over channels")
        else:  # over the branches of a selective kernel: a channel goes in all of them
            ledger.tie(factor, factor.take([0], axis))
    if node.output_shapes[0] == x.shape:
        factors = distinct(f.take([0], axis) for f in x.factors if axes_of(f) != (axis,))
        return [Labelled(x.shape, factors, x.data) for _ in node.outputs]
    return freeze_all(node, inputs, ledger)


def _own_axis(node: Node, ndim: int) -> int:
    default = 0 if node.operator.startswith("Arg") else -1
    given = node.ints("axis", 1) if node.operator == "CumSum" else None
    return int(given[0] if given is not None else node.attributes.get("axis", default)) % ndim


@rule("QuantizeLinear", "DequantizeLinear")
def recode(node: Node, inputs: Sequence[Any], ledger: Ledger) -> list[Labelled]:
    """Scales and zero points of channels go with them."""
    x = inputs[0]
    axis = int(node.attributes.get("axis", 1))
    for vector in inputs[1:]:
        if vector is not None and vector.factors and len(vector.shape) == 1:
            labels = channel_labels(ledger, x, axis % len(x.shape))
            ledger.tie(labels, channel_labels(ledger, vector, 0), "has scales of fixed number")
    return [x]
