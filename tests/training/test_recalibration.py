"""Recalibration of batch normalisation."""

from __future__ import annotations

import torch
from torch import nn

from hwprune.training.evaluation import recalibrate
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
