"""Steps that are recorded as a CUDA graph."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from hwprune.errors import ModelError
from hwprune.training import graphed as module
from hwprune.training.evaluation import evaluate
from hwprune.training.graphed import Graphed
from hwprune.training.loop import train
from hwprune.training.optimiser import Optimiser
from hwprune.training.settings import TrainSettings

SETTINGS = TrainSettings(epochs=3, batch_size=64, lr=0.05, precision="fp32")
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch has no GPU")


def test_on_a_cpu_nothing_is_recorded_and_the_same_is_learnt(digits, make_net):
    plain, asked = make_net(), make_net()
    settings = replace(SETTINGS, epochs=1)
    assert train(plain, digits.train, settings).epochs[0].loss == (
        train(asked, digits.train, settings, cuda_graph=True).epochs[0].loss
    )
    assert torch.equal(plain.fc.weight, asked.fc.weight)


def test_no_gradients_are_left_behind(digits, make_net):
    net = make_net()
    train(net, digits.train, replace(SETTINGS, epochs=1), cuda_graph=True)
    assert all(parameter.grad is None for parameter in net.parameters())


class Recorder:
    """A stand-in for `torch.cuda`: what was recorded is computed anew, into the tensors of the recording."""

    def __init__(self, net: nn.Module) -> None:
        self.parameters, self.replays = list(net.parameters()), 0
        self.devices: set[torch.device] = set()
        self.graphed: Graphed | None = None

    def replay(self) -> None:
        """Loss, hits and gradients of what lies in the graph's input."""
        self.replays += 1
        kept = [parameter.grad for parameter in self.parameters]
        assert all(gradient is not None for gradient in kept)
        for parameter in self.parameters:
            parameter.grad = None
        _, batch, found = self.graphed._recording
        for old, new in zip(found, self.graphed._gradients(batch), strict=True):
            old.copy_(new)
        for parameter, gradient in zip(self.parameters, kept, strict=True):
            gradient.copy_(parameter.grad)
            parameter.grad = gradient

    @contextlib.contextmanager
    def on(self, device: torch.device):
        """The device that calls are made on."""
        self.devices.add(device)
        yield

    def cuda(self) -> SimpleNamespace:
        stream = SimpleNamespace(wait_stream=lambda other: None)
        return SimpleNamespace(
            device=self.on,
            current_stream=lambda: stream,
            Stream=lambda: stream,
            stream=contextlib.nullcontext,
            CUDAGraph=lambda: self,
            graph=contextlib.nullcontext,
        )


def test_recorded_steps_are_the_steps(digits, monkeypatch):
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 10))
    recorded = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 10))
    recorded.load_state_dict(plain.state_dict())
    recorder = Recorder(recorded)
    fake = SimpleNamespace(cuda=recorder.cuda(), OutOfMemoryError=torch.OutOfMemoryError)
    monkeypatch.setattr(module, "torch", fake)

    def gradients(batch):
        images, labels = batch
        scores = recorded(images)
        loss = nn.functional.cross_entropy(scores, labels)
        loss.backward()
        return loss.detach(), (scores.argmax(1) == labels).sum()

    recorder.graphed = Graphed(gradients)
    ours, theirs = Optimiser(recorded, SETTINGS), Optimiser(plain, SETTINGS)
    for images, labels in digits.train.batches(64, shuffle_seed=0, drop_last=True):
        loss, _ = recorder.graphed((images, labels))
        ours.update(0.05, keep=recorder.graphed.recorded)
        expected = nn.functional.cross_entropy(plain(images), labels)
        theirs.step(expected, 0.05)
        assert torch.equal(loss, expected)
    assert recorder.devices == {torch.device("cpu")}
    assert recorder.replays == len(digits.train) // 64 - 3
    assert torch.equal(recorded[1].weight, plain[1].weight)
    ours.close()
    assert recorded[1].weight.grad is None


def test_a_step_that_cannot_be_recorded_says_what_to_do(monkeypatch):
    net = nn.Linear(2, 2)
    recorder = Recorder(net)
    fake = SimpleNamespace(cuda=recorder.cuda(), OutOfMemoryError=torch.OutOfMemoryError)
    monkeypatch.setattr(module, "torch", fake)
    calls = []

    def gradients(batch):
        calls.append(batch)
        if len(calls) > 3:
            raise RuntimeError("operation not permitted when stream is capturing")
        return batch[0].sum(), batch[1].sum()

    graphed = Graphed(gradients)
    for _ in range(3):
        graphed((torch.ones(2), torch.ones(2)))
    with pytest.raises(ModelError, match="cuda_graph = false"):
        graphed((torch.ones(2), torch.ones(2)))


@pytest.mark.gpu
@needs_gpu
def test_a_recorded_step_learns_what_separate_kernels_do(digits, make_net):
    nets = [make_net().cuda() for _ in range(2)]
    plain, recorded = (
        train(net, digits.train, SETTINGS, seed=1, cuda_graph=graphed)
        for net, graphed in zip(nets, (False, True), strict=True)
    )
    for one, other in zip(plain.epochs, recorded.epochs, strict=True):
        assert other.loss == pytest.approx(one.loss, rel=0.1)
    assert evaluate(nets[1], digits.test) > 0.8
    assert all(parameter.grad is None for parameter in nets[1].parameters())


@pytest.mark.gpu
@needs_gpu
def test_a_recorded_run_goes_on_from_its_checkpoint(digits, make_net, tmp_path):
    path = tmp_path / "run.safetensors"
    first, second = make_net().cuda(), make_net().cuda()

    def stop(done: int, total: int, **figures: float) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(first, digits.train, SETTINGS, checkpoint=path, progress=stop, cuda_graph=True)
    history = train(second, digits.train, SETTINGS, checkpoint=path, cuda_graph=True)
    assert len(history.epochs) == 3
    assert history.epochs[2].loss < history.epochs[0].loss
    assert evaluate(second, digits.test) > 0.8
