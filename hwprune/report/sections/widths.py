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
    plots = [_plot("channel group", search.groups, search.full_widths[:count], chosen, table)]
    told = ["Layers of one channel group keep the same channels: what they make is added or read together."]
    if search.blocks:
        gone = ", ".join(search.left_out) or "none"
        told.append(
            f"Of {len(search.blocks)} blocks that may go, {len(search.left_out)} are left out: {gone}."
        )
    if not report.layers:
        told.append("The layers are not shown: the search space (search-space.json) is gone.")
        return Section(title="Widths", text=tuple(told), plots=tuple(plots))
    rows = tuple((one.name, one.op, change(one.inputs), change(one.outputs)) for one in report.layers)
    layers = Table(title="Layers", head=("layer", "operation", "channels read", "channels made"), rows=rows)
    # A classifier's thousand outputs, which are never pruned, would leave no room for the others.
    drawn = [one for one in report.layers if one.op == "conv"]
    before, after = (tuple(one.outputs[which] for one in drawn) for which in (0, 1))
    plots.append(_plot("convolution", tuple(one.name for one in drawn), before, after, layers))
    return Section(title="Widths", text=tuple(told), plots=tuple(plots))


def _plot(
    what: str, names: tuple[str, ...], before: tuple[int, ...], after: tuple[int, ...], table: Table
) -> Plot:
    data, layout, height = before_after(names, before, after, "channels")
    caption = f"Channels of every {what}, unpruned and pruned"
    return Plot(caption=caption, data=data, layout=layout, table=table, height=height)
