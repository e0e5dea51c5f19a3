"""The networks that every structural promise is tested on, at the smallest image size that they take."""

from __future__ import annotations

import copy
import functools

import torch
from torch import nn

from hwprune.models.registry import build
from hwprune.structure.space import SearchSpace
from hwprune.structure.trace import trace

SIZES = {
    "torchvision:resnet18": 64,
    "torchvision:resnet50": 64,
    "torchvision:mobilenet_v2": 64,
    "torchvision:mobilenet_v3_large": 64,
    "torchvision:vgg16_bn": 224,  # its pooling to 7x7 exports from multiples of 7 only
    "torchvision:densenet121": 64,
    "torchvision:googlenet": 64,
    "torchvision:inception_v3": 96,
    "torchvision:squeezenet1_0": 64,
    "torchvision:efficientnet_b0": 64,
    "torchvision:mnasnet1_0": 64,
    "torchvision:regnet_y_400mf": 64,
    "torchvision:resnext50_32x4d": 64,
    "torchvision:shufflenet_v2_x1_0": 64,
    "torchvision:convnext_tiny": 64,
    "timm:ghostnet_100": 64,
    "timm:res2net50_26w_4s": 64,
    "timm:resnetblur50": 64,
    "resnet20": 32,
    "resnet56": 32,
    "resnet110": 32,
    "vgg16_bn": 224,
    "vgg16_bn_cifar": 32,
    "mobilenet_v1": 64,
    "mobilenet_v1_cifar": 32,
    "mobilenet_v2": 64,
    "mobilenet_v2_cifar": 32,
}
FROZEN_IN = {
    "torchvision:shufflenet_v2_x1_0",  # channel shuffles
    "timm:ghostnet_100",  # outputs sliced to a fixed number of channels
    "timm:res2net50_26w_4s",  # channels split into fixed parts
    "timm:resnetblur50",  # fixed filters with one channel each
}


def images(name: str) -> torch.Tensor:
    """One batch of two random images."""
    return torch.randn(2, 3, SIZES[name], SIZES[name], generator=torch.Generator().manual_seed(1))


@functools.lru_cache(maxsize=1)
def traced(name: str) -> tuple[nn.Module, SearchSpace]:
    """A network with lively weights and its space; not to be modified."""
    torch.manual_seed(0)
    model = build(name, num_classes=10).eval()
    size = SIZES[name]
    count = max(4, 32 * 64**2 // size**2)
    enliven(model, torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(3)))
    return model, trace(copy.deepcopy(model), images(name)[:1], name=name)


def enliven(model: nn.Module, x: torch.Tensor) -> None:
    """Make the outputs depend on the inputs, and every norm different, so that a wrong slice shows."""
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "layer_scale" in name:  # ConvNeXt starts its blocks at 1e-6 of their output
                parameter.fill_(0.5)
        norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
        for module in norms:
            module.momentum = 1.0  # take over the statistics of this one batch
        model.train()(x)
        model.eval()
        for module in norms:
            # a channel that varies less than others would blow up rounding errors
            module.running_var.clamp_(min=float(module.running_var.mean()))
            if module.affine:
                module.weight.copy_(torch.rand(module.num_features, generator=generator) + 0.75)
                module.bias.copy_(torch.randn(module.num_features, generator=generator) * 0.1)
