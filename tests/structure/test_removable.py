"""Blocks that may go: found by behaviour, left out of torch modules and ONNX files alike."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from block_networks import (
    IMAGE,
    EndsInside,
    Excited,
    Nested,
    PreActivation,
    Residual,
    names,
    network,
    traced,
)
from cases_base import cbr, conv
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import hwprune
from hwprune.errors import ModelError, UsageError
from hwprune.structure.space import SearchSpace


class Squeezed(nn.Module):
    """Scales its input: no block."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.fc = nn.Sequential(nn.AdaptiveAvgPool2d(1), conv(width, width, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.fc(x))


class Picky(nn.Module):
    """Cannot stand zeros: what it would do without its layers is not known."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.a = conv(width, width)

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x)
        if not bool(y.abs().max() > 0):
            raise ValueError("nothing there")
        return x + y


class Twice(nn.Module):
    """Calls the same block two times: only both calls together may go."""

    def __init__(self) -> None:
        super().__init__()
        self.block = Residual()

    def forward(self, x: Tensor) -> Tensor:
        return self.block(self.block(x).relu())


def left(model: nn.Module, image: Tensor) -> Tensor:
    with torch.no_grad():
        return model(image)


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ([Residual(), Residual()], ["1", "2"]),
        ([nn.Sequential(Residual(), Residual())], ["1.0", "1.1"]),
        ([nn.Sequential(Residual())], ["1.0"]),
        ([Residual(8, 12, 2, 8), Residual()], ["2"]),
        ([PreActivation(), PreActivation()], ["1", "2"]),
        ([Excited()], ["1"]),
        ([Nested()], ["1", "1.inner"]),
        ([Squeezed(), Residual()], ["2"]),
        ([Twice(), Residual()], ["1", "2"]),
        ([nn.Dropout(0.5), cbr(8, 8)], []),
        ([Picky(), PreActivation()], ["2"]),
    ],
    ids=[
        "plain",
        "container",
        "container_of_one",
        "stride",
        "pre",
        "se",
        "nested",
        "scale",
        "twice",
        "none",
        "picky",
    ],
)
def test_blocks_are_found_by_what_they_do(body, found):
    assert names(traced(network(*body))) == found


@pytest.mark.parametrize(
    "body", [[Residual(), Residual()], [PreActivation(), Excited()], [Nested(), Residual()]]
)
def test_a_network_without_blocks_is_one_thing_in_torch_in_onnx_and_in_figures(body):
    model, image = network(*body), torch.randn(IMAGE)
    space, base = traced(model), hwprune.export_base(model, IMAGE)
    rng = np.random.default_rng(0)
    for widths in (space.full(), space.smallest(), *(space.sample(rng) for _ in range(6))):
        pruned = hwprune.prune(model, space, widths).requires_grad_(False)
        with FlopCounterMode(display=False) as counter:
            expected = left(pruned, image)
        content = hwprune.slice_onnx(base, space, widths)
        (got,) = onnxruntime.InferenceSession(content).run(None, {"input": image.numpy()})
        np.testing.assert_allclose(got, expected.numpy(), rtol=1e-4, atol=1e-4)
        assert int(space.params(widths)) == sum(p.numel() for p in pruned.parameters())
        assert int(space.macs(widths)) == counter.get_total_flops() // 2
    many = np.array([space.sample(rng) for _ in range(20)])
    assert space.macs(many).tolist() == [int(space.macs(one)) for one in many]
    assert space.params(many).tolist() == [int(space.params(one)) for one in many]


def test_a_block_that_is_left_out_becomes_an_identity_and_its_nodes_go():
    model = network(Residual(), Residual())
    space, base = traced(model), hwprune.export_base(model, IMAGE)
    widths = (*space.full()[:-1], 0)
    assert isinstance(hwprune.prune(model, space, widths)[2], nn.Identity)
    graph = onnx.load_from_string(hwprune.slice_onnx(base, space, widths)).graph
    assert len(graph.node) < len(onnx.load_from_string(base).graph.node)
    assert not any(tensor.name.startswith("2.") for tensor in graph.initializer)


def test_a_block_that_makes_the_models_output_may_go():
    model = nn.Sequential(cbr(3, 8), Residual()).eval()
    space, base = traced(model), hwprune.export_base(model, IMAGE)
    image, widths = torch.randn(IMAGE), (*space.full()[:-1], 0)
    (got,) = onnxruntime.InferenceSession(hwprune.slice_onnx(base, space, widths)).run(
        None, {"input": image.numpy()}
    )
    np.testing.assert_allclose(got, left(model[0], image).numpy(), rtol=1e-4, atol=1e-4)


def test_what_is_inside_a_missing_block_means_nothing():
    space = traced(network(Nested(), Residual()))
    outer, inner = names(space).index("1"), names(space).index("1.inner")
    count = len(space.groups)
    missing = list(space.full())
    missing[count + outer] = 0
    other = [*space.smallest()[:count], *missing[count:]]
    outside = [i for i, group in enumerate(space.groups) if not group.name.startswith("1.")]
    for index in outside:
        other[index] = missing[index]
    other[count + inner] = 0
    assert space.check(missing) == space.check(other)
    assert space.macs(missing) == space.macs(other)
    assert space.params(missing) == space.params(other)


@pytest.mark.parametrize(
    ("entering", "leaving"), [("output", "output"), ("x", "output"), ("output", "input")]
)
def test_a_block_that_is_not_in_the_graph_is_refused(entering, leaving):
    model = network(Residual())
    space, base = traced(model), hwprune.export_base(model, IMAGE)
    wrong = replace(space.blocks[0], input=entering, output=leaving)
    with pytest.raises(ModelError, match="not the unpruned model"):
        hwprune.slice_onnx(base, replace(space, blocks=(wrong,)), space.smallest())


@pytest.mark.parametrize("gates", [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_blocks_that_end_at_one_tensor(gates):
    model, image = network(EndsInside(), PreActivation()), torch.randn(IMAGE)
    space, base = traced(model), hwprune.export_base(model, IMAGE)
    assert names(space) == ["1", "1.inner", "2"]
    widths = space.check([*space.full()[: len(space.groups)], *gates, 1])
    (got,) = onnxruntime.InferenceSession(hwprune.slice_onnx(base, space, widths)).run(
        None, {"input": image.numpy()}
    )
    expected = left(hwprune.prune(model, space, widths), image).numpy()
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)
    assert "blocks" in space.proof.checks


def test_a_block_around_an_excluded_one_stays():
    model = network(EndsInside(), nn.Sequential(PreActivation(), PreActivation()))
    assert names(traced(model, exclude=["1.inner", "2.0"])) == ["2.1"]


def test_exclude_keeps_a_block():
    model = network(Residual(), Residual())
    assert names(traced(model, exclude=["2*"])) == ["1"]
    assert traced(model).blocks
    assert not hwprune.trace(model, torch.randn(IMAGE)).blocks


def test_a_space_with_blocks_is_saved_whole(tmp_path):
    space = traced(network(Nested(), Residual()))
    space.save(tmp_path / "space.json")
    assert SearchSpace.load(tmp_path / "space.json") == space


@pytest.mark.parametrize("gate", [2, -1])
def test_a_gate_is_0_or_1(gate):
    space = traced(network(Residual()))
    with pytest.raises(UsageError, match="there or not"):
        space.check([*space.full()[:-1], gate])
