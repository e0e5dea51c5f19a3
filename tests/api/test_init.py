"""What `hwprune init` finds out, tells and writes."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
import torch

from hwprune.api.init import init
from hwprune.api.project import Project
from hwprune.cli.main import main
from hwprune.models.registry import build

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


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


def test_without_weights_small_images_are_normalised_by_their_own_figures(tmp_path: Path) -> None:
    result = init(project=tmp_path)
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
