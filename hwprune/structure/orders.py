"""Other orders of the channels of a space, in which a network computes the same. No torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import ArrayLike, NDArray

    from hwprune.structure.layers import ChannelMap
    from hwprune.structure.space import SearchSpace


def orders(space: SearchSpace, scores: Sequence[ArrayLike]) -> dict[int, NDArray[np.int64]]:
    """Group -> its channels, those of the largest scores first.

    Channels that go together (a conv group, the same place in each norm group) change places together. Groups
    of which some tensor holds only a part have no other order.

    Args:
        space: The space.
        scores: For each group (width,).
    """
    whole = np.ones(len(space.groups), dtype=bool)
    for channels in _maps(space):
        for group in channels.groups:
            counts = _counts(channels, group, space.groups[group].width, space.groups[group].multiple)
            whole[group] &= bool((counts == counts[0]).all())
    found = {}
    for index in np.flatnonzero(whole).tolist():
        multiple = space.groups[index].multiple
        units = np.asarray(scores[index], dtype=np.float64).reshape(-1, multiple).sum(1)
        order = np.argsort(-units, kind="stable")
        found[index] = (order[:, None] * multiple + np.arange(multiple)).ravel()
    return found


def _maps(space: SearchSpace) -> Iterator[ChannelMap]:
    for layer in space.layers:
        for tensor in layer.tensors:
            for _, channels in tensor.axes:
                yield channels


def _counts(channels: ChannelMap, group: int, width: int, multiple: int) -> NDArray[np.int64]:
    """How often an axis holds each place of each unit of a group: (units, multiple)."""
    mine = channels.channel_of[channels.group_of == group]
    return np.bincount(mine, minlength=width).reshape(-1, multiple)


def local_order(channels: ChannelMap, found: Mapping[int, NDArray[np.int64]]) -> NDArray[np.int64]:
    """New order of the local channels of one dimension: (size,)."""
    order = np.arange(channels.size)
    for group in channels.groups:
        if group in found:
            places = np.flatnonzero(channels.group_of == group)
            followed = channels.channel_of[places]
            # Places sorted by the channel that they follow: the k-th place of a channel takes from the k-th
            # place of the channel that replaces it.
            by_channel = places[np.argsort(followed, kind="stable")]
            starts = np.searchsorted(np.sort(followed), np.arange(len(found[group])))
            nth = np.empty(len(places), dtype=np.int64)
            nth[np.argsort(followed, kind="stable")] = np.arange(len(places)) - starts[np.sort(followed)]
            order[places] = by_channel[starts[found[group][followed]] + nth]
    return order
