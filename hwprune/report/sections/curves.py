"""Latency over width: the device's own steps, every channel group, and where narrower is not faster."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hwprune.report.draw import digits, errors, points
from hwprune.report.parts import Plot, Section, Table, missing
from hwprune.report.style import SERIES, axis, line_at
from hwprune.report.words import inversion_lines
from hwprune.structure.layers import within

if TYPE_CHECKING:
    from hwprune.latency.staircase import Staircase
    from hwprune.latency.width_sweep import WidthCurve
    from hwprune.report.facts import Report

_LEGEND_LAYERS = 3  # a legend of more layers leaves no room for the curves
_ELSEWHERE = "of a latency table from elsewhere only the figures of its networks are known here."
_STEPS = "Steps of the device"
_CURVES = "Latency over width, layer by layer"


def steps(report: Report) -> Section:
    """The device's own steps, as they were measured."""
    found = report.staircase
    if found is None:
        why = _ELSEWHERE if report.profile is None else "the channel multiple was given, not looked for."
        return missing(_STEPS, why)
    text = "A 3x3 convolution from 64 channels to each width and back to 64, measured. "
    if found.multiple > 1:
        text += (
            f"The latency has steps of {found.multiple} channels; the search keeps to their multiples, and "
            "to parts of them in narrow groups."
        )
    else:
        text += "No steps were found."
    return Section(title=_STEPS, text=(text,), plots=(_steps_plot(found),))


def _steps_plot(found: Staircase) -> Plot:
    us = [digits(1e3 * ms) for ms in found.latency_ms]
    error_us = [digits(1e3 * ms) for ms in found.error_ms]
    trace = points(
        "measured",
        found.channels,
        us,
        "@blue",
        size=6,
        mode="lines+markers",
        error_y=errors(error_us, "@blue"),
        hovertemplate="%{x} channels: %{y} µs",
    )
    low, high = min(found.channels), max(found.channels)
    multiples = range(found.multiple, high + 1, found.multiple) if found.multiple > 1 else ()
    lines = [line_at(one, "@pale", "dot") for one in multiples if one >= low]
    rows = zip(map(str, found.channels), map(str, us), map(str, error_us), strict=True)
    return Plot(
        caption="Measured latency of one layer over its width; dotted: multiples of the device's step",
        data=(trace,),
        layout={
            "shapes": [{**line, "layer": "below"} for line in lines],
            "xaxis": axis("channels of the probed layer"),
            "yaxis": axis("µs", from_zero=True),
            "showlegend": False,
        },
        table=Table(
            title="Measured latency of one layer over its width",
            head=("channels", "µs", "standard error, µs"),
            rows=tuple(rows),
        ),
    )


def curves(report: Report) -> Section:
    """Latency over width, one small plot for each channel group, and the inversions."""
    if report.curves is None:
        return missing(_CURVES, _ELSEWHERE)
    search = report.search
    chosen = {
        name: width
        for name, width in zip(search.groups, search.widths, strict=False)
        if not any(within(name, block) for block in search.left_out)
    }
    return Section(
        title=_CURVES,
        text=(
            "Predicted from the latency table, all other groups at full width. One plot for each channel "
            "group, one line for each of its layers; the dashed line is the chosen width.",
        ),
        plots=tuple(_curve(one, chosen.get(one.group)) for one in report.curves.curves),
    )


def _curve(one: WidthCurve, chosen: int | None) -> Plot:
    traces = tuple(
        points(
            layer,
            one.widths,
            [digits(us) for us in times],
            SERIES[index % len(SERIES)],
            size=5,
            mode="lines+markers",
            hovertemplate="%{x} channels: %{y} µs",
        )
        for index, (layer, times) in enumerate(one.layers_us.items())
    )
    rows = tuple(
        (layer, ", ".join(f"{w}: {us:.3g}" for w, us in zip(one.widths, times, strict=True)))
        for layer, times in one.layers_us.items()
    )
    where = "" if chosen is None else f", {chosen} of {max(one.widths)} channels chosen"
    return Plot(
        caption=f"Group {one.group}{where}",
        data=traces,
        layout={
            "shapes": [] if chosen is None else [line_at(chosen)],
            "showlegend": 1 < len(traces) <= _LEGEND_LAYERS,
            "xaxis": axis("channels"),
            "yaxis": axis("µs", from_zero=True),
        },
        table=Table(
            title=f"Predicted µs of the layers of {one.group} at each of its widths",
            head=("layer", "width: µs"),
            rows=rows,
        ),
        height=270,
        small=True,
    )


def inverted(report: Report) -> Section:
    """Where a narrower network is not the faster one."""
    return Section(title="Is narrower faster?", points=tuple(inversion_lines(report)))
