"""What operators compute of constants: the common ones by numpy, all others by ONNX's reference. No torch."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from hwprune.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from hwprune.structure.node import Node

    Array = NDArray[Any]

_MOST_ELEMENTS = 2**20  # of a constant that is computed here
_UNARY: dict[str, Callable[..., Any]] = {
    "Floor": np.floor,
    "Ceil": np.ceil,
    "Neg": np.negative,
    "Abs": np.abs,
    "Sqrt": np.sqrt,
    "Not": np.logical_not,
}
_BINARY: dict[str, Callable[..., Any]] = {
    "Add": np.add,
    "Sub": np.subtract,
    "Mul": np.multiply,
    "Equal": np.equal,
    "Less": np.less,
    "Pow": np.power,
    "Greater": np.greater,
    "Min": np.minimum,
    "Max": np.maximum,
    "And": np.logical_and,
    "Or": np.logical_or,
}


def array_of(tensor: onnx.TensorProto) -> Array:
    """The values of a tensor; zeros where they were left out, as in a graph without weights."""
    try:
        return numpy_helper.to_array(tensor)
    except ValueError:
        return np.zeros(tuple(tensor.dims), dtype=helper.tensor_dtype_to_np_dtype(tensor.data_type))


def constant_of(node: Any) -> onnx.TensorProto:
    """The value of a Constant operator.

    Raises:
        ModelError: It has none.
    """
    for attribute in node.attribute:
        if attribute.name == "value":
            return attribute.t  # type: ignore[no-any-return]
        if attribute.name.startswith("value_"):
            value = helper.get_attribute_value(attribute)
            kinds = {"float": np.float32, "int": np.int64}
            kind = next((kinds[word] for word in kinds if word in attribute.name), object)
            return numpy_helper.from_array(np.array(value, dtype=kind))
    raise ModelError("A constant of this model has no value.", where=node.output[0])


def of_any_size(node: Node, constants: Mapping[str, Array]) -> bool:
    """Whether an operator makes a tensor of floats of a size that is free: it takes part in the analysis."""
    if node.operator == "ConstantOfShape":
        value = node.attributes.get("value")
        floats = value is None or array_of(value).dtype.kind == "f"
        return floats and constants[node.inputs[0]].size > 0
    return node.operator in ("Expand", "Tile") and constants[node.inputs[0]].dtype.kind == "f"


def shape_values(node: Node, shape: Sequence[int], scale: int) -> list[Array]:
    """What Shape or Size makes of a tensor.

    Args:
        node: The operator.
        shape: The tensor's shape.
        scale: Factor by which all axes but the first are taken to be larger.
    """
    scaled = np.array([size * scale if axis else size for axis, size in enumerate(shape)], np.int64)
    if node.operator == "Size":
        return [np.array(scaled.prod())]
    start, end = node.attributes.get("start", 0), node.attributes.get("end", len(shape))
    return [scaled[start:end]]


def run(proto: Any, node: Node, inputs: list[Array | None], opset: int) -> list[Array]:
    """What an operator makes of constants.

    Args:
        proto: The operator as ONNX has it.
        node: The same as a `Node`.
        inputs: The constants; None where an input is left out.
        opset: Version of the operator set.

    Raises:
        Exception: It cannot be computed, or the result would be too large.
    """
    _refuse_large(node, inputs)
    made = _known(node, [value for value in inputs if value is not None])
    return _reference(proto, node, inputs, opset) if made is None else [np.asarray(made)]


def _refuse_large(node: Node, inputs: list[Array | None]) -> None:
    kind, first = node.operator, inputs[0]
    size = sum(value.size for value in inputs if value is not None)
    if first is None or max(size, math.prod(node.output_shapes[0] or (1,))) > _MOST_ELEMENTS:
        raise ValueError("too large")
    if kind in ("Resize", "Pad", "OneHot"):
        raise ValueError("of unknown size")
    if kind in ("ConstantOfShape", "Expand", "Tile", "Range"):
        wanted = first if kind == "ConstantOfShape" else np.asarray(inputs[1])
        if abs(float(np.prod(wanted.astype(float)))) > _MOST_ELEMENTS:
            raise ValueError("too large")


def _known(node: Node, inputs: list[Array]) -> Array | None:
    """The result of the operators that shapes are computed by; None for all others."""
    kind, first = node.operator, inputs[0]
    if kind in _UNARY:
        return np.asarray(_UNARY[kind](first))
    if kind in _BINARY and len(inputs) == 2:
        return np.asarray(_BINARY[kind](first, inputs[1]))
    if kind == "Gather":
        return np.take(first, inputs[1], axis=node.attributes.get("axis", 0))
    if kind == "Concat":
        return np.concatenate(inputs, axis=node.attributes["axis"])
    if kind in ("Unsqueeze", "Squeeze"):
        given = node.attributes.get("axes", inputs[1] if len(inputs) > 1 else None)
        if given is not None:
            axes = tuple(int(axis) for axis in given)
            return np.expand_dims(first, axes) if kind == "Unsqueeze" else np.squeeze(first, axes)
    if kind == "Cast":
        return first.astype(helper.tensor_dtype_to_np_dtype(node.attributes["to"]))
    return first if kind == "Identity" else None


def _reference(proto: Any, node: Node, inputs: list[Array | None], opset: int) -> list[Array]:
    from onnx.reference import ReferenceEvaluator

    named = {name: value for name, value in zip(node.inputs, inputs, strict=True) if name}
    ends = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
        for name, value in named.items()
        if value is not None
    ]
    outputs = [onnx.ValueInfoProto(name=name) for name in node.outputs]
    graph = helper.make_graph([proto], "one", ends, outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    return [np.asarray(value) for value in ReferenceEvaluator(model).run(None, named)]
