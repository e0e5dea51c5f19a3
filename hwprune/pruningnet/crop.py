"""Cropping a full-width tensor to the channels that widths keep."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from torch import Tensor

    from hwprune.structure.space import ChannelMap, Widths

_Selection = slice | np.ndarray


class Crop:
    """Keeps the channels that widths keep, along the prunable axes of one tensor.

    Args:
        axes: (axis, map) for each prunable axis, as in `structure.space.Tensor`.
    """

    def __init__(self, axes: tuple[tuple[int, ChannelMap], ...]) -> None:
        self.axes = tuple((axis, channels) for axis, channels in axes if channels.groups)
        self._widths: Widths | None = None
        self._selections: list[tuple[int, _Selection]] = []

    def __call__(self, tensor: Tensor, widths: Widths) -> Tensor:
        """The kept channels of `tensor`: a view where they are the leading ones, else a copy."""
        for axis, selection in self._select(widths):
            if isinstance(selection, slice):
                tensor = tensor.narrow(axis, 0, selection.stop)
            else:
                tensor = tensor.index_select(axis, torch.from_numpy(selection).to(tensor.device))
        return tensor

    def views(self, widths: Widths) -> bool:
        """Whether the kept channels are the leading ones, so that the crop is a view."""
        return all(isinstance(selection, slice) for _, selection in self._select(widths))

    def _select(self, widths: Widths) -> list[tuple[int, _Selection]]:
        if widths != self._widths:
            self._selections = [(axis, _selection(channels, widths)) for axis, channels in self.axes]
            self._widths = widths
        return self._selections


def _selection(channels: ChannelMap, widths: Widths) -> _Selection:
    """The kept local channels as a leading slice when they are one (a view costs nothing)."""
    kept = channels.kept(widths)
    leading = kept.size > 0 and int(kept[-1]) == kept.size - 1
    return slice(0, kept.size) if leading else kept
