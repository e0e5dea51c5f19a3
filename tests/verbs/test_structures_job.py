"""The whole job on networks whose structure used to be misread: each ends with a verified file."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path

import onnxruntime
import pytest
import structures
from projects import FAKE, small_config

from hwprune.config import ModelConfig, load_config, save_config
from hwprune.errors import ImpossibleBudgetError
from hwprune.models.registry import build
from hwprune.results import ExportResult
from hwprune.runtimes.probes import conv_chain
from hwprune.structure.export import export_base
from hwprune.verbs.export import export
from hwprune.verbs.profile import profile
from hwprune.verbs.search import search
from hwprune.verbs.train import train

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::hwprune.errors.HwpruneWarning")]
MODELS = Path(__file__).with_name("structures.py")
NAMES = ("ViewedFlat", "Split", "Squeezed", "PaddedShortcut", "Renamed")


def project(folder: Path, model: str, *, images: bool = True) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "fake.toml").write_text(FAKE)
    config = small_config(folder)
    source = config.data.source if images else ""
    config = replace(
        config,
        model=ModelConfig(name=model),
        data=replace(config.data, source=source, image_size=32),
        profiling=replace(config.profiling, max_seconds=5.0),
        search=replace(config.search, generations=1),
        training=replace(config.training, epochs=1),
    )
    save_config(folder / "hwprune.toml", config)
    return folder


def verified(folder: Path, result: ExportResult) -> None:
    """The exporting verb compared the file with torch; here it runs once more, on its own."""
    assert result.within_budget
    assert result.max_difference <= result.tolerance
    session = onnxruntime.InferenceSession(folder / result.file, providers=["CPUExecutionProvider"])
    assert all(isinstance(size, int) for entry in session.get_outputs() for size in entry.shape)


@pytest.mark.parametrize("name", NAMES)
def test_every_verb_on(name: str, tmp_path: Path) -> None:
    if name == "Renamed" and importlib.util.find_spec("efficientnet_lite_pytorch") is None:
        pytest.skip("efficientnet-lite-pytorch is not installed")
    folder = project(tmp_path / "project", f"{MODELS}:{name}")
    profile(project=folder)
    # a network of 24 MB does not learn digits in a minute
    search(project=folder, latency="90%", score="macs" if name == "Renamed" else None)
    train(project=folder)
    verified(folder, export(project=folder))


def test_dense_layers_are_left_out_by_every_verb(tmp_path: Path) -> None:
    folder = project(tmp_path / "project", f"{MODELS}:dense")
    assert profile(project=folder).blocks == 5
    assert search(project=folder, latency="40%").left_out
    train(project=folder)
    verified(folder, export(project=folder))


def test_a_unet_is_searched_by_macs(tmp_path: Path) -> None:
    folder = project(tmp_path / "project", f"{MODELS}:unet", images=False)
    profile(project=folder)
    search(project=folder, latency="90%", score="macs")
    verified(folder, export(project=folder))


def test_blocks_go_where_widths_do_not_reach(tmp_path: Path) -> None:
    folder = project(tmp_path / "project", "resnet20", images=False)
    profile(project=folder)
    found = search(project=folder, latency="20%", score="macs")
    assert found.left_out
    assert found.latency.value <= found.latency.limit
    verified(folder, export(project=folder))

    alone = project(tmp_path / "alone", "resnet20", images=False)
    config = load_config(alone / "hwprune.toml")
    save_config(alone / "hwprune.toml", replace(config, model=replace(config.model, depth=False)))
    assert profile(project=alone).blocks == 0
    with pytest.raises(ImpossibleBudgetError):
        search(project=alone, latency="20%", score="macs")


@pytest.mark.parametrize("model", ["resnet20", "dense"])
def test_blocks_of_an_onnx_file_go(model: str, tmp_path: Path) -> None:
    net = structures.dense() if model == "dense" else build(model, num_classes=3)
    (tmp_path / "net.onnx").write_bytes(export_base(net.eval(), (1, 3, 32, 32)))
    folder = project(tmp_path / "project", str(tmp_path / "net.onnx"), images=False)
    assert profile(project=folder).blocks > 3
    found = search(project=folder, latency="30%", score="macs")
    assert found.left_out
    verified(folder, export(project=folder))


def test_an_onnx_file_is_searched_by_macs(tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(conv_chain((16, 32, 24)))
    folder = project(tmp_path / "project", str(tmp_path / "net.onnx"), images=False)
    profile(project=folder)
    search(project=folder, latency="90%", score="macs")
    result = export(project=folder)
    assert result.weights == "of the file"
    verified(folder, result)
