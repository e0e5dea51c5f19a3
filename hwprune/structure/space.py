"""`SearchSpace`: which channels of a network may go, and what that does to each layer. Plain data, no torch.

A *channel group* is a set of tensor dimensions that must be pruned together. A network of the space is a
tuple of *widths*, one integer per group: the group keeps its leading `width` channels. Each dimension of
each tensor is described by a `ChannelMap`, which says for every local channel to which group and to which
channel of that group it belongs. Slicing weights in torch, slicing ONNX initialisers, and counting MACs and
parameters all read these maps, so there is one truth for "which channels".
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from hwprune.errors import UsageError
from hwprune.structure import space_file
from hwprune.structure.counting import MacCount
from hwprune.structure.layers import (
    FROZEN,
    Attribute,
    ChannelGroup,
    ChannelMap,
    Layer,
    Product,
    Run,
    Tensor,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import ArrayLike, NDArray

__all__ = [
    "FROZEN",
    "Attribute",
    "ChannelGroup",
    "ChannelMap",
    "Layer",
    "Product",
    "Proof",
    "Run",
    "SearchSpace",
    "Tensor",
    "Widths",
]

Widths = tuple[int, ...]
PAPER_RATIOS = tuple((10 + 3 * i) / 100 for i in range(31))  # MetaPruning, section 4.1: 0.10 .. 1.00


@dataclass(frozen=True)
class Proof:
    """What was tried on a model before its space was returned; see `structure.proof`.

    Attributes:
        checks: Names of the checks that passed.
        seconds: Their time.
        analysis_seconds: Time of everything before them.
    """

    checks: tuple[str, ...] = ()
    seconds: float = 0.0
    analysis_seconds: float = 0.0

    @property
    def proved(self) -> bool:
        """Whether the space was tried."""
        return bool(self.checks)


@dataclass(frozen=True)
class SearchSpace:
    """All networks that pruning a model can give.

    Attributes:
        model: Name of the model, as given to the registry.
        input_shape: Shape of one input batch, (N, C, H, W).
        groups: The channel groups; widths have one entry for each.
        layers: Every layer that owns parameters, in the model's order.
        frozen: Layer name -> why its output channels, or some of them, are never pruned.
        products: Every convolution and matrix product of a forward pass.
        attributes: Sizes that modules keep as numbers.
        proof: What was tried before the space was returned.
    """

    model: str
    input_shape: tuple[int, ...]
    groups: tuple[ChannelGroup, ...]
    layers: tuple[Layer, ...]
    frozen: Mapping[str, str] = field(default_factory=dict)
    products: tuple[Product, ...] = ()
    attributes: tuple[Attribute, ...] = ()
    proof: Proof = field(default=Proof(), compare=False)

    def full(self) -> Widths:
        """The unpruned network."""
        return tuple(group.width for group in self.groups)

    def smallest(self) -> Widths:
        """Every group at its narrowest choice."""
        return tuple(group.choices[0] for group in self.groups)

    def uniform(self, ratio: float) -> Widths:
        """Every group at the choice nearest to `ratio` of its width."""
        return tuple(min(g.choices, key=lambda c: (abs(c - ratio * g.width), c)) for g in self.groups)

    def sample(self, rng: np.random.Generator) -> Widths:
        """Widths drawn uniformly from each group's choices."""
        return tuple(int(rng.choice(group.choices)) for group in self.groups)

    def with_choices(self, multiple: int = 1, ratios: Sequence[float] = PAPER_RATIOS) -> SearchSpace:
        """The same space with choices at `ratios`, snapped to `multiple` channels."""
        groups = (
            replace(g, choices=make_choices(g.width, g.multiple, multiple, ratios)) for g in self.groups
        )
        return replace(self, groups=tuple(groups))

    def check(self, widths: Sequence[int]) -> Widths:
        """Return `widths` as a tuple of ints, or say what is wrong with them.

        Raises:
            UsageError: Wrong length, or a width that its group cannot have.
        """
        if len(widths) != len(self.groups):
            raise UsageError(
                "Widths need one entry for each channel group.", got=len(widths), allowed=len(self.groups)
            )
        for width, group in zip(widths, self.groups, strict=True):
            if not (0 < width <= group.width and (width % group.multiple == 0 or width == group.width)):
                raise UsageError(
                    "A channel group cannot have this width.",
                    where=group.name,
                    got=width,
                    allowed=f"1..{group.width} in multiples of {group.multiple}",
                )
        return tuple(int(width) for width in widths)

    def macs(self, widths: ArrayLike) -> NDArray[np.int64]:
        """Multiply-accumulates of one input: widths (..., groups) -> (...). One MAC is two FLOPs."""
        return self._mac_count(np.asarray(widths, dtype=np.int64))

    @functools.cached_property
    def _mac_count(self) -> MacCount:
        return MacCount(self.products, self.full())

    def params(self, widths: ArrayLike) -> NDArray[np.int64]:
        """Parameters (without buffers): widths (..., groups) -> (...)."""
        table = np.asarray(widths, dtype=np.int64)
        total = np.zeros(table.shape[:-1], dtype=np.int64)
        for layer in self.layers:
            for tensor in layer.tensors:
                if not tensor.buffer:
                    axes = dict(tensor.axes)
                    sizes = (
                        axes[a].count(table) if a in axes else size for a, size in enumerate(tensor.shape)
                    )
                    total += functools.reduce(np.multiply, sizes, np.ones_like(total))
        return total

    def save(self, path: Path) -> None:
        """Write the space as JSON."""
        space_file.write(path, vars(self))

    @classmethod
    def load(cls, path: Path) -> SearchSpace:
        """Read a space that `save` wrote.

        Raises:
            ArtifactError: Missing, damaged, or written by another schema version.
        """
        return cls(**space_file.read(path))


def make_choices(width: int, group_multiple: int, multiple: int, ratios: Sequence[float]) -> tuple[int, ...]:
    """Allowed widths of a group: `ratios` of its width rounded to the common multiple, and the full width.

    With `multiple` 1 this is the paper's `int(width * ratio)` (MetaPruning, section 4.1). A group too narrow
    for four choices at the device's multiple takes half of it, and so on down to 4.
    """
    while multiple > 4 and width // multiple < 4:
        multiple //= 2
    step = math.lcm(group_multiple, multiple)
    if step == 1:
        raw = {max(1, int(width * ratio + 1e-9)) for ratio in ratios}
    else:
        raw = {max(step, round(width * ratio / step) * step) for ratio in ratios}
    return tuple(sorted({choice for choice in raw if choice < width} | {width}))
