"""What is told of images before anything long begins."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from hwprune.data.datasets import open_data
from hwprune.data.remarks import remarks
from hwprune.errors import DataError


def told(root: Path, kind: str = "imagefolder", **options: int) -> str:
    return "\n".join(remarks(open_data(f"{kind}:{root}", **options)))


def test_of_ordinary_images_the_parts_are_told(make_folder: Callable[..., Path]) -> None:
    assert told(make_folder(("train", "test", "val"), count=20)) == "Test: 60 images (test/)."
    flat = make_folder(("more/train",), count=25) / "more" / "train"
    assert told(flat).startswith("Test: 15 images (a fifth")


def test_what_is_not_used_is_said(
    make_folder: Callable[..., Path], make_parquet: Callable[..., Path]
) -> None:
    root = make_folder(("train", "test", "val", "valid", "extra"), count=20)
    assert told(root).endswith("Not used: extra/, valid/.")
    for part in ("train-00000-of-00001", "other"):
        folder = make_parquet(part, [0, 1, 2] * 20)
    assert "Not used: other.parquet." in told(folder, "parquet")


def test_uneven_and_tiny_classes_are_told(make_folder: Callable[..., Path]) -> None:
    root = make_folder(("train", "test"), count=30)
    for number in range(2, 30):
        (root / "train" / "bee" / f"{number:03}.png").unlink()
    shutil.rmtree(root / "test" / "cat")
    text = told(root)
    assert "Classes are uneven: ant has 30 training images, bee 2." in text
    assert "1 class has fewer than 20 training images: bee." in text
    assert "Not in test: cat." in text


def test_sizes_far_from_the_networks_are_told(make_folder: Callable[..., Path]) -> None:
    root = make_folder(("train", "test"), count=20, side=100)
    assert "enlarged to 224" in told(root)
    assert "shrunk to 32" in told(root, image_size=32)
    assert "pixels" not in told(root, image_size=96)


def test_images_smaller_than_any_network_wants_are_no_surprise() -> None:
    assert remarks(open_data("digits")) == ["Test: 359 images (a fifth of each class, held out)."]


def test_parts_without_one_to_train_on_are_not_taken_for_classes(make_folder: Callable[..., Path]) -> None:
    with pytest.raises(DataError, match="none to train on"):
        open_data(f"imagefolder:{make_folder(('test', 'val'))}")
