"""Recalibration of batch normalisation, and what is right."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from hwprune.training.evaluation import figures, recalibrate
from hwprune.training.precision import Execution

CPU = Execution(device=torch.device("cpu"))


def test_statistics_are_averages_over_the_batches():
    norm = nn.BatchNorm2d(3, momentum=0.1)
    net = nn.Sequential(norm, nn.Flatten())
    norm.running_mean.fill_(50)
    norm.running_var.fill_(50)
    generator = torch.Generator().manual_seed(0)
    batches = [(torch.randn(6, 3, 4, 4, generator=generator) * 2 + 1, torch.zeros(6)) for _ in range(5)]
    recalibrate(net, batches, CPU)
    means = torch.stack([x.mean((0, 2, 3)) for x, _ in batches]).mean(0)
    variances = torch.stack([x.var((0, 2, 3)) for x, _ in batches]).mean(0)
    torch.testing.assert_close(norm.running_mean, means)
    torch.testing.assert_close(norm.running_var, variances)
    assert norm.momentum == 0.1


def test_only_batch_norm_is_in_training_mode_and_modes_come_back():
    seen = {}

    class Watch(nn.Module):
        def forward(self, x):
            seen["mode"] = self.training
            return x

    net = nn.Sequential(nn.BatchNorm2d(3), Watch(), nn.Dropout(0.9), nn.BatchNorm2d(3))
    net[0].eval()
    x = torch.randn(8, 3, 4, 4)
    recalibrate(net, [(x, torch.zeros(8))], CPU)
    assert seen["mode"] is False
    assert [part.training for part in net] == [False, True, True, True]
    # Had dropout been on, the second norm would have seen a tenth of the values, ten times as large.
    torch.testing.assert_close(net[3].running_mean, torch.zeros(3), atol=1e-5, rtol=0)
    assert float(net[3].running_var.max()) < 1.2


def test_batch_norm_without_statistics_is_left_alone():
    net = nn.Sequential(nn.BatchNorm2d(3, track_running_stats=False))
    recalibrate(net, [(torch.randn(8, 3, 4, 4), torch.zeros(8))], CPU)
    assert net[0].running_mean is None


class Scores(nn.Module):
    """Scores of three classes, the first two of which bfloat16 cannot tell apart."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(2, 3, bias=False)
        self.fc.weight.data = torch.tensor([[100.0, 0.0], [100.0, 0.05], [-100.0, 0.0]])
        self.images: list[int] = []

    def forward(self, x):
        self.images.append(len(x))
        return self.fc(x.flatten(1))


def test_in_bfloat16_close_scores_are_looked_at_again():
    if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        pytest.skip("this CPU has no bfloat16 at all")
    certain, close = torch.tensor([-1.0, 0.0]), torch.tensor([[1.0, 1.0], [1.0, -1.0]])
    images = torch.stack([close[0], certain, close[1], certain, close[0]]).reshape(5, 2, 1, 1)
    batches = [(images[:3], torch.tensor([1, 2, 0])), (images[3:], torch.tensor([0, 1]))]
    model = Scores()
    found = figures(model, batches, Execution(device=torch.device("cpu"), bf16=True))
    assert found.tolist() == [1, 1, 1, 0, 1]
    assert model.images == [3, 2, 3]
    assert figures(model, batches, Execution(device=torch.device("cpu"))).tolist() == found.tolist()
    assert model.images[3:] == [3, 2]
    figures(
        model, [(certain.reshape(1, 2, 1, 1), torch.tensor([2]))], Execution(device=CPU.device, bf16=True)
    )
    assert model.images[5:] == [1]  # nothing is close
