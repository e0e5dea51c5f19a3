"""The steps that `trace` and `trace_onnx` share. No torch.

Find the groups of a graph, make its space, and freeze groups until all checks pass.
"""

from __future__ import annotations

import fnmatch
import warnings
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from hwprune.errors import HwpruneWarning, ModelError, nearest
from hwprune.structure.assemble import MODEL_OUTPUTS, Owned, make_space, makers, products, weighted
from hwprune.structure.flow import analyse
from hwprune.structure.groups import Groups, find_groups
from hwprune.structure.layers import FROZEN
from hwprune.structure.space import Proof, SearchSpace

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from hwprune.structure.bisect import Bisection
    from hwprune.structure.flow import Flow
    from hwprune.structure.graph import Graph
    from hwprune.structure.labels import Labels
    from hwprune.structure.node import Node


class Tracer:
    """The steps of tracing, which share a graph and its labels.

    Args:
        graph: The graph.
        owned: Every parameter and buffer, by name, in the model's order.
        name: The model's name.
        shape: Shape of the first input, (N, C, H, W).

    Raises:
        ModelError: The graph cannot be followed.
    """

    def __init__(self, graph: Graph, owned: Mapping[str, Owned], name: str, shape: tuple[int, ...]) -> None:
        self.graph, self.owned, self.name, self.shape = graph, owned, name, shape
        self.flow = analyse(graph)
        self.groups = self.find(self.flow)

    def find(self, flow: Flow) -> Groups:
        """The channel groups by some labels."""
        return find_groups(flow, list(makers(flow, self.owned)))

    def settle(self) -> None:
        """Follow the labels and find the groups anew, after channels were frozen."""
        self.flow.settle()
        self.groups = self.find(self.flow)

    def names(self) -> list[str]:
        """The names that patterns of layers are compared with."""
        return list(makers(self.flow, self.owned).values())

    def exclude(self, patterns: Sequence[str]) -> None:
        """Freeze the output channels of the layers that patterns fit.

        Raises:
            ModelError: A pattern fits no layer.
        """
        if isinstance(patterns, str):
            raise ModelError(
                "Patterns of layers to exclude are a list.", got=repr(patterns), do=f"give [{patterns!r}]"
            )
        names = self.names() if patterns else []
        for pattern in patterns:
            if not fnmatch.filter(names, pattern):
                raise ModelError(
                    "A pattern of layers to exclude fits no layer.",
                    got=repr(pattern),
                    allowed=nearest(pattern, names),
                    do="mend `exclude` under [model]",
                )
        for axis, layer in makers(self.flow, self.owned).items():
            if any(fnmatch.fnmatch(layer, pattern) for pattern in patterns) and axis in self.flow.axes:
                self.flow.freeze(self.flow.axes[axis], f"{layer} is excluded")
        if patterns:
            self.settle()

    def space(self) -> SearchSpace:
        """The space as the labels have it.

        Raises:
            ModelError: There is nothing to prune.
        """
        space = make_space(self.groups, self.name, self.shape, self.owned)
        if not space.groups:
            reasons = _listed(space.frozen) or "no convolution or linear layer"
            raise ModelError(
                "Nothing in this model can be pruned.",
                where=self.name,
                got=reasons,
                do="see docs/structure.md for what would free these layers",
            )
        return space

    def costs(self) -> list[Node]:
        """The operators of the space's products."""
        found = products(self.groups, weighted(self.flow), self.owned, max(1, self.shape[0]))
        return [node for node, _ in found]

    def readers(self) -> set[tuple[str, int]]:
        """(weight, axis) of every axis from which channels are read."""
        return {
            (one.weight, axis)
            for one in weighted(self.flow)
            if one.weight
            for axis in range(min(2, len(self.graph.weights[one.weight])))
            if axis != one.made
        }

    def mixed(self) -> set[int]:
        """Groups that the masking check cannot be tried on: a statistic over channels sees them."""
        return {int(self.groups.group[label]) for label in self.flow.mixed} - {FROZEN}

    def prove(self, prover: Bisection, space: SearchSpace) -> SearchSpace:
        """Try a space on the model; freeze groups until all checks pass.

        Raises:
            ModelError: There is nothing left to prune.
        """
        while broken := prover.refused_by(space, self.mixed()):  # each round freezes a group, so it ends
            for index, fault in broken.items():
                labels = np.flatnonzero(self.groups.group == index)
                reason = f"{self._steps(labels)}without channels of {self._maker(index)}, {fault}"
                self.flow.freeze(labels, reason)
            self.settle()
            space = self.space()
        return space

    def _maker(self, group: int) -> str:
        """The operator that makes the channels of a group, and its layer."""
        weight, _ = self.groups.names[group]
        found = next((one.node.operator for one in weighted(self.flow) if one.weight == weight), "the weight")
        return f"{found} {self.owned[weight].layer}"

    def _steps(self, labels: Labels) -> str:
        """The operator that keeps channels in step, if one does: a check most likely fails because of it."""
        for matrix, reason in self.flow.steps:
            if np.isin(matrix, labels).any():
                return f"{reason}, and "
        return ""


def proved(
    space: SearchSpace, checks: Collection[str], analysis_seconds: float, seconds: float
) -> SearchSpace:
    """A space with its proof; warns of layers that keep channels, but for outputs.

    Args:
        space: The space.
        checks: Names of the checks that passed.
        analysis_seconds: Time before the checks.
        seconds: Time of the checks.
    """
    notable = {layer: reason for layer, reason in space.frozen.items() if reason != MODEL_OUTPUTS}
    if notable:
        text = f"{space.model}: {len(notable)} layer(s) keep channels. {_listed(notable)}"
        warnings.warn(text, HwpruneWarning, stacklevel=3)  # of whoever called `trace`
    return replace(space, proof=Proof(tuple(checks), seconds, analysis_seconds))


def _listed(frozen: Mapping[str, str]) -> str:
    return "; ".join(f"{layer}: {reason}" for layer, reason in frozen.items())
