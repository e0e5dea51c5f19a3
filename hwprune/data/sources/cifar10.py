"""CIFAR-10 in the format of its authors, read by torchvision.

Those files are pickles. hwprune unpickles nothing; torchvision does, but only after each file's MD5 has
matched the one published with CIFAR-10, so a file that anybody changed is refused unread.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from hwprune.data.sources.base import ArraySource, RawData
from hwprune.errors import DataError

_FOLDER = "cifar-10-batches-py"


def read(root: str) -> RawData:
    """Read CIFAR-10 from the folder that holds `cifar-10-batches-py`, or from that folder itself.

    Raises:
        DataError: The files are missing or are not the published ones.
    """
    folder = Path(root).expanduser()
    if folder.name == _FOLDER:
        folder = folder.parent
    train, test = _load(folder, train=True), _load(folder, train=False)
    return RawData(classes=tuple(train.classes), train=_source(train, folder), test=_source(test, folder))


def _load(folder: Path, train: bool) -> Any:
    from torchvision.datasets import CIFAR10

    try:
        return CIFAR10(str(folder), train=train, download=False)
    except (RuntimeError, OSError) as error:
        missing = not (folder / _FOLDER).is_dir()
        raise DataError(
            "CIFAR-10 is not there." if missing else "The files of CIFAR-10 are incomplete or changed.",
            where=folder / _FOLDER,
            allowed="data_batch_1 .. data_batch_5, test_batch and batches.meta, as published",
            do="unpack cifar-10-python.tar.gz in that folder",
        ) from error


def _source(part: Any, folder: Path) -> ArraySource:
    return ArraySource(part.data, torch.as_tensor(part.targets, dtype=torch.int64), str(folder))
