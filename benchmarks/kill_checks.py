"""Whether the files of a project are whole, and whether two projects came to the same results."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import onnx
import torch
from safetensors import safe_open

from hwprune import artifacts, logbook
from hwprune.config import load_config
from hwprune.errors import HwpruneError
from hwprune.latency.table import LatencyTable
from hwprune.report.facts import KIND, SCHEMA_VERSION
from hwprune.results import ExportResult, ProfileResult, SearchResult, TrainResult
from hwprune.structure.onnx_graph import read_graph
from hwprune.structure.space import SearchSpace

if TYPE_CHECKING:
    from pathlib import Path

_RESULTS = {
    "profile.json": ProfileResult,
    "search.json": SearchResult,
    "train.json": TrainResult,
    "export.json": ExportResult,
    "space.json": SearchSpace,
}
_CLOCK = ("seconds", "date", "stolen")  # columns and keys that tell of the run, not of the result
_TABLE = "hwprune-work/latency/fake"


class State(NamedTuple):
    """The files of a project.

    Attributes:
        corrupt: What is wrong with each file that its reader refuses, or that nobody knows.
        half_written: Temporaries that are out of every reader's way.
    """

    corrupt: list[str]
    half_written: list[str]


def look(folder: Path) -> State:
    """Read every file of a project with its own reader."""
    corrupt = []
    half_written = [str(path) for path in folder.rglob(f".*{artifacts.PART}")]
    for path in folder.rglob("*"):
        if path.is_file() and not any(part.endswith(artifacts.PART) for part in path.parts):
            try:
                _read(path)
            except (HwpruneError, ValueError, onnx.checker.ValidationError) as error:
                corrupt.append(f"{path.relative_to(folder)}: {error}")
    return State(corrupt, half_written)


def _read(path: Path) -> None:
    if path.name in _RESULTS:
        _RESULTS[path.name].load(path)
    elif path.name == "table.json":
        LatencyTable.load(path.parent)  # and the two files whose checksums it holds
    elif path.suffix == ".json":
        header = json.loads(path.read_bytes())
        artifacts.read_json(path, header["kind"], header["schema_version"])
    elif path.suffix == ".jsonl":
        logbook.read(path)
    elif path.suffix == ".safetensors":
        _tensors(path)
    elif path.name == "graph.onnx":  # its weights are left out, which the checker does not know
        read_graph(path.read_bytes())
    elif path.suffix == ".onnx":
        onnx.checker.check_model(onnx.load(path))
    elif path.suffix == ".toml":
        load_config(path)
    elif path.name == "report.html":
        if not path.read_text().rstrip().endswith("</html>"):
            raise ValueError("the page has no end")
    elif path.name not in ("kernels.csv", "networks.csv", "report.md", ".lock"):
        raise ValueError("nobody knows this file")


def _tensors(path: Path) -> dict[str, torch.Tensor]:
    with safe_open(path, "pt") as file:
        header = file.metadata()
    return artifacts.read_tensors(path, header["kind"], int(header["schema_version"]))[0]


def differences(verb: str, one: Path, other: Path) -> list[str]:
    """In what the results of a verb differ between two projects; the clock does not count."""
    results = {"profile": [f"{_TABLE}/profile.json"], "report": []}.get(verb, [f"hwprune-work/{verb}.json"])
    found = [name for name in results if _result(one / name) != _result(other / name)]
    files = {
        "search": ["hwprune-work/pruningnet-*.safetensors"],
        "train": ["hwprune-work/base.safetensors", "hwprune-work/pruned.safetensors"],
    }.get(verb, [])
    found += [name for name in files if not _same_tensors(one, other, name)]
    if verb == "profile" and not _same_tables(one / _TABLE, other / _TABLE):
        found.append("latency table")
    if verb == "export" and not _same_weights(one / "pruned.onnx", other / "pruned.onnx"):
        found.append("pruned.onnx")
    if verb == "report":
        found += [name for name in ("report.html", "report.md") if not (one / name).is_file()]
        if _report(one) != _report(other):
            found.append("report.json")
    return found


def _result(path: Path) -> Any:
    return _timeless(asdict(_RESULTS[path.name].load(path)))


def _report(folder: Path) -> Any:
    return _timeless(artifacts.read_json(folder / "report.json", KIND, SCHEMA_VERSION))


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _timeless(item) for key, item in value.items() if key not in _CLOCK}
    return [_timeless(item) for item in value] if isinstance(value, list | tuple) else value


def _same_tensors(one: Path, other: Path, pattern: str) -> bool:
    files = sorted(one.glob(pattern)), sorted(other.glob(pattern))
    if [path.name for path in files[0]] != [path.name for path in files[1]] or not files[0]:
        return False
    for mine, theirs in zip(*(map(_tensors, paths) for paths in files), strict=True):
        if mine.keys() != theirs.keys() or not all(torch.equal(mine[name], theirs[name]) for name in mine):
            return False
    return True


def _same_tables(one: Path, other: Path) -> bool:
    tables = LatencyTable.load(one), LatencyTable.load(other)
    networks = [table.networks.drop(columns=list(_CLOCK)) for table in tables]
    return networks[0].equals(networks[1]) and tables[0].kernels.equals(tables[1].kernels)


def _same_weights(one: Path, other: Path) -> bool:
    graphs = [onnx.load(path).graph for path in (one, other)]
    weights = [{entry.name: onnx.numpy_helper.to_array(entry) for entry in g.initializer} for g in graphs]
    return weights[0].keys() == weights[1].keys() and all(
        np.array_equal(weights[0][name], weights[1][name]) for name in weights[0]
    )
