"""`hwprune bench` gates the accuracy of a file on the test images of a data set."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hwprune.errors import MismatchError, ModelError, UsageError
from hwprune.gate.files import junit, markdown
from hwprune.gate.result import BenchResult
from hwprune.gate.verdict import Verdict
from hwprune.results import ExportResult
from hwprune.runtimes.probes import conv_chain
from hwprune.verbs.bench import bench


@pytest.fixture
def project(finished: Path, tmp_path: Path) -> Path:
    """A project with a file that was trained for one epoch."""
    return Path(shutil.copytree(finished, tmp_path / "project"))


@pytest.fixture
def top1(project: Path) -> float:
    """What `train` found."""
    found = ExportResult.load(project / "hwprune-work" / "export.json").top1
    assert found is not None
    return found


def test_the_file_has_the_accuracy_that_training_found(project: Path, top1: float) -> None:
    least = f"{100 * top1 - 1:.4f}%"
    found = bench(project, min_accuracy=least, max_time="2s")
    assert found.accuracy is not None
    assert found.accuracy.top1 == pytest.approx(top1)
    assert found.accuracy.data == "digits"
    assert found.verdict == Verdict.PASS
    # The file alone: its metadata tell normalisation, classes, and which images were held out.
    file = bench(project / "pruned.onnx", data="digits", profile=str(project / "fake.toml"), max_time="2s")
    assert file.accuracy == found.accuracy
    assert file.verdict == Verdict.MEASURED


def test_too_low_an_accuracy_fails_whatever_the_latency(project: Path, top1: float) -> None:
    found = bench(project, min_accuracy=f"{100 * top1 + 1:.4f}%", budget="10s", max_time="2s")
    assert (found.verdict, found.exit_code) == (Verdict.LESS_ACCURATE, 1)
    latency, accuracy = found.checks
    assert latency.verdict == Verdict.PASS
    assert accuracy.found.value == pytest.approx(1 - top1)
    for text in (markdown(found), junit(found)):
        assert "accuracy too low" in text
        assert f"{top1:.2%}" in text or f"{100 * top1:.2f} %" in text
    assert "test top-1, at least" in junit(found)


def test_points_are_lost_against_a_baseline_or_its_figures(project: Path, tmp_path: Path) -> None:
    old, figures = tmp_path / "old.onnx", tmp_path / "old.json"
    shutil.copy(project / "pruned.onnx", old)
    options = {"profile": str(project / "fake.toml"), "data": "digits", "max_time": "2s"}
    stored = bench(old, output=figures, **options)
    assert BenchResult.load(figures).accuracy == stored.accuracy
    same = bench(project / "pruned.onnx", baseline=old, max_drop=0.0, **options)
    assert same.accuracy is not None
    assert same.accuracy.baseline_top1 == same.accuracy.top1
    assert [check.limit.unit for check in same.checks] == ["ratio", "points"]
    assert same.checks[1].verdict == Verdict.PASS
    old.unlink()
    again = bench(project / "pruned.onnx", baseline=figures, max_drop=0.0, **options)
    assert again.checks[-1].verdict == Verdict.PASS
    options["data"] = photos(tmp_path)
    with pytest.raises(MismatchError, match="no accuracy on these images"):
        bench(project / "pruned.onnx", baseline=figures, max_drop=0.0, **options)


def photos(folder: Path) -> str:
    """Test images with the names of the digits, but other ones."""
    for part in ("train", "test"):
        for name in map(str, range(10)):
            place = folder / "photos" / part / name
            place.mkdir(parents=True)
            Image.fromarray(np.full((16, 16, 3), 20 * int(name), dtype=np.uint8)).save(place / "a.png")
    return f"imagefolder:{folder / 'photos'}"


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"min_accuracy": "90%"}, "needs images"),
        ({"min_accuracy": "90", "data": "digits"}, "has no unit"),
        ({"min_accuracy": "190%", "data": "digits"}, "beyond 100%"),
        ({"max_drop": 1.0, "data": "digits"}, "lose points against"),
        ({"max_drop": -1.0, "data": "digits", "baseline": Path("a.onnx")}, "not a number of points"),
    ],
)
def test_limits_that_mean_nothing_are_refused(tmp_path: Path, options: dict, what: str) -> None:
    (tmp_path / "a.onnx").write_bytes(conv_chain([16, 32]))
    with pytest.raises(UsageError, match=what) as caught:
        bench(tmp_path / "a.onnx", **options)
    assert caught.value.exit_code == 2


def test_networks_of_something_else_are_refused(project: Path, tmp_path: Path) -> None:
    (tmp_path / "chain.onnx").write_bytes(conv_chain([16, 32]))
    with pytest.raises(ModelError, match="reads images"):
        bench(tmp_path / "chain.onnx", data="digits")
    shutil.rmtree(tmp_path / "photos", ignore_errors=True)
    data = photos(tmp_path)
    shutil.rmtree(tmp_path / "photos" / "train" / "9")
    shutil.rmtree(tmp_path / "photos" / "test" / "9")
    with pytest.raises(MismatchError, match="other classes") as caught:
        bench(project / "pruned.onnx", data=data, profile=str(project / "fake.toml"))
    assert caught.value.exit_code == 2
