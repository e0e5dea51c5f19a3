"""PruningNet over a space with blocks: what is left out passes its input on, and training goes on."""

from __future__ import annotations

import copy
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import hwprune
from hwprune.errors import MismatchError
from hwprune.pruningnet.net import PruningNet
from hwprune.structure.prune import prune
from hwprune.training.optimiser import Optimiser
from hwprune.training.settings import TrainSettings

IMAGES = torch.randn(4, 3, 12, 12, generator=torch.Generator().manual_seed(0))


class Residual(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.a, self.norm = nn.Conv2d(width, 10, 3, padding=1), nn.BatchNorm2d(10)
        self.b = nn.Conv2d(10, width, 3, padding=1)

    def forward(self, x):
        return torch.relu(x + self.b(torch.relu(self.norm(self.a(x)))))


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    stem, head = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()), nn.Conv2d(8, 5, 1)
    return nn.Sequential(stem, *(Residual(8) for _ in range(3)), head).eval()


@pytest.fixture(scope="module")
def space(model):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return hwprune.trace(model, IMAGES, depth=True)


class Framed(nn.Module):
    """Owns a parameter, so that a stand-in takes its place, and has a block inside."""

    def __init__(self):
        super().__init__()
        self.scale, self.stem = nn.Parameter(torch.rand(1, 8, 1, 1) + 0.5), nn.Conv2d(3, 8, 3)
        self.block, self.head = Residual(8), nn.Conv2d(8, 5, 1)

    def forward(self, x):
        return self.head(self.block(torch.relu(self.stem(x)) * self.scale))


def test_blocks_inside_stand_ins_are_found():
    model = Framed().eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        space = hwprune.trace(model, IMAGES, depth=True)
    assert [block.name for block in space.blocks] == ["block"]
    net = PruningNet(model, space, "shared").eval()
    for widths in (space.full(), space.smallest()):
        net.set_widths(widths)
        with torch.no_grad():
            torch.testing.assert_close(net(IMAGES), prune(model, space, widths)(IMAGES))


def test_weights_of_another_depth_are_refused(model, space, tmp_path):
    PruningNet(model, replace(space, blocks=()), "shared").save(tmp_path / "net")
    with pytest.raises(MismatchError):
        PruningNet(model, space, "shared").load(tmp_path / "net")


def networks(space):
    rng = np.random.default_rng(0)
    return [space.full(), space.smallest(), space.uniform(1.0, 0.5), *(space.sample(rng) for _ in range(5))]


@pytest.mark.parametrize("generator", ["fc", "residual", "shared"])
@pytest.mark.parametrize("training", [True, False])
def test_materialised_network_equals_the_forward(model, space, generator, training):
    net = PruningNet(model, space, generator).train(training)
    for widths in networks(space):
        dense = net.materialise(widths)
        assert sum(p.numel() for p in dense.parameters()) == int(space.params(widths))
        net.set_widths(widths)
        with torch.no_grad():
            torch.testing.assert_close(dense(IMAGES), net(IMAGES))


def test_shared_equals_the_pruned_base_model(model, space):
    net = PruningNet(model, space, "shared").eval()
    for widths in networks(space):
        net.set_widths(widths)
        with torch.no_grad():
            torch.testing.assert_close(net(IMAGES), prune(model, space, widths)(IMAGES))


def test_a_copy_has_gates_of_its_own(model, space):
    net = PruningNet(model, space, "shared").eval()
    other = copy.deepcopy(net)
    other.set_widths(space.smallest())
    net.set_widths(space.full())
    with torch.no_grad():
        torch.testing.assert_close(net(IMAGES), model(IMAGES))
        assert not torch.allclose(net(IMAGES), other(IMAGES))


def test_blocks_that_come_and_go_are_trained_as_by_plain_sgd(model, space):
    recipe = TrainSettings(epochs=1, batch_size=4, lr=0.05)
    nets = [PruningNet(model, space, "residual") for _ in range(2)]
    plain = torch.optim.SGD(
        [
            {"params": [p for p in nets[1].parameters() if recipe.decay_all or p.ndim > 1]},
            {
                "params": [p for p in nets[1].parameters() if not (recipe.decay_all or p.ndim > 1)],
                "weight_decay": 0.0,
            },
        ],
        lr=recipe.lr, momentum=recipe.momentum, nesterov=recipe.nesterov, weight_decay=recipe.weight_decay,
        foreach=False, fused=False,
    )  # fmt: skip
    optimiser = Optimiser(nets[0], recipe)
    for widths in [space.smallest(), space.full(), space.uniform(1.0, 0.5), space.full()]:
        losses = []
        for net in nets:
            net.train().set_widths(widths)
            losses.append(net(IMAGES).square().mean())
        optimiser.step(losses[0], recipe.lr)
        plain.zero_grad()
        losses[1].backward()
        plain.step()
    for (name, mine), its in zip(nets[0].named_parameters(), nets[1].parameters(), strict=True):
        torch.testing.assert_close(mine, its, msg=name)
