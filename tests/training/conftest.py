"""Small images and networks for the training tests."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from hwprune.data.datasets import open_data
from hwprune.training import loop


class TinyNet(nn.Module):
    """A convolutional network with batch norm and dropout, which both must survive a resume."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 16, 3, 2, 1, bias=False),
            nn.BatchNorm2d(16),
            nn.ReLU(),
        )
        self.dropout = nn.Dropout(0.1)
        self.fc = nn.Linear(16 * 16, 10)

    def forward(self, x):
        return self.fc(self.dropout(self.features(x).flatten(1)))


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Small networks run faster on one thread, most of all while others use the machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def told_after_epochs_alone(monkeypatch):
    """However slow the machine is; what is told inside epochs has a test of its own."""
    monkeypatch.setattr(loop, "_TELL_EVERY_S", float("inf"))


@pytest.fixture(scope="session")
def digits():
    """Real handwritten digits, 16x16: 1438 to train on, 359 held out."""
    return open_data("digits", image_size=16)


@pytest.fixture
def make_net():
    """A function that makes the same untrained network every time."""

    def make() -> TinyNet:
        torch.manual_seed(0)
        return TinyNet()

    return make
