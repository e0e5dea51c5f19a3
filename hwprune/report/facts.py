"""The facts of a report, read off a project's artifacts. No torch, no runtime."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from hwprune import artifacts
from hwprune.latency.curves import Inversion, WidthCurves
from hwprune.latency.staircase import Staircase
from hwprune.latency.table import CURVES, STAIRCASE
from hwprune.results import ExportResult, Figure, FrontResult, ProfileResult, SearchResult, TrainResult
from hwprune.structure.space import SearchSpace

if TYPE_CHECKING:
    from pathlib import Path

MISSING = "–"
_Kept = TypeVar("_Kept", Staircase, WidthCurves)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One figure of both networks, as text ready to show."""

    name: str
    base: str
    pruned: str
    change: str = ""


@dataclass(frozen=True, kw_only=True)
class LayerRow:
    """One layer with weights, before and after; counts are channels.

    Attributes:
        name: Name of the layer in the model.
        op: `conv` or `linear`.
        inputs: What it reads in the unpruned and in the pruned network.
        outputs: What it makes in the unpruned and in the pruned network.
    """

    name: str
    op: str
    inputs: tuple[int, int]
    outputs: tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Report:
    """Everything that is known about a project's result.

    Attributes:
        profile: The device's table, if it is there.
        search: The chosen network.
        train: The accuracies, if trained.
        export: The exported file, if exported.
        met: Whether the budget is met, by what was measured last.
        verdict: One sentence: is the budget met, and at which accuracy.
        rows: Base versus pruned, for the table.
        layers: Channels of every convolution and linear layer; empty when the search space is gone.
        staircase: Latency over the width of one layer, as the device was probed, if it is there.
        curves: Latency over width, predicted for every group and layer, if it is there.
        front: The networks of a range of budgets, if one was searched.
    """

    profile: ProfileResult | None
    search: SearchResult
    train: TrainResult | None
    export: ExportResult | None
    met: bool
    verdict: str
    rows: tuple[Row, ...]
    layers: tuple[LayerRow, ...]
    staircase: Staircase | None
    curves: WidthCurves | None
    front: FrontResult | None

    @property
    def inversions(self) -> tuple[Inversion, ...]:
        """Where a narrower network is slower: around the chosen, the unpruned, the middle network."""
        chosen = tuple(Inversion(**one) for one in self.search.inversions)
        return (*chosen, *(self.curves.inversions if self.curves else ()))


def collect(work: Path, folder: Path) -> Report:
    """Read what the stages left in a project's work folder.

    A result of an earlier search (other widths) does not count.

    Raises:
        ArtifactError: There is no search result, or a file is damaged.
    """
    search = SearchResult.load(work / "search.json")
    measured = work / "latency" / search.profile
    profile = ProfileResult.load(measured / "profile.json") if (measured / "profile.json").exists() else None
    train = TrainResult.load(work / "train.json") if (work / "train.json").exists() else None
    export = ExportResult.load(work / "export.json") if (work / "export.json").exists() else None
    same = train is not None and (train.structure, train.widths) == (search.structure, search.widths)
    train = train if same else None
    export = export if export and _current(export, search, train, folder) else None
    return Report(
        profile=profile,
        search=search,
        train=train,
        export=export,
        met=_met(search, export),
        verdict=_verdict(search, train, export),
        rows=_rows(search, train, export),
        layers=_layers(work / "search-space.json", search),
        staircase=_optional(Staircase, measured / STAIRCASE),
        curves=_optional(WidthCurves, measured / CURVES),
        front=_front(work / "front.json", search),
    )


def _optional(kind: type[_Kept], path: Path) -> _Kept | None:
    return kind.load(path) if path.exists() else None


def _front(path: Path, search: SearchResult) -> FrontResult | None:
    front = FrontResult.load(path) if path.exists() else None
    return front if front and search in front.points else None


def _layers(path: Path, search: SearchResult) -> tuple[LayerRow, ...]:
    if not path.exists():
        return ()
    space = SearchSpace.load(path)
    both = np.array([space.full(), space.check(search.widths)])
    rows = []
    for layer in space.layers:
        if layer.op in ("conv", "linear"):
            reads, makes = layer.inputs.count(both).tolist(), layer.outputs.count(both).tolist()
            rows.append(LayerRow(name=layer.name, op=layer.op, inputs=tuple(reads), outputs=tuple(makes)))
    return tuple(rows)


def _current(export: ExportResult, search: SearchResult, train: TrainResult | None, folder: Path) -> bool:
    """Whether the file is there, and was exported for this answer, budget, device and training."""
    path = folder / export.file
    return (
        (export.structure, export.widths, export.budget, export.profile)
        == (search.structure, search.widths, search.budget, search.profile)
        and (train is None or export.trained_top1 == train.top1)
        and path.is_file()
        and artifacts.sha256(artifacts.read_bytes(path)) == export.digest
    )


def _met(search: SearchResult, export: ExportResult | None) -> bool:
    if export:
        return export.within_budget
    return search.base_meets_budget or search.met


def _verdict(search: SearchResult, train: TrainResult | None, export: ExportResult | None) -> str:
    known, met = export or search, _met(search, export)
    if search.base_meets_budget and met:
        text = f"{_verdict_words(known, met)} by the unpruned network already: {known.budget}"
    else:
        text = f"{_verdict_words(known, met)}: {'the exported file' if export else 'the network'} "
        text += " and ".join(_against(one) for one in known.budgets)
    if train and not search.base_meets_budget:
        top1 = export.top1 if export and export.top1 is not None else train.top1
        points = 100 * (top1 - train.base_top1)
        text += f"; test top-1 {top1:.1%}, {points:+.1f} points against the unpruned network"
    if export and export.weights == "random":
        text += "; its weights are random, it serves for timing only"
    return text + "."


def _verdict_words(known: SearchResult | ExportResult, met: bool) -> str:
    if not met:
        return "BUDGET MISSED"
    return "PREDICTED, NOT MEASURED, to keep the budget" if known.unmeasured else "Budget met"


def _against(figure: Figure) -> str:
    """A figure and its budget: `runs in 8.4 ms, the budget is 60% (8.5 ms)`."""
    limit = figure.text(figure.limit or 0.0)
    budget = f"{figure.budget} ({limit})" if figure.budget.endswith("%") else limit
    value = figure.text(figure.value)
    if figure.unit != "ms":
        return f"has {value} ({figure.title}), the budget is {budget}"
    verb = "was measured at" if figure.is_measured else "is predicted to take"
    return f"{verb} {value} on {figure.name}, the budget is {budget}"


def _rows(search: SearchResult, train: TrainResult | None, export: ExportResult | None) -> tuple[Row, ...]:
    known = export or search
    rows = [
        _top1_row(search, train),
        *_integer_rows(export),
        *(row for one in known.figures for row in _figure_rows(one)),
        Row(
            name="speed-up" if known.latency.is_measured else "speed-up, predicted",
            base="1.00x",
            pruned=f"{known.latency.base / known.latency.value:.2f}x",
        ),
    ]
    if export:
        rows.append(
            Row(name="ONNX file", base="", pruned=f"{export.bytes / 2**20:.2f} MiB", change=export.file)
        )
    return tuple(rows)


def _top1_row(search: SearchResult, train: TrainResult | None) -> Row:
    if train is None:
        todo = "run `hwprune train`" if search.images else "no images"
        return Row(name="test top-1", base=MISSING, pruned=MISSING, change=todo)
    change = f"{100 * (train.top1 - train.base_top1):+.2f} points"
    return Row(name="test top-1", base=f"{train.base_top1:.2%}", pruned=f"{train.top1:.2%}", change=change)


def _figure_rows(figure: Figure) -> list[Row]:
    """A figure of both networks, and its budget."""
    rows = []
    base, share = figure.text(figure.base), f"{figure.value / figure.base:.1%}"
    if figure.unit == "ms":
        predicted = figure.text(figure.predicted)
        change = f"{figure.predicted / figure.base:.1%}"
        name = f"{figure.title}, predicted" + ("" if figure.is_measured else ", NOT MEASURED")
        rows.append(Row(name=name, base=base, pruned=predicted, change=change))
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
    points = 100 * (export.top1 - (export.trained_top1 or 0.0))
    name = f"test top-1, {export.precision} file"
    return [
        Row(
            name=name,
            base=MISSING,
            pruned=f"{export.top1:.2%}",
            change=f"{points:+.2f} by {export.precision}",
        )
    ]
