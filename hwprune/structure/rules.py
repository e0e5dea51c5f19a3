"""What each ONNX operator does to labels: the rules, and those of elementwise operators. No torch.

| operators | rule | file |
|---|---|---|
| Reshape, Transpose, Concat, Split, Slice, Gather, Pad, Expand, Tile ... | move labels | rules_layout.py |
| elementwise | tie the labels of their operands | rules.py |
| Conv, ConvTranspose, Gemm, MatMul | tie what they read to the weight's input axis | rules_products.py |
| BatchNormalization, InstanceNormalization, LayerNormalization ... | tie their vectors | rules_norms.py |
| pools, Resize, GridSample | keep channels, one label for all positions | rules_norms.py |
| Reduce* | drop the labels of the axes that they sum up | rules_norms.py |
| Softmax over channels, attention, recurrent layers, all without a rule | freeze | rules.py |

An operator of one's own gets a rule in a few lines:

    @hwprune.structure.rule("MyScale")
    def my_scale(node, inputs, ledger):
        return [elementwise(ledger, *inputs)]
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from hwprune.structure.labels import Labelled, Ledger, axes_of, distinct, spread

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hwprune.structure.labels import Labels
    from hwprune.structure.node import Node


class Rule(Protocol):
    """What an operator does to labels."""

    def __call__(self, node: Node, inputs: Sequence[Any], ledger: Ledger, /) -> list[Labelled]:
        """The labels of the operator's outputs.

        Args:
            node: The operator.
            inputs: The labels of its inputs, a `Labelled` each; None where one is left out.
            ledger: Takes down which labels are tied or frozen.
        """


RULES: dict[str, Rule] = {}


def rule(*operators: str) -> Callable[[Rule], Rule]:
    """Register the rule of some operators; one of another domain is named `domain.Operator`.

    Example:
        >>> @rule("com.example.Scale")
        ... def scale(node, inputs, ledger):
        ...     return [elementwise(ledger, *inputs)]
    """

    def register(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(operators, function))
        return function

    return register


def find_rule(operator: str) -> Rule:
    """The rule of an operator; one that freezes where it has none."""
    return RULES.get(operator, freeze_all)


def freeze_all(node: Node, inputs: Sequence[Labelled | None], ledger: Ledger) -> list[Labelled]:
    """Freeze all labels that are read; the outputs have none."""
    for tensor in inputs:
        if tensor is not None:
            ledger.freeze_factors(tensor.factors, node.remark or "has no rule")
    data = any(tensor is not None and tensor.data for tensor in inputs)
    return [Labelled(shape, (), data) for shape in node.output_shapes]


def freeze_others(ledger: Ledger, tensor: Labelled, axes: Sequence[int], reason: str) -> None:
    """Freeze the factors that depend on none of some axes."""
    ledger.freeze_factors((f for f in tensor.factors if not set(axes_of(f)) & set(axes)), reason)


def channel_labels(ledger: Ledger, tensor: Labelled, axis: int) -> Labels:
    """One label for each position of an axis, tied over all other axes that its labels depend on: (size,)."""
    labels = np.zeros(tensor.shape[axis], dtype=np.int64)
    for factor in tensor.varying(axis):
        first = factor[tuple(slice(None) if a == axis else slice(0, 1) for a in range(factor.ndim))]
        ledger.tie(factor, first)
        line = first.ravel()
        if labels.any():
            ledger.tie(labels, line)
        labels = np.maximum(labels, line)
    return labels


def channels_on(labels: Labels, shape: Sequence[int], axis: int, data: bool = True) -> Labelled:
    """A tensor whose labels depend on one axis alone.

    Args:
        labels: Labels of that axis, (size,).
        shape: The tensor's shape.
        axis: The axis.
        data: Whether the tensor depends on the network's inputs.
    """
    return Labelled(tuple(shape), distinct([spread(labels, len(shape), axis)]), data)


def elementwise(ledger: Ledger, *operands: Labelled | None) -> Labelled:
    """One tensor from several that are broadcast against each other: their labels are tied."""
    tensors = [tensor for tensor in operands if tensor is not None]
    shape = np.broadcast_shapes(*(tensor.shape for tensor in tensors))
    result = aligned(tensors[0], len(shape))
    for tensor in tensors[1:]:
        other = aligned(tensor, len(shape))
        factors = tie_broadcast(ledger, result, other)
        size = tuple(map(max, result.shape, other.shape))
        result = Labelled(size, factors, result.data or other.data)
    return Labelled(tuple(shape), distinct(result.factors), any(tensor.data for tensor in tensors))


def aligned(tensor: Labelled, ndim: int) -> Labelled:
    """The same tensor with axes of size 1 in front, as broadcasting adds them."""
    lead = (1,) * (ndim - len(tensor.shape))
    factors = tuple(factor.reshape(lead + factor.shape) for factor in tensor.factors)
    return Labelled(lead + tensor.shape, factors, tensor.data)


def tie_broadcast(ledger: Ledger, one: Labelled, other: Labelled) -> tuple[Labels, ...]:
    """Tie the factors of two aligned tensors that are broadcast; returns those of the result."""
    mine, its = _unmatched(one, other), _unmatched(other, one)
    for first in mine:
        for second in its:
            if set(axes_of(first)) & set(axes_of(second)):
                ledger.tie(first, second)
    _freeze_crossing(ledger, mine, its, other)
    _freeze_crossing(ledger, its, mine, one)
    for tensor, against in ((one, other), (other, one)):
        for factor in tensor.factors:
            free = [axis for axis in axes_of(factor) if against.shape[axis] > 1 and not against.varying(axis)]
            if free:
                ledger.freeze(factor, "meets a tensor whose size is fixed there")
    same = [second for second in its if any(axes_of(first) == axes_of(second) for first in mine)]
    rest = (factor for factor in other.factors if not any(factor is second for second in same))
    return (*one.factors, *rest)


def _unmatched(tensor: Labelled, other: Labelled) -> list[Labels]:
    """Factors of a tensor that the other one does not have."""
    return [f for f in tensor.factors if not any(np.array_equal(f, its) for its in other.factors)]


def _freeze_crossing(ledger: Ledger, mine: Sequence[Labels], its: Sequence[Labels], other: Labelled) -> None:
    """Freeze factors that were tied to none, although the other tensor varies along their axes."""
    taken = {axis for second in its for axis in axes_of(second)}
    for factor in mine:
        axes = axes_of(factor)
        if not set(axes) & taken and any(other.varying(axis) for axis in axes):
            ledger.freeze(factor, "meets a tensor whose channels lie otherwise there")


_UNARY = """
Relu Sigmoid HardSigmoid HardSwish LeakyRelu Elu Selu Celu Tanh Softplus Softsign Gelu Erf Mish Sqrt Neg Exp
Abs Log Reciprocal Dropout Identity Cast Sin Cos Tan Atan Floor Ceil Round Sign Not IsNaN IsInf Swish Clip
ThresholdedRelu Sinh Cosh Asin Acos Asinh Acosh Atanh Shrink CastLike Bernoulli EyeLike
com.microsoft.Gelu com.microsoft.QuickGelu com.microsoft.FastGelu
"""
_BINARY = """
Add Sub Mul Div Pow Max Min Mod Sum Mean Where PRelu And Or Xor BitShift
Greater Less Equal GreaterOrEqual LessOrEqual
"""


@rule(*_UNARY.split())
def unary(node: Node, inputs: Sequence[Any], _ledger: Ledger) -> list[Labelled]:
    """The labels stay where they are."""
    x = inputs[0]
    return [Labelled(x.shape, x.factors, x.data) for _ in node.outputs]


@rule(*_BINARY.split())
def binary(_node: Node, inputs: Sequence[Any], ledger: Ledger) -> list[Labelled]:
    """The labels of all operands are tied."""
    return [elementwise(ledger, *inputs)]
