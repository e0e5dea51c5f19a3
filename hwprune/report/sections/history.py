"""How the search went, and how a PruningNet was trained for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hwprune.report.draw import digits, points
from hwprune.report.parts import Plot, Section, Table, missing
from hwprune.report.style import axis, count_axis
from hwprune.report.words import SCORE_WORDS, on_axis, score_scale, score_words
from hwprune.results.metrics import text_of

if TYPE_CHECKING:
    from hwprune.report.facts import Report
    from hwprune.results import SearchResult

_SEARCH, _NET = "Search history", "Training of PruningNet"


def generations(report: Report) -> Section:
    """Best and mean score of each generation."""
    search = report.search
    if not search.history:
        return missing(_SEARCH, "nothing was searched, for the unpruned network keeps the budget.")
    x = [one["generation"] for one in search.history]
    times, percent = score_scale(search)
    traces = tuple(
        points(
            name,
            x,
            [None if score is None else digits(times * score) for score in scores],
            colour,
            symbol=symbol,
            size=7,
            mode="lines+markers",
            hovertemplate=f"generation %{{x}}: %{{y}}{percent}",
        )
        for name, scores, colour, symbol in (
            ("best so far", [one["best_score"] for one in search.history], "@blue", "circle"),
            ("mean of the generation", [one["mean_score"] for one in search.history], "@orange", "diamond"),
        )
    )
    rows = tuple(
        (
            str(one["generation"]),
            str(one["evaluated"]),
            _score(one["best_score"], search),
            _score(one["mean_score"], search),
            _percent(one["budget_use"]),
        )
        for one in search.history
    )
    head = ("generation", "evaluated", "best so far", "mean", "budget used by the best")
    plot = Plot(
        caption=f"Best and mean score ({score_words(search)}) of each generation",
        data=traces,
        layout={
            "xaxis": count_axis("generation", len(x)),
            "yaxis": axis(on_axis("score", search)),
        },
        table=Table(title="Generations", head=head, rows=rows),
    )
    text = "The best score falls where a correction found the best network outside the budget."
    return Section(title=_SEARCH, text=(text,), plots=(plot,))


def _score(value: float | None, search: SearchResult) -> str:
    return _percent(None) if value is None else text_of(value, search.base_score)


def _percent(value: float | None) -> str:
    return "none inside the budget" if value is None else f"{value:.2%}"


def pruningnet(report: Report) -> Section:
    """Loss and top-1 of each epoch."""
    search = report.search
    if not search.pruningnet_history:
        if not search.candidates:
            return missing(_NET, "nothing was searched, so none was trained.")
        return missing(_NET, f"networks were scored by {SCORE_WORDS[search.score_kind]}: none was needed.")
    rows = search.pruningnet_history
    seen = f"{search.metric} while training"
    table = Table(
        title="Epochs of PruningNet",
        head=("epoch", "loss", seen, "learning rate", "seconds"),
        rows=tuple(
            (
                str(one["epoch"]),
                f"{one['loss']:.4f}",
                "" if one["top1"] is None else text_of(one["top1"], search.base_score),
                f"{one['lr']:.3g}",
                f"{one['seconds']:.1f}",
            )
            for one in rows
        ),
    )
    epochs = [one["epoch"] for one in rows]
    times, _ = score_scale(search)
    figures = [times * one["top1"] for one in rows if one["top1"] is not None]
    return Section(
        title=_NET,
        text=("One random network in each step, on sub-train images.",),
        plots=(
            _curve("Loss", epochs, [one["loss"] for one in rows], "loss", table),
            *([_curve(seen, epochs, figures, on_axis(search.metric, search), table)] if figures else ()),
        ),
    )


def _curve(caption: str, epochs: list[int], values: list[float], title: str, table: Table) -> Plot:
    y = [digits(value) for value in values]
    trace = points(
        caption, epochs, y, "@blue", size=6, mode="lines+markers", hovertemplate="epoch %{x}: %{y}"
    )
    return Plot(
        caption=f"{caption} of PruningNet over its epochs",
        data=(trace,),
        layout={"xaxis": count_axis("epoch", len(epochs)), "yaxis": axis(title), "showlegend": False},
        table=table,
        height=300,
        small=True,
    )
