"""`trace_onnx`: the search space of an ONNX file, whoever exported it. No torch.

The analysis is that of a torch model, on the file itself. Every constant of the graph may be changed, so
sizes that are written in a model's code freeze nothing here. The proof slices the file and runs it
(onnx_proof.py).
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from hwprune.errors import ModelError
from hwprune.structure import graph as graphs
from hwprune.structure.assemble import Owned
from hwprune.structure.child import ChildError, in_child
from hwprune.structure.onnx_blocks import Modules, OnnxBlockFinder
from hwprune.structure.onnx_graph import consistency, refuse_large
from hwprune.structure.onnx_prepare import prepare_onnx, prepared, read_onnx
from hwprune.structure.onnx_proof import CHECKS, OnnxProver
from hwprune.structure.onnx_weights import example_feeds
from hwprune.structure.tracing import Tracer, proved

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hwprune.structure.space import SearchSpace

__all__ = ["prepare_onnx", "read_onnx", "trace_onnx"]


def trace_onnx(
    model: bytes | str | Path, *, name: str = "", exclude: Sequence[str] = (), depth: bool = False
) -> SearchSpace:
    """Find the channel groups of an ONNX file, and the blocks that may go, and prove them on it.

    Args:
        model: The file or its content; with fixed input sizes, but for the batch.
        name: The model's name, kept in the space; the file's by default.
        exclude: Patterns of layers whose output channels must stay, and of blocks that must. A layer is named
            after its weight, a block after its operators.
        depth: Whether blocks may go (onnx_blocks.py).

    Returns:
        The space of the prepared file (`prepare_onnx`), which `slice_onnx` takes as its base.

    Raises:
        ModelError: Not such a model, one that no runtime loads, or one in which nothing can be pruned.

    Example:
        >>> space = hwprune.trace_onnx("net.onnx")
        >>> half = hwprune.slice_onnx(hwprune.prepare_onnx("net.onnx"), space, space.uniform(0.5))
    """
    begun = time.perf_counter()
    original = read_onnx(model)
    _try_out(original)
    net = prepared(original)
    refuse_large(net.copied().model)  # nothing larger than a run can take
    if not isinstance(model, bytes):
        name = name or Path(model).stem
    with consistency():
        graph = graphs.read(net.copied().model)
        shape = graph.shapes[graph.inputs[0]] if graph.inputs else ()
        tracer = _OnnxTracer(graph, _owned(graph), name or "model", tuple(shape))
        tracer.exclude(exclude)
        space = tracer.space()
    analysed = time.perf_counter()
    prover = OnnxProver(net, tracer.readers())
    prover.check_prepared(original)
    space = tracer.prove(prover, space)
    if depth:
        blocks, kept = OnnxBlockFinder(tracer.groups, space, tracer.costs()).find(exclude)
        space = prover.with_blocks(replace(space, blocks=blocks, kept=kept))
    return proved(
        space,
        (*CHECKS, *(["blocks"] if space.blocks else [])),
        analysed - begun,
        time.perf_counter() - analysed,
    )


class _OnnxTracer(Tracer):
    """The tracer of an ONNX file."""

    def names(self) -> list[str]:
        """The names of layers, of the modules that operators were in, and of operators."""
        layers, nodes = super().names(), self.graph.nodes
        known = Modules(self.graph, layers)
        modules = [module for node in nodes for module in known.of(node.scope)]
        return list(dict.fromkeys([*layers, *modules, *(node.name.strip("/") for node in nodes)]))


def _try_out(content: bytes) -> None:
    """Load and run a file in a child process: what kills it ends here. What it raises is raised again later.

    Raises:
        ModelError: The child dies.
    """

    def run() -> bytes:
        net = prepared(content)
        refuse_large(net.copied().model)
        net.run(example_feeds(net.model), threads=1)
        return b""

    try:
        in_child(run)
    except ChildError as error:
        if error.died:
            raise ModelError(
                "This ONNX model ends the process that loads it.",
                got=str(error),
                do="export it again, or look for an operator that ONNX Runtime cannot stand",
            ) from error


def _owned(graph: graphs.Graph) -> dict[str, Owned]:
    """Every weight, by the layer it is named after: `conv1.weight`, or else the operator that reads it."""
    reader = {name: node.name for node in reversed(graph.nodes) for name in node.inputs}
    found = {}
    for name, shape in graph.weights.items():
        owner, _, leaf = name.rpartition(".")
        layer = owner if owner and leaf.isidentifier() else reader.get(name, name)
        found[name] = Owned(shape, layer, layer)
    return found
