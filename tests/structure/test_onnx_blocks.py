"""Blocks of ONNX files: found on the graph, left out of the file, refused where they would change it."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from block_networks import (
    IMAGE,
    Branches,
    Excited,
    Ghost,
    Leaky,
    Nested,
    PreActivation,
    Residual,
    Tree,
    concatenating,
    network,
)
from cases_base import cbr

import hwprune
from hwprune.errors import ModelError
from hwprune.structure import graph as graphs
from hwprune.structure.onnx_graph import parse_model
from hwprune.structure.onnx_proof import OnnxProver
from hwprune.structure.onnx_weights import WeightedGraph
from hwprune.structure.space import SearchSpace

EXCITED = network(PreActivation(), Excited())
CASES = {
    "plain": (network(Residual(), Residual()), ["1", "2"]),
    "stride": (network(Residual(8, 12, 2, 8), Residual()), ["2"]),
    "pre": (EXCITED, ["1", "2"]),
    "nested": (network(Residual(), Nested()), ["1", "2", "2.inner"]),
    "leaky": (network(Leaky(), cbr(8, 8)), ["1"]),
    "tree": (network(Tree()), ["1.one", "1.two"]),
    "list": (concatenating()[0], ["1.layers.0", "1.layers.1", "1.layers.2"]),
    "cat": (concatenating()[1], ["1", "2"]),
    "c2f": (concatenating()[3], ["1.m.0", "1.m.1"]),
    "inception": (network(Branches(), cbr(12, 8)), []),
    "ghost": (network(Ghost(), cbr(12, 8)), []),
}


def traced(content: bytes, **options: object) -> SearchSpace:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return hwprune.trace_onnx(content, depth=True, **options)


def names(space: SearchSpace) -> list[str]:
    return [block.name for block in space.blocks]


def run(content: bytes, image: np.ndarray) -> np.ndarray:
    (got,) = onnxruntime.InferenceSession(content).run(None, {"input": image})
    return got


@pytest.mark.parametrize("case", CASES)
def test_blocks_are_found_as_in_torch_and_leave_the_same_network(case):
    model, found = CASES[case]
    base = hwprune.export_base(model, IMAGE)
    space = traced(base)
    assert sorted(names(space)) == sorted(found)
    assert ("blocks" in space.proof.checks) == bool(found)
    image = torch.randn(IMAGE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        own = hwprune.trace(model, image, depth=True)
    shallow = {block.name: index % 2 for index, block in enumerate(own.blocks)}
    for gates in (dict.fromkeys(shallow, 0), shallow) if found and case != "leaky" else ():
        widths = [*own.full()[: len(own.groups)], *(gates[block.name] for block in own.blocks)]
        with torch.no_grad():
            expected = hwprune.prune(model, own, widths)(image).numpy()
        widths = [*space.full()[: len(space.groups)], *(gates[block.name] for block in space.blocks)]
        content = hwprune.slice_onnx(hwprune.prepare_onnx(base), space, widths)
        np.testing.assert_allclose(run(content, image.numpy()), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("case", ["plain", "nested", "list"])
def test_narrow_networks_without_blocks_cost_what_the_space_says(case):
    base = hwprune.prepare_onnx(hwprune.export_base(CASES[case][0], IMAGE))
    space, rng = traced(base), np.random.default_rng(0)
    for widths in (space.smallest(), *(space.sample(rng) for _ in range(4))):
        content = hwprune.slice_onnx(base, space, widths)
        left = onnx.load_from_string(content).graph.initializer
        weights = sum(int(np.prod(one.dims)) for one in left if one.data_type == onnx.TensorProto.FLOAT)
        assert weights == int(space.params(widths))
        assert run(content, np.zeros(IMAGE, np.float32)).shape == run(base, np.zeros(IMAGE, np.float32)).shape


def test_operators_without_names_are_enough():
    model = onnx.load_from_string(hwprune.export_base(CASES["plain"][0], IMAGE))
    for node in model.graph.node:
        node.name = ""
    space = traced(model.SerializeToString())
    assert len(names(space)) == len(set(names(space))) == 2


def test_exclude_keeps_a_block():
    base = hwprune.export_base(CASES["plain"][0], IMAGE)
    assert names(traced(base, exclude=["2"])) == ["1"]
    assert not hwprune.trace_onnx(base).blocks
    with pytest.raises(ModelError, match="fits no layer"):
        traced(base, exclude=["9"])


def test_a_sum_that_ends_no_block_has_a_reason():
    space = traced(hwprune.export_base(CASES["stride"][0], IMAGE))
    assert list(space.kept.values()) == ["no shortcut passes its layers"]


def test_what_is_no_block_is_refused_by_the_proof():
    base = hwprune.prepare_onnx(hwprune.export_base(CASES["plain"][0], IMAGE))
    space, graph = traced(base), graphs.read(parse_model(base))
    prover = OnnxProver(WeightedGraph.of(parse_model(base)), set())
    prover.refused_by(replace(space, blocks=()), set())
    first, second = space.blocks
    inside = next(node.outputs[0] for node in graph.nodes if node.inputs[0] == second.input)
    assert graph.shapes[inside] != graph.shapes[second.input]
    wrong = replace(space, blocks=(first, replace(second, input=inside)))
    assert names(prover.with_blocks(space)) == ["1", "2"]
    found = prover.with_blocks(wrong)
    assert names(found) == ["1"]
    assert "2" in found.kept


def test_no_torch_is_needed(tmp_path):
    import subprocess
    import sys

    (tmp_path / "net.onnx").write_bytes(hwprune.export_base(CASES["plain"][0], IMAGE))
    code = (
        "import hwprune, sys; s = hwprune.trace_onnx('net.onnx', depth=True);"
        "sys.exit('torch' in sys.modules or not s.blocks)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=False).returncode == 0
