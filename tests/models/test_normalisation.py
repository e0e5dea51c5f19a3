"""The normalisation that trained weights expect."""

from __future__ import annotations

import pytest
from torch import nn

from hwprune.models.normalisation import IMAGENET, expected_normalisation

HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@pytest.mark.parametrize("weights", ["torchvision:resnet18", "own.pt"])
def test_torchvision_tells_the_normalisation_of_its_networks(weights: str) -> None:
    found = expected_normalisation("torchvision:resnet18", weights)
    assert found is not None
    assert found[:2] == IMAGENET[:2]
    assert found.origin == "torchvision's for resnet18"


@pytest.mark.parametrize(
    ("name", "weights"),
    [("timm:tf_efficientnet_lite0", "own.pt"), ("resnet20", "timm:tf_efficientnet_lite0")],
)
def test_timm_networks_may_expect_another(name: str, weights: str) -> None:
    pytest.importorskip("timm")
    found = expected_normalisation(name, weights)
    assert found is not None
    assert found[:2] == HALF


@pytest.mark.parametrize(
    ("name", "weights", "pretrained"),
    [("torchvision:resnet18", "", False), ("resnet20", "own.pt", True), ("my.py:net", "own.pt", False)],
)
def test_nothing_is_known_without_weights_or_of_weights_from_elsewhere(
    name: str, weights: str, pretrained: bool
) -> None:
    assert expected_normalisation(name, weights, pretrained=pretrained) is None


def test_a_function_that_loads_weights_is_taken_to_expect_imagenets() -> None:
    model = nn.Identity()
    assert expected_normalisation("my.py:net", pretrained=True, model=model) == IMAGENET
    model.pretrained_cfg = {"mean": [0.5] * 3, "std": [0.5] * 3}
    found = expected_normalisation("my.py:net", pretrained=True, model=model)
    assert found is not None
    assert found[:2] == HALF
    assert expected_normalisation("my.py:net", model=model) is None
