"""The document of a report: verdict first, then one section for each subject."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hwprune.report.parts import Document, Section, Table
from hwprune.report.sections import checks, classes, curves, history, reproduce, times, tradeoff, widths
from hwprune.report.standing import last_top1
from hwprune.report.verdict import MISSING
from hwprune.report.words import floats_words
from hwprune.results.metrics import change_text, text_of

if TYPE_CHECKING:
    from hwprune.report.facts import Report

_SECTIONS = (
    tradeoff.tradeoff,
    classes.classes,
    widths.widths,
    times.times,
    curves.steps,
    curves.curves,
    curves.inverted,
    checks.checks,
    history.generations,
    history.pruningnet,
    reproduce.found,
    reproduce.reproduce,
)


def document(report: Report) -> Document:
    """Everything, in the order it is read."""
    search = report.search
    return Document(
        title=f"{search.model} under {search.budget}",
        verdict=report.verdict,
        standing=report.standing,
        advice=report.advice,
        cards=_cards(report),
        sections=(_both(report), *(section(report) for section in _SECTIONS)),
    )


def _both(report: Report) -> Section:
    rows = tuple((row.name, row.base, row.pruned, row.change) for row in report.rows)
    head = ("", "unpruned", "pruned", "change")
    told = floats_words(report.export) if report.export else ""
    table = Table(title="Figures of both networks", head=head, rows=rows)
    return Section(title="Unpruned and pruned", text=(told,) if told else (), tables=(table,))


def _cards(report: Report) -> tuple[tuple[str, str, str], ...]:
    """Budget, latency, accuracy, speed-up."""
    known = report.export or report.search
    latency = known.latency
    how = "measured" if latency.is_measured else "PREDICTED, NOT MEASURED"
    binding = next((one for one in known.budgets if one.name == report.search.binding), known.budgets[0])
    limit = MISSING if binding.limit is None else binding.text(binding.limit)
    return (
        ("budget", limit, f"{binding.budget} · {binding.title}"),
        (f"latency, {how}", latency.text(latency.value), f"unpruned {latency.text(latency.base)}"),
        _accuracy(report),
        ("speed-up", f"{latency.base / latency.value:.2f}x", how),
    )


def _accuracy(report: Report) -> tuple[str, str, str]:
    train = report.train
    if train is None:
        why = "not trained yet" if report.search.images else "no images"
        return (f"test {report.search.metric}", MISSING, why)
    top1 = last_top1(train, report.export)
    base = train.base_top1
    change = f"{change_text(base, top1, digits=1)}, unpruned {text_of(base, top1, digits=1)}"
    return (f"test {train.metric}", text_of(top1, base, digits=1), change)
