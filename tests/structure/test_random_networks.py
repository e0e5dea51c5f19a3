"""Random small networks: every space is right, and nothing but documented errors is raised."""

from __future__ import annotations

import os
import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, assume, event, given, settings
from hypothesis import strategies as st
from oracle import assert_right, run, shake, tensors
from random_blocks import BLOCKS, MOST, Pick, mixes
from torch import Tensor, nn

import hwprune
from hwprune.errors import HwpruneError, HwpruneWarning

CHECKS = list(HealthCheck)
QUICK = settings(max_examples=15, deadline=None, derandomize=True, suppress_health_check=CHECKS)
MANY = settings(
    QUICK,
    max_examples=int(os.environ.get("HWPRUNE_FUZZ_EXAMPLES", "2000")),
    derandomize=False,
    print_blob=True,
)


class Residual(nn.Module):
    """A map and what a branch makes of it, added or concatenated."""

    def __init__(self, branch: nn.Module, join: str) -> None:
        super().__init__()
        self.branch, self.join = branch, join

    def forward(self, x: Tensor) -> Tensor:
        y = self.branch(x)
        if y.shape[2:] != x.shape[2:]:
            y = F.interpolate(y, size=x.shape[2:])
        if self.join == "add":
            return x + y
        return torch.cat([x, y] if self.join == "before" else [y, x], 1)


class WithImage(nn.Module):
    """The features and the image, concatenated."""

    def __init__(self, first: bool) -> None:
        super().__init__()
        self.first = first

    def forward(self, x: Tensor, image: Tensor) -> Tensor:
        image = F.interpolate(image, size=x.shape[2:])
        return torch.cat([image, x] if self.first else [x, image], 1)


class Flat(nn.Module):
    """Flattening as people write it."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "flatten":
            return x.flatten(1)
        if self.kind == "channels last":
            return x.permute(0, 2, 3, 1).reshape(len(x), -1)
        return x.contiguous().view(x.size(0), -1)


class Drawn(nn.Module):
    """Blocks one behind the other, and heads on the last maps."""

    def __init__(self, size: int, blocks: list[nn.Module], heads: list[nn.Module], packing: str) -> None:
        super().__init__()
        self.size, self.packing = size, packing
        self.blocks, self.heads = nn.ModuleList(blocks), nn.ModuleList(heads)

    def extra_repr(self) -> str:
        return f"image of {self.size}, outputs in: {self.packing}"

    def inputs(self) -> tuple[Tensor]:
        """A batch of two images."""
        return (torch.randn(2, 3, self.size, self.size, generator=torch.Generator().manual_seed(1)),)

    def forward(self, image: Tensor) -> object:
        x, maps = image.clone(), []
        for block in self.blocks:
            x = block(x, image) if isinstance(block, WithImage) else block(x)
            maps.append(x)
        found = [head(y) for head, y in zip(self.heads, reversed(maps), strict=False)]
        if self.packing == "dict":
            return {f"out{index}": y for index, y in enumerate(found)}
        return found[0] if self.packing == "one" else tuple(found)


def shape_behind(block: nn.Module, c: int, s: int) -> tuple[int, int]:
    with torch.no_grad():
        x = torch.zeros(2, c, s, s)
        made = block(x, x[:, :1].repeat(1, 3, 1, 1)) if isinstance(block, WithImage) else block(x)
    return made.shape[1], made.shape[2]


def draw_block(pick: Pick, c: int, s: int, depth: int) -> nn.Module:
    kinds = [name for name, (when, _) in BLOCKS.items() if when(c, s)]
    special = ["residual"] * 3 * (depth > 0) + ["image"] * (depth == 2 and c + 3 <= MOST)
    kind = pick(*kinds, *special)
    if kind == "image":
        return WithImage(pick(True, False))
    if kind != "residual":
        return BLOCKS[kind][1](pick, c, s).eval()
    blocks, size, width = [], s, c
    for _ in range(pick(1, 2)):
        blocks.append(draw_block(pick, width, size, depth - 1))
        width, size = shape_behind(blocks[-1], width, size)
    join = pick("add", "add", "before", "behind") if c <= MOST // 2 else "add"
    blocks.append(nn.Conv2d(width, c if join == "add" else pick(4, 8), 1))
    return Residual(nn.Sequential(*blocks), join)


def draw_head(pick: Pick, c: int, s: int) -> nn.Module:
    kind = pick("pooled", "flat", "map")
    if kind == "map":
        return nn.Conv2d(c, 5, 1)
    flat = Flat(pick("flatten", "view", "channels last"))
    if kind == "pooled":
        return nn.Sequential(nn.AdaptiveAvgPool2d(1), flat, nn.Linear(c, 5))
    halved = s % 2 == 0 and s > 2
    pool, size = (nn.MaxPool2d(s // 2), 2) if halved else (nn.Identity(), s)
    return nn.Sequential(pool, flat, nn.Linear(c * size * size, 5))


@st.composite
def networks(draw: st.DrawFn) -> Drawn:
    """A network whose layers fit each other."""

    def pick(*options: object) -> object:
        return options[draw(st.integers(0, len(options) - 1))]

    size = pick(8, 16, 12)
    blocks: list[nn.Module] = [nn.Conv2d(3, pick(8, 12, 16), 3, padding=1)]
    shapes = [shape_behind(blocks[0], 3, size)]
    for _ in range(pick(2, 3, 4, 5, 6)):
        blocks.append(draw_block(pick, *shapes[-1], depth=2))
        shapes.append(shape_behind(blocks[-1], *shapes[-1]))
    packing = pick("one", "tuple", "dict")
    last = shapes[-1:] if packing == "one" else shapes[:-3:-1]
    heads = [draw_head(pick, *shape) for shape in last]
    return Drawn(size, blocks, heads, packing).eval()


def check(model: Drawn) -> bool:
    """Trace a network and prove the space; whether there was one."""
    torch.set_num_threads(1)
    inputs = model.inputs()
    shake(model, inputs, np.random.default_rng(1))
    assume(all(bool(y.isfinite().all()) and float(y.abs().max()) < 1e4 for y in tensors(run(model, inputs))))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", HwpruneWarning)
            space = hwprune.trace(model, inputs)
    except HwpruneError as error:
        event(f"refused: {error.what}")
        return False
    event(f"{len(space.groups)} groups")
    assert_right(model, inputs, space, rng=np.random.default_rng(0), mixes=mixes(model))
    return True


def check_many(amount: settings) -> None:
    """Check random networks, most of which must have something to prune."""
    found = []

    @amount
    @given(networks())
    def each(drawn: Drawn) -> None:
        found.append(check(drawn))

    each()
    assert np.mean(found) > 0.5, "hardly any network could be pruned"


def test_some_random_networks() -> None:
    check_many(QUICK)


@pytest.mark.fuzz
def test_many_random_networks() -> None:
    check_many(MANY)
