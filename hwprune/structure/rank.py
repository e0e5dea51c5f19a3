"""Order the channels of every group by importance, so that the leading ones are those worth keeping."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from hwprune.structure.orders import local_order, orders
from hwprune.structure.prune import light_copy

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor, nn

    from hwprune.structure.space import SearchSpace


def sort_channels(model: nn.Module, space: SearchSpace, scores: Sequence[Tensor]) -> nn.Module:
    """The same network with the channels of each group in another order; it computes the same.

    Args:
        model: The traced model; it is not modified.
        space: What `trace` returned for it.
        scores: For each group the importance of its channels, (width,); the largest come first.

    Returns:
        A copy. Groups of which some tensor holds only a part keep their order; see `orders`.
    """
    found = orders(space, [score.detach().cpu().numpy() for score in scores])
    twin = light_copy(model)
    done: set[int] = set()
    state: dict[str, Tensor] = dict(twin.named_parameters(remove_duplicate=False))
    state |= twin.named_buffers(remove_duplicate=False)
    with torch.no_grad():
        for tensor in (one for layer in space.layers for one in layer.tensors if one.axes):
            value = state.get(tensor.name)
            if value is not None and id(value) not in done:
                done.add(id(value))
                for axis, channels in tensor.axes:
                    index = torch.from_numpy(local_order(channels, found)).to(value.device)
                    value.data = value.index_select(axis, index)
        for value in twin.parameters():
            if id(value) not in done:
                value.data = value.clone()
    return twin
