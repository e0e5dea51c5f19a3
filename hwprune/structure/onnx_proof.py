"""The proof of a search space of an ONNX file: networks are sliced out of it and run. No torch.

- `onnx`: the narrowest network runs, and its outputs keep their shapes;
- `masking` and `permutation`: as in proof.py, by ONNX Runtime;
- blocks that are left out: the file is the full one in which they add nothing. A block that fails is none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from hwprune.errors import ModelError
from hwprune.structure.bisect import NOT_FINITE, NOT_MASKED, OTHER_ORDER, OTHER_SHAPE, Bisection
from hwprune.structure.compare import difference, finite
from hwprune.structure.onnx_graph import parse_model
from hwprune.structure.onnx_slice import OnnxSlicer
from hwprune.structure.onnx_weights import WeightedGraph, example_feeds
from hwprune.structure.orders import local_order, orders

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from numpy.typing import NDArray

    from hwprune.structure.bisect import Check
    from hwprune.structure.space import Widths

    Array = NDArray[Any]

CHECKS = ("permutation", "masking", "onnx")
_TOLERANCE = 1e-3  # of the largest output
_MOST_FLIPS = 0.05  # of integers, such as classes, that rounding may turn into others


class OnnxProver(Bisection):
    """Tries the networks of a space on the file itself.

    Args:
        net: The file, prepared.
        readers: (weight, axis) of every axis from which channels are read.

    Raises:
        ModelError: ONNX Runtime does not run the file.
    """

    def __init__(self, net: WeightedGraph, readers: Collection[tuple[str, int]]) -> None:
        super().__init__(net, readers)
        self.feeds = example_feeds(net.model)
        try:
            session = net.session()
            self.full, again = (session.run(None, self.feeds) for _ in range(2))
        except Exception as error:  # runtimes raise errors of their own
            raise ModelError(
                "ONNX Runtime does not run this model.",
                got=f"{type(error).__name__}: {error}"[:300],
                do="export it again, or look for an operator that the runtime does not have",
            ) from error
        if _differs(again, self.full):
            raise ModelError(
                "The outputs of this model differ between two equal runs.",
                do="export it in eval mode, without operators that draw random numbers",
            )

    def check_prepared(self, original: bytes) -> None:
        """Compare the prepared file with the one that was given.

        Raises:
            ModelError: They compute something else.
        """
        try:
            expected = WeightedGraph.of(parse_model(original)).run(self.feeds)
        except Exception:  # a form that runtimes no longer take, mended by preparing it
            return
        if _differs(self.full, expected):
            raise ModelError(
                "The file cannot be prepared without changing what it computes.",
                do="export it again with a newer operator set, without training mode",
            )

    def checks(self) -> Iterator[Check]:
        """Whether networks run, then whether they are the right ones."""
        yield from (self._runs, self._masks, self._permutes)

    def _runs(self, groups: Sequence[int]) -> str:
        got = self.slicer.sliced(self.narrowest(groups)).run(self.feeds)
        same = [one.shape for one in got] == [one.shape for one in self.full]
        if same and any(finite(a) and not finite(b) for a, b in zip(self.full, got, strict=True)):
            return NOT_FINITE
        return "" if same else OTHER_SHAPE

    def _leaves_out(self, blocks: Sequence[int]) -> str:
        """Without some blocks the file runs, and is the full one in which they add nothing."""
        for gone in (blocks, blocks[::2]) if len(blocks) > 1 else (blocks,):
            narrow = self.without(gone, self.drawn(range(len(self.space.groups))))
            got = self.slicer.sliced(narrow).run(self.feeds)
            if [one.shape for one in got] != [one.shape for one in self.full]:
                return OTHER_SHAPE
            widths = self.without(gone, self.space.full())
            own = {group for block in self.space.left_out(widths) for group in block.groups}
            if own & self.mixed:
                continue
            if _differs(self.slicer.sliced(widths).run(self.feeds), self._silenced(widths).run(self.feeds)):
                return "the sliced file is not the one in which they add nothing"
        return ""

    def _silenced(self, widths: Widths) -> WeightedGraph:
        """The full network in which nobody reads removed channels, and sums ignore the blocks left out."""
        net = self._unread(widths)
        makers = {name: node for node in net.model.graph.node for name in node.output}
        for block in self.space.left_out(widths):
            if block.input and not block.groups:
                node = makers[block.output]
                total = node if node.op_type == "Add" else makers[node.input[0]]
                total.op_type, total.input[:] = "Identity", [block.input]
        return net

    def _masks(self, groups: Sequence[int]) -> str:
        """A sliced network equals the full one that does not read the removed channels."""
        widths = self.masked(groups)
        if widths == self.space.full():
            return ""
        differs = _differs(self.slicer.sliced(widths).run(self.feeds), self._unread(widths).run(self.feeds))
        return NOT_MASKED if differs else ""

    def _unread(self, widths: Sequence[int]) -> WeightedGraph:
        """The full network in which nobody reads the channels that are removed at some widths."""
        gone: dict[str, list[tuple[int, NDArray[np.int64]]]] = {}
        for name, axis, index in self.unread(widths):
            if len(index):
                gone.setdefault(name, []).append((axis, index))
        masked = self.base.copied()
        for name, cuts in gone.items():
            value = masked.arrays[name].copy()
            for axis, index in cuts:
                value[(slice(None),) * axis + (index,)] = 0
            masked.put(name, value)
        return masked

    def _permutes(self, groups: Sequence[int]) -> str:
        """The channels of each group in another order compute the same."""
        found = orders(self.space, self.scores(groups))
        slicer = OnnxSlicer(self.base, self.space)
        for name, cuts in slicer.cuts.items():
            for axis, channels in cuts:
                slicer.arrays[name] = slicer.arrays[name].take(local_order(channels, found), axis)
        differs = _differs(slicer.sliced(self.space.full()).run(self.feeds), self.full)
        return OTHER_ORDER if differs else ""


def _differs(got: Sequence[Array], expected: Sequence[Array]) -> bool:
    one, other = ([np.nan_to_num(x) for x in outputs] for outputs in (got, expected))
    return bool(difference(one, other, _TOLERANCE, _MOST_FLIPS))
