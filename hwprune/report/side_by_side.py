"""A comparison as a table, and as a document with a plot."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hwprune.report.draw import digits, errors, points
from hwprune.report.parts import Document, Plot, Section, Table
from hwprune.report.standing import Standing
from hwprune.report.style import SERIES, axis
from hwprune.report.verdict import MISSING
from hwprune.results.metrics import change_text, text_of

if TYPE_CHECKING:
    from hwprune.report.compare import Comparison, Entry
    from hwprune.results import Figure


def table(found: Comparison) -> Table:
    """One row for each figure, one column for each result."""
    entries = found.entries
    rows = [
        ("model", *(one.model for one in entries)),
        ("budget", *(one.budget for one in entries)),
        ("budget kept", *(_kept(one) for one in entries)),
        *_accuracy_rows(entries),
    ]
    names = dict.fromkeys(figure.name for one in entries for figure in one.figures)
    for name in names:
        rows += _figure_rows(name, entries)
    rows.append(("training", *(one.training for one in entries)))
    return Table(title="Results side by side", head=("", *(one.name for one in entries)), rows=tuple(rows))


def _kept(one: Entry) -> str:
    if not one.met:
        return "NO"
    return "yes" if one.latency.is_measured else "as predicted, not measured"


def _accuracy_rows(entries: tuple[Entry, ...]) -> list[tuple[str, ...]]:
    def text(value: float | None) -> str:
        return MISSING if value is None else text_of(value)

    def change(one: Entry) -> str:
        if one.top1 is None or one.base_top1 is None:
            return MISSING
        return change_text(one.base_top1, one.top1)

    return [
        ("test top-1, unpruned", *(text(one.base_top1) for one in entries)),
        ("test top-1, pruned", *(text(one.top1) for one in entries)),
        ("  against the unpruned", *map(change, entries)),
    ]


def _figure_rows(name: str, entries: tuple[Entry, ...]) -> list[tuple[str, ...]]:
    """What both networks need of one thing; results that know nothing of it have a dash."""
    figures = [next((one for one in entry.figures if one.name == name), None) for entry in entries]
    known = next(one for one in figures if one is not None)
    rows = [
        (f"{known.title}, unpruned", *(MISSING if one is None else one.text(one.base) for one in figures)),
        (f"{known.title}, pruned", *(MISSING if one is None else _value(one) for one in figures)),
        (
            "  of the unpruned",
            *(MISSING if one is None else f"{one.value / one.base:.1%}" for one in figures),
        ),
    ]
    if known.unit == "ms":
        speed = (MISSING if one is None else f"{one.base / one.value:.2f}x" for one in figures)
        rows.append(("  speed-up", *speed))
    return rows


def _value(figure: Figure) -> str:
    if figure.unit != "ms":
        return figure.text(figure.value)
    if not figure.is_measured:
        return f"{figure.text(figure.value)} (PREDICTED)"
    return f"{figure.text(figure.value)} ± {figure.text(figure.error or 0.0)}"


def lines(found: Comparison) -> tuple[str, ...]:
    """What cannot be compared, said plainly, and what else to know."""
    return (
        *(f"Latencies are NOT COMPARABLE: {why}." for why in found.latency_differs),
        *(f"Accuracies are NOT COMPARABLE: {why}." for why in found.accuracy_differs),
        *found.remarks,
    )


def summary(found: Comparison) -> str:
    """One sentence: what may be compared."""
    apart = [
        name
        for name, why in (("latencies", found.latency_differs), ("accuracies", found.accuracy_differs))
        if why
    ]
    if apart:
        return f"NOT COMPARABLE in their {' and '.join(apart)}: see what differs below."
    if not any(one.test_digest for one in found.entries):
        return "Same device: latencies can be compared. No network was trained, so there are no accuracies."
    return "Same device and same images: latencies and accuracies can be compared."


def document(found: Comparison) -> Document:
    """The comparison as a page."""
    told = lines(found)
    differs = (Section(title="What differs", points=told),) if told else ()
    names = ", ".join(one.name for one in found.entries)
    verdicts = tuple(f"{one.name}: {one.verdict}" for one in found.entries)
    return Document(
        title=f"Comparison of {names}",
        verdict=summary(found),
        standing=Standing.MISSED if found.latency_differs or found.accuracy_differs else Standing.GOOD,
        sections=(
            *differs,
            Section(title="Side by side", points=verdicts, tables=(table(found),)),
            Section(title="Accuracy against latency", plots=(_plot(found),), text=(_text(found),)),
        ),
    )


def _text(found: Comparison) -> str:
    what = "test top-1" if _trained(found) else "the share of MACs kept, for not all networks were trained"
    text = f"From each unpruned network (diamond) to the pruned one (circle): {what}, over the latency."
    if found.latency_differs:
        text += " Milliseconds cannot be compared here, so it is the share of each unpruned network's."
    return text


def _trained(found: Comparison) -> bool:
    return all(one.top1 is not None for one in found.entries)


def _plot(found: Comparison) -> Plot:
    across = "latency, % of the unpruned network" if found.latency_differs else "latency, ms"
    up = "test top-1, %" if _trained(found) else "MACs kept, %"
    traces = tuple(
        _trace(one, SERIES[index % len(SERIES)], shares=bool(found.latency_differs), trained=_trained(found))
        for index, one in enumerate(found.entries)
    )
    return Plot(
        caption="From each unpruned network to its pruned one",
        data=traces,
        layout={"xaxis": axis(across), "yaxis": axis(up)},
        table=table(found),
        height=440,
    )


def _trace(one: Entry, colour: str, *, shares: bool, trained: bool) -> dict[str, Any]:
    latency = one.latency
    scale = 100 / latency.base if shares else 1.0
    macs = next(figure for figure in one.figures if figure.name == "macs")
    heights = (one.base_top1, one.top1) if trained else (1.0, macs.value / macs.base)
    trace = points(
        f"{one.name}, {one.how}",
        [digits(scale * latency.base), digits(scale * latency.value)],
        [None if height is None else digits(100 * height) for height in heights],
        colour,
        mode="lines+markers",
        error_x=errors([0.0, digits(scale * (latency.error or 0.0))], colour),
        text=["unpruned", "pruned"],
        hovertemplate="%{text}: %{y} % at %{x}",
    )
    trace["marker"] |= {"symbol": ["diamond", "circle"], "size": [10, 11]}
    return trace
