from __future__ import annotations

import subprocess
import sys

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from hwprune.errors import ModelError
from hwprune.runtimes import TargetProfile
from hwprune.runtimes.onnxruntime import OnnxRuntime
from hwprune.runtimes.probes import model_bytes
from hwprune.structure import graph as graphs
from hwprune.structure.follow import Followed
from hwprune.structure.fusion import Fusion, expected_fusion, observe
from hwprune.structure.kernels import KernelSpec, derive_kernels
from hwprune.structure.layers import ChannelGroup, ChannelMap, Layer, Run, Tensor
from hwprune.structure.onnx_graph import read_graph
from hwprune.structure.onnx_slice import slice_onnx
from hwprune.structure.space import SearchSpace

STEM, HIDDEN, DEPTHWISE = 0, 1, 2
SIZES = (24, 32, 40)


def channels(group: int, repeat: int = 1) -> ChannelMap:
    return ChannelMap((Run(group, 0, SIZES[group], repeat),))


def layer(name, op, inputs, outputs, shape) -> Layer:
    axes = ((0, outputs), (1, inputs))
    pruned = tuple((axis, where) for axis, where in axes if where.groups and where.size == shape[axis])
    return Layer(name, op, inputs, outputs, (Tensor(f"{name}.weight", shape, pruned),))


def followed(content: bytes) -> Followed:
    return Followed(graphs.read(onnx.load_model_from_string(content)), SPACE)


def block_net() -> tuple[bytes, SearchSpace]:
    """Stem, inverted residual with a depthwise convolution, concat of stem and branch, flatten, linear.

    stem 3->24, expand 24->32, side 24->40, depthwise 40, project 32->24 added to the stem,
    concat(sum 24, depthwise 40) -> pool 2x2 -> flatten -> fc 10.
    """
    rng = np.random.default_rng(0)
    shapes = {
        "stem": (24, 3, 3, 3),
        "expand": (32, 24, 1, 1),
        "side": (40, 24, 1, 1),
        "dw": (40, 1, 3, 3),
        "project": (24, 32, 3, 3),
        "fc": (10, 64 * 4),
    }
    weights = [
        numpy_helper.from_array(rng.standard_normal(shape, dtype=np.float32) * 0.1, f"{name}.weight")
        for name, shape in shapes.items()
    ]

    def conv(name, source, out, **facts):
        size = shapes[name][2]
        facts = {"kernel_shape": [size] * 2, "pads": [size // 2] * 4, **facts}
        return helper.make_node("Conv", [source, f"{name}.weight"], [out], name=f"N_{name}", **facts)

    def plain(op, inputs, out, **facts):
        return helper.make_node(op, inputs, [out], name=f"N_{out}", **facts)

    nodes = [
        conv("stem", "input", "c_stem", strides=[2, 2]),
        plain("Relu", ["c_stem"], "r_stem"),
        conv("expand", "r_stem", "c_expand"),
        plain("Relu", ["c_expand"], "r_expand"),
        conv("project", "r_expand", "c_project"),
        plain("Add", ["c_project", "r_stem"], "sum"),
        plain("Relu", ["sum"], "r_sum"),
        conv("side", "r_stem", "c_side"),
        conv("dw", "c_side", "c_dw", group=40),
        plain("Relu", ["c_dw"], "r_dw"),
        plain("Concat", ["r_sum", "r_dw"], "cat", axis=1),
        plain("AveragePool", ["cat"], "pool", kernel_shape=[4, 4], strides=[4, 4]),
        plain("Flatten", ["pool"], "flat"),
        plain("Gemm", ["flat", "fc.weight"], "output", transB=1),
    ]
    ends = [
        helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, 16, 16]),
        helper.make_tensor_value_info("output", TensorProto.FLOAT, [1, 10]),
    ]
    content = model_bytes(helper.make_graph(nodes, "block", ends[:1], ends[1:], weights))
    stem, hidden, side = (channels(group) for group in range(3))
    flat = ChannelMap((*channels(STEM, 4).runs, *channels(DEPTHWISE, 4).runs))
    space = SearchSpace(
        model="block",
        input_shape=(1, 3, 16, 16),
        groups=tuple(
            ChannelGroup(f"g{i}", size, 1, tuple(range(4, size + 1, 4))) for i, size in enumerate(SIZES)
        ),
        layers=(
            layer("stem", "conv", ChannelMap.frozen(3), stem, shapes["stem"]),
            layer("expand", "conv", stem, hidden, shapes["expand"]),
            layer("side", "conv", stem, side, shapes["side"]),
            layer("dw", "conv", side, side, shapes["dw"]),
            layer("project", "conv", hidden, stem, shapes["project"]),
            layer("fc", "linear", flat, ChannelMap.frozen(10), shapes["fc"]),
        ),
    )
    return content, space


CONTENT, SPACE = block_net()
GRAPH = read_graph(CONTENT)


def by_layer(kernels, widths):
    return {
        slot.layer or slot.tensor: spec
        for slot, spec in zip(kernels.slots, kernels.specs(widths), strict=True)
    }


def test_channels_of_every_tensor_agree_with_the_sliced_network():
    found = followed(CONTENT)
    rng = np.random.default_rng(1)
    for _ in range(20):
        widths = tuple(int(rng.integers(1, size + 1)) for size in SIZES)
        pruned = read_graph(slice_onnx(CONTENT, SPACE, widths))
        for node in pruned.nodes:
            assert int(found.channels(node.output).count(widths)) == pruned.shapes[node.output][1], (
                node.output
            )


def test_specs_are_those_computed_by_hand():
    specs = by_layer(derive_kernels(GRAPH, SPACE), (10, 20, 30))
    assert specs["stem"] == KernelSpec("conv", 3, 10, 3, 3, 2, 1, 8, 8, 1, "relu", "fp32")
    assert specs["expand"] == KernelSpec("conv", 10, 20, 1, 1, 1, 1, 8, 8, 1, "relu", "fp32")
    assert specs["dw"] == KernelSpec("dwconv", 30, 30, 3, 3, 1, 30, 8, 8, 1, "relu", "fp32")
    assert specs["fc"] == KernelSpec("linear", 40 * 4, 10, 1, 1, 1, 1, 1, 1, 1, "", "fp32")
    assert specs["cat"] == KernelSpec("concat", 40, 40, 1, 1, 1, 1, 8, 8, 1, "", "fp32")
    assert specs["pool"].op == "avgpool"
    assert specs["pool"].kernel_h == specs["pool"].stride == 4


def test_derivation_is_vectorised_over_networks():
    kernels = derive_kernels(GRAPH, SPACE)
    rng = np.random.default_rng(2)
    table = np.array([SPACE.sample(rng) for _ in range(50)])
    inputs, outputs = kernels.channels(table)
    for row, widths in enumerate(table):
        specs = kernels.specs(widths)
        assert [spec.in_channels for spec in specs] == inputs[row].tolist()
        assert [spec.out_channels for spec in specs] == outputs[row].tolist()


def test_batch_and_precision_are_part_of_the_key():
    specs = derive_kernels(GRAPH, SPACE, batch=8, precision="int8").specs(SPACE.full())
    assert {(spec.batch, spec.precision) for spec in specs} == {(8, "int8")}
    assert len(set(specs)) > 5


def test_an_observed_residual_addition_belongs_to_its_convolution():
    made = ["r_stem", "r_expand", "c_side", "r_dw", "c_project", "cat", "pool", "flat", "output"]
    fusion = observe(GRAPH, [[(tensor, False) for tensor in made]])
    kernels = derive_kernels(GRAPH, SPACE, fusion)
    project = kernels.slots[kernels.kernel_of["c_project"]]
    assert project.full.op == "conv+add"
    assert project.full.activation == "relu"
    assert project.full.family == "conv"
    assert kernels.kernel_of["sum"] == kernels.kernel_of["r_sum"] == kernels.kernel_of["c_project"]
    assert len(kernels.slots) == len(made)


def test_operators_fused_in_any_network_are_one_slot():
    apart = [
        "c_stem",
        "r_stem",
        "r_expand",
        "c_project",
        "sum",
        "r_sum",
        "c_side",
        "r_dw",
        "cat",
        "pool",
        "flat",
        "output",
    ]
    joined = ["r_stem", "r_expand", "c_project", "c_side", "r_dw", "cat", "pool", "flat", "output"]
    fusion = observe(GRAPH, [[(tensor, False) for tensor in names] for names in (apart, joined)])
    kernels = derive_kernels(GRAPH, SPACE, fusion)
    for one, other in (("c_stem", "r_stem"), ("c_project", "r_sum")):
        assert kernels.kernel_of[one] == kernels.kernel_of[other]


def test_two_convolutions_never_share_a_slot():
    first = ["r_stem", "r_expand", "c_side", "r_dw", "c_project", "cat", "pool", "flat", "output"]
    other = [
        "r_expand",
        "c_project",
        "r_stem",
        "c_side",
        "r_dw",
        "cat",
        "pool",
        "flat",
        "output",
    ]  # add joins the stem
    fusion = observe(GRAPH, [[(tensor, False) for tensor in names] for names in (first, other)])
    kernels = derive_kernels(GRAPH, SPACE, fusion)
    assert kernels.kernel_of["c_stem"] != kernels.kernel_of["c_project"] == kernels.kernel_of["sum"]


def test_reorders_are_slots_that_follow_the_tensor():
    made = [node.output for node in GRAPH.nodes if node.op != "Relu"]
    report = [(tensor, False) for tensor in made] + [("c_expand", True), ("input", True)]
    kernels = derive_kernels(GRAPH, SPACE, observe(GRAPH, [report]))
    slot = kernels.slots[kernels.reorder_of["r_expand"]]
    assert slot.full.op == "reorder/conv>conv"
    assert slot.full.family == "reorder"
    spec = by_layer(kernels, (10, 20, 30))
    assert kernels.reorder_of["c_expand"] == kernels.reorder_of["r_expand"]
    assert kernels.specs((10, 20, 30))[kernels.reorder_of["c_expand"]].out_channels == 20
    assert kernels.slots[kernels.reorder_of["input"]].full.op == "reorder/input>conv"
    assert spec["stem"].op == "conv"


def test_fusion_survives_json():
    fusion = expected_fusion(GRAPH)
    assert Fusion.from_payload(fusion.to_payload()) == fusion
    assert derive_kernels(GRAPH, SPACE, fusion) == derive_kernels(CONTENT, SPACE)


def test_what_onnx_runtime_reports_finds_a_slot_at_any_widths():
    runtime, profile = OnnxRuntime(), TargetProfile(name="t")
    networks = [(24, 32, 40), (10, 21, 30), (16, 16, 32), (24, 5, 7)]
    reports = [
        [(k.tensor, k.reorder) for k in runtime.profile_kernels(slice_onnx(CONTENT, SPACE, w), profile, 2)]
        for w in networks
    ]
    kernels = derive_kernels(GRAPH, SPACE, observe(GRAPH, reports))
    convolutions = {slot.layer for slot in kernels.slots if slot.layer}
    assert convolutions == {"stem", "expand", "side", "dw", "project", "fc"}
    for report in reports:
        for tensor, reorder in report:
            assert tensor in (kernels.reorder_of if reorder else kernels.kernel_of)
        hit = {kernels.kernel_of[tensor] for tensor, reorder in report if not reorder}
        assert {i for i, slot in enumerate(kernels.slots) if slot.layer} <= hit


@pytest.mark.parametrize(("between", "kept"), [("Relu", 10), ("LRN", 24)])
def test_unknown_operators_are_frozen_and_transposes_followed(between, kept):
    facts = {"size": 3} if between == "LRN" else {}
    nodes = [
        helper.make_node("Conv", ["input", "stem.weight"], ["c"], kernel_shape=[3, 3], pads=[1] * 4),
        helper.make_node("Transpose", ["c"], ["t"], perm=[0, 2, 3, 1]),
        helper.make_node("Transpose", ["t"], ["b"], perm=[0, 3, 1, 2]),
        helper.make_node(between, ["b"], ["r"], **facts),
        helper.make_node("Conv", ["r", "expand.weight"], ["e"], kernel_shape=[1, 1]),
        helper.make_node("ReduceMean", ["e"], ["output"], axes=[1]),
    ]
    shapes = {"stem.weight": (24, 3, 3, 3), "expand.weight": (32, 24, 1, 1)}
    weights = [numpy_helper.from_array(np.ones(shape, dtype=np.float32), n) for n, shape in shapes.items()]
    ends = [
        helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, 16, 16]),
        helper.make_tensor_value_info("output", TensorProto.FLOAT, [1, 1, 16, 16]),
    ]
    found = followed(model_bytes(helper.make_graph(nodes, "t", ends[:1], ends[1:], weights)))
    counts = [int(found.channels(name).count((10, 20, 30))) for name in ("c", "b", "e", "output")]
    assert counts == [kept, kept, 20, 1]
    assert found.sizes("t", found.keeps((10, 20, 30))) == (1, 16, 16, kept)


def test_weights_computed_in_the_graph_are_not_kernels():
    nodes = [
        helper.make_node("Transpose", ["fc.weight"], ["fc_t"], perm=[1, 0]),
        helper.make_node("MatMul", ["input", "fc_t"], ["output"]),
    ]
    weight = numpy_helper.from_array(np.ones((10, 256), dtype=np.float32), "fc.weight")
    ends = [
        helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 256]),
        helper.make_tensor_value_info("output", TensorProto.FLOAT, [1, 10]),
    ]
    graph = read_graph(model_bytes(helper.make_graph(nodes, "m", ends[:1], ends[1:], [weight])))
    assert [(node.op, node.weight) for node in graph.nodes] == [("MatMul", "fc.weight")]
    assert derive_kernels(graph, SPACE).slots[0].layer == "fc"


def test_not_an_onnx_model():
    with pytest.raises(ModelError, match="not an ONNX model"):
        read_graph(b"\x00garbage")


def test_no_torch_is_imported():
    code = "import hwprune.structure.kernels, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_base_network_is_valid_onnx():
    onnx.checker.check_model(onnx.load_model_from_string(CONTENT))
