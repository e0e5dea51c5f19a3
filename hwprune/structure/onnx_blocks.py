"""Blocks that may go of an ONNX file, found on its graph alone. No torch.

A block is what lies between a tensor and a sum that has this tensor as one of its terms: without it the sum
is the tensor itself. An activation behind the sum is a part of the block where it changes nothing of what
the same activation made before. What is only ever concatenated with all that it reads is a block, too
(parts.py).
"""

from __future__ import annotations

import fnmatch
from typing import TYPE_CHECKING

from hwprune.structure.layers import Block, within
from hwprune.structure.parts import NO_SHORTCUT, ONE_WAY, Part, Parts

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from hwprune.structure.graph import Graph
    from hwprune.structure.groups import Groups
    from hwprune.structure.node import Node
    from hwprune.structure.space import SearchSpace

_IDEMPOTENT = frozenset({"Relu", "Clip"})  # applied once more they change nothing
_KEEPING = frozenset({"MaxPool", "AveragePool", "GlobalAveragePool", "Identity", "Dropout"})


class OnnxBlockFinder:
    """Finds the blocks of a graph.

    Args:
        groups: Its channel groups.
        space: Its space, without blocks.
        costs: The operators of the space's products.
    """

    def __init__(self, groups: Groups, space: SearchSpace, costs: Sequence[Node]) -> None:
        self.graph, self.space, self.costs = groups.flow.graph, space, costs
        self.parts = Parts(groups, space.layers)
        self.makers, self.readers = self.parts.makers, self.parts.readers
        self.order = {node.outputs[0]: index for index, node in enumerate(self.graph.nodes)}
        self.modules = Modules(self.graph, [layer.name for layer in space.layers])
        self.owners = {tensor.name: layer.name for layer in space.layers for tensor in layer.tensors}

    def find(self, exclude: Sequence[str] = ()) -> tuple[tuple[Block, ...], dict[str, str]]:
        """The blocks in the graph's order, and sums with layers on all sides -> why none ends there.

        Args:
            exclude: Patterns of blocks that must stay.
        """
        found: dict[str, Block] = {}
        kept: dict[str, str] = {}
        for node in self.graph.nodes:
            made: Block | str = ""
            if node.operator == "Add" and self._is_sum(node):
                made = self._residual(node, found)
            elif node.operator == "Concat":
                found |= {block.name: block for block in self._segments(node, found)}
            if isinstance(made, Block):
                found[made.name] = made
            elif made:
                kept[node.name] = made
        excluded = [name for name in found if any(fnmatch.fnmatch(name, text) for text in exclude)]
        stays = {
            name
            for name, block in found.items()
            if any(set(found[other].layers) <= set(block.layers) for other in excluded)
        }
        return tuple(block for name, block in found.items() if name not in stays), kept

    def _is_sum(self, node: Node) -> bool:
        """Whether an addition adds feature maps, and is not a term of a further sum."""
        maps = [name for name in node.inputs if name in self.graph.shapes and name not in self.graph.weights]
        same = {self.graph.shapes[name] for name in maps} == {node.output_shapes[0]}
        after = self.readers.get(node.outputs[0], [])
        last = len(after) != 1 or after[0].operator != "Add" or node.outputs[0] in self.graph.outputs
        return len(maps) == 2 and same and last

    def _terms(self, name: str, sums: list[Node]) -> Iterator[str]:
        """The terms of a sum; the additions inside it are noted."""
        for term in self.makers[name].inputs:
            maker = self.makers.get(term)
            sole = len(self.readers[term]) == 1 and term not in self.graph.outputs
            if maker is not None and maker.operator == "Add" and sole and self._adds_maps(maker):
                sums.append(maker)
                yield from self._terms(term, sums)
            else:
                yield term

    def _adds_maps(self, node: Node) -> bool:
        return all(self.graph.shapes.get(name) == node.output_shapes[0] for name in node.inputs)

    def _residual(self, node: Node, found: Collection[str]) -> Block | str:
        """The block that ends at a sum, or why there is none."""
        sums, reason = [node], NO_SHORTCUT
        terms = list(self._terms(node.outputs[0], sums))
        for entering in sorted(set(terms), key=lambda name: -self._place(name)):
            branch = [term for term in terms if term != entering]
            inside = self._between({entering}, branch)
            if inside is None or len(branch) != len(terms) - 1:
                continue
            part = self.parts.part(self._sorted([*inside, *sums, *self._activation(node, entering)]))
            layers = self._layers(part)
            if part.reads == (entering,) and layers:
                if part.single:
                    return self._block(part, layers, entering, (), found)
                reason = ONE_WAY
        return reason

    def _place(self, name: str) -> int:
        return self.order.get(self.makers[name].outputs[0], -1) if name in self.makers else -1

    def _activation(self, node: Node, entering: str) -> list[Node]:
        """The activation behind a sum, where it changes nothing of the tensor that enters."""
        after = self.readers.get(node.outputs[0], [])
        if len(after) != 1 or node.outputs[0] in self.graph.outputs or after[0].operator not in _IDEMPOTENT:
            return []
        before = self.makers.get(entering)
        while before is not None and before.operator in _KEEPING:
            before = self.makers.get(before.inputs[0])
        same = before is not None and _setting(self.graph, before) == _setting(self.graph, after[0])
        return [after[0]] if same else []

    def _segments(self, node: Node, found: dict[str, Block]) -> Iterator[Block]:
        """The blocks whose output is a part of a concatenation, unless they end at a sum with their input."""
        ends = {block.output for block in found.values()}
        for name in dict.fromkeys(node.inputs):
            others = set(node.inputs) - {name}
            inside = self._between(others, [name]) if name in self.makers and name not in ends else None
            if not inside:
                continue
            part = self.parts.part(self._sorted(inside))
            if len(node.inputs) == 2 and self.readers[name] == [node]:
                part = self.parts.part((*part.nodes, node))
            layers = self._layers(part)
            if layers and part.single:
                place = self.parts.segment(part, layers)
                if not isinstance(place, str):
                    yield self._block(part, layers, place[0], place[1], found)

    def _between(self, ends: Collection[str], starts: Sequence[str]) -> list[Node] | None:
        """The operators from which some tensors come, back to others; None where the graph begins before."""
        found: dict[str, Node] = {}
        pending = list(starts)
        while pending:
            name = pending.pop()
            if name in self.graph.inputs and name not in ends:
                return None
            if name not in ends and name in self.makers:
                node = self.makers[name]
                if node.outputs[0] not in found:
                    found[node.outputs[0]] = node
                    pending.extend(node.inputs)
        return list(found.values())

    def _sorted(self, nodes: Sequence[Node]) -> list[Node]:
        return sorted(nodes, key=lambda node: self.order[node.outputs[0]])

    def _layers(self, part: Part) -> tuple[str, ...]:
        """The layers that only a part reads."""
        read = {name for node in part.nodes for name in node.inputs if name in self.owners}
        own = {name for name in read if all(n.outputs[0] in part.made for n in self.readers[name])}
        inside = {self.owners[name] for name in own} - {self.owners[name] for name in read - own}
        return tuple(layer.name for layer in self.space.layers if layer.name in inside)

    def _block(
        self,
        part: Part,
        layers: tuple[str, ...],
        entering: str,
        groups: tuple[int, ...],
        found: Collection[str],
    ) -> Block:
        products = tuple(index for index, node in enumerate(self.costs) if node.outputs[0] in part.made)
        reads = () if part.reads == (entering,) else part.reads
        last = part.nodes[-1].name.strip("/")
        name = self.modules.around(part.nodes) or last
        name = last if name in found else name
        return Block(name, entering, part.left[0], layers, products, groups, reads)


def _setting(graph: Graph, node: Node) -> tuple[object, ...]:
    """What an activation does: its operator, attributes and constants."""
    values = [None if (value := node.value(place)) is None else value.tolist() for place in (1, 2)]
    return node.operator, sorted(node.attributes.items()), values


class Modules:
    """The modules that operators were in, as their names tell.

    Args:
        graph: The graph.
        layers: Names of its layers. A module around all operators that these do not know is an exporter's.
    """

    def __init__(self, graph: Graph, layers: Iterable[str]) -> None:
        around = {node.scope.split("/")[0].rpartition(".")[0] for node in graph.nodes if node.scope}
        whole = around.pop() if len(around) == 1 else ""
        self._whole = "" if any(within(layer, whole) for layer in layers) else whole

    def of(self, scope: str) -> list[str]:
        """The modules of a scope, as torch names them: `layer1/layer1.0` -> `layer1`, `layer1.0`."""
        found: list[str] = []
        last = self._whole
        for piece in filter(None, scope.split("/")):
            owner, _, leaf = piece.rpartition(".")  # exporters write the container's name, too
            last = leaf if owner == last else piece
            found.append(f"{found[-1]}.{last}" if found else last)
        return found

    def around(self, nodes: Iterable[Node]) -> str:
        """The innermost module that all of some operators are in; "" where there is none."""
        shared = _shared([node.scope for node in nodes if node.scope])
        return next(reversed(self.of("/".join(shared))), "")


def _shared(scopes: Sequence[str]) -> list[str]:
    """What all scopes begin with."""
    shared = []
    for pieces in zip(*(scope.split("/") for scope in scopes), strict=False):
        if len(set(pieces)) > 1:
            break
        shared.append(pieces[0])
    return shared
