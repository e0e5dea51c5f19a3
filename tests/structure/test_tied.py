"""Tied modules: which layers are told which widths, and which groups share one width."""

from __future__ import annotations

import warnings

import pytest
import torch
import torchvision

from hwprune.errors import ModelError
from hwprune.structure.prune import prune
from hwprune.structure.tied import groups_of, seen_groups, tie, tied_modules
from hwprune.structure.trace import trace


@pytest.fixture(scope="module")
def resnet50():
    torch.manual_seed(0)
    model = torchvision.models.resnet50(num_classes=10).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return model, trace(model, torch.zeros(1, 3, 64, 64), exclude=["layer4.0.conv3"])


def names(space, groups):
    return [space.groups[group].name for group in groups]


def test_a_block_is_named_part_by_part(resnet50):
    found = tied_modules(resnet50[1], ["layer?.*"])
    assert found["layer1.0.conv2"] == "layer1.0"
    assert found["layer4.2.bn3"] == "layer4.2"
    assert found["layer2.0.downsample.0"] == "layer2.0"
    assert not {"conv1", "fc"} & set(found)


def test_the_inner_layers_of_a_bottleneck_share_one_width(resnet50):
    model, space = resnet50
    tied = tie(space, ["layer?.*"])
    assert len(space.groups) == 36
    assert len(tied.groups) == 20  # MetaPruning's genes: stem, three stages, 16 bottlenecks
    inner = {layer.name: layer.outputs.groups for layer in tied.layers if layer.op == "conv"}
    assert inner["layer1.0.conv1"] == inner["layer1.0.conv2"]
    assert tied.macs(tied.full()) == space.macs(space.full())
    half = tuple(group.width // 2 for group in tied.groups)
    small = prune(model, tied, half)
    assert small.layer1[0].conv1.out_channels == small.layer1[0].conv2.out_channels == 32
    assert small(torch.zeros(1, 3, 64, 64)).shape == (1, 10)
    assert sum(p.numel() for p in small.parameters()) == tied.params(half)


def test_a_generator_is_told_all_widths_of_its_block(resnet50):
    tied = tie(resnet50[1], ["layer?.*"])
    seen = seen_groups(tied, tied_modules(tied, ["layer?.*"]))
    # the widths inside, read and written: the paper's [mid, in, out]
    assert names(tied, seen["layer2.0.conv1"]) == ["layer2.0.conv1", "layer1.0.conv3", "layer2.0.conv3"]
    assert seen["layer2.0.conv1"] == seen["layer2.0.conv3"] == seen["layer2.0.downsample.0"]
    assert names(tied, seen["conv1"]) == ["conv1"]


def test_without_blocks_nothing_changes(resnet50):
    space = resnet50[1]
    assert tie(space, ()) == space
    seen = seen_groups(space, {})
    assert all(seen[layer.name] == groups_of(layer) for layer in space.layers)


def test_a_pattern_that_fits_nothing_is_told(resnet50):
    with pytest.raises(ModelError, match="fits no layer") as caught:
        tied_modules(resnet50[1], ["stage?.*"])
    assert caught.value.got == "stage?.*"
    assert caught.value.do == "mend `tied` under [model]"
    assert "layer1.0" in caught.value.allowed
    assert len(caught.value.allowed) < 150  # not every layer of the network
