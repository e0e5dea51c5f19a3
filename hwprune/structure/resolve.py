"""All shapes of an ONNX model, and all values that do not depend on its inputs. No torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from hwprune.errors import ModelError
from hwprune.structure.evaluate import array_of, constant_of, of_any_size, run, shape_values
from hwprune.structure.node import Node, node_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray

    Array = NDArray[Any]
    Shapes = dict[str, tuple[int, ...]]

CUTTABLE = frozenset({1, 2, 3, 10, 11, 16})  # ONNX's floating-point formats, and 8-bit integers
_MOST_GIVEN = 1024  # elements of a constant that shape inference is told


class Resolver:
    """Goes through a model once, and keeps shapes and constants.

    Args:
        model: A model whose inputs have fixed sizes.
        cuttable: Initialisers that may be cut; all of floating point where None.
        scale: Factor by which operators see all sizes but the batch; `shapes` are not scaled.
        shapes: Tensor -> shape, when they are known.

    Attributes:
        known: Names of the initialisers.
        weights: Initialisers that may be cut: name -> shape.
        constants: All other initialisers, and what is computed of them: name -> value.
        computed: Names of constants that depend on a shape, sorted.
        shapes: Tensor -> shape.
        nodes: All operators but constants, in order.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        cuttable: Iterable[str] | None = None,
        scale: int = 1,
        shapes: Mapping[str, tuple[int, ...]] | None = None,
    ) -> None:
        self.model, self.scale, self.given = model, scale, shapes
        self.opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 17)
        self.known = {tensor.name for tensor in model.graph.initializer}
        may = None if cuttable is None else set(cuttable)
        self.weights: Shapes = {}
        self.constants: dict[str, Array] = {}
        self.computed: list[str] = []
        self.shapes: Shapes = {}
        self.nodes: list[Node] = []
        decoders = (node for node in model.graph.node if node.op_type == "DequantizeLinear")
        self.recoded = {name for node in decoders for name in node.input}
        for tensor in model.graph.initializer:
            self._enter(tensor, tensor.name, may)
        for node in model.graph.node:
            if node.op_type == "Constant":
                self._enter(constant_of(node), node.output[0], may if may is not None else set())

    def _enter(self, tensor: onnx.TensorProto, name: str, may: set[str] | None) -> None:
        shape = tuple(tensor.dims)
        self.shapes[name] = shape
        numbers = tensor.data_type in CUTTABLE or name in self.recoded
        if numbers and (name in may if may is not None else bool(shape)):
            self.weights[name] = shape
        else:
            self.constants[name] = array_of(tensor)

    def resolve(self) -> None:
        """Find all shapes, and compute what can be computed.

        Raises:
            ModelError: The model is not valid.
        """
        if self.given is not None:
            self.shapes = dict(self.given)
        else:
            for entry in self.model.graph.input:
                if entry.name not in self.known:
                    self.shapes[entry.name] = tuple(d.dim_value for d in entry.type.tensor_type.shape.dim)
            self._infer_all()
        computed: set[str] = set()
        for proto in self.model.graph.node:
            if proto.op_type != "Constant":
                self._take(proto, computed)
        self.computed = sorted(computed)

    def _take(self, proto: Any, computed: set[str]) -> None:
        """Find shapes and values of one operator's outputs; those that depend on a shape enter `computed`."""
        node = node_of(proto)
        node.output_shapes = tuple(self.shapes.get(name, ()) for name in node.outputs)
        depends = node.operator in ("Shape", "Size") or any(name in computed for name in node.inputs)
        for name, value in zip(node.outputs, self._evaluate(proto, node) or (), strict=False):
            self.constants[name], self.shapes[name] = value, value.shape
            if depends:
                computed.add(name)
        if any(name not in self.shapes for name in node.outputs):
            self._infer_one(proto, node)
        node.output_shapes = tuple(self.shapes.get(name, ()) for name in node.outputs)
        self.nodes.append(node)

    def _evaluate(self, proto: Any, node: Node) -> list[Array] | None:
        """The outputs of an operator whose inputs are constants; None when they cannot be computed."""
        if node.operator in ("Shape", "Size"):
            shape = self.shapes.get(node.inputs[0])
            return None if shape is None else shape_values(node, shape, self.scale)
        if not all(name in self.constants for name in node.inputs if name):
            return None
        if of_any_size(node, self.constants):
            return None
        inputs = [self.constants[name] if name else None for name in node.inputs]
        try:
            return run(proto, node, inputs, self.opset)
        except Exception:  # what cannot be computed here is no constant
            return None

    def _infer_all(self) -> None:
        try:
            inferred = onnx.shape_inference.infer_shapes(self.model, data_prop=True)
        except Exception as error:  # shape inference raises errors of its own
            raise ModelError("This is not a valid ONNX model.", got=str(error)[:300]) from error
        self._keep_shapes((*inferred.graph.value_info, *inferred.graph.output))

    def _infer_one(self, proto: Any, node: Node) -> None:
        """The shapes of one operator's outputs, from the shapes and constants of its inputs."""
        inputs, constants = [], []
        for name in dict.fromkeys(name for name in node.inputs if name):
            if name in self.constants and self.constants[name].size <= _MOST_GIVEN:
                constants.append(numpy_helper.from_array(np.array(self.constants[name], order="C"), name))
            else:
                shape = self.shapes.get(name)
                inputs.append(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape))
        outputs = [onnx.ValueInfoProto(name=name) for name in node.outputs if name]
        graph = helper.make_graph([proto], "one", inputs, outputs, constants)
        model = helper.make_model(graph, opset_imports=self.model.opset_import)
        self._keep_shapes(onnx.shape_inference.infer_shapes(model, data_prop=True).graph.output)

    def _keep_shapes(self, entries: Iterable[Any]) -> None:
        """Enter the shapes that have no open size."""
        for entry in entries:
            dims = entry.type.tensor_type.shape.dim
            if entry.type.tensor_type.HasField("shape") and all(dim.HasField("dim_value") for dim in dims):
                self.shapes[entry.name] = tuple(dim.dim_value for dim in dims)
