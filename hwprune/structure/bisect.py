"""Which groups of a search space a check refuses: all are tried at once, and halves where that fails.

No torch.
"""

from __future__ import annotations

import time
import warnings
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from hwprune.structure.onnx_slice import OnnxSlicer

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

    from numpy.typing import NDArray

    from hwprune.structure.onnx_weights import WeightedGraph
    from hwprune.structure.space import SearchSpace, Widths

    Check = Callable[[Sequence[int]], str]

OTHER_SHAPE = "the model's outputs change their shape"
OTHER_ORDER = "another order of them computes something else"
NOT_FINITE = "the model's outputs are no longer finite"
NOT_MASKED = "the model is not the one that ignores them"

MOST_SECONDS = 15.0  # of computing, to tell groups apart: what is not told apart by then is frozen together


class Bisection:
    """Tries the networks of a space.

    A check takes groups, prunes them and no others, and returns what is wrong, or "".

    Args:
        base: The unpruned network.
        readers: (weight, axis) of every axis from which channels are read.

    Attributes:
        space: The space that is tried.
        mixed: Groups that masking cannot be tried on.
        slicer: Slices the networks of the space.
    """

    space: SearchSpace
    mixed: set[int]
    slicer: OnnxSlicer

    def __init__(self, base: WeightedGraph, readers: Collection[tuple[str, int]]) -> None:
        self.base, self.readers = base, readers

    def checks(self) -> Iterator[Check]:
        """The checks, cheapest first."""
        raise NotImplementedError

    def refused_by(self, space: SearchSpace, mixed: Collection[int]) -> dict[int, str]:
        """Groups whose pruning a check refuses -> what it says; {} when all checks pass.

        Args:
            space: The space.
            mixed: Groups that masking cannot be tried on.

        Raises:
            ModelError: The ONNX is not the base of this space.
        """
        self.space, self.mixed, self.slicer = space, set(mixed), OnnxSlicer(self.base, space)
        self.stop = time.process_time() + MOST_SECONDS
        everything = list(range(len(space.groups)))
        for check in self.checks():
            if self._fault(check, everything):
                return self._halve(check, everything) or self._jointly(check)
        return {}

    def with_blocks(self, space: SearchSpace) -> SearchSpace:
        """The space with those of its blocks that may be left out, the others among what is kept."""
        self.stop = time.process_time() + MOST_SECONDS
        self.space, self.slicer = space, OnnxSlicer(self.base, space)
        while space.blocks and self._fault(self._leaves_out, range(len(space.blocks))):
            wrong = self._halve(self._leaves_out, range(len(space.blocks)))
            together = "the model fails without several of these blocks"
            wrong = wrong or dict.fromkeys(range(len(space.blocks)), together)
            kept = tuple(block for index, block in enumerate(space.blocks) if index not in wrong)
            reasons = {space.blocks[index].name: fault for index, fault in wrong.items()}
            space = self.space = replace(space, blocks=kept, kept={**space.kept, **reasons})
            self.slicer = OnnxSlicer(self.base, space)
        return space

    def _leaves_out(self, blocks: Sequence[int]) -> str:
        """What is wrong without some blocks, or ""."""
        raise NotImplementedError

    def without(self, blocks: Sequence[int], widths: Widths) -> Widths:
        """A network without some blocks."""
        gates = [int(index not in set(blocks)) for index in range(len(self.space.blocks))]
        return self.space.check([*widths[: len(self.space.groups)], *gates])

    def _halve(self, check: Check, groups: Sequence[int]) -> dict[int, str]:
        fault = self._fault(check, groups)
        if not fault:
            return {}
        if len(groups) == 1 or time.process_time() > self.stop:
            return dict.fromkeys(groups, fault)
        middle = len(groups) // 2
        return {**self._halve(check, groups[:middle]), **self._halve(check, groups[middle:])}

    def _jointly(self, check: Check) -> dict[int, str]:
        """The group that fails only with others: the first with which those before it fail."""
        low, high = 0, len(self.space.groups)
        while high - low > 1:
            middle = (low + high) // 2
            if self._fault(check, range(middle)):
                high = middle
            else:
                low = middle
        return {high - 1: self._fault(check, range(high)) or "it fails at some widths only"}

    def _fault(self, check: Check, groups: Sequence[int]) -> str:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return check(groups)
        except Exception as error:  # the model's own forward may raise anything, and so may runtimes
            return f"the model fails ({type(error).__name__}: {error})".splitlines()[0][:200]

    def drawn(self, groups: Sequence[int]) -> Widths:
        """Random widths, narrower than full, for some groups; the others stay full."""
        rng = np.random.default_rng([0, *groups])
        widths = list(self.space.full())
        for index in groups:
            choices = self.space.groups[index].choices
            widths[index] = int(rng.choice(choices[len(choices) // 4 : -1] or choices[:1]))
        return tuple(widths)

    def narrowest(self, groups: Sequence[int]) -> Widths:
        """The narrowest widths of some groups; the others stay full."""
        narrow, full, chosen = self.space.smallest(), self.space.full(), set(groups)
        return tuple(narrow[i] if i in chosen else full[i] for i in range(len(full)))

    def masked(self, groups: Sequence[int]) -> Widths:
        """Random widths of the groups that masking can be tried on; the others stay full."""
        return self.drawn([group for group in groups if group not in self.mixed])

    def unread(self, widths: Sequence[int]) -> Iterator[tuple[str, int, NDArray[np.int64]]]:
        """Weight, axis, and the positions there that read channels which are gone at `widths`."""
        for layer in self.space.layers:
            for tensor in layer.tensors:
                for axis, channels in tensor.axes:
                    if (tensor.name, axis) in self.readers:
                        yield tensor.name, axis, np.flatnonzero(~channels.keeps(widths))

    def scores(self, groups: Sequence[int]) -> list[NDArray[np.float64]]:
        """Scores of each group, (width,), that give the channels of some groups another order."""
        rng, chosen = np.random.default_rng([1, *groups]), set(groups)
        return [
            rng.random(group.width) if index in chosen else -np.arange(float(group.width))
            for index, group in enumerate(self.space.groups)
        ]
