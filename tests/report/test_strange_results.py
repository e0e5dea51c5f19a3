"""What a report says of a search result that is whole but strange: anybody may have written it."""

from __future__ import annotations

import copy
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import pytest
from examples import export, search, train

from hwprune import artifacts
from hwprune.errors import ArtifactError
from hwprune.evolution.search import GenerationSummary
from hwprune.latency.width_sweep import Inversion
from hwprune.report.facts import collect
from hwprune.results import Epoch, ExportResult, Generation, SearchResult, Step
from hwprune.training.history import EpochFigures


def load(path: Path, kind: Any, payload: dict[str, Any]) -> Any:
    artifacts.write_json(path, kind.kind, kind.schema_version, payload)
    return kind.load(path)


def without(row: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != key}


@pytest.mark.parametrize(
    ("row", "made"), [(Epoch, EpochFigures), (Generation, GenerationSummary), (Step, Inversion)]
)
def test_rows_of_results_have_the_fields_of_what_they_are_made_of(row: type, made: type) -> None:
    assert [*row.__annotations__] == [one.name for one in fields(made)]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("devices", [{}]),
        ("devices", []),
        ("history", [{"generation": 1, "evaluated": 8, "best": 0.5}]),
        ("history", [{**search().history[1], "mean_score": None}]),
        ("corrections", [{}]),
        ("corrections", [{**search().corrections[0], "factors": {"cpu-1t": "1"}}]),
        ("corrections", [{**search().corrections[0], "checks": [["cpu-1t", 0.0, 1.0, None]]}]),
        ("corrections", [{**search().corrections[0], "checks": [["cpu-1t", 1.0, 1.0]]}]),
        ("inversions", [{"group": "stem"}]),
        ("pruningnet_history", [without(search().pruningnet_history[0], "lr")]),
        ("pruningnet_history", [{**search().pruningnet_history[0], "loss": "low"}]),
        ("held_out", [[0.0, 1.0, 0.1]]),
        ("candidates", [[0.5, 1e300]]),
        ("full_widths", [0, 32, 64]),
        ("widths", [32, 32, 64]),
        ("binding", "another"),
    ],
)
def test_a_search_result_of_nonsense_is_refused(tmp_path: Path, field: str, value: object) -> None:
    with pytest.raises(ArtifactError, match="damaged"):
        load(tmp_path / "search.json", SearchResult, {**asdict(search()), field: value})


@pytest.mark.parametrize(
    ("index", "changed"),
    [
        (0, {"base": 0.0}),
        (0, {"predicted": 0.0}),
        (0, {"measured": 0.0}),
        (0, {"measured": -1.0}),
        (0, {"base": 1e-300}),
        (0, {"name": "../../x"}),
        (0, {"name": "another"}),
        (0, {"budget": ""}),
        (1, {"base": 0.0}),
        (1, {"name": "params", "unit": "params"}),
        (1, {"name": "steps"}),
    ],
)
def test_a_figure_of_nonsense_is_refused(tmp_path: Path, index: int, changed: dict[str, object]) -> None:
    payload = copy.deepcopy(asdict(search()))
    payload["figures"][index].update(changed)
    with pytest.raises(ArtifactError, match="damaged"):
        load(tmp_path / "search.json", SearchResult, payload)


@pytest.mark.parametrize("name", ["../../x", "", "..", "a/b", "a\\b"])
def test_a_name_that_leads_out_of_the_work_folder_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ArtifactError, match="damaged"):
        load(tmp_path / "export.json", ExportResult, {**asdict(export()), "profile": name})


@pytest.mark.parametrize("file", ["/etc/passwd", "../../../etc/passwd", "\0", "x" * 5000, ".", ""])
def test_a_file_elsewhere_is_only_compared_with_its_digest(tmp_path: Path, file: str) -> None:
    work = tmp_path / "hwprune-work"
    search().save(work / "search.json")
    train().save(work / "train.json")
    load(work / "export.json", ExportResult, {**asdict(export()), "file": file})
    try:
        found = collect(work, tmp_path)
    except ArtifactError:
        return
    assert found.export is None
