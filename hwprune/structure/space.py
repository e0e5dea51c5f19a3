"""`SearchSpace`: which channels and blocks of a network may go, and what that does to each layer. No torch.

A *channel group* is a set of tensor dimensions that must be pruned together; a *block* is a module that may
be left out. A network of the space is a tuple of integers: the *width* of each group, which keeps its leading
channels, then the *gate* of each block, 0 where it is left out. What lies inside a block that is left out
means nothing; in the canonical form it is as small as it can be, and what the block adds to a concatenation
has width 0. Each dimension of each tensor is described by a `ChannelMap`, which says for every local channel
to which group and to which channel of that group it belongs. Slicing weights in torch, slicing ONNX
initialisers, and counting MACs and parameters all read these maps, so there is one truth for "which
channels".
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from hwprune.errors import UsageError
from hwprune.structure import space_file
from hwprune.structure.counting import MacCount
from hwprune.structure.layers import (
    FROZEN,
    Attribute,
    Block,
    ChannelGroup,
    ChannelMap,
    Layer,
    Product,
    Run,
    Tensor,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import ArrayLike, NDArray

__all__ = [
    "FROZEN",
    "Attribute",
    "Block",
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
        groups: The channel groups; a network has the width of each.
        layers: Every layer that owns parameters, in the model's order.
        frozen: Layer name -> why its output channels, or some of them, are never pruned.
        products: Every convolution and matrix product of a forward pass.
        attributes: Sizes that modules keep as numbers.
        blocks: The blocks that may go; behind its widths, a network has the gate of each.
        kept: Modules that look like blocks -> why they may not go.
        proof: What was tried before the space was returned.

    Example:
        >>> half = space.uniform(0.5)
        >>> bool(space.macs(half) < space.macs(space.full()))
        True
    """

    model: str
    input_shape: tuple[int, ...]
    groups: tuple[ChannelGroup, ...]
    layers: tuple[Layer, ...]
    frozen: Mapping[str, str] = field(default_factory=dict)
    products: tuple[Product, ...] = ()
    attributes: tuple[Attribute, ...] = ()
    blocks: tuple[Block, ...] = ()
    kept: Mapping[str, str] = field(default_factory=dict)
    proof: Proof = field(default=Proof(), compare=False)

    @property
    def genes(self) -> tuple[ChannelGroup | Block, ...]:
        """What a network has an entry for: the groups, then the blocks."""
        return (*self.groups, *self.blocks)

    def full(self) -> Widths:
        """The unpruned network."""
        return tuple(gene.width for gene in self.genes)

    def smallest(self) -> Widths:
        """Every group at its narrowest choice, and no block that may go."""
        return tuple(self._least.tolist())

    @functools.cached_property
    def _least(self) -> NDArray[np.int64]:
        """The least value of each gene."""
        least = np.array([gene.choices[0] for gene in self.genes], dtype=np.int64)
        least[[group for block in self.blocks for group in block.groups]] = 0
        return least

    def uniform(self, ratio: float, depth: float = 1.0, *, spread: bool = True) -> Widths:
        """Every group at the choice nearest to `ratio` of its width; a share `depth` of each stage's blocks.

        A stage is the blocks that are parts of one module. Those that stay are spread evenly over it, or, if
        `spread` is false, are its first ones.
        """
        if not 0 <= depth <= 1:
            raise UsageError("The depth of a network is a share of its blocks.", got=depth, allowed="0 to 1")
        widths = [min(g.choices, key=lambda c: (abs(c - ratio * g.width), c)) for g in self.groups]
        stages: dict[str, list[int]] = {}
        for index, block in enumerate(self.blocks):
            stages.setdefault(block.name.rpartition(".")[0], []).append(index)
        gates = [0] * len(self.blocks)
        for places in stages.values():
            kept = int(depth * len(places) + 0.5)
            for index in range(kept):
                gates[places[int((index + 0.5) * len(places) / kept) if spread else index]] = 1
        return self.check([*widths, *gates])

    def sample(self, rng: np.random.Generator) -> Widths:
        """Widths drawn uniformly from each group's choices; a share of the blocks, itself drawn uniformly."""
        widths = [int(rng.choice(group.choices)) for group in self.groups]
        share = rng.random() if self.blocks else 1.0
        return self.check([*widths, *(int(rng.random() < share) for _ in self.blocks)])

    def canonical(self, networks: ArrayLike) -> NDArray[np.int64]:
        """Networks (..., genes) with what lies inside blocks that are left out as small as it can be."""
        table = np.array(networks, dtype=np.int64)
        for gate, inside in self.insides:
            if len(inside):
                closed = self._least[inside]
                table[..., inside] = np.where(table[..., gate, None] > 0, table[..., inside], closed)
        return table

    @functools.cached_property
    def insides(self) -> tuple[tuple[int, NDArray[np.int64]], ...]:
        """The gate of each block, outer blocks first, and the genes of which all is inside it."""
        count = len(self.groups)
        names = [set(block.layers) for block in self.blocks]
        homes: list[set[str]] = [set() for _ in self.groups]
        for layer in self.layers:
            maps = [channels for tensor in layer.tensors for _, channels in tensor.axes]
            for group in {g for channels in (layer.inputs, layer.outputs, *maps) for g in channels.groups}:
                homes[group].add(layer.name)
        found = []
        for index in sorted(range(len(names)), key=lambda index: -len(names[index])):
            own = self.blocks[index].groups
            inside = [group for group, home in enumerate(homes) if home <= names[index] or group in own]
            inside += [count + other for other, name in enumerate(names) if name < names[index]]
            found.append((count + index, np.array(inside, dtype=np.int64)))
        return tuple(found)

    def with_choices(self, multiple: int = 1, ratios: Sequence[float] = PAPER_RATIOS) -> SearchSpace:
        """The same space with choices at `ratios`, snapped to `multiple` channels."""
        groups = (
            replace(g, choices=make_choices(g.width, g.multiple, multiple, ratios)) for g in self.groups
        )
        return replace(self, groups=tuple(groups))

    def check(self, widths: Sequence[int]) -> Widths:
        """Return a network in its canonical form, or say what is wrong with it.

        Raises:
            UsageError: Wrong length, a width that its group cannot have, or a gate that is not 0 or 1.
        """
        if not isinstance(widths, Sequence | np.ndarray) or len(widths) != len(self.genes):
            raise UsageError(
                "A network needs one width for each channel group, and one gate for each block.",
                got=f"{len(widths)} entries" if isinstance(widths, Sequence) else widths,
                allowed=f"{len(self.groups)} widths and {len(self.blocks)} gates",
            )
        for gate, block in zip(widths[len(self.groups) :], self.blocks, strict=True):
            if gate not in block.choices:
                raise UsageError("A block is there or not.", where=block.name, got=gate, allowed="0 or 1")
        empty = {group for block in self.left_out(widths) for group in block.groups}
        for index, (width, group) in enumerate(zip(widths, self.groups, strict=False)):
            if width == 0 and index in empty:
                continue
            if not (0 < width <= group.width and (width % group.multiple == 0 or width == group.width)):
                raise UsageError(
                    "A channel group cannot have this width.",
                    where=group.name,
                    got=width,
                    allowed=f"1..{group.width} in multiples of {group.multiple}",
                )
        return tuple(self.canonical(widths).tolist())

    def left_out(self, network: Sequence[int]) -> list[Block]:
        """The blocks that a network does without."""
        gates = zip(self.blocks, network[len(self.groups) :], strict=True)
        return [block for block, gate in gates if not gate]

    def gates(self, layer: str) -> tuple[int, ...]:
        """The entries of a network that are the gates of the blocks around a layer."""
        return self._gates.get(layer, ())

    @functools.cached_property
    def _gates(self) -> Mapping[str, tuple[int, ...]]:
        found: dict[str, tuple[int, ...]] = {}
        for gate, block in enumerate(self.blocks, len(self.groups)):
            found |= {layer: (*found.get(layer, ()), gate) for layer in block.layers}
        return found

    def macs(self, widths: ArrayLike) -> NDArray[np.int64]:
        """Multiply-accumulates of one input: networks (..., genes) -> (...). One MAC is two FLOPs."""
        table = np.asarray(widths, dtype=np.int64)
        widths, total = table[..., : len(self.groups)], np.zeros(table.shape[:-1], dtype=np.int64)
        for gates, count in self._mac_counts:
            total += count(widths) * table[..., gates].prod(axis=-1)
        return total

    @functools.cached_property
    def _mac_counts(self) -> list[tuple[list[int], MacCount]]:
        """The products that have the same blocks around them, with the gates of these."""
        around: dict[int, list[int]] = {index: [] for index in range(len(self.products))}
        for gate, block in enumerate(self.blocks, len(self.groups)):
            for index in block.products:
                around[index].append(gate)
        parts: dict[tuple[int, ...], list[Product]] = {(): []}
        for index, gates in around.items():
            parts.setdefault(tuple(gates), []).append(self.products[index])
        widths = self.full()[: len(self.groups)]
        return [(list(gates), MacCount(some, widths)) for gates, some in parts.items()]

    def params(self, widths: ArrayLike) -> NDArray[np.int64]:
        """Parameters (without buffers): networks (..., genes) -> (...)."""
        table = np.asarray(widths, dtype=np.int64)
        total = np.zeros(table.shape[:-1], dtype=np.int64)
        for layer in self.layers:
            there = table[..., list(self.gates(layer.name))].prod(axis=-1)
            for tensor in layer.tensors:
                if not tensor.buffer:
                    axes = dict(tensor.axes)
                    sizes = (
                        axes[a].count(table) if a in axes else size for a, size in enumerate(tensor.shape)
                    )
                    total += functools.reduce(np.multiply, sizes, there)
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
