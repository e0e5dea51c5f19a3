"""Order the channels of every group by importance, so that the leading ones are those worth keeping."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor, nn

    from hwprune.structure.layers import ChannelMap
    from hwprune.structure.space import SearchSpace


def sort_channels(model: nn.Module, space: SearchSpace, scores: Sequence[Tensor]) -> nn.Module:
    """The same network with the channels of each group in another order; it computes the same.

    Args:
        model: The traced model; it is not modified.
        space: What `trace` returned for it.
        scores: For each group the importance of its channels, (width,); the largest come first.

    Returns:
        A copy. Groups whose channels cannot change places keep their order: those of grouped convolutions,
        and those of which some tensor holds only a part.
    """
    orders = _orders(space, scores)
    twin = copy.deepcopy(model)
    state = twin.state_dict()
    with torch.no_grad():
        for layer in space.layers:
            for tensor in layer.tensors:
                for axis, channels in tensor.axes:
                    index = torch.from_numpy(_local_order(channels, orders)).to(state[tensor.name].device)
                    state[tensor.name].copy_(state[tensor.name].index_select(axis, index))
    return twin


def _orders(space: SearchSpace, scores: Sequence[Tensor]) -> dict[int, NDArray[np.int64]]:
    """Group -> its channels in their new order, for groups that can be sorted."""
    whole = {index: group.multiple == 1 for index, group in enumerate(space.groups)}
    for layer in space.layers:
        for channels in (layer.inputs, layer.outputs, *(where for t in layer.tensors for _, where in t.axes)):
            for run in channels.runs:
                if run.group in whole and run.length != space.groups[run.group].width:
                    whole[run.group] = False
    return {
        index: torch.argsort(scores[index], descending=True, stable=True).cpu().numpy()
        for index, sortable in whole.items()
        if sortable
    }


def _local_order(channels: ChannelMap, orders: dict[int, NDArray[np.int64]]) -> NDArray[np.int64]:
    """New order of the local channels of one dimension: (size,)."""
    pieces, offset = [], 0
    for run in channels.runs:
        local = np.arange(run.length * run.repeat).reshape(run.length, run.repeat)
        if run.group in orders:
            local = local[orders[run.group]]
        pieces.append(offset + local.ravel())
        offset += run.length * run.repeat
    return np.concatenate(pieces)
