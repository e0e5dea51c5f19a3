"""How each tensor of an ONNX graph follows the channel groups of a search space. No torch.

The analysis that finds the groups (flow.py), begun with the labels of known groups. So weights that the space
does not know, such as the biases of folded batch norms, scales of quantised weights and constants, get their
channels too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hwprune.errors import ModelError
from hwprune.structure.flow import Flow
from hwprune.structure.labels import FIXED, axes_of
from hwprune.structure.layers import FROZEN, ChannelMap
from hwprune.structure.onnx_format import bare, carried

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from hwprune.structure.graph import Graph
    from hwprune.structure.labels import Labels
    from hwprune.structure.layers import Tensor
    from hwprune.structure.space import SearchSpace


class Followed:
    """The channels of all tensors of a graph.

    Args:
        graph: The unpruned network.
        space: Its search space.

    Raises:
        ModelError: The graph is not that of the space.
    """

    def __init__(self, graph: Graph, space: SearchSpace) -> None:
        self.graph, self.space = graph, space
        flow = self.flow = Flow(graph)
        members = [flow.labels(f"group {index}", 0, group.width) for index, group in enumerate(space.groups)]
        carries = carried(graph.model.graph)
        known = {tensor.name: tensor for layer in space.layers for tensor in layer.tensors}
        for name in graph.weights:
            tensor = _tensor_of(name, carries, known)
            if tensor is not None:
                self._begin(name, tensor, members)
        for node in graph.nodes:
            weights = [_tensor_of(name, carries, known) for name in node.inputs[1:2]]
            node.equal_parts = any(one is not None and 1 in dict(one.axes) for one in weights)
        flow.settle()
        self._number(members)

    def _begin(self, name: str, tensor: Tensor, members: Sequence[Labels]) -> None:
        """Give the axes of a weight the labels of the tensor that it is."""
        axes, shape = dict(tensor.axes), self.graph.weights[name]
        for axis, size in enumerate(shape):
            if size != tensor.shape[axis]:
                raise _foreign(name, shape)
            if size > 1:
                self._tie(name, axis, axes.get(axis), members)

    def _tie(self, name: str, axis: int, channels: ChannelMap | None, members: Sequence[Labels]) -> None:
        """Tie the labels of a weight's axis to those of its groups; freeze those of none."""
        labels = self.flow.labels(name, axis, self.graph.weights[name][axis])
        if channels is None:
            self.flow.freeze(labels, "frozen")
            return
        if channels.size != len(labels):
            raise _foreign(name, self.graph.weights[name])
        self.flow.freeze(labels[channels.group_of == FROZEN], "frozen")
        for group in channels.groups:
            mine = channels.group_of == group
            self.flow.tie(labels[mine], members[group][channels.channel_of[mine]])

    def _number(self, members: Sequence[Labels]) -> None:
        """Canonical label -> its group and channel; what belongs to no group stays."""
        count = len(self.flow.canonical)
        self.group, self.channel = np.full(count, FROZEN), np.zeros(count, dtype=np.int64)
        nothing = np.zeros(0, dtype=np.int64)
        group = np.repeat(np.arange(len(members)), [len(labels) for labels in members])
        channel = np.concatenate([nothing, *(np.arange(len(labels)) for labels in members)])
        root = self.flow.canonical[np.concatenate([nothing, *members])]
        order = np.argsort(-channel, kind="stable")  # of several channels in one class the first counts
        self.group[root[order]], self.channel[root[order]] = group[order], channel[order]
        self.group[FIXED] = FROZEN

    def map(self, labels: Labels) -> ChannelMap:
        """The channel map of canonical labels: (size,)."""
        return ChannelMap.of(self.group[labels], self.channel[labels])

    def keeps(self, widths: Sequence[int]) -> NDArray[np.bool_]:
        """Canonical label -> whether it is kept at `widths`."""
        limits = np.append(np.asarray(widths, dtype=np.int64), np.iinfo(np.int64).max)
        return np.asarray(self.channel < limits[self.group])

    def axis(self, name: str, axis: int) -> ChannelMap | None:
        """The channel map of an axis of a weight or constant, None where nothing of it goes."""
        labels = self.flow.axes.get((name, axis))
        if labels is None:
            return None
        channels = self.map(self.flow.canonical[labels])
        return channels if channels.groups else None

    def channels(self, tensor: str) -> ChannelMap:
        """The map of a tensor's channels: of the axis that follows groups, or else of the usual one."""
        labelled = self.flow.tensor(tensor)
        for factor in labelled.factors:
            if axes_of(factor):
                return self.map(factor.ravel())
        shape = labelled.shape
        usual = 1 if len(shape) in (2, 4, 5) else len(shape) - 1
        return ChannelMap.frozen(shape[usual] if shape else 1)

    def sizes(self, tensor: str, keeps: NDArray[np.bool_]) -> tuple[int, ...]:
        """The shape of a tensor in a pruned network.

        Args:
            tensor: Its name.
            keeps: What `keeps` says of the network's widths.
        """
        axes = range(len(self.flow.tensor(tensor).shape))
        return tuple(int(self.kept(tensor, axis, keeps).sum()) for axis in axes)

    def kept(self, tensor: str, axis: int, keeps: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Which positions of a tensor's axis a pruned network keeps: (size,)."""
        labelled = self.flow.tensor(tensor)
        present = np.ones(labelled.shape[axis], dtype=bool)
        for factor in labelled.varying(axis):
            others = tuple(place for place in range(factor.ndim) if place != axis)
            present &= keeps[factor].any(axis=others)
        return present


def _tensor_of(name: str, carries: Mapping[str, str], known: Mapping[str, Tensor]) -> Tensor | None:
    """The tensor of a space that a weight is, perhaps in another number format; None where it is none."""
    for other in (carries.get(name, name), bare(name)):
        if other in known:
            return known[other]
    return None


def _foreign(name: str, shape: tuple[int, ...]) -> ModelError:
    return ModelError(
        "This ONNX is not the unpruned model of the search space.",
        where=name,
        got=shape,
        do="export the unpruned model again",
    )
