"""Where the time goes, layer by layer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hwprune.report.draw import before_after
from hwprune.report.parts import Plot, Section, Table, missing
from hwprune.units import format_ms

if TYPE_CHECKING:
    from hwprune.report.facts import Report

_TITLE = "Where the time goes"


def times(report: Report) -> Section:
    """The section."""
    search = report.search
    if not search.layer_times:
        return missing(_TITLE, "the search left no times of layers.")
    names = [*search.layer_times]
    before, after = zip(*search.layer_times.values(), strict=True)
    data, layout, height = before_after(names, before, after, "µs, predicted")
    rows = [_row(*one) for one in zip(names, before, after, strict=True)]
    rows.append(_row("all", sum(before), sum(after)))
    head = ("layer", "unpruned", "pruned", "of the unpruned", "saved")
    return Section(
        title=_TITLE,
        text=(_text(sum(before), sum(after), search.profile),),
        plots=(
            Plot(
                caption="Predicted time of every layer, unpruned and pruned",
                data=data,
                layout=layout,
                table=Table(title="Predicted time of every layer", head=head, rows=tuple(rows)),
                height=height,
            ),
        ),
    )


def _text(before_us: float, after_us: float, device: str) -> str:
    return (
        f"Predicted from the latency table of {device}, kernel by kernel: {format_ms(before_us / 1e3)} in "
        f"all for the unpruned network, {format_ms(after_us / 1e3)} for the pruned one. In brackets stands "
        "what is no layer: additions, pooling, changes of memory layout, and what a run needs besides its "
        "kernels."
    )


def _row(name: str, before_us: float, after_us: float) -> tuple[str, ...]:
    share = f"{after_us / before_us:.0%}" if before_us > 0 else ""
    return (name, f"{before_us:.2f} µs", f"{after_us:.2f} µs", share, f"{before_us - after_us:.2f} µs")
