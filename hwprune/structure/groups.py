"""From labels to channel groups: which channels have one width, and in which order they go. No torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from hwprune.structure.labels import FIXED, components
from hwprune.structure.layers import FROZEN, ChannelMap

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from hwprune.structure.flow import Flow
    from hwprune.structure.labels import Labels

Axis = tuple[str, int]


@dataclass
class Groups:
    """The channel groups of a graph.

    Attributes:
        flow: The labels that they were found on.
        names: Axis that each group is named after.
        widths: Channels of that axis in each group.
        multiples: How many of them go at a time.
        group: Canonical label -> its group, or `FROZEN`.
        channel: Canonical label -> the group's channel that it follows.
        reasons: Canonical label -> why it has no group, beyond what the flow knows.
    """

    flow: Flow
    names: list[Axis] = field(default_factory=list)
    widths: list[int] = field(default_factory=list)
    multiples: list[int] = field(default_factory=list)
    group: Labels = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    channel: Labels = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    reasons: dict[int, str] = field(default_factory=dict)

    def map(self, labels: Labels) -> ChannelMap:
        """The channel map of an axis whose positions began with these labels: (size,)."""
        classes = self.flow.canonical[labels]
        return ChannelMap.of(self.group[classes], self.channel[classes])

    def axis(self, axis: Axis) -> ChannelMap:
        """The channel map of an axis of a weight."""
        labels = self.flow.axes.get(axis)
        if labels is None:
            return ChannelMap.frozen(self.flow.graph.weights[axis[0]][axis[1]])
        return self.map(labels)

    def why_frozen(self, labels: Labels) -> str:
        """Why the first of some labels without a group has none; "" when all have one."""
        for label in np.ravel(labels).tolist():
            root = int(self.flow.canonical[label])
            if self.group[root] == FROZEN:
                reason = self.flow.reason(np.array([label])) if root == FIXED else self.reasons.get(root)
                return reason or "nothing reads them apart"
        return ""


def find_groups(flow: Flow, makers: Sequence[Axis]) -> Groups:
    """Group the channels of a graph.

    Channels that must lose equally many, row by row, are paired by position into *units* that go as a whole.
    Units that occur in the same axes are one group.

    Args:
        flow: The labels.
        makers: The output axes of convolutions and linear layers, in the order that names groups.
    """
    groups = Groups(flow)
    unit = _units(flow, _present(flow), groups.reasons)
    groups.group = np.full(len(flow.canonical), FROZEN, dtype=np.int64)
    groups.channel = np.zeros(len(flow.canonical), dtype=np.int64)
    order = {axis: place for place, axis in enumerate(makers)}
    named = []
    for axes, units in _by_axes(flow, unit).items():
        makes = [axis for axis in axes if axis in order]
        named.append((min(makes, key=order.__getitem__) if makes else axes[0], units))
    for axis, units in sorted(named, key=lambda entry: (order.get(entry[0], len(order)), entry[1][0])):
        _enter(groups, axis, units, unit)
    return groups


def _by_axes(flow: Flow, unit: Labels) -> dict[tuple[Axis, ...], list[int]]:
    """Axes of weights -> the units that occur in just these."""
    where: dict[int, list[Axis]] = {}
    for axis, labels in flow.axes.items():
        if axis[0] in flow.graph.weights:
            for one in np.unique(unit[flow.canonical[labels]]).tolist():
                if one != FIXED:
                    where.setdefault(one, []).append(axis)
    members: dict[tuple[Axis, ...], list[int]] = {}
    for one, axes in where.items():
        members.setdefault(tuple(axes), []).append(one)
    return members


def _present(flow: Flow) -> Labels:
    """Canonical labels that some weight has."""
    found = [flow.canonical[labels] for axis, labels in flow.axes.items() if axis[0] in flow.graph.weights]
    unique = np.unique(np.concatenate(found)) if found else np.zeros(0, dtype=np.int64)
    return np.asarray(unique[unique != FIXED])


def _units(flow: Flow, present: Labels, reasons: dict[int, str]) -> Labels:
    """Canonical label -> the smallest label of its unit; 0 for what stays, with the reason entered."""
    count = len(flow.canonical)
    stays = np.ones(count, dtype=bool)
    stays[present] = False
    rows = [(matrix, [_ordered(line) for line in matrix], reason) for matrix, reason in flow.steps]
    while True:
        pairs: list[tuple[Labels, Labels]] = []
        before = stays.sum()
        for matrix, lines, reason in rows:
            left = [line[~stays[line]] for line in lines]
            if len({len(line) for line in left}) > 1:
                if stays[matrix].any():
                    _stay(stays, reasons, np.concatenate(left), reason)
                    continue
                left = list(
                    matrix
                )  # some rows hold conv groups, others single channels: position by position
            pairs += [(left[0], line) for line in left[1:]]
        unit = components(count, pairs)
        stays[present] |= np.isin(unit[present], np.unique(unit[present][stays[present]]))
        for matrix, reason in flow.steps:
            uneven = _uneven(matrix, np.where(stays[unit], FIXED, unit))
            _stay(stays, reasons, np.flatnonzero(np.isin(unit, uneven)), reason)
        if stays.sum() == before:
            return np.where(stays, FIXED, unit)


def _ordered(line: Labels) -> Labels:
    """The labels of a row, each once, in their order."""
    labels, first = np.unique(line, return_index=True)
    return labels[np.argsort(first)]


def _stay(stays: Labels, reasons: dict[int, str], labels: Labels, reason: str) -> None:
    for label in labels.tolist():
        if not stays[label]:
            reasons.setdefault(label, reason)
    stays[labels] = True


def _uneven(matrix: Labels, unit: Labels) -> Labels:
    """Units that do not occur equally often in each row."""
    units = unit[matrix]
    kinds = np.unique(units)
    counts = np.stack([np.bincount(np.searchsorted(kinds, line), minlength=len(kinds)) for line in units])
    found = kinds[(counts != counts[0]).any(0)]
    return np.asarray(found[found != FIXED])


def _enter(groups: Groups, axis: Axis, units: Iterable[int], unit: Labels) -> None:
    """Make one group of some units, named after an axis; a single unit gets the reason why it is none."""
    classes = groups.flow.canonical[groups.flow.axes[axis]]
    local, wanted = unit[classes], set(units)
    ordered = [one for one in dict.fromkeys(local.tolist()) if one in wanted]
    sizes = {int((local == one).sum()) for one in ordered}
    if len(ordered) < 2:
        text = (
            f"all channels of {axis[0]} go together"
            if max(sizes) > 1
            else f"{axis[0]} makes a single channel"
        )
        for label in np.flatnonzero(unit == ordered[0]).tolist():
            groups.reasons.setdefault(label, text)
        return
    multiple = sizes.pop() if len(sizes) == 1 else 1
    number = len(groups.names)
    groups.names.append(axis)
    groups.widths.append(multiple * len(ordered))
    groups.multiples.append(multiple)
    place = {one: index for index, one in enumerate(ordered)}
    rank = _ranks(local, classes, wanted) if multiple > 1 else {}
    for label in np.flatnonzero(np.isin(unit, ordered)).tolist():
        groups.group[label] = number
        groups.channel[label] = place[int(unit[label])] * multiple + rank.get(label, 0)


def _ranks(local: Labels, classes: Labels, wanted: Collection[int]) -> dict[int, int]:
    """Canonical label -> how many positions of its unit come before it on an axis.

    Args:
        local: Unit of each position, (size,).
        classes: Canonical label of each position, (size,).
        wanted: Units to look at.
    """
    rank: dict[int, int] = {}
    seen: dict[int, int] = {}
    for one, label in zip(local.tolist(), classes.tolist(), strict=True):
        if one in wanted:
            rank.setdefault(label, seen.get(one, 0))
            seen[one] = seen.get(one, 0) + 1
    return rank
