"""The report as one HTML page that opens without a network: verdict, figures, latency over width."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

from hwprune.report.words import (
    FRONT_HEAD,
    change,
    front_line,
    front_rows,
    front_title,
    inversion_lines,
    score_words,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from hwprune.latency.curves import WidthCurve
    from hwprune.latency.staircase import Staircase
    from hwprune.report.facts import Report

_STYLE = """
:root { color-scheme: light dark; --line: #8886; }
body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 76rem; padding: 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.2rem; margin-top: 2.5rem; }
.verdict { font-size: 1.1rem; border-left: 4px solid #2a7de1; padding: .4rem .8rem; }
.missed { border-color: #d33; }
table { border-collapse: collapse; }
td, th { padding: .2rem .8rem .2rem 0; border-bottom: 1px solid var(--line); text-align: right; }
td:first-child, th:first-child { text-align: left; }
.wide { overflow-x: auto; } .grid { display: grid; gap: .5rem;
  grid-template-columns: repeat(auto-fill, minmax(17rem, 1fr)); }
"""
_GREY = "#888888"  # readable on a light and on a dark page
_COLOURS = ("#2a7de1", "#e1812a", "#2aa876", "#c44fc4", "#b0a030", "#d9534f")
_LEGEND_LAYERS = 3  # a legend of more layers leaves no room for the curves


def page(report: Report) -> str:
    """The page as text."""
    search = report.search
    title = f"{search.model} under {search.budget}"
    mark = "" if report.met else " missed"
    parts = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="verdict{mark}">{escape(report.verdict)}</p>',
        _table(("", "unpruned", "pruned", ""), ((r.name, r.base, r.pruned, r.change) for r in report.rows)),
        *_front(report),
        *_staircase(report.staircase),
        *_curves(report),
        "<h2>Is narrower faster?</h2>",
        "<ul>" + "".join(f"<li>{escape(line)}</li>" for line in inversion_lines(report)) + "</ul>",
        "<h2>Layers</h2>",
        _table(
            ("layer", "", "channels read", "channels made"),
            ((layer.name, layer.op, change(layer.inputs), change(layer.outputs)) for layer in report.layers),
        ),
    ]
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width">'
    head += f"<title>{escape(title)}</title>"
    script = _script() if report.staircase or report.curves or report.front else ""
    return (
        f'<!doctype html>\n<html lang="en"><head>{head}<style>{_STYLE}</style>{script}</head>\n<body>\n'
        + "\n".join(parts)
        + "\n</body></html>\n"
    )


def _script() -> str:
    from plotly.offline import get_plotlyjs

    return f"<script>{get_plotlyjs()}</script>"


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    cells = "".join(f"<th>{escape(name)}</th>" for name in head)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f'<div class="wide"><table><tr>{cells}</tr>{body}</table></div>'


def _plot(figure: Any, height: int, *, from_zero: bool = True) -> str:
    """A figure that needs the page's script, in colours for light and dark pages."""
    mode = "tozero" if from_zero else "normal"
    axis = {"gridcolor": "rgba(128,128,128,0.25)", "zeroline": False, "rangemode": mode}
    figure.update_layout(
        height=height,
        margin={"l": 50, "r": 10, "t": 36, "b": 40},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"color": _GREY, "size": 11},
        legend={"orientation": "h", "y": -0.25, "font": {"size": 9}},
    )
    figure.update_xaxes(**axis).update_yaxes(**axis)
    config = {"responsive": True, "displaylogo": False, "displayModeBar": False}
    return str(figure.to_html(full_html=False, include_plotlyjs=False, config=config))


def _front(report: Report) -> list[str]:
    """Score against latency of the networks of a range of budgets."""
    if report.front is None:
        return []
    import plotly.graph_objects as go

    points = report.front.points
    scatter = go.Scatter(
        x=[one.latency.value for one in points],
        y=[100 * one.score for one in points],
        error_x={"array": [one.latency.error or 0.0 for one in points]},
        text=[str(number) for number in range(1, len(points) + 1)],
        mode="lines+markers+text",
        textposition="top left",
        line={"color": _COLOURS[0]},
    )
    figure = go.Figure(scatter)
    figure.add_vline(x=report.search.latency.value, line={"color": _GREY, "dash": "dash"})
    how = "measured" if points[0].latency.is_measured else "PREDICTED, NOT MEASURED"
    figure.update_xaxes(title=f"ms, {how}").update_yaxes(title=f"{score_words(points[0])}, %")
    plot = _plot(figure, 360, from_zero=False)
    return [
        f"<h2>{front_title(report.front)}</h2>",
        f"<p>{escape(front_line(report.front))} The dashed line is the chosen network.</p>",
        plot,
        _behind(_table(FRONT_HEAD, front_rows(report.front))),
    ]


def _staircase(found: Staircase | None) -> list[str]:
    """The device's own steps, as they were measured."""
    if found is None:
        return []
    import plotly.graph_objects as go

    us = [round(1e3 * ms, 2) for ms in found.latency_ms]
    error_us = [round(1e3 * ms, 3) for ms in found.error_ms]
    steps = go.Scatter(
        x=found.channels, y=us, error_y={"array": error_us}, mode="lines+markers", line={"color": _COLOURS[0]}
    )
    figure = go.Figure(steps)
    if found.multiple > 1:
        for channels in range(found.multiple, max(found.channels) + 1, found.multiple):
            if channels >= min(found.channels):
                figure.add_vline(x=channels, line={"color": _GREY, "width": 1, "dash": "dot"})
    figure.update_xaxes(title="channels of the probed layer").update_yaxes(title="µs")
    text = (
        "A 3x3 convolution from 64 channels to each width and back to 64, measured. The latency has steps "
        f"of {found.multiple} channels; the search keeps to their multiples, and to parts of them in narrow "
        "groups."
        if found.multiple > 1
        else "A 3x3 convolution from 64 channels to each width and back, measured. No steps were found."
    )
    rows = zip(found.channels, us, error_us, strict=True)
    return [
        "<h2>Steps of the device</h2>",
        f"<p>{text}</p>",
        _plot(figure, 320),
        _behind(_table(("channels", "µs", "standard error, µs"), rows)),
    ]


def _behind(table: str) -> str:
    return f"<details><summary>The figures as a table</summary>{table}</details>"


def _curves(report: Report) -> list[str]:
    """Latency over width, one small plot for each channel group."""
    if report.curves is None:
        return []
    chosen = dict(zip(report.search.groups, report.search.widths, strict=True))
    plots = "".join(f"<div>{_curve(one, chosen.get(one.group))}</div>" for one in report.curves.curves)
    rows = (
        (one.group, layer, width, f"{us:.4g}")
        for one in report.curves.curves
        for layer, times in one.layers_us.items()
        for width, us in zip(one.widths, times, strict=True)
    )
    return [
        "<h2>Latency over width, layer by layer</h2>",
        "<p>Predicted from the latency table, all other groups at full width. One plot for each channel "
        "group, one line for each of its layers; the dashed line is the chosen width.</p>",
        f'<div class="grid">{plots}</div>',
        _behind(_table(("channel group", "layer", "width", "µs"), rows)),
    ]


def _curve(one: WidthCurve, chosen: int | None) -> str:
    import plotly.graph_objects as go

    figure = go.Figure()
    for index, (layer, times) in enumerate(one.layers_us.items()):
        line = {"color": _COLOURS[index % len(_COLOURS)], "width": 1.5}
        figure.add_scatter(
            x=one.widths, y=times, name=layer, mode="lines+markers", line=line, marker={"size": 4}
        )
    if chosen is not None:
        figure.add_vline(x=chosen, line={"color": _GREY, "dash": "dash"})
    figure.update_layout(title={"text": one.group, "font": {"size": 12}})
    figure.update_layout(showlegend=len(one.layers_us) <= _LEGEND_LAYERS)
    figure.update_xaxes(title="channels").update_yaxes(title="µs")
    return _plot(figure, 260)
