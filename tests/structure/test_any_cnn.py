"""What `trace`, `prune` and `slice_onnx` promise, on a network of each kind.

Deep ones are cut short: with random weights, rounding errors would grow beyond what tells right from wrong.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import pytest
import timm
import torch
from oracle import assert_right
from torch import nn
from torchvision.models import DenseNet, efficientnet_b0
from torchvision.models.resnet import Bottleneck, ResNet

import hwprune
from hwprune.errors import HwpruneWarning
from hwprune.models.registry import build
from hwprune.structure.onnx_slice import OnnxSlicer
from hwprune.structure.trace import trace


def classifier(*features: nn.Module) -> nn.Module:
    return nn.Sequential(*features, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LazyLinear(10))


def front(name: str, stages: int) -> nn.Module:
    """The first stages of a network of timm's, with a classifier."""
    net = timm.create_model(name)
    return classifier(net.conv_stem, net.bn1, *net.blocks[:stages])


KINDS: dict[str, Callable[[], nn.Module]] = {
    "plain": lambda: build("vgg16_bn_cifar", num_classes=10),
    "residual": lambda: build("resnet20", num_classes=10),
    "projections": lambda: build("torchvision:resnet18", num_classes=10),
    "depthwise": lambda: build("torchvision:mobilenet_v2", num_classes=10),
    "each layer reads all before it": lambda: DenseNet(16, (2, 4, 3, 2), 32, num_classes=10),
    "conv groups": lambda: ResNet(Bottleneck, [1, 2, 1, 1], 10, groups=32, width_per_group=4),
    "channel shuffles": lambda: build("torchvision:shufflenet_v2_x1_0", num_classes=10),
    "LayerNorm and layer scale": lambda: timm.create_model("convnext_atto", num_classes=10),
    "squeeze and excitation": lambda: classifier(efficientnet_b0().features[:5]),
    "parts that are summed up": lambda: timm.create_model("res2net50_26w_4s", layers=(1, 2, 1, 1)),
    "outputs cut to a number of channels": lambda: front("ghostnet_100", 5),
    "fixed filters of one channel each": lambda: timm.create_model("resnetblur50", layers=(1, 2, 1, 1)),
    "kernels of several sizes side by side": lambda: front("mixnet_s", 4),
}
SIZES = {"plain": 32, "residual": 32}
LEAST = {"channel shuffles": 0.85}  # halves that are mixed again and again go together


@pytest.fixture(autouse=True)
def one_analysis(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slice as `profile` does, which reads the base once."""
    known: dict[bytes, OnnxSlicer] = {}

    def slice_onnx(base: bytes, space: hwprune.SearchSpace, widths, *, batch: int | None = None) -> bytes:
        slicer = known[base] = known.get(base) or OnnxSlicer(base, space)
        return slicer.slice(widths, batch=batch)

    monkeypatch.setattr(hwprune, "slice_onnx", slice_onnx, raising=False)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_network_of_each_kind_is_pruned_rightly_and_nearly_to_nothing(kind: str) -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    inputs = (torch.randn(2, 3, SIZES.get(kind, 64), SIZES.get(kind, 64)),)
    model = KINDS[kind]().eval()
    model(*inputs)  # the classifier learns its size
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always", HwpruneWarning)
        space = trace(model, inputs)
    gone = 1 - int(space.macs(space.smallest())) / int(space.macs(space.full()))
    assert gone >= LEAST.get(kind, 0.9)
    if kind not in LEAST:
        assert not [warning for warning in seen if warning.category is HwpruneWarning]
        assert len(space.frozen) == 1, "the classifier alone"
    mixes = kind == "LayerNorm and layer scale"
    assert_right(model, inputs, space, rng=np.random.default_rng(0), mixes=mixes)
