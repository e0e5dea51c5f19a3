"""The unpruned network's ONNX graph as plain data, and how many channels each of its tensors has."""

from __future__ import annotations

import contextlib
import functools
import math
import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import onnx

from hwprune.errors import ModelError
from hwprune.structure import graph as graphs
from hwprune.structure.onnx_format import RECODING, carried

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from hwprune.structure.graph import Graph
    from hwprune.structure.layers import Block, Layer
    from hwprune.structure.space import SearchSpace

WEIGHTED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
_UNARY = (
    "Relu Clip Sigmoid HardSigmoid HardSwish LeakyRelu PRelu Elu Selu Tanh Softplus Gelu Erf Softmax Mish"
)
ACTIVATIONS = frozenset(re.findall(r"\w+", _UNARY))
BINARY = frozenset({"Add", "Sub", "Mul", "Div", "Pow", "Max", "Min"})
LIGHT = ACTIVATIONS | BINARY | {"BatchNormalization", "Identity", "Dropout"}
_LARGE_BYTES = 4096
_MOST_ELEMENTS = 2**28  # of one tensor: a gigabyte of 32-bit floats


@dataclass(frozen=True, slots=True)
class GraphNode:
    """One operator that works on feature maps; operators on weights alone are left out.

    Attributes:
        op: ONNX operator.
        outputs: The tensors it makes.
        inputs: The feature maps it reads.
        weight: The initialiser behind its second input, if it is one.
        kernel: Kernel height and width.
        stride: The larger stride.
        groups: Convolution groups.
    """

    op: str
    outputs: tuple[str, ...]
    inputs: tuple[str, ...]
    weight: str | None
    kernel: tuple[int, int] = (1, 1)
    stride: int = 1
    groups: int = 1

    @property
    def output(self) -> str:
        """The first tensor that it makes, which stands for all."""
        return self.outputs[0]


@dataclass(frozen=True)
class NetGraph:
    """Operators in execution order, tensor shapes, and the names of the inputs.

    Operators that only change a number format are left out: whoever reads or makes their tensors reads or
    makes what these carry. `carried` tells which tensor that is. `source` is the graph that labels are sent
    through.
    """

    nodes: tuple[GraphNode, ...]
    shapes: dict[str, tuple[int, ...]]
    inputs: tuple[str, ...]
    carried: dict[str, str] = field(default_factory=dict)
    source: Graph | None = field(default=None, compare=False, repr=False)

    @functools.cached_property
    def consumers(self) -> dict[str, tuple[GraphNode, ...]]:
        """Tensor -> the operators that read it."""
        readers: dict[str, list[GraphNode]] = {}
        for node in self.nodes:
            for name in node.inputs:
                readers.setdefault(name, []).append(node)
        return {name: tuple(nodes) for name, nodes in readers.items()}

    def inside(self, block: Block) -> frozenset[str]:
        """The first outputs of the operators of a block: those between what it reads and its output."""
        makers = {name: node for node in self.nodes for name in node.outputs}
        found: set[str] = set()
        ends = {block.input, *block.reads}
        pending = [block.output]
        while pending:
            name = pending.pop()
            if name not in ends and name in makers and makers[name].output not in found:
                found.add(makers[name].output)
                pending.extend(makers[name].inputs)
        return frozenset(found)


def read_graph(base_onnx: bytes) -> NetGraph:
    """Read the unpruned network.

    Raises:
        ModelError: Not an ONNX model, or its shapes cannot be inferred.
    """
    model = _weightless(base_onnx)
    with consistency():
        return _net_graph(graphs.read(model))


@contextlib.contextmanager
def consistency() -> Iterator[None]:
    """Where a well-formed model is read that may yet lack inputs, outputs, sizes or values.

    Raises:
        ModelError: In place of what looking for them raises.
    """
    try:
        yield
    except (IndexError, KeyError, TypeError, ValueError, MemoryError) as error:
        raise ModelError(
            "The ONNX model is not consistent.",
            got=f"{type(error).__name__}: {error}"[:300],
            do="export it again",
        ) from error


def _net_graph(source: Graph) -> NetGraph:
    graph = source.model.graph
    names = carried(graph)
    weights = {name: name for name in (*source.weights, *source.constants)}
    nodes = []
    for proto in graph.node:
        if proto.op_type == "Constant" or all(name in weights for name in proto.input if name):
            root = next((weights[name] for name in proto.input if name), "")  # constants, reshaped weights
            weights.update({name: weights.get(name, names.get(name, root)) for name in proto.output})
        elif proto.op_type not in RECODING and not all(name in weights for name in proto.output):
            nodes.append(_graph_node(proto, weights, names))
    texts = (
        *source.shapes,
        *source.inputs,
        *names,
        *(text for one in nodes for text in (one.op, one.weight or "")),
    )
    if not all(isinstance(text, str) for text in texts):  # what is no Unicode comes as bytes
        raise ValueError("a name is not Unicode")
    _check_order(nodes, source.inputs)
    made = {*source.inputs, *(name for node in nodes for name in node.outputs)}
    shapes = {name: shape for name, shape in source.shapes.items() if name in made}
    return NetGraph(tuple(nodes), shapes, source.inputs, names, source)


def _check_order(nodes: Iterable[GraphNode], inputs: Iterable[str]) -> None:
    """Each tensor is made once, before it is read: whoever follows a graph comes to an end."""
    made = set(inputs)
    for node in nodes:
        if unknown := [name for name in node.inputs if name not in made]:
            raise ValueError(f"{node.op} reads {unknown[0]!r}, which nothing before it makes")
        for output in node.outputs:
            if not isinstance(output, str) or not output or output in made:
                raise ValueError(f"{node.op} makes {output!r}, which has no name or is made twice")
            made.add(output)


def without_weights(base_onnx: bytes) -> bytes:
    """The model with its graph and shapes only: a few kilobytes that `read_graph` reads likewise.

    Raises:
        ModelError: Not an ONNX model.
    """
    return bytes(_weightless(base_onnx).SerializeToString())


def parse_model(content: bytes) -> onnx.ModelProto:
    """Read an ONNX model that needs no other file; its bytes may come from anywhere.

    Raises:
        ModelError: Not an ONNX model, or one whose weights lie in other files: such paths are never followed.
    """
    try:
        model = onnx.load_model_from_string(content)
    except Exception as error:  # protobuf raises its own, undocumented errors
        raise ModelError("This is not an ONNX model.", got=str(error)[:300]) from error
    graphs = (model.graph, *model.functions)
    tensors = (tensor for graph in graphs for tensor in _tensors(graph))
    if outside := next(filter(onnx.external_data_helper.uses_external_data, tensors), None):
        raise ModelError(
            "The ONNX model keeps weights in another file.",
            where=outside.name,
            do="save it as one file, weights inside",
        )
    return model


def static_inputs(content: bytes) -> tuple[str, ...]:
    """What a network reads, such as `float[1, 3, 224, 224]`: a name of the type and a shape for each input.

    Raises:
        ModelError: Not an ONNX model, or none that can be timed: a size is not fixed, or beyond all reason,
            be it of an input, of an output or of what is made in between.
    """
    return refuse_large(_weightless(content))


def refuse_large(model: Any) -> tuple[str, ...]:
    """Refuse a model whose run takes far more memory than its file; its inputs, as `static_inputs` has them.

    One operator can ask for anything. Outputs are refused as they are declared too, for that much is set
    aside for them. Sizes that the model declares in between are forgotten first, in place: they may be
    anything, and would hide the true ones.
    """
    graph = model.graph
    if not graph.node:
        raise ModelError("This is not an ONNX model, or an empty one.", got="no operators")
    weights = {init.name for init in graph.initializer}
    inputs = tuple(_static_input(entry) for entry in graph.input if entry.name not in weights)
    for entry in model.graph.output:
        _check_size(f"output {entry.name}", [dim.dim_value for dim in entry.type.tensor_type.shape.dim])
        entry.type.tensor_type.ClearField("shape")
    for graph in all_graphs(model.graph):
        del graph.value_info[:]
        for sparse in graph.sparse_initializer:  # unfolded as soon as the model is opened
            _check_size(f"weight {sparse.values.name}", sparse.dims)
    try:
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    except Exception as error:  # as in `read_graph`
        raise ModelError("This is not an ONNX model.", got=str(error)[:300]) from error
    for graph in all_graphs(inferred.graph):
        for entry in (*graph.value_info, *graph.output):
            sizes = [dim.dim_value for dim in entry.type.tensor_type.shape.dim]
            _check_size(f"tensor {entry.name}", sizes)
    return inputs


def _check_size(where: str, sizes: Iterable[int]) -> None:
    sizes = list(sizes)
    if math.prod(size for size in sizes if size > 0) > _MOST_ELEMENTS:
        raise ModelError(
            "The network has a tensor that is larger than can be timed.",
            where=where,
            got=sizes,
            allowed=f"{_MOST_ELEMENTS} numbers",
        )


def all_graphs(graph: Any) -> Iterator[Any]:
    """A graph and all graphs inside it."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                if inner.node:
                    yield from all_graphs(inner)


def _static_input(entry: Any) -> str:
    kind = entry.type.tensor_type  # empty when the input is no tensor
    sizes = [dim.dim_value for dim in kind.shape.dim]  # 0 where a size is open
    if not kind.HasField("shape") or min(sizes, default=1) < 1:
        names = ", ".join(str(dim.dim_value or dim.dim_param or "?") for dim in kind.shape.dim)
        raise ModelError(
            "Only networks with static shapes can be timed.",
            where=f"input {entry.name}",
            got=f"[{names}]" if kind.HasField("shape") else "a shape that is not known",
            allowed="sizes such as [1, 3, 224, 224]",
            do="export the network with a fixed batch and image size, without dynamic axes",
        )
    _check_size(f"input {entry.name}", sizes)
    types = {number: name.lower() for name, number in onnx.TensorProto.DataType.items()}
    return f"{types.get(kind.elem_type, f'type {kind.elem_type}')}{sizes}"  # whoever runs it knows its types


def _tensors(graph: Any) -> Iterator[Any]:
    """All constant tensors of a graph or function and of the graphs inside it."""
    yield from getattr(graph, "initializer", ())
    for sparse in getattr(graph, "sparse_initializer", ()):
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
            for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
                yield from (sparse.values, sparse.indices)
            for inner in (attribute.g, *attribute.graphs):
                yield from _tensors(inner)


def _weightless(base_onnx: bytes) -> Any:
    model = parse_model(base_onnx)
    for init in model.graph.initializer:
        if init.ByteSize() > _LARGE_BYTES:  # shapes follow from constants, never from weights
            init.ClearField("raw_data")
    return model


def _graph_node(node: Any, weights: dict[str, str], names: dict[str, str]) -> GraphNode:
    facts = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
    data = tuple(names.get(name, name) for name in node.input if name and name not in weights)
    weight = weights.get(node.input[1]) if len(node.input) > 1 and node.op_type in WEIGHTED else None
    made = GraphNode(node.op_type, tuple(name for name in node.output if name), data, weight or None)
    size = (*facts.get("kernel_shape", (1, 1)), 1)[:2]
    return replace(
        made,
        kernel=(int(size[0]), int(size[1])),
        stride=int(max(facts.get("strides", (1,)))),
        groups=int(facts.get("group", 1)),
    )


def layers_by_tensor(space: SearchSpace) -> dict[str, Layer]:
    """Name of each parameter -> the layer that owns it."""
    return {tensor.name: layer for layer in space.layers for tensor in layer.tensors}
