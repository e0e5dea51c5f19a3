"""Sizes that modules keep as numbers."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
import torch
from oracle import assert_right
from torch import Tensor, nn

from hwprune.errors import HwpruneWarning
from hwprune.structure.prune import prune
from hwprune.structure.sizes import module_path
from hwprune.structure.trace import trace

X = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Divider(nn.Module):
    """Divides channels by sizes that it keeps, in a list or tuple."""

    def __init__(self, sizes: list[int] | tuple[int, ...]) -> None:
        super().__init__()
        self.sizes, self.inner = sizes, nn.Conv2d(sizes[1], 6, 1)

    def forward(self, x: Tensor) -> Tensor:
        left, right = torch.split(x, self.sizes, 1)
        return torch.cat([left, self.inner(right)], 1)


class Net(nn.Module):
    def __init__(self, sizes: list[int] | tuple[int, ...]) -> None:
        super().__init__()
        self.stem, self.neck = nn.Conv2d(3, 12, 3), Divider(sizes)
        self.head = nn.Linear(sizes[0] + 6, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.neck(torch.relu(self.stem(x))).mean((2, 3)))


@pytest.mark.parametrize("kind", [list, tuple])
def test_sizes_of_a_split_are_set_along(kind: type) -> None:
    model = Net(kind([5, 7]))
    space = trace(model, X)
    assert {(one.module, one.name, one.index) for one in space.attributes} == {
        ("neck", "sizes", 0),
        ("neck", "sizes", 1),
    }
    widths = space.smallest()
    pruned = prune(model, space, widths)
    left, right = pruned.neck.sizes
    assert type(pruned.neck.sizes) is kind
    assert left + right == pruned.stem.out_channels
    assert right == pruned.neck.inner.in_channels < 7
    assert model.neck.sizes == kind([5, 7])
    assert_right(model, (X,), space, rng=np.random.default_rng(0))


class Half(nn.Module):
    """Keeps the number of all channels, and divides by half of it."""

    def __init__(self) -> None:
        super().__init__()
        self.channels, self.stem = 12, nn.Conv2d(3, 12, 3)
        self.left, self.right = nn.Conv2d(6, 4, 1), nn.Conv2d(6, 4, 1)
        self.head = nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        x, half = torch.relu(self.stem(x)), self.channels // 2
        return self.head((self.left(x[:, :half]) * self.right(x[:, half:])).mean((2, 3)))


def test_a_split_at_half_of_a_size_follows_the_size() -> None:
    model = Half()
    space = trace(model, X)
    assert [(one.name, one.size.size) for one in space.attributes] == [("channels", 12)]
    assert {group.name: group.multiple for group in space.groups} == {"stem": 2, "left": 1}
    assert prune(model, space, space.smallest()).channels == space.smallest()[0]
    assert_right(model, (X,), space, rng=np.random.default_rng(0))


def test_a_reason_names_the_line_of_the_code() -> None:
    class Written(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.mid, self.head = nn.Conv2d(3, 12, 3), nn.Conv2d(12, 9, 1), nn.Conv2d(5, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = torch.relu(self.mid(torch.relu(self.stem(x))))
            left, _ = torch.split(x, [5, 4], 1)
            return self.head(left)

    lines, first = inspect.getsourcelines(Written)
    line = first + next(number for number, text in enumerate(lines) if "torch.split" in text)
    with pytest.warns(HwpruneWarning):
        space = trace(Written(), X)
    assert space.frozen["mid"].startswith("Split ")
    assert space.frozen["mid"].endswith(f"(structure/test_sizes.py:{line})")
    assert [group.name for group in space.groups] == ["stem"]


def test_a_number_that_only_happens_to_be_a_size_is_left_alone() -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.steps, self.stem, self.head = 12, nn.Conv2d(3, 12, 3), nn.Linear(12, 5)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(torch.relu(self.stem(x)).mean((2, 3)) / self.steps)

    model = Counting()
    space = trace(model, X)
    assert space.attributes == ()
    assert prune(model, space, space.smallest()).steps == 12


@pytest.mark.parametrize(
    ("scope", "path"),
    [
        ("layer1/layer1.0/conv", "layer1.0.conv"),
        ("layer1/layer1.0/other", "layer1.0"),
        ("layer1", "layer1"),
        ("", ""),
    ],
)
def test_a_scope_of_the_exporter_names_a_module(scope: str, path: str) -> None:
    inner = nn.Module()
    inner.conv = nn.Conv2d(3, 3, 1)
    model = nn.Module()
    model.layer1 = nn.Sequential(inner)
    assert module_path(dict(model.named_modules()), scope) == path
