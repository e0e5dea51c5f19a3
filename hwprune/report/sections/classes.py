"""Accuracy of each class, and which classes the pruned network takes for which."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

import numpy as np

from hwprune.report.draw import digits, short
from hwprune.report.parts import Plot, Section, Table, missing

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from hwprune.report.facts import Report
    from hwprune.results import TrainResult

_TITLE = "Accuracy of each class"
_MOST_DRAWN, _MOST_PAIRS = 40, 20  # classes of a matrix that can be read; pairs that are named
_MOST_WRITTEN = 20  # classes of a matrix whose figures find room in it
_NAME = 14  # letters of a class beside the matrix
_ROW, _FRAME = 22, 150  # pixels of a row of the matrix, and around it


@dataclass(frozen=True)
class _Counted:
    """Test images by class (rows) and by the class named (columns): (classes, classes)."""

    counts: NDArray[np.int64]

    @classmethod
    def of(cls, classes: int, rows: Iterable[tuple[int, int, int]]) -> _Counted:
        """The matrix of the pairs that occur."""
        counts = np.zeros((classes, classes), dtype=np.int64)
        for there, named, images in rows:
            counts[there, named] += images
        return cls(counts)

    def shares(self) -> NDArray[np.float64]:
        """Share of each class that is named rightly; nan where no image is of it."""
        totals = self.counts.sum(1)
        return np.where(totals > 0, self.counts.diagonal() / np.maximum(totals, 1), np.nan)


def classes(report: Report) -> Section:
    """The section."""
    train = report.train
    if train is None:
        return missing(_TITLE, "the network has not been trained.")
    if not train.confusion:
        return missing(_TITLE, "the training was done by an earlier version.")
    count = len(train.classes)
    pruned, base = (_Counted.of(count, rows) for rows in (train.confusion, train.base_confusion))
    table = _table(train, pruned, base)
    mistaken = _pairs(train, pruned)
    plots = (_matrix(train, pruned, table),) if count <= _MOST_DRAWN else ()
    tables = (mistaken,) if plots else (table, mistaken)
    text = "The trained network in 32-bit floats, on test images; of a class of few images it is rough."
    return Section(
        title=_TITLE,
        text=(text,),
        plots=plots,
        points=tuple(_worst(train, pruned, base)),
        tables=tuple(one for one in tables if one.rows),
    )


def _table(train: TrainResult, pruned: _Counted, base: _Counted) -> Table:
    shares, before, totals = pruned.shares(), base.shares(), pruned.counts.sum(1)
    rows = tuple(
        (
            train.classes[k],
            str(totals[k]),
            f"{before[k]:.1%}",
            f"{shares[k]:.1%}",
            f"{100 * (shares[k] - before[k]):+.1f} points",
        )
        for k in np.flatnonzero(totals).tolist()
    )
    head = ("class", "test images", "unpruned", "pruned", "change")
    return Table(title="Accuracy of each class", head=head, rows=rows, folded=len(rows) > _MOST_DRAWN)


def _pairs(train: TrainResult, pruned: _Counted) -> Table:
    """The classes that are taken for others most often."""
    wrong = pruned.counts.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:_MOST_PAIRS]
    rows = tuple(
        (train.classes[k], train.classes[n], str(wrong[k, n]), f"{wrong[k, n] / pruned.counts[k].sum():.1%}")
        for k, n in zip(*(one.tolist() for one in np.unravel_index(order, wrong.shape)), strict=True)
        if wrong[k, n]
    )
    head = ("class", "taken for", "images", "of the class")
    return Table(title="What the pruned network mixes up most often", head=head, rows=rows, folded=True)


def _worst(train: TrainResult, pruned: _Counted, base: _Counted) -> list[str]:
    """The class that lost most and the one that is named worst."""
    shares, lost = pruned.shares(), base.shares() - pruned.shares()
    worst, most = int(np.nanargmin(shares)), int(np.nanargmax(lost))
    lines = [f"Lowest accuracy: {train.classes[worst]}, {shares[worst]:.1%}."]
    if lost[most] > 0:
        lines.append(f"Lost most: {train.classes[most]}, {100 * lost[most]:.1f} points.")
    return lines


def _matrix(train: TrainResult, pruned: _Counted, table: Table) -> Plot:
    totals = np.maximum(pruned.counts.sum(1, keepdims=True), 1)
    names, places = list(train.classes), list(range(len(train.classes)))
    trace = {
        "type": "heatmap",
        "z": [[digits(value) for value in row] for row in (100 * pruned.counts / totals).tolist()],
        "x": places,
        "y": places,
        "customdata": [[escape(f"{names[k]} named {names[n]}") for n in places] for k in places],
        "colorscale": [[0, "@page"], [1, "@blue"]],
        "zmin": 0,
        "zmax": 100,
        "hovertemplate": "%{customdata}: %{z} %<extra></extra>",
        "showscale": False,
        "texttemplate": "%{z:.0f}" if len(names) <= _MOST_WRITTEN else "",
    }
    labels = [escape(short(name, _NAME)) for name in names]
    ticks = {"tickvals": places, "ticktext": labels, "showgrid": False}
    layout = {
        "xaxis": {**ticks, "title": {"text": "class named"}},
        "yaxis": {**ticks, "title": {"text": "class"}, "autorange": "reversed"},
        "showlegend": False,
    }
    return Plot(
        caption="Confusion matrix of the pruned network: which class (row) is taken for which one, %",
        data=(trace,),
        layout=layout,
        table=table,
        height=_FRAME + _ROW * max(len(names), 6),
    )
