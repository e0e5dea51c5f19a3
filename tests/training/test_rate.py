"""The range test for a learning rate."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from hwprune.data.datasets import open_data
from hwprune.training.loop import train
from hwprune.training.rate import find_rate
from hwprune.training.settings import TrainSettings

RECIPE = TrainSettings(epochs=4, batch_size=32, lr=0.1, precision="fp32")


@pytest.fixture(scope="module")
def trained():
    images = open_data("digits", image_size=8).train
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 12, 3, padding=1, bias=False),
        nn.BatchNorm2d(12),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(48, 10),
    )
    train(model, images, RECIPE, seed=0)
    return model, images


def test_a_rate_that_diverges_is_never_taken(trained):
    model, images = trained
    rate, spent = find_rate(model, images, RECIPE, rates=(1000.0, 0.03))
    assert rate == 0.03
    assert 0 < spent < 2


def test_a_rate_that_is_too_low_to_learn_is_not_taken(trained):
    _, images = trained
    torch.manual_seed(1)
    fresh = copy.deepcopy(trained[0])
    for part in fresh:
        if hasattr(part, "reset_parameters"):
            part.reset_parameters()
    rate, _ = find_rate(fresh, images, RECIPE, rates=(0.1, 1e-7))
    assert rate == 0.1


def test_a_short_run_is_not_spent_on_the_test(trained):
    model, images = trained
    assert find_rate(model, images, replace(RECIPE, epochs=1), rates=(0.3, 0.1, 0.03)) == (0.1, 0.0)


def test_where_all_rates_diverge_the_lowest_is_taken(trained):
    model, images = trained
    assert find_rate(model, images, RECIPE, rates=(1000.0, 900.0))[0] == 900.0


def test_the_network_is_not_changed_and_the_answer_is_the_same_again(trained):
    model, images = trained
    before = copy.deepcopy(model.state_dict())
    assert find_rate(model, images, RECIPE) == find_rate(model, images, RECIPE)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
