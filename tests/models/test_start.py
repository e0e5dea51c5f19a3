"""Whether a function loads trained weights is found out, and 'from scratch' is true."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn

from hwprune.errors import HwpruneWarning
from hwprune.models.registry import build
from hwprune.models.start import factory_is_pretrained, reset_parameters, trained_by, warn_of_kept


def net(classes: int = 10) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8 * 36, classes))


@pytest.fixture
def trained() -> nn.Module:
    torch.manual_seed(5)
    model = net()
    model(torch.randn(16, 3, 8, 8))  # statistics
    return model


def loading(state: dict[str, torch.Tensor], classes: int = 10) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        model = net(classes)
        own = model.state_dict()
        fitting = {name: value for name, value in state.items() if own[name].shape == value.shape}
        model.load_state_dict(fitting, strict=False)
        return model

    return make


def test_a_function_that_loads_weights_is_recognised(trained: nn.Module) -> None:
    assert factory_is_pretrained(loading(trained.state_dict()))
    found = trained_by(loading(trained.state_dict()), "my.py:net")
    assert found is not None
    assert found.anew == ()
    other = copy.deepcopy(trained.state_dict())
    other["0.weight"] += 1
    again = trained_by(loading(other), "my.py:net")
    assert again is not None
    assert again.digest != found.digest


def test_a_layer_with_random_weights_among_trained_ones_is_named(trained: nn.Module) -> None:
    def make() -> nn.Module:
        model = nn.Sequential(net(), nn.Linear(10, 3))
        model[0].load_state_dict(trained.state_dict())
        return model

    found = trained_by(make, "my.py:net")
    assert found is not None
    assert found.anew == ("1",)
    assert "random are those of 1" in found.notes[0]


def seeded() -> nn.Module:
    torch.manual_seed(0)
    return net()


@pytest.mark.parametrize("make", [net, seeded, lambda: build("resnet20", num_classes=10)])
def test_untrained_networks_are_not_taken_for_trained_ones(make: Callable[[], nn.Module]) -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    assert not factory_is_pretrained(make)
    assert torch.equal(torch.rand(2), expected)


def test_a_function_that_sets_a_seed_and_loads_weights_is_recognised(trained: nn.Module) -> None:
    def make() -> nn.Module:
        torch.manual_seed(0)
        return loading(trained.state_dict())()

    assert factory_is_pretrained(make)


class Scaled(nn.Module):
    """A layer with a parameter of its own and no way to reset it."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.full((4,), 7.0))
        self.inner = nn.Linear(4, 4)


def test_reset_reaches_every_parameter_and_statistic_by_the_seed(trained: nn.Module) -> None:
    before = copy.deepcopy(trained.state_dict())
    other = copy.deepcopy(trained)
    assert reset_parameters(trained, 1) == ()
    reset_parameters(other, 1)
    for name, value in trained.state_dict().items():
        assert torch.equal(value, other.state_dict()[name])
        if name in ("0.weight", "0.bias", "3.weight", "3.bias", "1.running_mean", "1.running_var"):
            assert not torch.equal(value, before[name]), name
    reset_parameters(other, 2)
    assert not torch.equal(other[0].weight, trained[0].weight)


def test_parameters_that_cannot_be_reset_are_kept_and_named() -> None:
    model = nn.Sequential(Scaled(), nn.utils.parametrizations.weight_norm(nn.Linear(4, 2)))
    before = copy.deepcopy(model.state_dict())
    kept = reset_parameters(model, 0)
    assert "0.gain" in kept
    assert len(kept) == 3
    assert all(torch.equal(model.state_dict()[name], before[name]) for name in kept)
    assert all(value.isfinite().all() for value in model.state_dict().values())
    with pytest.warns(HwpruneWarning, match=r"0\.gain.* start from the values"):
        warn_of_kept(kept)
