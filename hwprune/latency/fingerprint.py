"""Short digests that tell whether two search spaces, or two graphs, are the same."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hwprune.structure.layers import Block
    from hwprune.structure.onnx_graph import NetGraph
    from hwprune.structure.space import SearchSpace


def space_fingerprint(space: SearchSpace) -> str:
    """Digest of all that a space says of a network; the model's name and the groups' choices do not count."""
    groups = [[group.name, group.width, group.multiple] for group in space.groups]
    parts = [[asdict(one) for one in many] for many in (space.layers, space.products, space.attributes)]
    blocks = [[_told(block) for block in space.blocks]] if space.blocks else []
    return _digest([list(space.input_shape[1:]), groups, *parts, *blocks])


def _told(block: Block) -> dict[str, Any]:
    """The fields of a block; those of concatenations only where it has them."""
    return {name: value for name, value in asdict(block).items() if value or name not in ("groups", "reads")}


def graph_fingerprint(graph: NetGraph) -> str:
    """Digest of a graph's operators and shapes; the values of its weights do not count."""
    nodes = [asdict(node) for node in graph.nodes]
    shapes = {name: list(shape) for name, shape in graph.shapes.items()}
    return _digest([nodes, shapes])


def _digest(content: Any) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
