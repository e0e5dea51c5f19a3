"""The rule of an operator of one's own, on a graph made by hand and a reference in numpy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from hwprune.structure import graph as graphs
from hwprune.structure import rule
from hwprune.structure.flow import analyse
from hwprune.structure.groups import find_groups
from hwprune.structure.layers import ChannelGroup, ChannelMap, Layer, Run, Tensor
from hwprune.structure.onnx_slice import OnnxSlicer
from hwprune.structure.remedies import REMEDIES, remedy
from hwprune.structure.rules import RULES, channel_labels
from hwprune.structure.space import SearchSpace

RNG = np.random.default_rng(0)
WEIGHTS = {
    "first.weight": RNG.standard_normal((6, 3, 1, 1)).astype(np.float32),
    "scale": RNG.standard_normal(6).astype(np.float32),
    "last.weight": RNG.standard_normal((4, 6, 1, 1)).astype(np.float32),
}
X = RNG.standard_normal((2, 3, 5, 5)).astype(np.float32)


class Squash(OpRun):
    """The reference of the operator."""

    op_domain = "com.example"

    def _run(self, x, scale):
        return (np.tanh(x) * scale[:, None, None],)


def model():
    nodes = [
        helper.make_node("Conv", ["input", "first.weight"], ["a"], name="/first/Conv"),
        helper.make_node("Squash", ["a", "scale"], ["b"], name="/squash/Squash", domain="com.example"),
        helper.make_node("Conv", ["b", "last.weight"], ["output"], name="/last/Conv"),
    ]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, channels, 5, 5])
        for name, channels in (("input", 3), ("output", 4), ("b", 6))
    ]
    weights = [numpy_helper.from_array(value, name) for name, value in WEIGHTS.items()]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:2], weights, value_info=ends[2:])
    domains = [helper.make_opsetid("", 17), helper.make_opsetid("com.example", 1)]
    return helper.make_model(graph, opset_imports=domains, ir_version=9)


def groups():
    return find_groups(analyse(graphs.read(model())), [("first.weight", 0), ("last.weight", 0)])


@pytest.fixture
def squash():
    """The rule, for the time of a test."""

    @rule("com.example.Squash")
    def squash(node, inputs, ledger):
        x, scale = inputs
        ledger.tie(channel_labels(ledger, x, 1), channel_labels(ledger, scale, 0))
        return [x]

    yield
    del RULES["com.example.Squash"]


def test_an_operator_without_a_rule_freezes_and_is_named():
    found = groups()
    assert found.widths == []
    reason = found.why_frozen(found.flow.axes["first.weight", 0])
    assert reason == "com.example.Squash in squash has no rule"


def test_an_operator_of_ones_own_is_followed_by_its_rule(squash):
    found = groups()
    assert (found.names, found.widths) == ([("first.weight", 0)], [6])
    followed = ChannelMap((Run(0, 0, 6),))
    for axis in (("first.weight", 0), ("scale", 0), ("last.weight", 1)):
        assert found.axis(axis) == followed
    assert found.axis(("last.weight", 0)).groups == ()


@pytest.mark.parametrize("width", [6, 4, 1])
@pytest.mark.parametrize("batch", [None, 5])
def test_the_slice_of_its_network_computes_what_numpy_computes(squash, width, batch):
    channels, image, made = ChannelMap((Run(0, 0, 6),)), ChannelMap.frozen(3), ChannelMap.frozen(4)
    tensors = [
        Tensor("first.weight", (6, 3, 1, 1), ((0, channels),)),
        Tensor("scale", (6,), ((0, channels),)),
        Tensor("last.weight", (4, 6, 1, 1), ((1, channels),)),
    ]
    layers = (
        Layer("first", "conv", image, channels, tuple(tensors[:1])),
        Layer("", "parameter", channels, channels, tuple(tensors[1:2])),
        Layer("last", "conv", channels, made, tuple(tensors[2:])),
    )
    space = SearchSpace("own", (2, 3, 5, 5), (ChannelGroup("first", 6, 1, (1, 4, 6)),), layers)
    content = OnnxSlicer(model().SerializeToString(), space).slice((width,), batch=batch)
    x = RNG.standard_normal((batch, 3, 5, 5)).astype(np.float32) if batch else X
    (got,) = ReferenceEvaluator(content, new_ops=[Squash]).run(None, {"input": x})
    first, last = WEIGHTS["first.weight"][:width, :, 0, 0], WEIGHTS["last.weight"][:, :width, 0, 0]
    inner = np.tanh(np.einsum("oc,nchw->nohw", first, x)) * WEIGHTS["scale"][:width, None, None]
    np.testing.assert_allclose(got, np.einsum("oc,nchw->nohw", last, inner), rtol=1e-4, atol=1e-5)


def test_one_rule_serves_several_operators(monkeypatch):
    names = ("com.example.One", "com.example.Two")
    for name in names:
        monkeypatch.setitem(RULES, name, None)  # so that it is gone afterwards

    @rule(*names)
    def both(node, inputs, ledger):
        return [inputs[0]]

    assert [RULES[name] for name in names] == [both, both]


def test_the_page_lists_what_would_free_channels():
    page = (Path(__file__).parents[2] / "docs" / "structure.md").read_text()
    rows = [f"| ... {words} ... | {text} |" for words, text in REMEDIES.items()]
    assert [row for row in rows if row not in page] == []
    assert remedy("LSTM in rnn has no rule").startswith("give the operator a rule")
