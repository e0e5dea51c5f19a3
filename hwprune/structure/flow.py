"""One analysis of a graph: labels are sent through it until nothing new is found. No torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from hwprune.errors import ModelError
from hwprune.structure import rules_layout, rules_norms, rules_products  # noqa: F401 - register their rules
from hwprune.structure.labels import FIXED, Labelled, Ledger, components, distinct, spread
from hwprune.structure.rules import find_rule, freeze_all

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from hwprune.structure.graph import Graph
    from hwprune.structure.labels import Labels
    from hwprune.structure.node import Node

_MOST_PASSES = 12
_MOST_LABELS = 2**24
OUTPUTS = "the model's outputs"


@dataclass
class Flow:
    """What is known of the labels of a graph.

    Attributes:
        graph: The graph.
        axes: (weight, axis) -> the labels that its positions began with.
        canonical: Label -> the smallest label of its channel, 0 where it stays.
        tensors: Tensor -> its canonical labels.
        steps: Matrices of canonical labels of whose rows equally many must go, with the reason.
        mixed: Canonical labels that a statistic over channels has seen.
        reasons: Label -> why it stays.
        weighted: What `assemble.weighted` found, once asked.
    """

    graph: Graph
    axes: dict[tuple[str, int], Labels] = field(default_factory=dict)
    canonical: Labels = field(default_factory=lambda: np.zeros(1, dtype=np.int64))
    tensors: dict[str, Labelled] = field(default_factory=dict)
    steps: list[tuple[Labels, str]] = field(default_factory=list)
    mixed: set[int] = field(default_factory=set)
    reasons: dict[int, str] = field(default_factory=dict)
    weighted: tuple[Any, ...] | None = None
    _count: int = 1
    _roots: Labels = field(default_factory=lambda: np.zeros(1, dtype=np.int64))
    _pairs: list[tuple[Labels, Labels]] = field(default_factory=list)
    _frozen: dict[int, str] = field(default_factory=dict)

    def labels(self, name: str, axis: int, size: int) -> Labels:
        """The labels that an axis began with, made when they are asked for: (size,).

        Raises:
            ModelError: There would be too many.
        """
        key = (name, axis)
        if key not in self.axes:
            if self._count + size > _MOST_LABELS:
                raise ModelError("This model has more channels than can be followed.", allowed=_MOST_LABELS)
            self.axes[key] = np.arange(self._count, self._count + size)
            self._count += size
            self._grow()
        return self.axes[key]

    def _now(self, name: str, axis: int, size: int) -> Labels:
        """The canonical labels of an axis."""
        labels = self.labels(name, axis, size)
        return self.canonical[labels]

    def _grow(self) -> None:
        new = np.arange(len(self.canonical), self._count)
        self.canonical = np.concatenate([self.canonical, new])
        self._roots = np.concatenate([self._roots, new])

    def tie(self, one: Labels, other: Labels) -> None:
        """Declare pairs of labels one channel each, beforehand."""
        self._pairs.append((np.ravel(one), np.ravel(other)))

    def freeze(self, labels: Labels, reason: str) -> None:
        """Keep channels, for a reason that the graph does not know."""
        for label in np.unique(labels).tolist():
            if label != FIXED:
                self._frozen.setdefault(label, reason)

    def settle(self) -> None:
        """Send labels through the graph until a pass finds nothing new.

        Raises:
            ModelError: That takes too many passes.
        """
        for name, shape in self.graph.weights.items():
            for axis, size in enumerate(shape):
                if size > 1:
                    self.labels(name, axis, size)
        self._learn()
        self.weighted = None
        for number in range(_MOST_PASSES):
            before = self.canonical.copy()
            ledger = self._pass(first=number == 0 and not self.steps)
            self._pairs += ledger.ties
            for label, reason in ledger.frozen.items():
                self._frozen.setdefault(label, reason)
            self._learn()
            if not ledger.first and np.array_equal(before, self.canonical):
                self.steps, self.mixed = ledger.steps, ledger.mixed - {FIXED}
                return
        raise ModelError("The channels of this model cannot be followed.", got=f"{_MOST_PASSES} passes")

    def _learn(self) -> None:
        self._roots = components(self._count, self._pairs)
        self.reasons = {}
        for label, reason in self._frozen.items():
            self.reasons.setdefault(int(self._roots[label]), reason)
        stays = np.zeros(self._count, dtype=bool)
        stays[[*self.reasons, FIXED]] = True
        self.canonical = np.where(stays[self._roots], FIXED, self._roots)

    def reason(self, labels: Labels) -> str:
        """Why the first of some labels that stays does; "" when all may go."""
        for label in self._roots[np.ravel(labels)].tolist():
            if label in self.reasons:
                return self.reasons[label]
        return ""

    def _pass(self, first: bool = False) -> Ledger:
        ledger = Ledger(self.canonical, first)
        tensors = self.tensors = {name: Labelled(self.graph.shapes[name]) for name in self.graph.inputs}
        for node in self.graph.nodes:
            ledger.because, node.remark = node.because, ""
            node.fresh = self._fresh(node)
            inputs = [self.tensor(name) if name else None for name in node.inputs]
            self._freeze_captured(node, ledger)
            made = _apply(node, inputs, ledger)
            for name, shape, result in zip(node.outputs, node.output_shapes, made, strict=True):
                tensors[name] = result if result.shape == shape else _refuse(node, result, shape, ledger)
                for factor in tensors[name].factors:
                    if factor.size == 1:  # one channel all through: without it nothing would be left
                        ledger.freeze(factor, "would have nothing left")
        for name in self.graph.outputs:
            ledger.because = str
            ledger.freeze_factors(self.tensor(name).factors, OUTPUTS)
        return ledger

    def _freeze_captured(self, node: Node, ledger: Ledger) -> None:
        """Graphs inside an operator (If, Loop) read tensors by name: those stay."""
        for value in node.attributes.values():
            read = [name for inner in getattr(value, "node", ()) for name in inner.input]
            for name in read:
                if name in self.tensors or name in self.graph.weights:
                    ledger.freeze_factors(self.tensor(name).factors, "has no rule")

    def _fresh(self, node: Node) -> Callable[[int], Labels]:
        def fresh(axis: int) -> Labels:
            shape = node.output_shapes[0]
            return spread(self._now(node.outputs[0], axis, shape[axis]), len(shape), axis)

        return fresh

    def tensor(self, name: str) -> Labelled:
        """The labels of a feature map, weight or constant."""
        if name in self.tensors:
            return self.tensors[name]
        if name in self.graph.weights:
            return self._weight(name)
        if name in self.graph.constants:
            return self._constant(name)
        return Labelled(self.graph.shapes.get(name, ()), (), False)

    def _weight(self, name: str) -> Labelled:
        shape = self.graph.weights[name]
        factors = [
            spread(self._now(name, axis, size), len(shape), axis)
            for axis, size in enumerate(shape)
            if size > 1
        ]
        return Labelled(shape, distinct(factors), False)

    def _constant(self, name: str) -> Labelled:
        """A constant that is the same all along an axis may be cut there."""
        value = self.graph.constants[name]
        factors: list[Labels] = []
        if value.dtype.kind == "f":
            for axis, size in enumerate(value.shape):
                if size > 1 and bool((value == value.take([0], axis)).all()):
                    factors.append(spread(self._now(name, axis, size), value.ndim, axis))
        return Labelled(value.shape, distinct(factors), False)


def _apply(node: Node, inputs: list[Labelled | None], ledger: Ledger) -> list[Labelled]:
    """The operator's rule; what an unusual form of it makes of the rule freezes."""
    try:
        made = find_rule(node.operator)(node, inputs, ledger)
    except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError, AssertionError) as error:
        node.remark = f"has a form that its rule does not know ({type(error).__name__}: {error})"
        made = freeze_all(node, inputs, ledger)
    rest = [Labelled(shape, (), True) for shape in node.output_shapes[len(made) :]]
    return [*made[: len(node.outputs)], *rest]


def _refuse(node: Node, result: Labelled, shape: tuple[int, ...], ledger: Ledger) -> Labelled:
    """Freeze what a rule made of a wrong shape."""
    ledger.freeze_factors(result.factors, f"makes {shape} where its rule expects {result.shape}")
    return Labelled(shape, (), result.data)


def weight_behind(graph: Graph, tensor: str) -> str:
    """The largest weight that a tensor is computed of, "" when it depends on data or on none."""
    makers = graph.makers
    pending, found, seen = [tensor], [], set()
    while pending:
        name = pending.pop()
        if name in seen:
            continue
        seen.add(name)
        if name in graph.weights:
            found.append(name)
        elif name in makers:
            pending.extend(makers[name].inputs)
    return max(found, key=lambda name: int(np.prod(graph.weights[name])), default="")


def analyse(graph: Graph, equal_parts: Collection[str] = ()) -> Flow:
    """The labels of a graph.

    Args:
        graph: What `graph.read` made of a model.
        equal_parts: Names of grouped convolutions that lose equally many channels of each conv group.

    Raises:
        ModelError: The graph cannot be followed.
    """
    flow = Flow(graph)
    for node in graph.nodes:
        node.equal_parts = node.name in equal_parts
    flow.settle()
    return flow
