"""Parts of a graph that may go: what they read and make, and the channels they concatenate. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hwprune.structure.layers import FROZEN

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from hwprune.structure.groups import Groups
    from hwprune.structure.layers import Layer
    from hwprune.structure.node import Node

ONE_WAY = "what is inside it is read elsewhere"
NO_WAY = "it takes no part in the graph"
NO_SHORTCUT = "no shortcut passes its layers"
EMPTIED = "other layers would have no channels without it"
STUCK = "the channels that it adds to a concatenation stay"


@dataclass(frozen=True)
class Part:
    """Some operators of a graph.

    Attributes:
        nodes: The operators.
        made: The tensors that they make.
        reads: Tensors from outside that they read.
        left: Tensors of theirs that are read outside, or are outputs of the graph.
    """

    nodes: tuple[Node, ...]
    made: frozenset[str]
    reads: tuple[str, ...]
    left: tuple[str, ...]

    @property
    def single(self) -> bool:
        """Whether one tensor leaves it."""
        return len(self.left) == 1


class Parts:
    """The parts of a graph.

    Args:
        groups: Its channel groups.
        layers: The layers of its space.
    """

    def __init__(self, groups: Groups, layers: Sequence[Layer]) -> None:
        self.groups, self.graph, self.layers = groups, groups.flow.graph, layers
        self.makers = self.graph.makers
        self.readers: dict[str, list[Node]] = {}
        for node in self.graph.nodes:
            for name in dict.fromkeys(node.inputs):
                self.readers.setdefault(name, []).append(node)

    def part(self, nodes: Iterable[Node]) -> Part:
        """Operators as a part."""
        nodes = tuple(nodes)
        made = {name: None for node in nodes for name in node.outputs}
        known = self.makers.keys() | set(self.graph.inputs)
        reads = dict.fromkeys(n for node in nodes for n in node.inputs if n in known and n not in made)
        left = [name for name in made if self._leaves(name, made)]
        return Part(nodes, frozenset(made), tuple(reads), tuple(left))

    def _leaves(self, name: str, made: Collection[str]) -> bool:
        readers = self.readers.get(name, ())
        return name in self.graph.outputs or any(node.outputs[0] not in made for node in readers)

    def segment(self, part: Part, layers: Collection[str]) -> tuple[str, tuple[int, ...]] | str:
        """A part whose output is only ever concatenated with all that it reads.

        Args:
            part: One tensor leaves it.
            layers: Names of the layers inside.

        Returns:
            The tensor that takes the place of its output, "" where none does, and the channel groups that go
            with it; or why it cannot go.
        """
        (left,) = part.left
        maker, after = self.makers[left], self.readers.get(left, [])
        if maker.operator == "Concat" and len(part.reads) == 1 and part.reads[0] in maker.inputs:
            entering, concats = part.reads[0], [maker]
            own = [name for name in maker.inputs if name != entering]
            whole = len(own) == len(maker.inputs) - 1 and part.made.issuperset(own)
        else:
            entering, concats, own = "", after, [left]
            whole = bool(after) and left not in self.graph.outputs
        whole = whole and all(
            node.operator == "Concat" and {*part.reads, *own} <= {*node.inputs, ""} for node in concats
        )
        if not whole:
            return NO_SHORTCUT
        found = self._groups(own, int(concats[0].attributes["axis"]))
        if found is None:
            return STUCK
        emptied = any(
            channels.groups and FROZEN not in channels.group_of and found.issuperset(channels.groups)
            for layer in self.layers
            if layer.name not in layers
            for channels in (layer.inputs, layer.outputs)
        )
        return EMPTIED if emptied else (entering, tuple(sorted(found)))

    def _groups(self, tensors: Iterable[str], axis: int) -> set[int] | None:
        """The groups that all channels of some tensors follow; None where some follow none."""
        found: set[int] = set()
        for name in tensors:
            labelled = self.groups.flow.tensor(name)
            channels = self.groups.map(labelled.line(axis % len(labelled.shape)))
            if FROZEN in channels.group_of:
                return None
            found.update(channels.groups)
        return found
