"""Every network that a search evaluated: score against latency."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hwprune.evolution.pareto import pareto_front
from hwprune.report.draw import digits, errors, points, unit_of
from hwprune.report.parts import Plot, Section, Table, missing
from hwprune.report.style import axis
from hwprune.report.words import (
    FRONT_HEAD,
    front_line,
    front_rows,
    on_axis,
    score_scale,
    score_words,
    tradeoff_title,
)
from hwprune.results.metrics import text_of
from hwprune.units import format_ms

if TYPE_CHECKING:
    from hwprune.report.facts import Report
    from hwprune.results import FrontResult, SearchResult


def tradeoff(report: Report) -> Section:
    """The section."""
    search, front = report.search, report.front
    title = tradeoff_title(search)
    evaluated = report.evaluated
    if not evaluated:
        return missing(title, "the unpruned network keeps the budget, so no other one was evaluated.")
    plot = _plot(search, evaluated, front)
    text = (
        f"{len(evaluated)} networks were evaluated. Their latencies on {search.profile} are predicted, "
        "corrected by what was measured during the search; leaders have the latency that was measured. The "
        "score is "
        f"{score_words(search)}, before any training of the network itself."
    )
    if front is None:
        return Section(title=title, text=(text,), plots=(plot,))
    table = Table(title="Networks of the front", head=FRONT_HEAD, rows=tuple(front_rows(front)))
    return Section(title=title, text=(front_line(front), text), plots=(plot,), tables=(table,))


def _plot(
    search: SearchResult, evaluated: tuple[tuple[float, float], ...], front: FrontResult | None
) -> Plot:
    scale, unit = unit_of(search.latency.base)
    scores, latencies_ms = zip(*evaluated, strict=True)
    best = pareto_front(scores, latencies_ms).tolist()
    x = [digits(scale * ms) for ms in latencies_ms]
    times, percent = score_scale(search)
    y = [digits(times * score) for score in scores]
    hover = f"%{{y}}{percent}, %{{x}} {unit}"
    traces = [
        points("evaluated", x, y, "@pale", size=6, hovertemplate=hover),
        points(
            "best of them",
            [x[i] for i in best],
            [y[i] for i in best],
            "@blue",
            size=7,
            mode="lines+markers",
            hovertemplate=hover,
        ),
        *([_front(front, scale, hover)] if front else []),
        points(
            "unpruned",
            [digits(scale * search.latency.base)],
            [digits(times * search.base_score)],
            "@purple",
            symbol="diamond",
            size=11,
            hovertemplate=hover,
        ),
        _chosen(search, scale, hover),
        *_budget(search, scale, min(y), max(*y, times * search.base_score)),
    ]
    rows = tuple(
        (str(i + 1), text_of(score, search.base_score), format_ms(ms), "yes" if i in set(best) else "")
        for i, (score, ms) in enumerate(evaluated)
    )
    head = ("network", score_words(search), "latency, predicted or measured", "no other is better in both")
    return Plot(
        caption="Score against latency of all networks that were evaluated, the unpruned and the chosen one",
        data=tuple(traces),
        layout={
            "xaxis": axis(f"latency, {unit}"),
            "yaxis": axis(on_axis(score_words(search), search)),
        },
        table=Table(title="Networks that were evaluated", head=head, rows=rows),
        height=460,
    )


def _how(search: SearchResult) -> str:
    return "measured" if search.latency.is_measured else "predicted"


def _chosen(search: SearchResult, scale: float, hover: str) -> dict[str, Any]:
    latency = search.latency
    return points(
        f"chosen, {_how(search)}",
        [digits(scale * latency.value)],
        [digits(score_scale(search)[0] * search.score)],
        "@orange",
        symbol="star",
        size=15,
        error_x=errors([scale * (latency.error or 0.0)], "@orange"),
        hovertemplate=hover,
    )


def _front(front: FrontResult, scale: float, hover: str) -> dict[str, Any]:
    """The networks of a range of budgets, with their numbers."""
    found = front.points
    return points(
        f"front, {_how(found[0])}",
        [digits(scale * one.latency.value) for one in found],
        [digits(score_scale(one)[0] * one.score) for one in found],
        "@green",
        symbol="square",
        size=10,
        error_x=errors([scale * (one.latency.error or 0.0) for one in found], "@green"),
        text=[f"point {number}" for number in range(1, len(found) + 1)],
        hovertemplate=f"%{{text}}: {hover}",
    )


def _budget(search: SearchResult, scale: float, low: float, high: float) -> list[dict[str, Any]]:
    """The budget on the first device, as a line that the legend names."""
    latency = search.latency
    if latency.limit is None:
        return []
    line = points(f"budget {latency.budget}", [scale * latency.limit] * 2, [low, high], "@red", mode="lines")
    return [line | {"line": {"color": "@red", "width": 1.5, "dash": "dash"}, "hoverinfo": "skip"}]
