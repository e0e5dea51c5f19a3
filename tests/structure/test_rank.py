"""Sorting the channels of a network must not change what it computes."""

from __future__ import annotations

import pytest
import torch

from hwprune.models.registry import build
from hwprune.structure.prune import prune
from hwprune.structure.rank import sort_channels
from hwprune.structure.trace import trace


def network(name):
    torch.manual_seed(0)
    model = build(name, num_classes=10).eval()
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                tensor.add_(0.1 * torch.rand_like(tensor))
    return model, trace(model, torch.zeros(1, 3, 32, 32), name=name)


@pytest.mark.parametrize(
    "name", ["resnet20", "mobilenet_v2_cifar", "vgg16_bn_cifar", "torchvision:squeezenet1_1"]
)
@pytest.mark.filterwarnings("ignore::hwprune.errors.HwpruneWarning")
def test_the_sorted_network_computes_the_same(name):
    model, space = network(name)
    scores = [torch.rand(group.width) for group in space.groups]
    twin = sort_channels(model, space, scores)
    images = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        torch.testing.assert_close(twin(images), model(images), rtol=1e-3, atol=1e-4)
    changed = [
        key for key, tensor in twin.state_dict().items() if not torch.equal(tensor, model.state_dict()[key])
    ]
    assert len(changed) > len(space.groups)


def test_the_leading_channels_are_the_most_important():
    model, space = network("resnet20")
    scores = [torch.zeros(group.width) for group in space.groups]
    index = next(i for i, group in enumerate(space.groups) if group.name == "layer1.0.conv1")
    scores[index] = torch.arange(16.0)  # the last channel is the most important one
    twin = sort_channels(model, space, scores)
    torch.testing.assert_close(twin.layer1[0].conv1.weight, model.layer1[0].conv1.weight.flip(0))
    widths = list(space.full())
    widths[index] = 4
    kept = prune(twin, space, widths).layer1[0].conv1.weight
    torch.testing.assert_close(kept, model.layer1[0].conv1.weight[-4:].flip(0))


def test_the_model_itself_is_not_changed():
    model, space = network("resnet20")
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    sort_channels(model, space, [torch.rand(group.width) for group in space.groups])
    assert all(torch.equal(before[key], tensor) for key, tensor in model.state_dict().items())
