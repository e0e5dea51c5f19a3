"""A pruned network in 8-bit integers, by one option of `export`."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

from hwprune.errors import DataError, UsageError
from hwprune.progress import QUIET
from hwprune.project.folder import Project
from hwprune.project.integer import lowered
from hwprune.report.words import floats_words
from hwprune.results import ExportResult
from hwprune.runtimes import TargetProfile
from hwprune.structure.export import export_base
from hwprune.verbs.bench_inputs import find_model
from hwprune.verbs.export import export
from hwprune.verbs.report import report


@pytest.fixture
def project(finished: Path, tmp_path: Path) -> Path:
    """The finished project, to be exported anew."""
    return Path(shutil.copytree(finished, tmp_path / "project"))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three images without labels, one of them in a sub-folder."""
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    for index, name in enumerate(("a.png", "b.png", "more/c.png")):
        Image.fromarray(np.full((20, 30, 3), 40 * index, dtype=np.uint8)).save(folder / name)
    return folder


def test_one_option_quantises_and_tells_what_it_won_and_lost(project: Path, photos: Path) -> None:
    made = export(project=project, int8=True, calibration=photos, output=Path("small.onnx"))
    assert made.precision == "int8"
    assert made.calibration == f"3 images of {photos}"
    assert made.floats is not None
    assert made.floats["ratio"] == pytest.approx(1.0, abs=0.02)  # the pretended device knows no formats
    words = floats_words(made)
    parts = ("int8 against 32-bit floats", "MiB in place of", "top-1", str(photos))
    assert all(part in words for part in parts)
    assert ExportResult.load(project / "hwprune-work" / "export.json") == made
    told = report(project=project)
    assert f"--onnx --int8 --calibration {photos} --output small.onnx" in " ".join(told.commands)
    assert words in (project / "report.html").read_text()
    target = find_model(project).target
    assert target is not None
    assert target.precision == "int8"


def test_floats_are_compared_with_nothing(project: Path) -> None:
    made = export(project=project)
    assert (made.precision, made.floats, made.calibration, floats_words(made)) == ("fp32", None, "", "")


def test_a_folder_decides_the_scales(opened: Project, photos: Path) -> None:
    size = opened.image_size
    floats = export_base(opened.new_model(), (1, 3, size, size))
    target = TargetProfile(name="real", precision="int8")

    def scale(calibration: Path | None) -> float:
        content, _ = lowered(opened, target, floats, calibration, QUIET)
        tensors = onnx.load_model_from_string(content).graph.initializer
        return float(next(onnx.numpy_helper.to_array(one) for one in tensors if one.name == "input_scale"))

    mean, std, _ = opened.normalisation
    both = [min((grey / 255 - m) / s for m, s in zip(mean, std, strict=True)) for grey in (0, 80)]
    darkest, brightest = both
    assert scale(photos) == pytest.approx((max(brightest, 0) - darkest) / 255, rel=0.02)
    assert scale(None) > scale(photos)  # digits go from black to white


def test_what_cannot_be_calibrated_is_refused(project: Path, photos: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="8-bit integers"):
        export(project=project, calibration=photos)
    with pytest.raises(DataError, match="no such folder"):
        export(project=project, int8=True, calibration=tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no images"):
        export(project=project, int8=True, calibration=tmp_path / "empty")
