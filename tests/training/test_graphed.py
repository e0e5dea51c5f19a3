"""Steps that are recorded as a CUDA graph."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from hwprune.training.evaluation import accuracy
from hwprune.training.loop import train
from hwprune.training.settings import TrainSettings

SETTINGS = TrainSettings(epochs=3, batch_size=64, lr=0.05, precision="fp32")
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch has no GPU")


def test_on_a_cpu_nothing_is_recorded_and_the_same_is_learnt(digits, make_net):
    plain, asked = make_net(), make_net()
    settings = replace(SETTINGS, epochs=1)
    assert train(plain, digits.train, settings).epochs[0].loss == (
        train(asked, digits.train, settings, graphed=True).epochs[0].loss
    )
    assert torch.equal(plain.fc.weight, asked.fc.weight)


def test_no_gradients_are_left_behind(digits, make_net):
    net = make_net()
    train(net, digits.train, replace(SETTINGS, epochs=1), graphed=True)
    assert all(parameter.grad is None for parameter in net.parameters())


@pytest.mark.gpu
@needs_gpu
def test_a_recorded_step_learns_what_separate_kernels_do(digits, make_net):
    nets = [make_net().cuda() for _ in range(2)]
    plain, recorded = (
        train(net, digits.train, SETTINGS, seed=1, graphed=graphed)
        for net, graphed in zip(nets, (False, True), strict=True)
    )
    for one, other in zip(plain.epochs, recorded.epochs, strict=True):
        assert other.loss == pytest.approx(one.loss, rel=0.1)  # dropout draws other masks
    assert accuracy(nets[1], digits.test) > 0.8
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
        train(first, digits.train, SETTINGS, checkpoint=path, progress=stop, graphed=True)
    history = train(second, digits.train, SETTINGS, checkpoint=path, graphed=True)
    assert len(history.epochs) == 3
    assert history.epochs[2].loss < history.epochs[0].loss
    assert accuracy(second, digits.test) > 0.8
