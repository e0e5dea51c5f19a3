"""Training in less memory takes the same steps."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from hwprune.errors import UsageError
from hwprune.models.mobilenet_v2 import mobilenet_v2_cifar
from hwprune.pruningnet.modules import FrugalReLU6
from hwprune.pruningnet.net import PruningNet
from hwprune.structure.trace import trace
from hwprune.training.memory import keep_freed_memory
from hwprune.training.optimiser import Optimiser
from hwprune.training.settings import Recipe

BLOCKS = ["features.[1-9]", "features.1[0-7]"]


@pytest.fixture(scope="module")
def mobilenet():
    torch.manual_seed(0)
    model = mobilenet_v2_cifar(10, width=0.25).eval()
    return model, trace(model, torch.zeros(1, 3, 32, 32))


def gradients(net, space, images):
    net.train()
    net.set_widths(space.uniform(0.5))
    net(images).square().sum().backward()
    return {name: p.grad for name, p in net.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("generator", ["fc", "residual"])
def test_recomputed_blocks_give_the_same_gradients(mobilenet, generator):
    model, space = mobilenet
    images = torch.randn(4, 3, 32, 32)
    plain = gradients(PruningNet(model, space, generator, tied=BLOCKS), space, images)
    lean = gradients(PruningNet(model, space, generator, tied=BLOCKS, recompute=True), space, images)
    assert plain.keys() == lean.keys()
    for name, gradient in plain.items():
        torch.testing.assert_close(lean[name], gradient)


def saved_for_backward(net, space, images) -> int:
    """Bytes that a forward pass keeps for the backward pass, each block of memory counted once."""
    kept = {}

    def pack(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    net.train()
    net.set_widths(space.full())
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = net(images)
    assert output.requires_grad
    return sum(kept.values())


def test_recomputing_keeps_a_fraction_of_the_activations(mobilenet):
    model, space = mobilenet
    images = torch.randn(16, 3, 32, 32)
    plain = saved_for_backward(PruningNet(model, space, "shared", tied=BLOCKS), space, images)
    lean = saved_for_backward(PruningNet(model, space, "shared", tied=BLOCKS, recompute=True), space, images)
    assert lean < plain / 2


def test_without_blocks_there_is_nothing_to_recompute(mobilenet):
    model, space = mobilenet
    with pytest.raises(UsageError, match="nothing to compute again"):
        PruningNet(model, space, "shared", recompute=True)


def test_a_copy_recomputes_its_own_blocks(mobilenet):
    model, space = mobilenet
    net = PruningNet(model, space, "shared", tied=BLOCKS, recompute=True).train()
    twin = copy.deepcopy(net)
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.zero_()
    assert twin(images).abs().max() > 0
    assert net(images).abs().max() == 0


def test_stepping_in_backward_through_recomputed_blocks(mobilenet, monkeypatch):
    model, space = mobilenet
    images = torch.randn(4, 3, 32, 32)
    nets = []
    for large, recompute in ((10**9, False), (1, True)):
        monkeypatch.setattr("hwprune.training.optimiser._LARGE", large)
        net = PruningNet(model, space, "fc", hidden=4, tied=BLOCKS, recompute=recompute).train()
        optimiser = Optimiser(net, Recipe())
        for step in range(3):
            net.set_widths(space.uniform(0.4 + 0.2 * step))
            optimiser.step(net(images).square().mean(), lr=0.01)
        nets.append(net)
    for one, other in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("inplace", [True, False])
def test_the_frugal_relu6_is_relu6(inplace):
    values = torch.tensor([-1.0, 0.0, 0.5, 6.0, 7.0])
    ours, theirs = values.clone().requires_grad_(), values.clone().requires_grad_()
    weights = torch.arange(1.0, 6.0)
    first = FrugalReLU6(inplace)(ours * 1)
    second = nn.ReLU6(inplace)(theirs * 1)
    assert torch.equal(first, second)
    (first * weights).sum().backward()
    (second * weights).sum().backward()
    assert torch.equal(ours.grad, theirs.grad)


def test_the_users_network_keeps_its_own_relu6(mobilenet):
    model, space = mobilenet
    net = PruningNet(model, space, "shared")
    assert any(isinstance(module, FrugalReLU6) for module in net.modules())
    dense = net.materialise(space.uniform(0.5))
    assert not any(isinstance(module, FrugalReLU6) for module in dense.modules())
    assert any(isinstance(module, nn.ReLU6) for module in dense.modules())


def test_the_thresholds_while_training_and_afterwards(monkeypatch):
    calls = []

    class Library:
        def mallopt(self, what, value):
            calls.append((what, value))

        def malloc_trim(self, pad):
            calls.append("trim")

    monkeypatch.setattr("hwprune.training.memory._glibc", Library)
    with keep_freed_memory():
        assert calls == [(-3, 28 * 2**20), (-1, 2**31 - 1), (-8, 1)]
    assert calls[3:] == [(-1, 64 * 2**20), "trim"]  # where glibc's own, moving thresholds end


def test_another_c_library_is_left_alone(monkeypatch):
    monkeypatch.setattr("hwprune.training.memory._glibc", lambda: None)
    with keep_freed_memory():
        pass
