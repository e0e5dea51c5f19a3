"""Placement without a GPU: tensors of the meta device do not mix with the CPU's, as a GPU's do not."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
import torch

from hwprune.data.images import DeviceImages, MemoryImages
from hwprune.errors import ConfigError, DeviceError
from hwprune.pruningnet.importance import _gradients
from hwprune.pruningnet.net import PruningNet
from hwprune.structure.trace import trace
from hwprune.training import workers
from hwprune.training.devices import compute_device
from hwprune.training.loop import train
from hwprune.training.parallel import Step
from hwprune.training.precision import Execution, device_of
from hwprune.training.settings import ComputeSettings, TrainSettings
from hwprune.training.task import CLASSIFICATION

META = torch.device("meta")


def test_a_gpu_is_taken_where_there_is_one(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert compute_device("auto") == compute_device("cuda") == torch.device("cuda", 1)
    assert compute_device("cuda:0") == torch.device("cuda", 0)
    assert compute_device("cpu") == torch.device("cpu")
    with pytest.raises(DeviceError, match="no such GPU") as none:
        compute_device("cuda:2")
    assert "nvidia-smi -L" in none.value.do
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert compute_device("auto") == torch.device("cpu")
    with pytest.raises(DeviceError, match="cannot train on a GPU"):
        compute_device("cuda")
    with pytest.raises(ConfigError, match="gpu"):
        ComputeSettings(device="gpu")


@pytest.mark.parametrize("part", [(0, 1), (1, 3)])
@pytest.mark.parametrize("augment", [False, True])
def test_batches_made_on_a_device_are_those_made_by_numpy(digits, part, augment):
    images = digits.train.subset(np.arange(100, 200))
    assert isinstance(images, MemoryImages)
    for flip in (False, True):
        object.__setattr__(images._augmentation, "flip", flip)
        kept = DeviceImages(
            images._chosen(),
            images.labels,
            images._augmentation,
            images._mean,
            images._std,
            torch.device("cpu"),
        )
        options = {"augment": augment, "shuffle_seed": 3, "drop_last": True, "part": part}
        for (x, y), (u, v) in zip(images.batches(32, **options), kept.batches(32, **options), strict=True):
            assert torch.equal(x, u)
            assert torch.equal(y, v)
    some = [5, 1, 7]
    (x, y), (u, v) = next(images.subset(some).batches(8)), next(kept.subset(some).batches(8))
    assert torch.equal(x, u)
    assert torch.equal(y, v)


def test_only_small_images_move_to_a_gpu(digits):
    assert digits.train.on(torch.device("cpu")) is digits.train
    kept = digits.train.on(META)
    assert isinstance(kept, DeviceImages)
    x, y = next(kept.batches(8, augment=True, shuffle_seed=0))
    assert x.device == y.device == META
    assert x.dtype == torch.float32


def test_a_tensor_left_behind_is_found_by_these_tests():
    with pytest.raises(RuntimeError, match="device"):
        torch.ones(3, device=META) + torch.ones(3)


@pytest.mark.parametrize("generator", ["fc", "residual", "shared"])
def test_pruningnet_lies_on_its_device_whole(generator, make_net, monkeypatch):
    monkeypatch.setattr(torch, "autocast", lambda *kind, **on: contextlib.nullcontext())  # meta has none
    space = trace(make_net().eval(), torch.zeros(1, 3, 16, 16), name="tiny")
    widths = space.sample(np.random.default_rng(1))
    net = PruningNet(make_net(), space, generator).to(META)
    net.set_widths(widths)
    execution = Execution(device=device_of(net), channels_last=True)
    images, labels = torch.randn(4, 3, 16, 16), torch.zeros(4, dtype=torch.int64)
    loss, _ = Step(net.train(), CLASSIFICATION)(execution.place((images, labels)))
    loss.backward()
    gradients = [p.grad for p in net.parameters() if p.grad is not None]
    assert {gradient.device for gradient in gradients} == {META}
    dense = net.eval().materialise(widths)
    assert {t.device for t in dense.state_dict().values()} == {META}
    assert dense(execution.place(images)).device == META


def test_importance_takes_the_images_to_the_model(make_net):
    model = make_net().to(META)
    (found,) = _gradients(model, [(torch.randn(4, 3, 16, 16), torch.zeros(4, dtype=torch.int64))])
    assert {value.device for value in found.values()} == {META}


def test_a_compiled_run_takes_the_same_steps(digits, make_net, monkeypatch):
    real = torch.compile
    monkeypatch.setattr(torch, "compile", lambda module: real(module, backend="eager"))
    images = digits.train.subset(np.arange(96))
    settings = TrainSettings(epochs=1, batch_size=32, precision="fp32")
    nets = [make_net(), make_net()]
    plain, compiled = (
        train(net, images, settings, compiled=flag) for net, flag in zip(nets, (False, True), strict=True)
    )
    assert compiled.epochs[0].loss == pytest.approx(plain.epochs[0].loss, rel=1e-4)
    for one, other in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("gpus", "local_workers", "backend"),
    [(0, 2, "gloo"), (1, 2, "gloo"), (2, 2, "cpu:gloo,cuda:nccl"), (8, 1, "cpu:gloo,cuda:nccl")],
)
def test_gradients_travel_by_nccl_where_each_worker_has_a_gpu(monkeypatch, gpus, local_workers, backend):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(local_workers))
    assert workers._backend(gpus) == backend
