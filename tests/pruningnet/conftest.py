"""A small residual network, its search space, and real digits."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from hwprune.data.datasets import open_data
from hwprune.data.splits import split
from hwprune.structure.trace import trace


class Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.depthwise = nn.Conv2d(outputs, outputs, 3, 1, 1, groups=outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = (
            nn.Conv2d(inputs, outputs, 1, stride, bias=False) if inputs != outputs else nn.Identity()
        )

    def forward(self, x):
        out = self.bn2(self.conv2(self.depthwise(torch.relu(self.bn1(self.conv1(x))))))
        return torch.relu(out + self.shortcut(x))


class TinyResNet(nn.Module):
    """Residual adds, depthwise convolutions and a concat."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.norm = nn.BatchNorm2d(16)
        self.block1 = Block(16, 16, 1)
        self.block2 = Block(16, 24, 2)
        self.side = nn.Conv2d(24, 8, 1)
        self.fc = nn.Linear(24 + 8, 10)

    def forward(self, x):
        x = self.block2(self.block1(torch.relu(self.norm(self.stem(x)))))
        x = torch.cat([x, torch.relu(self.side(x))], 1)
        return self.fc(x.mean((2, 3)))


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Small networks run faster on one thread, most of all while others use the machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def make_model() -> TinyResNet:
    """The base network with statistics that are not the initial ones."""
    torch.manual_seed(0)
    net = TinyResNet()
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(std=0.2)
                module.running_var.uniform_(0.5, 1.5)
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(std=0.2)
    return net.eval()


@pytest.fixture(scope="session")
def base():
    """The base network and its space; not to be changed."""
    model = make_model()
    return model, trace(model, torch.randn(1, 3, 16, 16))


@pytest.fixture(scope="session")
def learner():
    """A plain network that learns digits within seconds, and its space; not to be changed."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for inputs, outputs in ((3, 16), (16, 24), (24, 24)):
        stride = 1 if inputs == outputs else 2
        layers += [nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
    model = nn.Sequential(*layers, nn.Flatten(), nn.Linear(24 * 16, 10))
    return model, trace(model, torch.randn(1, 3, 16, 16))


@pytest.fixture
def model(base):
    return copy.deepcopy(base[0])


@pytest.fixture
def space(base):
    return base[1]


@pytest.fixture(scope="session")
def splits():
    """Real handwritten digits, 16x16, split as the search splits them."""
    return split(open_data("digits", image_size=16), images=300)
