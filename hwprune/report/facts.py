"""The facts of a report, read off a project's artifacts. No torch, no runtime."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from hwprune import artifacts
from hwprune.config import FILE_NAME
from hwprune.latency.staircase import Staircase
from hwprune.latency.table import CURVES, STAIRCASE
from hwprune.latency.width_sweep import Inversion, WidthSweep
from hwprune.report.standing import MAX_DROP, Standing, advice, met, standing
from hwprune.report.verdict import Row, rows, verdict
from hwprune.results import ExportResult, FrontResult, ProfileResult, SearchResult, TrainResult
from hwprune.structure.space import SearchSpace

if TYPE_CHECKING:
    from pathlib import Path

KIND, SCHEMA_VERSION = "report", 4  # report.json
_Kept = TypeVar("_Kept", Staircase, WidthSweep)


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
        standing: How the result stands, by budget and by accuracy.
        advice: What to do next.
        max_drop: Points of test top-1 that might be lost.
        verdict: One sentence: is the budget met, and at which accuracy.
        rows: Base versus pruned, for the table.
        layers: Channels of every convolution and linear layer; empty when the search space is gone.
        staircase: Latency over the width of one layer, as the device was probed, if it is there.
        curves: Latency over width, predicted for every group and layer, if it is there.
        front: The networks of a range of budgets, if one was searched.
        commands: What to type to find it again.
        settings: The text of hwprune.toml; "" without one.
    """

    profile: ProfileResult | None
    search: SearchResult
    train: TrainResult | None
    export: ExportResult | None
    met: bool
    standing: Standing
    advice: tuple[str, ...]
    max_drop: float
    verdict: str
    rows: tuple[Row, ...]
    layers: tuple[LayerRow, ...]
    staircase: Staircase | None
    curves: WidthSweep | None
    front: FrontResult | None
    commands: tuple[str, ...]
    settings: str

    @property
    def unmeasured(self) -> tuple[str, ...]:
        """Devices that were not at hand: their latencies are predicted, not measured."""
        return (self.export or self.search).unmeasured

    @property
    def searches(self) -> tuple[SearchResult, ...]:
        """The search of each budget of the front, or the one there was."""
        return self.front.points if self.front else (self.search,)

    @property
    def evaluated(self) -> tuple[tuple[float, float], ...]:
        """[score, latency in ms] of every network that was evaluated, in the order of the searches."""
        return tuple(dict.fromkeys(pair for one in self.searches for pair in one.candidates))

    @property
    def inversions(self) -> tuple[Inversion, ...]:
        """Where a narrower network is slower: around the chosen, the unpruned, the middle network."""
        chosen = tuple(Inversion(**one) for one in self.search.inversions)
        return (*chosen, *(self.curves.inversions if self.curves else ()))


def collect(work: Path, folder: Path, max_drop: float = MAX_DROP) -> Report:
    """Read what the stages left in a project's work folder.

    A result of an earlier search (other widths) does not count.

    Args:
        work: The work folder.
        folder: The project folder.
        max_drop: Points of test top-1 that may be lost.

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
    front, settings = _front(work / "front.json", search), folder / FILE_NAME
    return Report(
        profile=profile,
        search=search,
        train=train,
        export=export,
        met=met(search, export),
        standing=standing(search, train, export, max_drop),
        advice=advice(search, train, export, max_drop),
        max_drop=max_drop,
        verdict=verdict(search, train, export, max_drop),
        rows=rows(search, train, export),
        layers=_layers(work / "search-space.json", search),
        staircase=_optional(Staircase, measured / STAIRCASE),
        curves=_optional(WidthSweep, measured / CURVES),
        front=front,
        commands=_commands(search, train, export, front),
        settings=artifacts.read_bytes(settings).decode(errors="replace") if settings.exists() else "",
    )


def _commands(
    search: SearchResult, train: TrainResult | None, export: ExportResult | None, front: FrontResult | None
) -> tuple[str, ...]:
    """The verbs that were run, with the options that decided the result."""
    verbs = [one["command"] for one in search.devices if one["command"]]
    verbs.append(search.command)
    point = f" --point {front.points.index(search) + 1}" if front else ""
    if train:
        start = "" if search.base_meets_budget else f" --start {train.start}"
        verbs.append(f"hwprune train{start} --epochs {train.epochs:g}{train.options}{point}")
    if export:
        verbs.append(f"hwprune export{_format(search, export)} --output {shlex.quote(export.file)}{point}")
    return (*verbs, "hwprune report")


def _format(search: SearchResult, export: ExportResult) -> str:
    """The options that decided the file's number format."""
    asked = " --int8" if export.precision != search.target.get("precision") else ""
    folder = export.calibration.partition(" images of ")[2]
    return f" --onnx{asked}{f' --calibration {shlex.quote(folder)}' if folder else ''}"


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
        if layer.op in ("conv", "deconv", "linear"):
            there = both[:, list(space.gates(layer.name))].prod(axis=1)
            reads, makes = ((side.count(both) * there).tolist() for side in (layer.inputs, layer.outputs))
            rows.append(LayerRow(name=layer.name, op=layer.op, inputs=tuple(reads), outputs=tuple(makes)))
    return tuple(rows)


def _current(export: ExportResult, search: SearchResult, train: TrainResult | None, folder: Path) -> bool:
    """Whether the file is there, and was exported for this answer, budget, device and training."""
    path = folder / export.file
    return (
        (export.structure, export.widths, export.budget, export.profile)
        == (search.structure, search.widths, search.budget, search.profile)
        and (train is None or export.trained_top1 == train.top1)
        and artifacts.is_file(path)
        and artifacts.sha256(artifacts.read_bytes(path, limit=artifacts.MAX_ONNX_BYTES)) == export.digest
    )
