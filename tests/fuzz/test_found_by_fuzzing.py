"""Inputs that once gave another error than a documented one, one for each defect that was mended."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from random import Random
from typing import Any

import fuzz_reports
import fuzz_seeds as seeds
import onnx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from fuzz_mutator import EXTREMES, bad_json, sealed

from hwprune import artifacts
from hwprune.config import load_config
from hwprune.data.datasets import open_data
from hwprune.errors import ArtifactError, ConfigError, DataError, ModelError, nearest
from hwprune.gate.result import BenchResult
from hwprune.latency.fingerprint import graph_fingerprint
from hwprune.latency.records import Journal
from hwprune.latency.width_sweep import WidthSweep
from hwprune.results import SearchResult
from hwprune.runtimes.profiles import load_profile
from hwprune.structure.onnx_graph import read_graph
from hwprune.structure.onnx_slice import OnnxSlicer
from hwprune.training.checkpoint import load_checkpoint
from hwprune.training.optimiser import Optimiser
from hwprune.training.settings import TrainSettings


@pytest.mark.parametrize(
    "text", ["seed = " + "9" * 5000, "a = " + "[" * 3000, "[profiling]\nmax_error = nan"]
)
def test_toml_that_its_parser_gives_up_on(tmp_path: Path, text: str) -> None:
    for name, load in (("hwprune.toml", load_config), ("p.toml", load_profile)):
        (tmp_path / name).write_text(text)
        with pytest.raises(ConfigError):
            load(tmp_path / name)


@pytest.mark.parametrize("value", ["inf", "nan", "1" + "0" * 400])
def test_a_setting_that_is_no_finite_number(tmp_path: Path, value: str) -> None:
    (tmp_path / "hwprune.toml").write_text(f"[profiling]\nmax_seconds = {value}\n")
    with pytest.raises(ConfigError, match="problems"):
        load_config(tmp_path / "hwprune.toml")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 10**400, 2**63, "\ud800", [[[[]]]] * 2])
def test_numbers_and_texts_that_no_file_of_ours_has(tmp_path: Path, value: Any) -> None:
    if isinstance(value, list):
        for _ in range(60):
            value = [value]
    (tmp_path / "x.json").write_bytes(sealed("kind", 1, {"a": value}))
    with pytest.raises(ArtifactError, match="damaged"):
        artifacts.read_json(tmp_path / "x.json", "kind", 1)


@pytest.mark.parametrize("value", [1e308, -(2**63), 2**63 - 1, "\U0001f600", -0.0])
def test_numbers_and_texts_that_are_good(tmp_path: Path, value: Any) -> None:
    artifacts.write_json(tmp_path / "x.json", "kind", 1, {"a": value})
    assert artifacts.read_json(tmp_path / "x.json", "kind", 1) == {"a": value}


@pytest.mark.parametrize(
    "change",
    [
        {"widths": "8 16"},
        {"score": None},
        {"groups": ["0"]},
        {"figures": []},
        {"profile": "../../elsewhere"},
        {"pruningnet": "/etc/passwd"},
        {"pruningnet": ".."},
    ],
)
def test_results_of_other_types_or_with_paths(tmp_path: Path, change: dict[str, Any]) -> None:
    payload = json.loads(json.dumps(asdict(seeds.results()[0])))
    refuses(tmp_path / "search.json", {**payload, **change})


@pytest.mark.parametrize("change", [{"limit": 0.0}, {"unit": "miles"}])
def test_figures_that_mean_nothing(tmp_path: Path, change: dict[str, Any]) -> None:
    payload = json.loads(json.dumps(asdict(seeds.results()[0])))
    payload["figures"][1].update(change if "unit" not in change else {**change, "name": "x"})
    refuses(tmp_path / "search.json", payload)


def refuses(path: Path, payload: dict[str, Any]) -> None:
    path.write_bytes(sealed(SearchResult.kind, SearchResult.schema_version, payload))
    with pytest.raises(ArtifactError, match="damaged"):
        SearchResult.load(path)


def test_a_curve_with_fewer_points_than_widths(tmp_path: Path) -> None:
    curve = {"group": "0", "widths": [8, 16], "network_ms": [1.0], "layers_us": {}}
    path = tmp_path / "curves.json"
    path.write_bytes(sealed("width-curves", 1, {"curves": [curve], "inversions": []}))
    with pytest.raises(ArtifactError, match="other points"):
        WidthSweep.load(path)


@pytest.mark.parametrize("session", [{}, {"profile": "x", "device": [], "runtime": 3}])
def test_a_session_without_conditions(tmp_path: Path, session: dict[str, Any]) -> None:
    (tmp_path / "session.json").write_bytes(sealed("latency-session", 2, session))
    with pytest.raises(ArtifactError, match="cannot be continued"):
        Journal(tmp_path, {"profile": {}, "device": {}, "runtime": {}})


@pytest.mark.parametrize(
    "info", [{}, {"identity": [], "history": []}, {"identity": {}, "history": [{"a": 1}]}]
)
def test_a_checkpoint_without_a_history(tmp_path: Path, info: dict[str, Any]) -> None:
    module = seeds.network()
    tensors = {f"weight/{name}": tensor for name, tensor in module.state_dict().items()}
    artifacts.write_tensors(tmp_path / "c.safetensors", "training-checkpoint", 1, tensors, info)
    with pytest.raises(ArtifactError, match="damaged"):
        load_checkpoint(tmp_path / "c.safetensors", module, Optimiser(module, TrainSettings()), {})


def test_a_checkpoint_with_momentum_of_another_shape(tmp_path: Path) -> None:
    module = seeds.network()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    tensors = {f"weight/{name}": tensor + 1 for name, tensor in before.items()}
    tensors["momentum/0.weight"] = torch.zeros(7)
    info = {"identity": {}, "history": []}
    artifacts.write_tensors(tmp_path / "c.safetensors", "training-checkpoint", 1, tensors, info)
    with pytest.raises(ArtifactError, match="another training run"):
        load_checkpoint(tmp_path / "c.safetensors", module, Optimiser(module, TrainSettings()), {})
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())


def test_parquet_columns_whose_names_are_no_unicode(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": [{"bytes": b"", "path": "x"}], "label": [0]}), tmp_path / "x.parquet")
    content = (tmp_path / "x.parquet").read_bytes().replace(b"path", b"pa\xffh")
    (tmp_path / "train.parquet").write_bytes(content)
    with pytest.raises(DataError, match="not a readable parquet file"):
        open_data(f"parquet:{tmp_path}")


def test_inputs_do_not_change_what_they_are_made_of() -> None:
    """A piece that was put in, and then changed by the next mutation, was another one in all later inputs."""
    before = repr(EXTREMES)
    for number in range(3000):
        json.dumps(bad_json(Random(number), {"a": [1, [2]], "b": {"c": "x"}}))
    assert repr(EXTREMES) == before


def test_figures_that_were_compared_with_nothing_known(tmp_path: Path) -> None:
    file = json.loads(fuzz_reports.benches(tmp_path)[0])
    path = tmp_path / "bench.json"
    path.write_bytes(sealed(file["kind"], file["schema_version"], {**file["payload"], "compared_with": "x"}))
    with pytest.raises(ArtifactError, match="compared with"):
        BenchResult.load(path)


def altered(change: Any) -> bytes:
    model = onnx.load_model_from_string(seeds.onnx_bytes())
    change(model.graph)
    return bytes(model.SerializeToString())


def cut_outputs(graph: Any) -> None:
    del graph.node[0].output[:]


def make_a_ring(graph: Any) -> None:
    graph.node[1].input[0] = graph.node[-1].output[0]


def make_twice(graph: Any) -> None:
    graph.node.append(graph.node[0])


@pytest.mark.parametrize("change", [cut_outputs, make_a_ring, make_twice])
def test_onnx_graphs_that_cannot_be_followed(change: Any) -> None:
    with pytest.raises(ModelError):
        read_graph(altered(change))


def test_onnx_names_that_are_no_unicode() -> None:
    content = seeds.onnx_bytes().replace(b"Conv", b"Con\xff")
    with pytest.raises(ModelError):
        graph_fingerprint(read_graph(content))


def test_onnx_weights_with_other_sizes_than_values() -> None:
    def stretch(graph: Any) -> None:
        graph.initializer[0].dims[0] = 2**31

    with pytest.raises(ModelError, match="not consistent"):
        OnnxSlicer(altered(stretch), seeds.space())


def test_a_very_long_name_is_compared_with_nothing() -> None:
    assert nearest("x" * 10**6, ["search"]) == "search"
