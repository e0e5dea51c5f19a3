"""Predicted against measured: held-out networks, leaders of the search, the answer, the file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hwprune.report.draw import digits, errors, points, unit_of
from hwprune.report.parts import Plot, Section, Table, missing
from hwprune.report.style import axis, line_at
from hwprune.units import format_ms

if TYPE_CHECKING:
    from hwprune.report.facts import Report
    from hwprune.results import Figure, SearchResult

_TITLE = "Predicted against measured"


@dataclass(frozen=True)
class _Series:
    """Networks of one kind: (predicted, measured, standard error) of each in ms."""

    name: str
    colour: str
    symbol: str
    size: int
    rows: tuple[tuple[float, float, float], ...]

    def deviations(self) -> list[tuple[float, float]]:
        """(measured is off by, its standard error), percent of the prediction."""
        return [(100 * (ms / guess - 1), 100 * error / guess) for guess, ms, error in self.rows]


def checks(report: Report) -> Section:
    """The section."""
    series = [one for one in _series(report) if one.rows]
    if not series:
        return missing(_TITLE, "nothing was measured beside the networks that the table was made of.")
    table = Table(
        title="Predicted and measured latencies",
        head=("network", "predicted", "measured", "standard error", "off by"),
        rows=tuple(row for one in series for row in _rows(one)),
    )
    search = report.search
    return Section(
        title=_TITLE,
        text=(
            f"Latencies on {search.profile}. Held-out networks had no part in the model that predicts them. "
            "The best networks of each generation were measured during the search, and correct its "
            "predictions; shown are the predictions without that correction. Bars are one standard error.",
        ),
        plots=(_diagonal(series, search, table), _deviation(series, search, table)),
        points=tuple(_mean(one) for one in series if len(one.rows) > 1),
        tables=_factors(search),
    )


def _series(report: Report) -> tuple[_Series, ...]:
    search, export = report.search, report.export
    leaders = dict.fromkeys(
        (guess, ms, error or 0.0)
        for one in report.searches
        for facts in one.corrections
        for name, guess, ms, error in facts.get("checks", ())
        if name == search.latency.name
    )
    answer = () if search.base_meets_budget else _row_of(search.latency)
    file = _row_of(export.latency) if export and not search.base_meets_budget else ()
    return (
        _Series("held-out networks", "@blue", "circle", 7, search.held_out),
        _Series("leaders of a generation", "@orange", "diamond", 8, tuple(leaders)),
        _Series("the answer", "@green", "star", 14, answer),
        _Series("the exported file", "@purple", "square-open", 14, file),
    )


def _row_of(figure: Figure) -> tuple[tuple[float, float, float], ...]:
    if figure.measured is None:
        return ()
    return ((figure.predicted, figure.measured, figure.error or 0.0),)


def _rows(one: _Series) -> list[tuple[str, ...]]:
    return [
        (one.name, format_ms(guess), format_ms(ms), format_ms(error), f"{percent:+.2f} %")
        for (guess, ms, error), (percent, _) in zip(one.rows, one.deviations(), strict=True)
    ]


def _mean(one: _Series) -> str:
    off = np.array([percent for percent, _ in one.deviations()])
    return (
        f"{one.name}: {len(off)}, off by {np.abs(off).mean():.2f} % on average, by "
        f"{np.abs(off).max():.2f} % at most; {off.mean():+.2f} % with its sign."
    )


def _trace(one: _Series, scale: float, y: list[float], bars: list[float], hover: str) -> dict[str, Any]:
    return points(
        one.name,
        [digits(scale * guess) for guess, _, _ in one.rows],
        [digits(value) for value in y],
        one.colour,
        symbol=one.symbol,
        size=one.size,
        error_y=errors([digits(bar) for bar in bars], one.colour),
        hovertemplate=hover,
    )


def _diagonal(series: list[_Series], search: SearchResult, table: Table) -> Plot:
    scale, unit = unit_of(search.latency.base)
    both = [scale * value for one in series for row in one.rows for value in row[:2]]
    ends = [digits(0.97 * min(both)), digits(1.03 * max(both))]
    line = points("as predicted", ends, ends, "@muted", mode="lines", hoverinfo="skip")
    line["line"] = {"color": "@muted", "width": 1.5, "dash": "dash"}
    traces = [
        _trace(
            one,
            scale,
            [scale * ms for _, ms, _ in one.rows],
            [scale * error for _, _, error in one.rows],
            f"predicted %{{x}} {unit}, measured %{{y}} {unit}",
        )
        for one in series
    ]
    return Plot(
        caption="Measured latency over predicted latency",
        data=(line, *traces),
        layout={"xaxis": axis(f"predicted, {unit}"), "yaxis": axis(f"measured, {unit}")},
        table=table,
        height=420,
    )


def _deviation(series: list[_Series], search: SearchResult, table: Table) -> Plot:
    scale, unit = unit_of(search.latency.base)
    traces = []
    for one in series:
        off = one.deviations()
        hover = f"predicted %{{x}} {unit}, measured %{{y}} % off"
        traces.append(_trace(one, scale, [p for p, _ in off], [error for _, error in off], hover))
    return Plot(
        caption="By how much the measured latency is off the predicted one",
        data=tuple(traces),
        layout={
            "shapes": [{**line_at(0.0, across="y"), "layer": "below"}],
            "xaxis": axis(f"predicted, {unit}"),
            "yaxis": axis("measured is off by, %"),
        },
        table=table,
        height=360,
    )


def _factors(search: SearchResult) -> tuple[Table, ...]:
    """What the predictions were multiplied with after each generation, or that the model was refitted."""
    rows = tuple(
        (str(generation), name, how, str(len(facts["measured"])))
        for generation, facts in enumerate(search.corrections)
        for name, how in (
            *((name, f"{factor:.4f}") for name, factor in facts["factors"].items()),
            *((name, "refitted: a factor for each kernel") for name in facts.get("refitted", ())),
        )
    )
    head = ("after generation", "what", "predictions are multiplied with", "networks measured")
    return (Table(title="Corrections during the search", head=head, rows=rows),) if rows else ()
