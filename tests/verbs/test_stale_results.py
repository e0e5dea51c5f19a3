"""Nothing that was made for another model or other images is taken for this project's."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from projects import MODEL, new_project

from hwprune.cli.main import main
from hwprune.config import load_config
from hwprune.errors import MismatchError, ModelError
from hwprune.project import estimators
from hwprune.project.folder import Project
from hwprune.verbs.export import export
from hwprune.verbs.profile import profile
from hwprune.verbs.report import report
from hwprune.verbs.search import search
from hwprune.verbs.train import train

NET = """
from torch import nn


def net({arguments}):
    return nn.Sequential(
        nn.Conv2d(3, 64, 3, bias=False), nn.BatchNorm2d(64), nn.{activation}(),
        nn.Conv2d(64, 96, 3, bias=False), nn.BatchNorm2d(96), nn.{activation}(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(96, {classes}),
    )
"""


FLAT = """
from torch import nn


def net():
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 224 * 224, 10))
"""


def project_of(
    folder: Path, activation: str = "ReLU", arguments: str = "num_classes", classes: str = ""
) -> Path:
    """A project whose model is a user's own file."""
    new_project(folder)
    text = NET.format(arguments=arguments, activation=activation, classes=classes or "num_classes")
    (folder / "net.py").write_text(text)
    config = folder / "hwprune.toml"
    config.write_text(config.read_text().replace(MODEL, f"{folder}/net.py:net"))
    return folder


@pytest.mark.slow
def test_results_of_another_model_are_refused(finished: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(finished, folder)
    config = folder / "hwprune.toml"
    config.write_text(config.read_text().replace("exclude = []", 'exclude = ["layer3.*"]'))
    shutil.rmtree(folder / "hwprune-work" / "latency")
    profile(project=folder)
    for verb in (train, export, report):
        with pytest.raises(MismatchError) as caught:
            verb(project=folder)
        assert "hwprune search" in str(caught.value), verb


def test_a_trained_network_of_other_images_is_not_exported(finished: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(finished, folder)
    opened = Project(folder)
    network = opened.new_model()
    opened.save_network("pruned", network, opened.searched().widths, {"top1": 1.0})
    opened.load_network("pruned", "hwprune train")
    moved = Project(folder, load_config(opened.config_path))
    moved.structure = lambda: "another"  # type: ignore[method-assign]
    with pytest.raises(MismatchError) as caught:
        moved.load_network("pruned", "hwprune train")
    assert "hwprune train" in str(caught.value)


def test_an_edited_model_file_is_another_model(tmp_path: Path) -> None:
    folder = project_of(tmp_path)
    profile(project=folder)
    before = Project(folder)
    space = before.space(before.target().name)
    checkpoint = estimators.checkpoint_path(before, space)
    (folder / "net.py").write_text((folder / "net.py").read_text().replace("ReLU", "SiLU"))
    after = Project(folder)
    assert estimators.checkpoint_path(after, space) != checkpoint, "nothing trained on the old code is used"
    with pytest.raises(MismatchError):
        search(project=folder, latency="60%")


def test_other_weights_of_the_same_name_give_another_checkpoint(tmp_path: Path) -> None:
    opened = Project(new_project(tmp_path))
    weights = tmp_path / "w.safetensors"
    config = opened.config
    named = opened.with_config(model=type(config.model)(name="resnet20", weights=str(weights)))
    weights.write_bytes(b"one")
    first = named.given_weights()
    weights.write_bytes(b"two")
    assert named.given_weights() != first


def test_a_folder_of_images_is_the_same_however_it_is_spelt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    opened = Project(new_project(tmp_path))
    data = type(opened.config.data)
    spelt = [
        opened.with_config(data=data(source=f"imagefolder:{path}")) for path in ("a", "./a", tmp_path / "a")
    ]
    assert len({one.structure() for one in spelt}) == 1


def test_a_model_of_one_group_goes_from_profile_to_search(tmp_path: Path) -> None:
    folder = project_of(tmp_path)
    config = folder / "hwprune.toml"
    config.write_text(config.read_text().replace("exclude = []", 'exclude = ["3"]'))
    profile(project=folder)
    assert len(Project(folder).space("fake").groups) == 1
    assert search(project=folder, latency="80%", score="macs").latency.measured > 0


def test_a_model_with_another_number_of_outputs_than_classes_is_refused(tmp_path: Path) -> None:
    folder = project_of(tmp_path, arguments="", classes="3")
    with pytest.raises(ModelError, match="one output for each class") as caught:
        profile(project=folder)
    assert "3 outputs" in str(caught.value)


def test_a_seed_below_zero_is_a_usage_error(profiled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["search", "--project", str(profiled), "--latency", "60%", "--seed", "-1"]) == 2
    assert "--seed" in capsys.readouterr().err


def test_a_model_that_cannot_be_pruned_leaves_no_project(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "flat.py").write_text(FLAT)
    folder = tmp_path / "p"
    assert main(["profile", "--project", str(folder), "--model", f"{tmp_path}/flat.py:net"]) == 1
    assert "Nothing in this model can be pruned" in capsys.readouterr().err
    assert not (folder / "hwprune.toml").exists(), "the next --model is welcome"
