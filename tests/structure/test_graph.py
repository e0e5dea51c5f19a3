"""Reading a graph: constants that are computed from shapes, and what they follow."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from hwprune.errors import ModelError
from hwprune.structure import graph as graphs
from hwprune.structure.export import export_base
from hwprune.structure.onnx_fold import fold_shapes
from hwprune.structure.onnx_slice import OnnxSlicer
from hwprune.structure.onnx_weights import WeightedGraph
from hwprune.structure.prune import prune
from hwprune.structure.trace import trace

IMAGE = (2, 6, 4, 4)


def constant(name: str, *values: int) -> onnx.TensorProto:
    return numpy_helper.from_array(np.array(values, dtype=np.int64), name)


def shuffle(image: tuple[int | str, ...] = IMAGE) -> onnx.ModelProto:
    """`x.view(n, 2, c // 2, -1)`, and a Reshape to sizes that are written in the code."""
    nodes = [
        helper.make_node("Shape", ["input"], ["shape"]),
        helper.make_node("Gather", ["shape", "i0"], ["n"], axis=0),
        helper.make_node("Gather", ["shape", "i1"], ["c"], axis=0),
        helper.make_node("Div", ["c", "two"], ["half"]),
        helper.make_node("Concat", ["n", "two", "half", "rest"], ["sizes"], axis=0),
        helper.make_node("Reshape", ["input", "sizes"], ["parts"], name="/shuffle/Reshape"),
        helper.make_node("Reshape", ["parts", "code"], ["output"], name="/flat/Reshape"),
    ]
    weights = [constant("i0", 0), constant("i1", 1), constant("two", 2), constant("rest", -1)]
    weights.append(constant("code", -1, 96))
    ends = [helper.make_tensor_value_info("input", TensorProto.FLOAT, image)]
    ends.append(helper.make_tensor_value_info("output", TensorProto.FLOAT, ["n", 96]))
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def test_what_is_computed_from_shapes_is_a_constant() -> None:
    graph = graphs.read(shuffle())
    assert [node.operator for node in graph.nodes] == ["Reshape", "Reshape"]
    assert graph.constants["sizes"].tolist() == [2, 2, 3, -1]
    assert graph.shapes["parts"] == (2, 2, 3, 16)
    assert graph.shapes["output"] == (2, 96)
    assert (graph.inputs, graph.outputs) == (("input",), ("output",))


def test_a_constant_knows_what_it_follows() -> None:
    graph = graphs.read(shuffle())
    assert graph.batched["sizes"].tolist() == [True, False, False, False]
    assert graph.following["sizes"].tolist() == [False, False, True, False]
    assert not {"code", "two"} & (graph.batched.keys() | graph.following.keys())
    parts, flat = graph.nodes
    assert [parts.follows(axis) for axis in range(4)] == [False, False, True, True]
    assert [flat.follows(axis) for axis in range(2)] == [True, False]
    assert (parts.scope, parts.place) == ("shuffle", "Reshape in shuffle")


def test_an_open_batch_is_one_and_other_open_sizes_are_refused() -> None:
    assert graphs.read(shuffle(("n", 6, 4, 4))).shapes["parts"] == (1, 2, 3, 16)
    with pytest.raises(ModelError, match="no fixed size") as caught:
        graphs.read(shuffle((2, 6, "height", 4)))
    assert (caught.value.where, caught.value.got) == ("input", "axis 2 is height")


def test_folded_shapes_are_initialisers_and_compute_the_same() -> None:
    model = shuffle()
    x = np.random.default_rng(0).standard_normal(IMAGE).astype(np.float32)
    before = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"input": x})[0]
    fold_shapes(WeightedGraph.of(model))
    assert [node.op_type for node in model.graph.node] == ["Reshape", "Reshape"]
    assert {tensor.name for tensor in model.graph.initializer} == {"sizes", "code"}
    after = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"input": x})[0]
    assert np.array_equal(before, after)


class Viewed(nn.Module):
    """Sizes of the batch as a tensor's size, as a number, and through a chain of both."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.inner = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 6, 1)
        self.bias, self.head = nn.Parameter(torch.rand(1, 6, 1, 1)), nn.Linear(6 * 4, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        n, c, h, w = x.shape
        x = x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(len(x), c, h, w)
        x = self.inner(x) + self.bias.expand(n, -1, h, w)
        return self.head(nn.functional.adaptive_avg_pool2d(x, 2).view(int(n), -1))


@pytest.mark.parametrize("base_batch", [1, 2])
def test_a_slice_at_another_batch_is_the_pruned_network(base_batch: int) -> None:
    torch.manual_seed(0)
    model = Viewed().eval()
    space = trace(model, torch.randn(2, 3, 8, 8))
    widths = space.smallest()
    pruned = prune(model, space, widths)
    slicer = OnnxSlicer(export_base(model, (base_batch, 3, 8, 8)), space)
    for batch in (5, None, 1):  # one slice leaves nothing behind for the next
        content = slicer.slice(widths, batch=batch)
        size = batch or base_batch
        graph = onnx.load_model_from_string(content).graph
        sizes = [entry.type.tensor_type.shape.dim[0].dim_value for entry in (*graph.input, *graph.output)]
        assert sizes == [size, size]
        x = torch.randn(size, 3, 8, 8)
        got = onnxruntime.InferenceSession(content).run(None, {"input": x.numpy()})[0]
        with torch.no_grad():
            np.testing.assert_allclose(got, pruned(x).numpy(), rtol=1e-4, atol=1e-5)
