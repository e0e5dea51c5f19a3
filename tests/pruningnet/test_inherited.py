"""Trained weights cut to other widths: what stays takes over what is lost, as far as that can be told."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from hwprune.pruningnet.inherited import Inherited
from hwprune.structure.prune import prune
from hwprune.structure.trace import trace


@pytest.fixture
def batches(splits):
    return list(splits.sub_train.subset(range(128)).batches(64))


def outputs(model, batches):
    with torch.no_grad():
        return torch.cat([model(images) for images, _ in batches])


def test_at_full_width_it_is_the_trained_network(model, space, batches):
    whole = Inherited(model, space, batches, importance=None).materialise(space.full())
    assert torch.equal(outputs(whole, batches), outputs(model, batches))


def test_without_images_weights_are_cut_and_nothing_else(model, space, batches):
    widths = space.uniform(0.5)
    cut = Inherited(model, space, importance=None).materialise(widths)
    assert torch.equal(outputs(cut, batches), outputs(prune(model, space, widths), batches))


def test_a_channel_that_is_the_sum_of_others_is_missed_by_nobody():
    """The last two of four channels repeat the first two: least squares finds that, a cut does not."""
    torch.manual_seed(0)
    first, second = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 5, 3, padding=1)
    with torch.no_grad():
        first.weight[2:] = first.weight[:2]
        first.bias[2:] = first.bias[:2]
    net = nn.Sequential(
        first, nn.ReLU(), second, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 3)
    ).eval()
    space = trace(net, torch.randn(1, 3, 8, 8))
    images = [(torch.randn(16, 3, 8, 8), torch.zeros(16, dtype=torch.int64)) for _ in range(4)]
    widths = tuple(2 if group.name == "0" else group.width for group in space.groups)
    wanted = outputs(net, images)
    repaired = outputs(Inherited(net, space, images, importance=None).materialise(widths), images)
    cut = outputs(Inherited(net, space, importance=None).materialise(widths), images)
    assert (repaired - wanted).abs().max() < 0.02 * (cut - wanted).abs().max()


def test_repair_brings_the_outputs_nearer(learner, batches):
    model, space = learner
    model.eval()
    wanted, nearer = outputs(model, batches), 0
    for seed in range(5):
        widths = space.sample(np.random.default_rng(seed))
        repaired = outputs(Inherited(model, space, batches, importance=None).materialise(widths), batches)
        cut = outputs(Inherited(model, space, importance=None).materialise(widths), batches)
        nearer += bool((repaired - wanted).square().sum() < (cut - wanted).square().sum())
    assert nearer >= 4


def test_the_model_stays_as_it_was(model, space, batches):
    before = copy.deepcopy(model.state_dict())
    Inherited(model, space, batches, importance=None).materialise(space.uniform(0.5))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
