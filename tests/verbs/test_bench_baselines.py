"""`hwprune bench` against what an earlier run left: its model, or its figures alone."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from benches import command, counted_looks, noisy, true_ms

import hwprune
from hwprune import artifacts
from hwprune.errors import HwpruneError
from hwprune.gate.result import BenchResult
from hwprune.gate.verdict import Verdict
from hwprune.runtimes.fake import FakeRuntime
from hwprune.runtimes.probes import conv_chain
from hwprune.verbs import bench as module


def test_a_baseline_whose_model_is_there_is_measured_anew(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("base.onnx", "--output", "kept/b.json") == 0
    assert command("slow.onnx", "--baseline", "kept/b.json") == 1
    assert "interleaved with the baseline" in capsys.readouterr().out
    shutil.move("base.onnx", "kept/base.onnx")  # beside its figures does as well
    found = hwprune.bench(Path("slow.onnx"), baseline=Path("kept/b.json"), profile="fake.toml")
    assert found.compared_with == "model"
    assert found.baseline is not None
    assert found.baseline.file == "kept/base.onnx"


def test_a_baseline_whose_model_has_changed_is_compared_by_its_figures(work: Path) -> None:
    assert command("base.onnx", "--output", "b.json") == 0
    shutil.copy("fat.onnx", "base.onnx")
    found = hwprune.bench(Path("slow.onnx"), baseline=Path("b.json"), profile="fake.toml")
    assert found.compared_with == "figures"
    assert found.verdict == Verdict.REGRESSION
    assert found.ratio is not None
    assert found.ratio.value == pytest.approx(true_ms("slow") / true_ms("base"))


def test_stored_figures_hold_on_a_machine_that_is_slower_today(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both are related to the reference workload, which is slower by as much."""
    hwprune.bench(Path("base.onnx"), profile="fake.toml", output=Path("b.json"))
    Path("base.onnx").rename("new.onnx")

    class Slower(FakeRuntime):
        def speed(self) -> float:
            return 1.3

        def describe(self) -> dict[str, str]:
            return FakeRuntime().describe()

    monkeypatch.setattr(module, "get_runtime", lambda _: Slower())
    found = hwprune.bench(Path("new.onnx"), baseline=Path("b.json"), profile="fake.toml")
    assert found.compared_with == "figures"
    assert found.baseline is not None
    assert found.model.ms == pytest.approx(1.3 * found.baseline.ms)
    assert found.verdict == Verdict.PASS


def test_figures_of_a_noisy_machine_are_called_so_when_they_are_kept_and_when_they_are_used(
    work: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as then:
        noisy(then, drift=0.8, drift_period_ms=700.0)
        assert command("base.onnx", "--output", "b.json", "--max-time", "2s") == 0
    text = " ".join("".join(capsys.readouterr()).split())
    assert "too noisy for the figures in" in text
    assert "Nothing was limited" in text
    assert "The machine was too noisy to be trusted" in text
    Path("base.onnx").unlink()
    looks = counted_looks(monkeypatch)
    assert command("slow.onnx", "--baseline", "b.json") == 3
    text = " ".join("".join(capsys.readouterr()).split())
    assert "The baseline's figures were taken on a machine that was too noisy" in text
    assert "The machine was too noisy" not in text, "this one is quiet"
    assert len(looks) == 1, "a longer look does not help"


def test_a_workload_run_in_turmoil_makes_no_trusted_figures(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = module._Gate._measure

    def measured(gate: module._Gate, other: object, *arguments: float) -> object:
        found = plain(gate, other, *arguments)
        return found if other else replace(found, noise=0.5)

    monkeypatch.setattr(module._Gate, "_measure", measured)
    known = {"baseline": Path("base.onnx"), "profile": "fake.toml"}
    found = hwprune.bench(Path("slim.onnx"), output=Path("b.json"), **known)
    assert (found.verdict, found.trusted) == (Verdict.PASS, False)
    assert hwprune.bench(Path("slim.onnx"), **known).trusted


def test_stored_figures_beside_another_workload_are_refused(
    work: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("base.onnx", "--output", "b.json") == 0
    Path("base.onnx").unlink()
    monkeypatch.setattr(module, "reference_workload", lambda *_: conv_chain([32, 32]))
    assert command("slow.onnx", "--baseline", "b.json") == 2
    assert "another reference workload" in capsys.readouterr().err


def test_stored_figures_of_another_machine_are_refused(
    work: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert command("base.onnx", "--output", "b.json") == 0
    payload = artifacts.read_json(work / "b.json", BenchResult.kind, BenchResult.schema_version)
    payload["conditions"]["device"]["model"] = "Another CPU"
    artifacts.write_json(work / "b.json", BenchResult.kind, BenchResult.schema_version, payload)
    assert command("slow.onnx", "--baseline", "b.json") == 1, "its model is here: the machine does not matter"
    assert "Regression" in capsys.readouterr().out
    (work / "base.onnx").unlink()
    assert command("slow.onnx", "--baseline", "b.json") == 2
    text = capsys.readouterr().err
    assert "not Another CPU" in text
    assert "beside its figures" in text


@pytest.mark.parametrize("name", ["x" * 300, "/proc/self/mem", "\0", "..", ""])
def test_figures_that_name_an_impossible_model_do_no_harm(work: Path, name: str) -> None:
    """It is compared by its figures, or refused with an error of the house."""
    assert command("base.onnx", "--output", "b.json") == 0
    payload = artifacts.read_json(work / "b.json", BenchResult.kind, BenchResult.schema_version)
    payload["model"]["file"] = name
    artifacts.write_json(work / "b.json", BenchResult.kind, BenchResult.schema_version, payload)
    try:
        found = hwprune.bench(Path("slow.onnx"), baseline=Path("b.json"), profile="fake.toml")
    except HwpruneError:
        return
    assert found.compared_with == "figures"
