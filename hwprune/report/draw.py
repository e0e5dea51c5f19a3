"""Traces that several sections draw with."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

from hwprune.report.style import axis

if TYPE_CHECKING:
    from collections.abc import Sequence

_ROW, _FRAME = 19, 70  # pixels of a row of bars, and around all of them
NAME = 22  # letters of a name beside a bar; a phone has no room for more
_US_BELOW_MS = 1.0


def unit_of(base_ms: float) -> tuple[float, str]:
    """What to multiply milliseconds with so that they read well, and the unit that this gives."""
    return (1e3, "µs") if base_ms < _US_BELOW_MS else (1.0, "ms")


def digits(value: float) -> float:
    """Four significant digits: a page of plots need not carry more."""
    return float(f"{value:.4g}")


def points(
    name: str,
    x: Sequence[float],
    y: Sequence[float | None],
    colour: str,
    *,
    symbol: str = "circle",
    size: int = 8,
    mode: str = "markers",
    **more: Any,
) -> dict[str, Any]:
    """A trace of points; `more` is Plotly's."""
    edge = {"color": colour, "width": 2} if symbol.endswith("-open") else {"color": "@page", "width": 1}
    marker = {"color": colour, "symbol": symbol, "size": size, "line": edge}
    line = {"color": colour, "width": 2}
    where = {"x": list(x), "y": list(y)}
    return {
        "type": "scatter",
        "name": escape(name),
        "mode": mode,
        "marker": marker,
        "line": line,
        **where,
    } | more


def errors(values: Sequence[float], colour: str) -> dict[str, Any]:
    """Error bars of one standard error."""
    return {"type": "data", "array": list(values), "color": colour, "thickness": 1.2, "width": 3}


def before_after(
    names: Sequence[str], before: Sequence[float], after: Sequence[float], title: str
) -> tuple[tuple[dict[str, Any], ...], dict[str, Any], int]:
    """Bars of both networks, one row for each name: traces, layout and height.

    The pruned network's bar is the narrower one and lies on the other, so both are seen whichever is longer.
    """
    rows = list(range(len(names)))
    bars = tuple(
        {
            "type": "bar",
            "orientation": "h",
            "name": name,
            "y": rows,
            "x": [digits(value) for value in values],
            "width": width,
            "marker": {"color": colour},
            "customdata": [escape(one) for one in names],
            "hovertemplate": "%{customdata}: %{x}",
        }
        for name, values, width, colour in (
            ("unpruned", before, 0.8, "@pale"),
            ("pruned", after, 0.4, "@blue"),
        )
    )
    ticks = {"tickvals": rows, "ticktext": [escape(short(name)) for name in names], "tickfont": {"size": 11}}
    span = [len(names) - 0.4, -0.6]
    layout = {
        "barmode": "overlay",
        "xaxis": axis(title, from_zero=True),
        "yaxis": {**ticks, "range": span, "showgrid": False},
    }
    return bars, layout, _FRAME + _ROW * max(len(names), 4)


def short(name: str, letters: int = NAME) -> str:
    """A long name without its middle: its end tells most, its beginning which part of the whole it is."""
    begin = letters // 3
    return name if len(name) <= letters else f"{name[:begin]}…{name[begin + 1 - letters :]}"
