"""Which operators a runtime executes together, learnt from what it reported for a few profiled networks.

A runtime fuses operators into kernels, and fuses differently at different widths. So fusion is not assumed
but observed, and all operators that were one kernel in any of the networks count as one.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hwprune.structure.onnx_graph import ACTIVATIONS, LIGHT, WEIGHTED

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from hwprune.structure.layers import Block
    from hwprune.structure.onnx_graph import NetGraph


@dataclass(frozen=True)
class Fusion:
    """Which operators a runtime executes together, as observed.

    Attributes:
        kernels: Output tensor of each operator -> a tensor that stands for its kernel.
        reordered: Tensors (of kernels, or inputs of the network) that were seen to change layout.
        idle: Those of `kernels` that no network was seen to execute: the runtime does without them.
    """

    kernels: Mapping[str, str]
    reordered: frozenset[str] = frozenset()
    idle: frozenset[str] = frozenset()

    def to_payload(self) -> dict[str, Any]:
        """JSON-able form."""
        idle = {"idle": sorted(self.idle)} if self.idle else {}
        return {"kernels": dict(self.kernels), "reordered": sorted(self.reordered), **idle}

    @classmethod
    def from_payload(cls, payload: Mapping[str, Any]) -> Fusion:
        """The fusion that `to_payload` described."""
        kernels = {str(tensor): str(kernel) for tensor, kernel in payload["kernels"].items()}
        reordered, idle = payload["reordered"], payload.get("idle", ())
        return cls(kernels, frozenset(map(str, reordered)), frozenset(map(str, idle)))


def observe(
    graph: NetGraph,
    reports: Iterable[Sequence[tuple[str | None, bool]]],
    left_out: Iterable[Sequence[Block]] = (),
) -> Fusion:
    """Learn from profiled networks which operators are executed together.

    Args:
        graph: The unpruned network.
        reports: For each profiled network, (tensor, is a reorder) of its kernels in execution order.
        left_out: For each of them the blocks that it does not have; empty when all have all.

    Returns:
        Operators that were one kernel in any of the networks are one kernel here, unless that joined two
        operators with weights: an addition that is fused now into one branch, now into the other, stays with
        the branch of the network reported first.
    """
    leader = {node.output: node.output for node in graph.nodes}
    heavy = {node.output for node in graph.nodes if node.op in WEIGHTED}  # leaders of kernels with weights
    reordered: set[str] = set()
    seen: set[str] = set()
    for report, blocks in itertools.zip_longest(reports, left_out, fillvalue=()):
        made = [tensor for tensor, reorder in report if tensor is not None and not reorder]
        reordered |= {tensor for tensor, reorder in report if tensor is not None and reorder}
        seen.update(made)
        for tensor, kernel in _assign(graph, made, blocks).items():
            _join(leader, heavy, tensor, kernel)
    kernels = {tensor: _find(leader, tensor) for tensor in leader}
    busy = {kernels[tensor] for tensor in seen if tensor in kernels} | {
        kernels[t] for t in reordered if t in kernels
    }
    idle = frozenset(kernels.values()) - busy if seen else frozenset()
    return Fusion(kernels, frozenset(kernels.get(tensor, tensor) for tensor in reordered), idle)


def _find(leader: dict[str, str], tensor: str) -> str:
    while leader[tensor] != tensor:
        leader[tensor] = leader[leader[tensor]]
        tensor = leader[tensor]
    return tensor


def _join(leader: dict[str, str], heavy: set[str], one: str, other: str) -> None:
    if one not in leader or other not in leader:
        return
    first, second = _find(leader, one), _find(leader, other)
    if first == second or (first in heavy and second in heavy):
        return
    if first in heavy:
        heavy.add(second)
    leader[first] = second


def _assign(graph: NetGraph, made: Sequence[str], left_out: Sequence[Block]) -> dict[str, str]:
    """Each operator that one profiled network has -> the reported tensor whose kernel executes it.

    A kernel is named after some tensor it makes, not always the last. So an operator with weights that was
    not reported itself is looked for behind its output, through light operators only; a light operator that
    was not reported belongs to the last executed of the kernels that made its inputs.
    """
    position = {tensor: index for index, tensor in enumerate(made)}
    assigned: dict[str, str] = {}
    gone = frozenset[str]().union(*map(graph.inside, left_out))
    entries = {b.output: b.input for b in sorted(left_out, key=lambda block: len(block.layers))}
    for node in graph.nodes:
        if node.output in gone:
            if (entry := entries.get(node.output, "")) in assigned:  # for those that read it
                assigned[node.output] = assigned[entry]
            continue
        further = next((name for name in node.outputs[1:] if name in position), None)
        if node.output in position:
            assigned[node.output] = node.output
        elif further is not None:
            assigned[node.output] = further
        elif node.op not in LIGHT and (behind := _behind(graph, node.output, position, gone)) is not None:
            assigned[node.output] = behind
        else:
            sources = [assigned[name] for name in node.inputs if name in assigned]
            if sources:
                assigned[node.output] = max(sources, key=lambda tensor: position[tensor])
        if node.output in assigned:
            assigned.update(dict.fromkeys(node.outputs, assigned[node.output]))
    return {tensor: kernel for tensor, kernel in assigned.items() if tensor not in entries}


def _behind(graph: NetGraph, tensor: str, reported: Mapping[str, int], gone: Collection[str]) -> str | None:
    while tensor not in reported:
        readers = graph.consumers.get(tensor, ())
        if len(readers) != 1 or readers[0].op not in LIGHT or readers[0].output in gone:
            return None
        tensor = readers[0].output
    return tensor


def expected_fusion(graph: NetGraph) -> Fusion:
    """A guess for a runtime that was not observed: activations go with what makes their input."""
    made = [node.output for node in graph.nodes if node.op not in ACTIVATIONS]
    return observe(graph, [[(tensor, False) for tensor in made]])
