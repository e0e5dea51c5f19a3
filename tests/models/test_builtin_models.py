"""The built-in networks against the figures of their papers and against torchvision's twins."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import nn

from hwprune.models.mobilenet_v1 import mobilenet_v1
from hwprune.models.mobilenet_v2 import mobilenet_v2
from hwprune.models.registry import build, default_image_size
from hwprune.models.resnet_cifar import resnet20

# Parameters in M and MACs in M: He et al. table 6, Howard et al. table 8, Sandler et al. table 4; VGG-16 from
# torchvision's documentation; the MACs of the 32x32 networks are those that the pruning literature prints.
PUBLISHED = {
    "resnet20": (10, 0.27, 40.8),
    "resnet56": (10, 0.85, 125.5),
    "resnet110": (10, 1.73, 252.9),
    "vgg16_bn": (1000, 138.4, 15470),
    "vgg16_bn_cifar": (10, 14.7, 313),
    "mobilenet_v1": (1000, 4.2, 569),
    "mobilenet_v2": (1000, 3.5, 300),
}


def count_macs(model: nn.Module, side: int) -> int:
    """MACs of convolutions and linear layers for one image, counted while the model runs."""
    total = 0

    def add(module: nn.Module, _: object, output: torch.Tensor) -> None:
        nonlocal total
        weight = module.weight
        total += output.numel() * weight.numel() // weight.shape[0]

    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            module.register_forward_hook(add)
    with torch.no_grad():
        model.eval()(torch.zeros(1, 3, side, side, device=next(model.parameters()).device))
    return total


def count_parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("name", PUBLISHED)
def test_size_and_macs_are_the_published_ones(name: str) -> None:
    classes, parameters_m, macs_m = PUBLISHED[name]
    with torch.device("meta"):
        model = build(name, num_classes=classes)
    assert count_parameters(model) / 1e6 == pytest.approx(parameters_m, rel=0.012)
    assert count_macs(model, default_image_size(name)) / 1e6 == pytest.approx(macs_m, rel=0.004)


@pytest.mark.parametrize(
    ("model", "macs_m"), [(mobilenet_v1, 149), (mobilenet_v2, 97)], ids=["mobilenet_v1", "mobilenet_v2"]
)
def test_half_width_mobilenets_have_the_published_macs(model: object, macs_m: float) -> None:
    with torch.device("meta"):
        network = model(width=0.5)
    assert count_macs(network, 224) / 1e6 == pytest.approx(macs_m, rel=0.01)


def test_option_b_adds_exactly_two_shortcut_convolutions() -> None:
    shortcuts = [name for name, module in resnet20().named_modules() if name.endswith("downsample.0")]
    assert shortcuts == ["layer2.0.downsample.0", "layer3.0.downsample.0"]
    assert count_parameters(resnet20()) == 269_722 + 2_752  # option A has 269,722


def test_base_width_scales_every_stage() -> None:
    wide = resnet20(base_width=32)
    assert (wide.conv1.out_channels, wide.fc.in_features) == (32, 128)


@pytest.mark.parametrize("name", ["resnet20", "vgg16_bn_cifar", "mobilenet_v1_cifar", "mobilenet_v2_cifar"])
def test_small_networks_map_images_to_logits(name: str) -> None:
    model = build(name, num_classes=7)
    logits = model(torch.randn(3, 3, 32, 32))
    assert logits.shape == (3, 7)
    logits.sum().backward()
    unused = [key for key, parameter in model.named_parameters() if parameter.grad is None]
    assert unused == []


@pytest.mark.parametrize("name", ["mobilenet_v1", "mobilenet_v2"])
def test_large_networks_map_images_to_logits(name: str) -> None:
    with torch.no_grad():
        assert build(name, num_classes=5).eval()(torch.randn(2, 3, 224, 224)).shape == (2, 5)


def test_same_seed_gives_the_same_weights() -> None:
    models = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        models.append(build("resnet20", num_classes=10).conv1.weight)
    assert torch.equal(models[0], models[1])
    assert not torch.equal(models[0], models[2])


def test_mobilenet_v2_computes_what_torchvision_computes() -> None:
    ours, theirs = build("mobilenet_v2"), torchvision.models.mobilenet_v2()
    ours.load_state_dict(theirs.state_dict())
    images = torch.randn(2, 3, 96, 96)
    with torch.no_grad():
        assert torch.equal(ours.eval()(images), theirs.eval()(images))


def test_vgg16_bn_has_the_layers_of_torchvision() -> None:
    with torch.device("meta"):
        ours, theirs = build("vgg16_bn"), torchvision.models.vgg16_bn()
    shapes = [{key: value.shape for key, value in model.state_dict().items()} for model in (ours, theirs)]
    assert shapes[0] == shapes[1]
    assert str(ours.features) == str(theirs.features)
    assert str(ours.classifier) == str(theirs.classifier)
