"""The verdict of a report and its table: base versus pruned, as text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hwprune.report.standing import MAX_DROP, Standing, last_top1, met, points_lost, standing
from hwprune.results.metrics import change_text, loss_words, text_of

if TYPE_CHECKING:
    from hwprune.results import ExportResult, Figure, SearchResult, TrainResult

MISSING = "–"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One figure of both networks, as text ready to show."""

    name: str
    base: str
    pruned: str
    change: str = ""


def verdict(
    search: SearchResult, train: TrainResult | None, export: ExportResult | None, max_drop: float = MAX_DROP
) -> str:
    """One sentence: is the budget met, at which speed-up and accuracy; see `standing` for the arguments."""
    known, words = export or search, _verdict_words(search, train, export, max_drop)
    if search.base_meets_budget and met(search, export):
        text = f"{words} by the unpruned network already: {known.budget}"
    else:
        text = f"{words}: {'the exported file' if export else 'the network'} "
        text += " and ".join(_against(one) for one in known.budgets)
    if train and not search.base_meets_budget:
        base, top1 = train.base_top1, last_top1(train, export)
        told, change = text_of(top1, base, digits=1), change_text(base, top1, digits=1)
        text += f"; test {train.metric} {told}, {change} against the unpruned network"
    if export and export.weights == "random":
        text += "; its weights are random, it serves for timing only"
    return text + "."


def _verdict_words(
    search: SearchResult, train: TrainResult | None, export: ExportResult | None, max_drop: float
) -> str:
    how, lost = standing(search, train, export, max_drop), points_lost(train, export)
    if how == Standing.MISSED:
        return "BUDGET MISSED"
    kept = "PREDICTED, NOT MEASURED, to keep the budget" if (export or search).unmeasured else "Budget met"
    unit = loss_words(train.base_top1, last_top1(train, export)) if train else "points"
    if how == Standing.LOST:
        return f"ACCURACY LOST, {lost:.1f} {unit} where {max_drop:g} may go. {kept}"
    return f"{kept}, with {lost:.1f} {unit} of accuracy lost" if how == Standing.COSTLY else kept


def _against(figure: Figure) -> str:
    """A figure and its budget: `runs in 8.4 ms, the budget is 60% (8.5 ms)`."""
    limit = figure.text(figure.limit or 0.0)
    budget = f"{figure.budget} ({limit})" if figure.budget.endswith("%") else limit
    value = figure.text(figure.value)
    if figure.unit != "ms":
        return f"has {value} ({figure.title}), the budget is {budget}"
    verb = "was measured at" if figure.is_measured else "is predicted to take"
    return f"{verb} {value} on {figure.name}, the budget is {budget}"


def rows(search: SearchResult, train: TrainResult | None, export: ExportResult | None) -> tuple[Row, ...]:
    """All figures of both networks."""
    known = export or search
    searched = {one.name: one for one in search.figures}
    found = [
        _top1_row(search, train),
        *_integer_rows(export),
        *(row for one in known.figures for row in _figure_rows(one, searched.get(one.name, one))),
        Row(
            name="speed-up" if known.latency.is_measured else "speed-up, predicted",
            base="1.00x",
            pruned=f"{known.latency.base / known.latency.value:.2f}x",
        ),
    ]
    if export:
        size = f"{export.bytes / 2**20:.2f} MiB"
        found.append(Row(name="ONNX file", base="", pruned=size, change=export.file))
    return tuple(found)


def _top1_row(search: SearchResult, train: TrainResult | None) -> Row:
    name = f"test {search.metric}"
    if train is None:
        todo = "run `hwprune train`" if search.images else "no images"
        return Row(name=name, base=MISSING, pruned=MISSING, change=todo)
    base, top1 = train.base_top1, train.top1
    return Row(
        name=name, base=text_of(base, top1), pruned=text_of(top1, base), change=change_text(base, top1)
    )


def _figure_rows(figure: Figure, searched: Figure) -> list[Row]:
    """A figure of both networks, and its budget; what was predicted stands beside the search's own unit."""
    rows = []
    base, share = figure.text(figure.base), f"{figure.value / figure.base:.1%}"
    if figure.unit == "ms":
        name = f"{figure.title}, predicted" + ("" if figure.is_measured else ", NOT MEASURED")
        there, predicted = searched.base, searched.predicted
        change = f"{predicted / there:.1%}"
        rows.append(Row(name=name, base=figure.text(there), pruned=figure.text(predicted), change=change))
        if figure.is_measured:
            value = f"{figure.text(figure.value)} ± {figure.text(figure.error or 0.0)}"
            rows.append(Row(name=f"{figure.title}, measured", base=base, pruned=value, change=share))
    else:
        rows.append(Row(name=figure.title, base=base, pruned=figure.text(figure.value), change=share))
    if figure.limit is not None:
        limit = figure.text(figure.limit)
        rows.append(Row(name=f"budget: {figure.title}", base="", pruned=limit, change=figure.budget))
    return rows


def _integer_rows(export: ExportResult | None) -> list[Row]:
    """The accuracy of a file in an integer format, which is not that of the trained weights."""
    if export is None or export.top1 is None or export.top1 == export.trained_top1:
        return []
    trained = export.top1 if export.trained_top1 is None else export.trained_top1
    return [
        Row(
            name=f"test {export.metric}, {export.precision} file",
            base=MISSING,
            pruned=text_of(export.top1, trained),
            change=f"{change_text(trained, export.top1)} by {export.precision}",
        )
    ]
