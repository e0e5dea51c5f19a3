"""Blocks that are parts of concatenations, and blocks whose shortcut is not the input alone."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from block_networks import (
    IMAGE,
    Aggregated,
    Branches,
    C2f,
    Concatenating,
    DenseStage,
    Ghost,
    Leaky,
    RepVGG,
    Tree,
    concatenating,
    names,
    network,
    traced,
)
from cases_base import cbr
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import hwprune
from hwprune.errors import UsageError
from hwprune.pruningnet.net import PruningNet
from hwprune.structure.kernels import derive_kernels
from hwprune.structure.space import SearchSpace


def left(model: nn.Module, image: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model(image)


def run(content: bytes, image: torch.Tensor) -> np.ndarray:
    (got,) = onnxruntime.InferenceSession(content).run(None, {"input": image.numpy()})
    return got


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ([DenseStage(), cbr(20, 8)], ["1.layers.0", "1.layers.1", "1.layers.2"]),
        ([Concatenating(8), Concatenating(12), cbr(16, 8)], ["1", "2"]),
        ([Aggregated(), cbr(22, 8)], ["1", "1.c"]),
        ([Branches(), cbr(12, 8)], []),
        ([Ghost(), cbr(12, 8)], []),
        ([RepVGG(), RepVGG()], ["1", "2"]),
        ([nn.Sequential(RepVGG(), nn.BatchNorm2d(8))], ["1.0"]),
        ([Leaky(), nn.Sequential(Leaky())], ["1", "2.0"]),
        ([Tree()], ["1.one", "1.two"]),
        ([C2f()], ["1.m.0", "1.m.1"]),
    ],
    ids=["list", "cat", "osa", "inception", "ghost", "repvgg", "norm", "leaky", "given", "c2f"],
)
def test_blocks_are_found_by_what_they_do(body, found):
    assert names(traced(network(*body))) == found


def networks(space):
    rng = np.random.default_rng(0)
    return [space.full(), space.smallest(), space.uniform(1.0, 0.5), *(space.sample(rng) for _ in range(5))]


@pytest.mark.parametrize("model", [*concatenating(), network(RepVGG(), Leaky()), network(Tree())])
def test_a_network_without_blocks_is_one_thing_everywhere(model):
    image = torch.randn(IMAGE)
    space, base = traced(model), hwprune.export_base(model, IMAGE)
    net = PruningNet(model, space, "shared").eval()
    for widths in networks(space):
        pruned = hwprune.prune(model, space, widths).requires_grad_(False)
        with FlopCounterMode(display=False) as counter:
            expected = left(pruned, image)
        for content in (hwprune.slice_onnx(base, space, widths), hwprune.export_base(pruned, IMAGE)):
            np.testing.assert_allclose(run(content, image), expected.numpy(), rtol=1e-4, atol=1e-4)
        net.set_widths(widths)
        torch.testing.assert_close(left(net, image), expected)
        assert int(space.params(widths)) == sum(p.numel() for p in pruned.parameters())
        assert int(space.macs(widths)) == counter.get_total_flops() // 2
    many = np.array(networks(space))
    assert space.macs(many).tolist() == [int(space.macs(one)) for one in many]


@pytest.mark.parametrize("model", concatenating()[:2])
def test_no_channel_of_a_missing_dense_layer_is_left_in_a_file(model):
    space, base = traced(model), hwprune.export_base(model, IMAGE)
    widths = space.uniform(1.0, 0.0)
    for content in (
        hwprune.slice_onnx(base, space, widths),
        hwprune.export_base(hwprune.prune(model, space, widths), IMAGE),
    ):
        graph = onnx.load_from_string(content).graph
        assert all(0 not in tensor.dims for tensor in graph.initializer)
        assert sum(node.op_type == "Conv" for node in graph.node) == 2
        assert not any(node.op_type == "Slice" for node in graph.node)


def test_a_dense_layer_has_no_width_without_its_gate():
    space = traced(concatenating()[0])
    block = space.blocks[0]
    (own,) = block.groups
    assert [space.full()[own], space.smallest()[own]] == [4, 0]
    closed = list(space.full())
    closed[len(space.groups)] = 0
    assert space.check(closed)[own] == 0
    assert space.check(space.check(closed)) == space.check(closed)
    opened = [*space.check(closed)]
    opened[len(space.groups)] = 1
    with pytest.raises(UsageError, match="cannot have this width"):
        space.check(opened)


@pytest.mark.parametrize("model", concatenating())
def test_kernels_are_those_of_the_sliced_file(model):
    space, base = traced(model), hwprune.export_base(model, IMAGE)
    kernels = derive_kernels(base, space)
    for widths in networks(space):
        content = hwprune.slice_onnx(base, space, widths)
        empty = SearchSpace("", IMAGE, (), ())
        own = derive_kernels(content, empty).specs(())
        there = [slot.present(np.array([widths]))[0] for slot in kernels.slots]
        expected = [spec for spec, is_there in zip(kernels.specs(widths), there, strict=True) if is_there]
        assert sorted(map(repr, own)) == sorted(map(repr, expected))


def test_a_space_with_dense_layers_is_saved_whole(tmp_path):
    space = traced(concatenating()[0])
    space.save(tmp_path / "space.json")
    assert SearchSpace.load(tmp_path / "space.json") == space


@pytest.mark.parametrize(
    ("model", "module", "reason"),
    [
        (network(Tree(), cbr(8, 8), nn.Sequential(cbr(8, 12), Tree(12)), last=12), "3.0", None),
        (network(DenseStage(), cbr(20, 8)), "1", None),
        (network(Branches(), cbr(12, 8), Branches(), cbr(12, 8)), "1", "another shape"),
        (network(Ghost(), cbr(12, 8), Ghost(), cbr(12, 8)), "3", "another shape"),
    ],
)
def test_what_looks_like_a_block_but_stays_has_a_reason(model, module, reason):
    kept = traced(model).kept
    assert reason in kept[module] if reason else module not in kept
