"""What `hwprune init` finds out, tells and writes."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from hwprune.cli.main import main
from hwprune.config import Config, ModelConfig
from hwprune.models.registry import build
from hwprune.progress import QUIET, Quiet
from hwprune.project.base import trained_base
from hwprune.project.folder import Project
from hwprune.verbs.init import _recipe, init

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


class Notes(Quiet):
    """Keeps the notes."""

    def __init__(self, notes: list[str]) -> None:
        self.notes = notes

    def note(self, text: str) -> None:
        self.notes.append(text)


def test_weights_of_torchvision_bring_their_normalisation(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = tmp_path / "w.pt"
    torch.save(build("torchvision:mobilenet_v2", num_classes=10).state_dict(), weights)
    options = ["--model", "torchvision:mobilenet_v2", "--weights", str(weights)]
    assert main(["init", "--project", str(tmp_path), *options]) == 0
    assert "torchvision's for mobilenet_v2 mean (0.485, 0.456, 0.406)" in capsys.readouterr().out
    written = tomllib.loads((tmp_path / "hwprune.toml").read_text())["data"]
    assert (tuple(written["mean"]), tuple(written["std"])) == IMAGENET
    opened = Project(tmp_path)
    assert (opened.dataset.mean, opened.dataset.std) == IMAGENET
    assert opened.dataset.image_size == 32


@pytest.mark.parametrize(
    ("images", "tuned", "size"), [(3000, True, 32), (3000, False, 128), (50_000, True, 128), (500, False, 32)]
)
def test_trained_weights_are_tuned_in_small_batches_of_few_images(
    images: int, tuned: bool, size: int
) -> None:
    assert _recipe(Config(), images, tuned=tuned).training.batch_size == size


def test_without_weights_small_images_are_normalised_by_their_own_figures(tmp_path: Path) -> None:
    notes: list[str] = []
    result = init(project=tmp_path, reporter=Notes(notes))
    assert "No weights are given: the unpruned network is trained first, 16 epochs." in notes
    assert "Test: 359 images (a fifth of each class, held out)." in notes
    assert any("scored on 288 images" in note and "2.9 points" in note for note in notes)
    assert result.normalisation == "the training images' own"
    opened = Project(tmp_path)
    assert result.mean == opened.dataset.mean
    assert opened.config.data.mean == ()
    images = opened.dataset.train.tensor()
    assert images.mean().abs() < 0.01


def test_a_normalisation_that_is_set_counts_and_is_part_of_the_structure(tmp_path: Path) -> None:
    init(project=tmp_path)
    before = Project(tmp_path)
    path = tmp_path / "hwprune.toml"
    text = (
        path.read_text().replace("mean = []", "mean = [0.5, 0.5, 0.5]").replace("std = []", "std = [1, 1, 1]")
    )
    path.write_text(text)
    after = Project(tmp_path)
    mean, std = (torch.tensor(part)[:, None, None] for part in (before.dataset.mean, before.dataset.std))
    pixels = before.dataset.test.tensor() * std + mean
    assert torch.allclose(after.dataset.test.tensor(), pixels - 0.5, atol=1e-5)
    assert after.structure() != before.structure()


NET = """
from pathlib import Path
import torch
from torch import nn

def net(num_classes):
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 16, 3, 2, 1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, num_classes),
    )
    model.load_state_dict(torch.load(Path(__file__).with_name("w.pt")))
    return model

def plain(num_classes):
    return nn.Sequential(nn.Conv2d(3, 16, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10))
"""


def test_weights_that_the_models_function_loads_are_recognised(tmp_path: Path) -> None:
    path = tmp_path / "my.py"
    path.write_text(NET)
    inner = nn.Sequential(
        *(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU()),
        *(nn.Identity(), nn.Identity(), nn.Linear(16, 10)),
    )
    torch.save(inner.state_dict(), tmp_path / "w.pt")
    notes: list[str] = []
    result = init(project=tmp_path / "p", model=f"{path}:net", reporter=Notes(notes))
    assert result.normalisation == "ImageNet's"
    assert any("my.py:net loads trained weights" in note for note in notes)
    opened = Project(tmp_path / "p")
    assert torch.equal(opened.new_model()[0].weight, inner[0].weight)
    scratch = opened.new_model(weights=False)
    assert not torch.equal(scratch[0].weight, inner[0].weight)
    assert torch.equal(scratch[0].weight, opened.new_model(weights=False)[0].weight)
    assert opened.given_weights()
    base, history, source = trained_base(opened, QUIET)
    assert torch.equal(base[7].weight, inner[7].weight)
    assert (len(history.epochs), source) == (0, f"{path}:net")
    assert (
        Project(tmp_path / "p", replace(opened.config, model=ModelConfig(name=f"{path}:plain"))).given is None
    )


def test_the_unpruned_network_is_trained_on_where_its_last_layer_is_new(tmp_path: Path) -> None:
    torch.save(build("resnet20", num_classes=100).state_dict(), tmp_path / "w.pt")
    notes: list[str] = []
    init(project=tmp_path / "p", weights=str(tmp_path / "w.pt"), reporter=Notes(notes))
    assert any("fc was made anew" in note for note in notes)
    opened = Project(tmp_path / "p")
    opened = opened.with_config(training=replace(opened.config.training, epochs=1))
    base, history, source = trained_base(opened, QUIET)
    assert len(history.epochs) == 1
    assert source.startswith(str(tmp_path / "w.pt"))
    assert not torch.equal(base.fc.weight, opened.new_model().fc.weight)
