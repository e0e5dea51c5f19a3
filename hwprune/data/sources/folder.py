"""A folder of image files, one sub-folder per class, with or without a split into train and test."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from PIL import Image

from hwprune.data.sources.base import RawData, Source
from hwprune.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm")
_VAL_NAMES = ("val", "validation", "valid")


class FileSource(Source):
    """Image files, opened when they are needed."""

    def __init__(self, paths: Sequence[Path], labels: Tensor) -> None:
        super().__init__(labels)
        self._paths = paths

    def _where(self, index: int) -> str:
        return str(self._paths[index])

    def _open(self, index: int) -> Image.Image:
        return Image.open(self._paths[index])

    def take(self, indices: Sequence[int]) -> FileSource:
        """The images at `indices`, in that order."""
        rows = torch.as_tensor(indices, dtype=torch.int64)
        return FileSource([self._paths[index] for index in indices], self.labels[rows])


def read(root: str) -> RawData:
    """Find the image files below a folder.

    Either ROOT/train/CLASS/... with ROOT/test/CLASS/... and perhaps ROOT/val/CLASS/... (or `validation`, or
    `valid`), which without class folders in ROOT/test serves as test; or just ROOT/CLASS/..., without a test
    part. Hidden files and folders, and files whose names do not end like an image's, are passed over.

    Raises:
        DataError: No such folder, no classes, a class without images, or a test class unknown to train.
    """
    folder = Path(root).expanduser()
    if not folder.is_dir():
        raise DataError("There is no such folder of images.", where=folder, do="check the path")
    train = folder / "train"
    if not _class_folders(train):
        classes = _class_names(folder)
        _check_flat(folder, classes)
        return RawData(classes=classes, train=_scan(folder, classes), test=None)
    classes = _class_names(train)
    names = [name for name in ("test", *_VAL_NAMES) if _class_folders(folder / name)]
    test, val = (names[0] if names else "", names[1] if names[:1] == ["test"] and names[1:] else "")
    return RawData(
        classes=classes,
        train=_scan(train, classes),
        test=_part(folder / test, classes) if test else None,
        test_name=test and f"{test}/",
        val=_part(folder / val, classes) if val else None,
        val_name=val and f"{val}/",
        unused=tuple(
            f"{path.name}/" for path in _class_folders(folder) if path.name not in ("train", test, val)
        ),
    )


def _check_flat(folder: Path, classes: tuple[str, ...]) -> None:
    """Refuse parts of a data set taken for its classes."""
    parts = [name for name in classes if name in ("test", *_VAL_NAMES) and _class_folders(folder / name)]
    if parts:
        raise DataError(
            "There are parts of a data set, and none to train on.",
            where=folder,
            got=", ".join(f"{name}/" for name in parts),
            allowed="train/ beside them, with one sub-folder per class",
        )


def unlabelled(root: Path) -> FileSource:
    """All image files below a folder, each with label 0.

    Raises:
        DataError: No such folder, or no image in it.
    """
    folder = root.expanduser()
    if not folder.is_dir():
        raise DataError("There is no such folder of images.", where=folder, do="check the path")
    found = _image_files(folder)
    if not found:
        raise DataError(
            "The folder has no images.", where=folder, allowed=f"files ending in {' '.join(_ENDINGS)}"
        )
    return FileSource(found, torch.zeros(len(found), dtype=torch.int64))


def _class_folders(folder: Path) -> list[Path]:
    try:
        return sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise _unreadable(error) from error


def _unreadable(error: OSError) -> DataError:
    return DataError("A folder of images cannot be read.", where=error.filename, got=error.strerror)


def _class_names(folder: Path) -> tuple[str, ...]:
    names = tuple(path.name for path in _class_folders(folder))
    if not names:
        raise DataError(
            "The folder has no sub-folders of images.",
            where=folder,
            allowed="one sub-folder per class, or train/ and test/ with one sub-folder per class each",
        )
    return names


def _part(folder: Path, classes: tuple[str, ...]) -> FileSource:
    """The test or the validation images, of classes that train has too."""
    unknown = [path.name for path in _class_folders(folder) if path.name not in classes]
    if unknown:
        raise DataError(
            f"A class of the {folder.name} images has no training images.",
            where=folder / unknown[0],
            allowed="the classes of the train folder",
        )
    present = tuple(path.name for path in _class_folders(folder))
    return _scan(folder, classes, present)


def _scan(folder: Path, classes: tuple[str, ...], present: tuple[str, ...] | None = None) -> FileSource:
    paths: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        if present is not None and name not in present:
            continue
        found = _image_files(folder / name)
        if not found:
            raise DataError(
                "A class has no images.",
                where=folder / name,
                allowed=f"files ending in {' '.join(_ENDINGS)}",
                do="add images or delete the folder",
            )
        paths += found
        labels += [label] * len(found)
    return FileSource(paths, torch.tensor(labels, dtype=torch.int64))


def _image_files(folder: Path) -> list[Path]:
    """Image files at any depth, in an order that does not depend on the file system."""

    def refuse(error: OSError) -> None:
        raise _unreadable(error) from error

    found: list[Path] = []
    for parent, folders, files in os.walk(folder, onerror=refuse):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        names = (name for name in files if name.lower().endswith(_ENDINGS) and not name.startswith("."))
        found += [Path(parent, name) for name in sorted(names)]
    return found
