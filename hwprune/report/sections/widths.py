"""Channels of every group and layer, before and after."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hwprune.report.draw import before_after
from hwprune.report.parts import Plot, Section, Table
from hwprune.report.words import change
from hwprune.structure.layers import within

if TYPE_CHECKING:
    from hwprune.report.facts import Report


def widths(report: Report) -> Section:
    """The section."""
    search = report.search
    count = len(search.groups)
    chosen = tuple(
        0 if any(within(name, block) for block in search.left_out) else width
        for name, width in zip(search.groups, search.widths[:count], strict=True)
    )
    groups = tuple(
        (name, str(full), str(width) if width else "left out", f"{width / full:.0%}")
        for name, full, width in zip(search.groups, search.full_widths, chosen, strict=False)
    )
    table = Table(title="Channel groups", head=("channel group", "unpruned", "pruned", "kept"), rows=groups)
    plots = (_plot(search.groups, search.full_widths[:count], chosen, table),)
    told = ["Layers of one channel group keep the same channels: what they make is added or read together."]
    if search.blocks:
        gone = ", ".join(search.left_out) or "none"
        told.append(
            f"Of {len(search.blocks)} blocks that may go, {len(search.left_out)} are left out: {gone}."
        )
    if not report.layers:
        told.append("The layers are not shown: the search space (search-space.json) is gone.")
        return Section(title="Widths", text=tuple(told), plots=plots)
    rows = tuple((one.name, one.op, change(one.inputs), change(one.outputs)) for one in report.layers)
    head = ("layer", "operation", "channels read", "channels made")
    layers = Table(title="Layers", head=head, rows=rows, folded=True)
    return Section(title="Widths", text=tuple(told), plots=plots, tables=(layers,))


def _plot(names: tuple[str, ...], before: tuple[int, ...], after: tuple[int, ...], table: Table) -> Plot:
    data, layout, height = before_after(names, before, after, "channels")
    caption = "Channels of every channel group, unpruned and pruned"
    return Plot(caption=caption, data=data, layout=layout, table=table, height=height)
