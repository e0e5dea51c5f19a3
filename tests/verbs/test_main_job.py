"""The whole job on a device whose latencies are known: what each verb leaves, and that it is true."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from chromium import NAMES, Chromium, chromium_path
from projects import IMAGE_SIZE
from torch import nn

from hwprune.cli.main import main
from hwprune.evolution.problem import Problem
from hwprune.latency.table import LatencyTable
from hwprune.project.folder import Project
from hwprune.results import ExportResult, ProfileResult, SearchResult, TrainResult
from hwprune.structure.prune import prune
from hwprune.verbs.predict import predict
from hwprune.verbs.search import search
from hwprune.verbs.train import train


def load(folder: Path) -> tuple[SearchResult, TrainResult, ExportResult]:
    work = folder / "hwprune-work"
    return (
        SearchResult.load(work / "search.json"),
        TrainResult.load(work / "train.json"),
        ExportResult.load(work / "export.json"),
    )


def test_the_answer_was_measured_within_the_budget(finished: Path) -> None:
    search_result, _, exported = load(finished)
    latency = search_result.latency
    assert latency.limit == pytest.approx(0.6 * latency.base)
    assert latency.measured + latency.error <= latency.limit
    assert latency.use >= 0.8, "the budget is there to be used"
    assert exported.within_budget
    assert exported.latency.measured <= exported.latency.limit


def test_the_search_kept_the_budget_and_improved(finished: Path) -> None:
    result = load(finished)[0]
    scores = [score for score, _ in result.candidates]
    assert len(result.candidates) == 24
    best = max(s for s, ms in result.candidates if ms <= result.latency.limit)
    assert best - 1.5 * result.score_error <= result.score <= best
    assert all(ms <= 1.1 * result.latency.limit for _, ms in result.candidates)
    assert len(set(scores)) > 3, "the judge tells networks apart"


def test_predictions_agree_with_measurements(finished: Path) -> None:
    result = load(finished)[0]
    assert result.latency.predicted == pytest.approx(result.latency.measured, rel=0.1)
    asked = predict(project=finished, uniform=("50%", "100%"), widths=(",".join(map(str, result.widths)),))
    rows = asked.rows
    assert len(asked.errors_ms) == len(rows)
    assert all(0 < error_ms < 0.5 * row[2] for error_ms, row in zip(asked.errors_ms, rows, strict=True))
    assert rows[1][2] == pytest.approx(result.latency.base, rel=0.1)
    assert rows[0][2] < rows[1][2]
    assert rows[2][3] == result.figure("macs").value


def test_the_exported_file_computes_what_the_trained_network_computes(
    finished: Path, opened: Project
) -> None:
    search_result, trained, exported = load(finished)
    model = prune(opened.new_model(), opened.space(search_result.profile), search_result.widths).eval()
    model.load_state_dict(opened.load_network("pruned", "")[0])
    session = onnxruntime.InferenceSession(finished / exported.file, providers=["CPUExecutionProvider"])
    right = 0
    for images, labels in opened.splits.test.batches(1):
        (scores,) = session.run(None, {"input": images.numpy()})
        right += int(scores.argmax() == labels.item())
    assert right / len(opened.splits.test) == pytest.approx(trained.top1, abs=0.005)
    x = torch.randn(1, 3, IMAGE_SIZE, IMAGE_SIZE)
    with torch.inference_mode():
        expected = model(x).numpy()
    np.testing.assert_allclose(session.run(None, {"input": x.numpy()})[0], expected, rtol=1e-3, atol=1e-4)


def test_the_file_carries_its_provenance_and_its_weights(finished: Path) -> None:
    search_result, trained, exported = load(finished)
    model = onnx.load(finished / exported.file, load_external_data=False)
    facts = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(facts["hwprune.widths"]) == list(search_result.widths)
    assert facts["hwprune.budget"] == exported.budget == "60% on fake"
    assert float(facts["hwprune.top1"]) == pytest.approx(trained.top1, abs=1e-5)
    assert float(facts["hwprune.measured_ms"]) == pytest.approx(exported.latency.measured, rel=1e-4)
    assert "features" in json.loads(facts["hwprune.device"])
    assert len(json.loads(facts["hwprune.classes"])) == 10
    assert all(tensor.data_location == onnx.TensorProto.DEFAULT for tensor in model.graph.initializer)
    assert not any(node.op_type == "BatchNormalization" for node in model.graph.node)


def test_the_report_shows_latency_over_width(finished: Path) -> None:
    result = load(finished)[0]
    payload = json.loads((finished / "report.json").read_text())["payload"]
    assert [curve["group"] for curve in payload["curves"]["curves"]] == list(result.groups)
    assert payload["staircase"]["multiple"] == 8
    layers = {name for curve in payload["curves"]["curves"] for name in curve["layers_us"]}
    assert {"conv1", "layer1.0.conv1", "fc"} <= layers
    page = (finished / "report.html").read_text()
    assert page.count("<figure>") > len(result.groups)
    assert "http-equiv" not in page
    assert "<script src" not in page, "the page opens without a network"
    for name in (*result.groups, "wider neighbour", "Steps of the device"):
        assert name in page
    assert "wider neighbour" in (finished / "report.md").read_text()


def test_the_search_keeps_what_its_report_shows(finished: Path) -> None:
    result, trained, exported = load(finished)
    unpruned_us, pruned_us = map(sum, zip(*result.layer_times.values(), strict=True))
    assert unpruned_us == pytest.approx(1e3 * result.latency.base, rel=0.05)
    assert pruned_us == pytest.approx(1e3 * result.latency.predicted)
    assert {"conv1", "layer1.0.conv1", "fc", "(run)"} <= set(result.layer_times)
    assert len(result.held_out) >= 3
    for predicted_ms, measured_ms, error_ms in result.held_out:
        assert predicted_ms == pytest.approx(measured_ms, rel=0.1)
        assert error_ms >= 0
    checks = [check for facts in result.corrections for check in facts["checks"]]
    assert checks
    assert all(guess == pytest.approx(ms, rel=0.1) and error is not None for _, guess, ms, error in checks)
    assert result.candidates
    assert 0 < result.base_score <= 1
    assert result.command == "hwprune search --latency 60% --seed 0"
    assert [one["name"] for one in result.devices] == [result.profile]
    assert "hwprune" in result.devices[0]["libraries"]
    assert trained.data == "digits"
    commands = json.loads((finished / "report.json").read_text())["payload"]["commands"]
    assert [command.split()[1] for command in commands] == ["profile", "search", "train", "export", "report"]
    assert exported.file in commands[3]


def test_a_project_is_compared_with_its_own_report(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", str(finished), str(finished / "report.json"), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    one, other = ({**entry, "name": ""} for entry in printed["entries"])
    assert one == other
    assert one["top1"] == load(finished)[1].top1
    assert printed["latency_differs"] == printed["accuracy_differs"] == []


@pytest.mark.slow
def test_the_report_of_a_real_search_is_drawn(finished: Path, tmp_path: Path) -> None:
    path = chromium_path()
    if path is None:
        pytest.skip(f"no Chromium here: none of {', '.join(NAMES)}")
    with Chromium(path, tmp_path) as browser:
        browser.open(finished / "report.html", width=390)
        assert browser.complaints == []
        drawn = "[...document.querySelectorAll('.plot')].map(box => box.querySelector('.trace, .hm'))"
        empty = f"{drawn}.filter(one => !one).length"
        assert browser.value(empty) == 0
        assert browser.value("document.querySelectorAll('.plot').length") > len(load(finished)[0].groups)
        assert browser.value("document.documentElement.scrollWidth") <= 390


def test_the_report_puts_both_networks_side_by_side(finished: Path) -> None:
    text = (finished / "report.md").read_text()
    result = load(finished)[0]
    for words in ("Budget met", "test top-1", "MACs", "parameters", "measured", "speed-up", result.groups[0]):
        assert words in text
    written = json.loads((finished / "report.json").read_text())
    assert written["kind"] == "report"
    layers = {row["name"]: row for row in written["payload"]["layers"]}
    modules = Project(finished).new_model().named_modules()
    assert set(layers) == {name for name, m in modules if isinstance(m, nn.Conv2d | nn.Linear)}
    assert layers["conv1"]["outputs"] == [16, result.widths[0]]
    assert layers["layer1.0.conv1"]["inputs"] == [16, result.widths[0]]
    assert layers["fc"]["outputs"] == [10, 10]


def test_a_second_run_of_a_verb_repeats_nothing_and_gives_the_same(finished: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(finished, folder)
    before = load(folder)
    again = search(project=folder, latency="60%")
    assert again.widths == before[0].widths
    assert again.candidates == before[0].candidates
    trained = train(project=folder, epochs=1)
    assert (trained.top1, trained.base_top1) == (before[1].top1, before[1].base_top1)


def test_training_can_start_from_scratch(finished: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(finished, folder)
    result = train(project=folder, start="scratch", epochs=1)
    assert (load(finished)[1].start, result.start) == ("inherited", "scratch")
    assert result.history[0]["loss"] > load(finished)[1].history[0]["loss"], "it starts from nothing"


def test_a_budget_that_the_unpruned_network_meets_is_answered_with_it(profiled: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(profiled, folder)
    base_ms = ProfileResult.load(next((folder / "hwprune-work/latency").glob("*/profile.json"))).base_ms
    result = search(project=folder, latency=f"{2 * base_ms:.6f}ms")
    assert result.base_meets_budget
    assert result.widths == result.full_widths
    assert result.candidates == ()


def test_without_images_the_largest_network_in_the_budget_wins(profiled: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(profiled, folder)
    result = search(project=folder, latency="50%", score="macs")
    assert result.score_kind == "macs"
    macs = result.figure("macs")
    assert result.score == pytest.approx(macs.value / macs.base)
    assert result.latency.measured <= result.latency.limit


def test_budgets_keep_room_for_the_drift_of_the_machine(
    profiled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(profiled, folder)
    base_ms = ProfileResult.load(next((folder / "hwprune-work/latency").glob("*/profile.json"))).base_ms
    aims = []

    def look(problem: Problem, *_: object, **__: object) -> None:
        aims.append(problem.constraints[0].limit / base_ms)
        raise KeyboardInterrupt

    monkeypatch.setattr(LatencyTable, "drift", 0.01)
    monkeypatch.setattr(LatencyTable, "contention", 0.02)
    monkeypatch.setattr("hwprune.searching.searcher.evolve", look)
    for budget in (f"{0.75 * base_ms:.9f}ms", "75%"):
        with pytest.raises(KeyboardInterrupt):
            search(project=folder, latency=budget, score="macs")
    apart = 2 * 0.02 * math.log(1 / 0.75)  # of a network of 75 % from the unpruned one
    assert aims == pytest.approx([0.98 * 0.75, (1 - apart) * 0.75])


def test_the_report_is_json_too(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "--project", str(finished), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["met"] is True
    assert printed["staircase"]["multiple"] == 8


@pytest.mark.slow
def test_a_residual_judge_starts_from_the_trained_network(profiled: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(profiled, folder)
    config = folder / "hwprune.toml"
    text = config.read_text().replace('generator = "fc"', 'generator = "residual"')
    config.write_text(text.replace('importance = "l1"', 'importance = "taylor"'))  # which needs images
    result = search(project=folder, latency="60%", score="pruningnet")
    assert result.score_kind == "pruningnet"
    bases = list((folder / "hwprune-work").glob("base-*.safetensors"))
    assert len(bases) == 1
    before = bases[0].stat().st_mtime_ns
    trained = train(project=folder, epochs=1)
    assert trained.start == "generated", "from the weights that it was chosen with"
    assert bases[0].stat().st_mtime_ns == before, "the unpruned network is trained once for both"
