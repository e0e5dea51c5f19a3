"""ONNX operators in torch: those that hwprune's exporter writes for convolutional networks.

Whole numbers (shapes, axes, indices) stay in the host's memory, so that no operator waits for the device and
a CUDA graph can be captured.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

from hwprune.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import Tensor

    Attributes = Mapping[str, Any]
    Inputs = Sequence[Any]
    Operator = Callable[[Attributes, Inputs], Any]  # a tensor

_CONV = {3: functional.conv1d, 4: functional.conv2d}
_TRANSPOSED = {3: functional.conv_transpose1d, 4: functional.conv_transpose2d}


def _spatial(attributes: Attributes, weight: Tensor) -> tuple[list[int], list[int], list[int]]:
    """Strides, pads and dilations of a convolution or a pool."""
    axes = weight.ndim - 2
    if attributes.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        raise ModelError("The torch runtime knows explicit padding only.", got=attributes["auto_pad"])
    strides = list(attributes.get("strides", [1] * axes))
    pads = list(attributes.get("pads", [0] * 2 * axes))
    return strides, pads, list(attributes.get("dilations", [1] * axes))


def _padded(x: Tensor, pads: list[int], value: float) -> tuple[Tensor, list[int]]:
    """`x` and the padding left to do, the same at both ends; uneven padding is done at once."""
    half = len(pads) // 2
    if pads[:half] == pads[half:]:
        return x, pads[:half]
    both = [pads[end * half + axis] for axis in reversed(range(half)) for end in (0, 1)]
    return functional.pad(x, both, value=value), [0] * half


def _conv(attributes: Attributes, inputs: Inputs) -> Any:
    x, weight, *bias = inputs
    strides, pads, dilations = _spatial(attributes, weight)
    x, pads = _padded(x, pads, 0.0)
    own = bias[0] if bias else None
    return _CONV[weight.ndim](x, weight, own, strides, pads, dilations, attributes.get("group", 1))


def _conv_transpose(attributes: Attributes, inputs: Inputs) -> Any:
    x, weight, *bias = inputs
    strides, pads, dilations = _spatial(attributes, weight)
    half = len(pads) // 2
    if pads[:half] != pads[half:]:
        raise ModelError("The torch runtime knows even padding of transposed convolutions only.", got=pads)
    extra = list(attributes.get("output_padding", [0] * half))
    own, groups = bias[0] if bias else None, attributes.get("group", 1)
    return _TRANSPOSED[weight.ndim](x, weight, own, strides, pads[:half], extra, groups, dilations)


def _max_pool(attributes: Attributes, inputs: Inputs) -> Any:
    (x,) = inputs
    strides, pads, dilations = _spatial(attributes, x)
    x, pads = _padded(x, pads, -math.inf)
    size, ceil = attributes["kernel_shape"], bool(attributes.get("ceil_mode", 0))
    return functional.max_pool2d(x, size, strides, pads, dilations, ceil)


def _average_pool(attributes: Attributes, inputs: Inputs) -> Any:
    (x,) = inputs
    strides, pads, _ = _spatial(attributes, x)
    counts_padding = bool(attributes.get("count_include_pad", 0))
    half = len(pads) // 2
    if pads[:half] != pads[half:] and not counts_padding:
        raise ModelError("The torch runtime cannot average over unevenly padded maps.", got=pads)
    x, pads = _padded(x, pads, 0.0)
    size, ceil = attributes["kernel_shape"], bool(attributes.get("ceil_mode", 0))
    return functional.avg_pool2d(x, size, strides, pads, ceil, counts_padding)


def _gemm(attributes: Attributes, inputs: Inputs) -> Any:
    a, b, *c = inputs
    a = a.t() if attributes.get("transA", 0) else a
    alpha, beta = attributes.get("alpha", 1.0), attributes.get("beta", 1.0)
    if alpha == beta == 1.0 and c and c[0].ndim == 1:
        return functional.linear(a, b if attributes.get("transB", 0) else b.t(), c[0])
    product = alpha * (a @ (b.t() if attributes.get("transB", 0) else b))
    return product + beta * c[0] if c else product


def _batch_norm(attributes: Attributes, inputs: Inputs) -> Any:
    x, scale, shift, mean, variance = inputs
    return functional.batch_norm(x, mean, variance, scale, shift, eps=attributes.get("epsilon", 1e-5))


def _layer_norm(attributes: Attributes, inputs: Inputs) -> Any:
    x, scale, *shift = inputs
    own = shift[0] if shift else None
    shape = x.shape[attributes.get("axis", -1) :]
    return functional.layer_norm(x, shape, scale, own, attributes.get("epsilon", 1e-5))


def _clip(attributes: Attributes, inputs: Inputs) -> Any:
    x, *bounds = inputs
    low, high = ([None if b is None else float(b) for b in bounds] + [None, None])[:2]
    return torch.clamp(x, low, high)


def _hard_sigmoid(attributes: Attributes, inputs: Inputs) -> Any:
    alpha, beta = attributes.get("alpha", 0.2), attributes.get("beta", 0.5)
    if math.isclose(alpha, 1 / 6, rel_tol=1e-6) and beta == 0.5:
        return functional.hardsigmoid(inputs[0])
    return torch.clamp(alpha * inputs[0] + beta, 0.0, 1.0)


def _flatten(attributes: Attributes, inputs: Inputs) -> Any:
    axis = attributes.get("axis", 1)
    return inputs[0].reshape(math.prod(inputs[0].shape[:axis]), -1)


def _reshape(attributes: Attributes, inputs: Inputs) -> Any:
    x, shape = inputs
    sizes = [x.shape[axis] if size == 0 else size for axis, size in enumerate(shape.tolist())]
    return x.reshape(sizes)


def _axes(attributes: Attributes, inputs: Inputs) -> list[int]:
    """Axes of an operator that has them as an attribute in older opsets and as an input in newer ones."""
    if len(inputs) > 1 and inputs[1] is not None:
        return [int(axis) for axis in inputs[1].tolist()]
    return list(attributes.get("axes", []))


def _reduce_mean(attributes: Attributes, inputs: Inputs) -> Any:
    axes = _axes(attributes, inputs) or list(range(inputs[0].ndim))
    return inputs[0].mean(dim=axes, keepdim=bool(attributes.get("keepdims", 1)))


def _unsqueeze(attributes: Attributes, inputs: Inputs) -> Any:
    x = inputs[0]
    axes = _axes(attributes, inputs)
    for axis in sorted(axis % (x.ndim + len(axes)) for axis in axes):
        x = x.unsqueeze(axis)
    return x


def _squeeze(attributes: Attributes, inputs: Inputs) -> Any:
    axes = _axes(attributes, inputs)
    return inputs[0].squeeze(axes) if axes else inputs[0].squeeze()


def _slice(attributes: Attributes, inputs: Inputs) -> Any:
    x, starts, ends, *rest = inputs
    axes = rest[0].tolist() if rest and rest[0] is not None else range(len(starts))
    steps = rest[1].tolist() if len(rest) > 1 and rest[1] is not None else [1] * len(starts)
    for axis, start, end, step in zip(axes, starts.tolist(), ends.tolist(), steps, strict=True):
        if step < 1:
            raise ModelError("The torch runtime cannot slice backwards.", got=f"step {step}")
        cut: list[slice] = [slice(None)] * x.ndim
        cut[axis] = slice(start, end, step)
        x = x[tuple(cut)]
    return x


def _gather(attributes: Attributes, inputs: Inputs) -> Any:
    x, index = inputs
    axis = attributes.get("axis", 0)
    if index.ndim == 0:
        return x.select(axis, int(index))
    rows = x.index_select(axis, index.reshape(-1).to(x.device))
    return rows.reshape(*x.shape[:axis], *index.shape, *x.shape[axis + 1 :])


def _divide(attributes: Attributes, inputs: Inputs) -> Any:
    one, other = inputs
    whole = not (one.is_floating_point() or other.is_floating_point())
    return torch.div(one, other, rounding_mode="trunc" if whole else None)


OPERATORS: dict[str, Operator] = {
    "Add": lambda a, i: i[0] + i[1],
    "AveragePool": _average_pool,
    "BatchNormalization": _batch_norm,
    "Clip": _clip,
    "Concat": lambda a, i: torch.cat(list(i), dim=a["axis"]),
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Div": _divide,
    "Dropout": lambda a, i: i[0],
    "Erf": lambda a, i: torch.erf(i[0]),
    "Exp": lambda a, i: torch.exp(i[0]),
    "Flatten": _flatten,
    "Gather": _gather,
    "Gemm": _gemm,
    "GlobalAveragePool": lambda a, i: i[0].mean(dim=tuple(range(2, i[0].ndim)), keepdim=True),
    "GlobalMaxPool": lambda a, i: i[0].amax(dim=tuple(range(2, i[0].ndim)), keepdim=True),
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": lambda a, i: functional.hardswish(i[0]),
    "Identity": lambda a, i: i[0],
    "LayerNormalization": _layer_norm,
    "LeakyRelu": lambda a, i: functional.leaky_relu(i[0], a.get("alpha", 0.01)),
    "MatMul": lambda a, i: i[0] @ i[1],
    "MaxPool": _max_pool,
    "Mul": lambda a, i: i[0] * i[1],
    "Neg": lambda a, i: -i[0],
    "PRelu": lambda a, i: torch.where(i[0] >= 0, i[0], i[0] * i[1]),
    "Pow": lambda a, i: torch.pow(i[0], i[1]),
    "ReduceMean": _reduce_mean,
    "Relu": lambda a, i: torch.relu(i[0]),
    "Reshape": _reshape,
    "Shape": lambda a, i: torch.tensor(i[0].shape),
    "Sigmoid": lambda a, i: torch.sigmoid(i[0]),
    "Slice": _slice,
    "Softmax": lambda a, i: torch.softmax(i[0], dim=a.get("axis", -1)),
    "Softplus": lambda a, i: functional.softplus(i[0]),
    "Sqrt": lambda a, i: torch.sqrt(i[0]),
    "Squeeze": _squeeze,
    "Sub": lambda a, i: i[0] - i[1],
    "Tanh": lambda a, i: torch.tanh(i[0]),
    "Transpose": lambda a, i: i[0].permute(a.get("perm", list(range(i[0].ndim))[::-1])),
    "Unsqueeze": _unsqueeze,
}
