"""PruningNet: the model's forward at any widths, and the dense networks made from it."""

from __future__ import annotations

import copy
import warnings

import numpy as np
import pytest
import torch
import torchvision
from torch import nn

from hwprune.errors import HwpruneWarning, MismatchError, UsageError
from hwprune.pruningnet.modules import (
    PrunableBatchNorm2d,
    PrunableConv2d,
    PrunableLinear,
    PrunableOther,
    prunable,
)
from hwprune.pruningnet.net import PruningNet
from hwprune.structure.layers import ChannelMap, Layer, Run, Tensor
from hwprune.structure.prune import prune
from hwprune.structure.trace import trace

IMAGES = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def widths_to_try(space, count=5):
    rng = np.random.default_rng(0)
    return [space.full(), space.smallest(), space.uniform(0.5), *(space.sample(rng) for _ in range(count))]


def test_shared_at_full_width_is_the_base_model(model, space):
    net = PruningNet(model, space, "shared").eval()
    with torch.no_grad():
        assert torch.equal(net(IMAGES), model(IMAGES))


def test_shared_equals_the_pruned_base_model(model, space):
    net = PruningNet(model, space, "shared").eval()
    for widths in widths_to_try(space):
        net.set_widths(widths)
        with torch.no_grad():
            torch.testing.assert_close(net(IMAGES), prune(model, space, widths)(IMAGES))


@pytest.mark.parametrize("generator", ["fc", "shared"])
@pytest.mark.parametrize("training", [True, False])
def test_materialised_network_equals_the_forward(model, space, generator, training):
    net = PruningNet(model, space, generator).train(training)
    for widths in widths_to_try(space):
        dense = net.materialise(widths)
        assert dense.training == training
        assert sum(p.numel() for p in dense.parameters()) == int(space.params(widths))
        net.set_widths(widths)
        with torch.no_grad():
            torch.testing.assert_close(dense(IMAGES), net(IMAGES))


def test_materialised_network_is_ordinary_and_its_own(model, space):
    net = PruningNet(model, space)
    dense = net.materialise(space.uniform(0.5))
    assert type(dense) is type(model)
    assert type(dense.stem) is nn.Conv2d
    assert dense.stem.out_channels == len(dense.stem.weight)
    assert all(p.is_leaf and p.requires_grad for p in dense.parameters())
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    with torch.no_grad():
        for parameter in dense.parameters():
            parameter.add_(1)
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())


def test_materialising_leaves_the_present_widths(model, space):
    net = PruningNet(model, space)
    net.set_widths(space.smallest())
    net.materialise(space.full())
    assert net.widths == space.smallest()
    assert len(net(IMAGES)) == len(IMAGES)


@pytest.mark.parametrize("generator", ["fc", "shared"])
def test_the_base_model_is_not_touched(model, space, generator):
    before = copy.deepcopy(model.state_dict())
    net = PruningNet(model, space, generator).train()
    net.set_widths(space.smallest())
    net(IMAGES).sum().backward()
    net.materialise(space.uniform(0.5))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert type(model.stem) is nn.Conv2d


def test_common_layers_have_their_own_stand_ins(model, space):
    net = PruningNet(model, space)
    assert isinstance(net.model.stem, PrunableConv2d)
    assert isinstance(net.model.norm, PrunableBatchNorm2d)
    assert isinstance(net.model.fc, PrunableLinear)


def test_depthwise_groups_follow_the_width(model, space):
    net = PruningNet(model, space)
    net.set_widths(space.uniform(0.5))
    depthwise = net.model.block1.depthwise
    assert depthwise.groups == len(depthwise.parameter("weight")) < 16


def test_gradients_reach_the_kept_channels_alone(model, space):
    net = PruningNet(model, space, "shared").train()
    net.set_widths(space.uniform(0.25))
    net(IMAGES).square().sum().backward()
    conv = net.model.block1.conv1
    kept_out, kept_in = (
        int(channels.count(net.widths)) for channels in (conv.layer.outputs, conv.layer.inputs)
    )
    touched = conv.make["make_weight"].full.grad.abs().amax((2, 3)) > 0
    expected = torch.zeros(16, 16, dtype=torch.bool)
    expected[:kept_out, :kept_in] = True
    assert kept_out == kept_in == 4
    assert torch.equal(touched, expected)
    scale = net.model.block1.bn1.make["make_weight"].full.grad
    assert torch.equal(scale.abs() > 0, expected[:, 0])


def test_every_parameter_learns_at_full_width(model, space):
    for generator in ("fc", "shared"):
        net = PruningNet(model, space, generator).train()
        net(IMAGES).square().sum().backward()
        assert all(p.grad is not None and p.grad.abs().max() > 0 for p in net.parameters()), generator


def test_training_mode_ignores_and_keeps_the_statistics(model, space):
    net = PruningNet(model, space, "shared").train()
    before = net.model.norm.running_mean.clone()
    out = net(IMAGES)
    assert torch.equal(net.model.norm.running_mean, before)
    assert not torch.allclose(out, net.eval()(IMAGES))


def test_fc_does_not_depend_on_the_base_weights_but_on_the_seed(model, space):
    other = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(1)
    nets = [PruningNet(model, space), PruningNet(other, space), PruningNet(model, space, seed=1)]
    outputs = [net.eval()(IMAGES) for net in nets]
    assert torch.equal(outputs[0], outputs[1])
    assert not torch.equal(outputs[0], outputs[2])


def test_impossible_widths_are_refused(model, space):
    net = PruningNet(model, space)
    with pytest.raises(UsageError, match="one width for each"):
        net.set_widths((1,))
    with pytest.raises(UsageError, match="cannot have this width"):
        net.materialise((0, *space.full()[1:]))


def test_saved_weights_come_back(model, space, tmp_path):
    path = tmp_path / "pruningnet.safetensors"
    first, second = PruningNet(model, space, seed=1), PruningNet(model, space, seed=2)
    first.save(path)
    second.load(path)
    assert torch.equal(first.eval()(IMAGES), second.eval()(IMAGES))
    for other in (PruningNet(model, space, "shared"), PruningNet(model, space, hidden=8)):
        with pytest.raises(MismatchError, match="another model, space or generator"):
            other.load(path)


def test_shared_modules_and_bare_parameters(tmp_path):
    class Scaled(nn.Module):
        """A scale of its own around a child, and one module under two names."""

        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Conv2d(12, 12, 1)
            self.scale = nn.Parameter(torch.randn(12, 1, 1))
            self.act = nn.PReLU(12)
            self.again = self.act

        def forward(self, x):
            return self.again(self.act(self.inner(x) * self.scale))

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Conv2d(3, 12, 3)
            self.body = Scaled()
            self.head = nn.Linear(12, 10)

        def forward(self, x):
            return self.head(self.body(self.stem(x)).mean((2, 3)))

    torch.manual_seed(0)
    model = Net().eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", HwpruneWarning)
        space = trace(model, IMAGES)
    net = PruningNet(model, space, "shared").eval()
    for widths in widths_to_try(space):
        net.set_widths(widths)
        with torch.no_grad():
            torch.testing.assert_close(net(IMAGES), net.materialise(widths)(IMAGES))
            torch.testing.assert_close(net(IMAGES), prune(model, space, widths)(IMAGES))


def test_other_layers_run_themselves_with_cropped_tensors():
    """PReLU, LayerNorm and a subclass of convolution, none of which has a stand-in of its own."""

    class Scaled(nn.Conv2d):
        def forward(self, x):
            return super().forward(x) * 2

    channels = ChannelMap((Run(0, 0, 8),))
    frozen = ChannelMap.frozen(3)
    conv, slopes, norm = Scaled(3, 8, 1), nn.PReLU(8), nn.LayerNorm(8)
    layers = [
        Layer("", "conv", frozen, channels, tensors=_tensors(conv, channels)),
        Layer("", "parameter", channels, channels, tensors=_tensors(slopes, channels)),
        Layer("", "norm", channels, channels, tensors=_tensors(norm, channels)),
    ]
    with torch.no_grad():
        slopes.weight.uniform_()
        norm.weight.uniform_()
    x = torch.randn(2, 3, 4, 4)
    expected = nn.functional.conv2d(x, conv.weight[:5], conv.bias[:5]) * 2
    expected = nn.functional.prelu(expected, slopes.weight[:5]).movedim(1, -1)
    expected = nn.functional.layer_norm(expected, (5,), norm.weight[:5], norm.bias[:5])
    stand_ins = [prunable(m, layer, {}, {}) for m, layer in zip((conv, slopes, norm), layers, strict=True)]
    for stand_in in stand_ins:
        assert isinstance(stand_in, PrunableOther)
        stand_in.set_widths((5,))
    got = stand_ins[2](stand_ins[1](stand_ins[0](x)).movedim(1, -1))
    torch.testing.assert_close(got, expected)
    got.square().sum().backward()
    assert all(p.grad is not None for stand_in in stand_ins for p in stand_in.parameters())
    copy.deepcopy(stand_ins)  # nothing that cannot be copied stays behind


def _tensors(module, channels):
    return tuple(Tensor(name, tuple(p.shape), ((0, channels),)) for name, p in module.named_parameters())


def test_flattened_maps():
    torch.manual_seed(0)
    layers = (
        nn.Conv2d(3, 8, 3),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(32, 12),
        nn.ReLU(),
    )
    model = nn.Sequential(*layers, nn.Linear(12, 10)).eval()
    space = trace(model, IMAGES)
    assert len(space.groups) == 2
    net = PruningNet(model, space, "shared")
    for widths in widths_to_try(space):
        net.set_widths(widths)
        torch.testing.assert_close(net(IMAGES), prune(model, space, widths)(IMAGES))


@pytest.mark.parametrize(
    "name", ["resnet18", "mobilenet_v2", "densenet121", "resnext50_32x4d", "convnext_tiny"]
)
def test_any_architecture(name):
    torch.manual_seed(0)
    model = getattr(torchvision.models, name)(num_classes=10).eval()
    images = torch.randn(2, 3, 32, 32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", HwpruneWarning)
        space = trace(model, images)
    for generator in ("fc", "shared"):
        net = PruningNet(model, space, generator, hidden=2).eval()
        for widths in (space.uniform(0.4), space.sample(np.random.default_rng(1))):
            net.set_widths(widths)
            with torch.no_grad():
                torch.testing.assert_close(net(images), net.materialise(widths)(images))
                if generator == "shared":
                    torch.testing.assert_close(net(images), prune(model, space, widths)(images))


def test_a_block_is_generated_from_all_its_widths_by_the_papers_formula(model, space):
    net = PruningNet(model, space, "fc", hidden=8, tied=["block?"], hidden_outside=4)
    widths = space.uniform(0.5)
    net.set_widths(widths)
    layers = {layer.name: layer for layer in space.layers}
    block = dict.fromkeys(
        group
        for name, layer in layers.items()
        if name.startswith("block2.")
        for group in (*layer.outputs.groups, *layer.inputs.groups)
    )
    assert len(block) > len(layers["block2.conv2"].outputs.groups + layers["block2.conv2"].inputs.groups)
    encoding = torch.tensor([widths[group] / space.groups[group].width for group in block])
    conv = net.model.block2.conv2
    generator = conv.make["make_weight"]
    assert (generator.first.in_features, generator.first.out_features) == (len(block), 8)
    hidden = torch.relu(torch.nn.functional.linear(encoding, generator.first.weight, generator.first.bias))
    full = (generator.rows * hidden).sum(-1) + generator.row_bias
    layer = layers["block2.conv2"]
    expected = full[: int(layer.outputs.count(widths)), : int(layer.inputs.count(widths))]
    torch.testing.assert_close(conv.parameter("weight"), expected)
    assert net.model.stem.make["make_weight"].first.out_features == 4
