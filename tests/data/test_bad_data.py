"""Bad input gets a message that names the place, never another kind of exception."""

from __future__ import annotations

import os
import struct
import zlib
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from hwprune.data.datasets import open_data
from hwprune.errors import DataError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def says(spec: str, *words: str, kind: type[Exception] = DataError) -> None:
    with pytest.raises(kind) as caught:
        open_data(spec)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("digit", ("did you mean digits",)),
        ("", ("digits, cifar10:ROOT",)),
        ("cifar:x", ("did you mean cifar10",)),
        ("imagefolders:x", ("did you mean imagefolder",)),
        ("parquet", ("needs its folder", "parquet:DIR")),
        ("cifar10:", ("cifar10:ROOT",)),
        ("digits:x", ("digits",)),
    ],
)
def test_unknown_kinds_get_the_nearest(spec: str, words: tuple[str, ...]) -> None:
    says(spec, *words, kind=UsageError)


def test_a_bare_folder_is_told_its_spec(tmp_path: Path) -> None:
    says(str(tmp_path), f"write imagefolder:{tmp_path}", kind=UsageError)


def test_image_size_too_small() -> None:
    with pytest.raises(UsageError, match="too small"):
        open_data("digits", image_size=4)


@pytest.mark.parametrize("kind", ["cifar10", "imagefolder", "parquet"])
def test_missing_folders(tmp_path: Path, kind: str) -> None:
    says(f"{kind}:{tmp_path / 'absent'}", "absent")


@pytest.mark.parametrize("kind", ["cifar10", "imagefolder", "parquet"])
def test_empty_folders(tmp_path: Path, kind: str) -> None:
    says(f"{kind}:{tmp_path}", str(tmp_path))


def test_incomplete_cifar10(tmp_path: Path) -> None:
    (tmp_path / "cifar-10-batches-py").mkdir()
    says(f"cifar10:{tmp_path}", "incomplete or changed", "cifar-10-python.tar.gz")


def test_one_class_only(make_folder: Callable[..., Path]) -> None:
    says(f"imagefolder:{make_folder(('',), names=('ant',))}", "one class", "ant")


def test_one_image_cannot_be_split(make_folder: Callable[..., Path]) -> None:
    says(f"imagefolder:{make_folder(('',), count=1)}", "one image", "class ant")


@pytest.mark.parametrize("part", ["train", "val"])
def test_class_without_images(make_folder: Callable[..., Path], part: str) -> None:
    root = make_folder()
    for path in (root / part / "bee").iterdir():
        path.unlink()
    says(f"imagefolder:{root}", "no images", f"{part}/bee")


def test_test_class_unknown_to_train(make_folder: Callable[..., Path]) -> None:
    root = make_folder()
    (root / "val" / "bee").rename(root / "val" / "wasp")
    says(f"imagefolder:{root}", "no training images", "val/wasp")


@pytest.mark.parametrize("part", ["train", "val"])
@pytest.mark.parametrize("content", [b"", b"text", None], ids=["empty", "text", "truncated"])
def test_broken_image_files_are_named(
    make_folder: Callable[..., Path], part: str, content: bytes | None
) -> None:
    path = make_folder() / part / "cat" / "004.png"
    path.write_bytes(path.read_bytes()[:600] if content is None else content)
    says(f"imagefolder:{path.parents[2]}", str(path))


def test_first_of_several_broken_images_is_named(make_folder: Callable[..., Path]) -> None:
    root = make_folder()
    for name in ("bee/003.png", "ant/007.png", "cat/001.png"):
        (root / "train" / name).write_bytes(b"broken")
    says(f"imagefolder:{root}", "ant/007.png")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable_class_folder(make_folder: Callable[..., Path]) -> None:
    root = make_folder()
    (root / "train" / "bee").chmod(0)
    try:
        says(f"imagefolder:{root}", "train/bee", "Permission denied")
    finally:
        (root / "train" / "bee").chmod(0o755)


def bomb(side: int) -> bytes:
    """A PNG of a few bytes whose header claims `side` x `side` pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(99)))
        + chunk(b"IEND", b"")
    )


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("side", [10_000, 60_000])
def test_decompression_bombs_are_refused(make_folder: Callable[..., Path], side: int) -> None:
    path = make_folder() / "train" / "bee" / "005.png"
    path.write_bytes(bomb(side))
    says(f"imagefolder:{path.parents[2]}", str(path), "larger", str(Image.MAX_IMAGE_PIXELS))


@pytest.mark.parametrize("part", ["train", "test"])
@pytest.mark.parametrize(
    "content", [b"", b"PAR1 but not really PAR1", None], ids=["empty", "text", "truncated"]
)
def test_unreadable_parquet(make_parquet: Callable[..., Path], part: str, content: bytes | None) -> None:
    make_parquet("train", [0, 1, 2] * 3)
    path = make_parquet("test", [0, 1]) / f"{part}.parquet"
    path.write_bytes(path.read_bytes()[:-200] if content is None else content)
    says(f"parquet:{path.parent}", str(path), "not a readable parquet file")


@pytest.mark.parametrize("column", ["image", "label"])
def test_missing_parquet_column(make_parquet: Callable[..., Path], column: str) -> None:
    folder = make_parquet("train", [0, 1, 2], drop=column)
    says(f"parquet:{folder}", "does not have the columns", "train.parquet", "label: int64")


def test_parquet_columns_of_other_types(make_parquet: Callable[..., Path]) -> None:
    import pyarrow as pa

    says(f"parquet:{make_parquet('train', [0.5, 1.5], label_type=pa.float32())}", "label: float")


@pytest.mark.parametrize(
    ("labels", "names", "row"),
    [
        ([0, 1, 3, 1], ("ant", "bee", "cat"), 2),
        ([0, 1, 1, -1], ("ant", "bee", "cat"), 3),
        ([0, 1, 1, -1], None, 3),
        ([0, None, 1, 1], ("ant", "bee", "cat"), 1),
    ],
)
def test_labels_out_of_range(
    make_parquet: Callable[..., Path], labels: list[int | None], names: tuple[str, ...] | None, row: int
) -> None:
    says(f"parquet:{make_parquet('train', labels, names=names)}", "out of range", f"train.parquet, row {row}")


@pytest.mark.parametrize("names", [("ant", "bee", "cat"), None])
def test_test_labels_that_train_lacks(
    make_parquet: Callable[..., Path], names: tuple[str, ...] | None
) -> None:
    make_parquet("train", [0, 1, 0, 1], names=names)
    says(f"parquet:{make_parquet('test', [0, 2], names=names)}", "test.parquet, row 1")


@pytest.mark.parametrize("content", [None, b"", b"not an image"])
def test_broken_parquet_rows_are_named(
    make_parquet: Callable[..., Path], make_folder: Callable[..., Path], content: bytes | None
) -> None:
    good = (make_folder() / "train" / "ant" / "000.png").read_bytes()
    folder = make_parquet("train", [0, 1, 0, 1], images=[good, good, content, good])
    says(f"parquet:{folder}", "train.parquet, row 2")


def test_broken_row_in_a_held_out_part_keeps_its_row_number(
    make_parquet: Callable[..., Path], make_folder: Callable[..., Path]
) -> None:
    good = (make_folder() / "train" / "ant" / "000.png").read_bytes()
    images = [good] * 40
    images[33] = b"broken"
    says(f"parquet:{make_parquet('train', [0, 1] * 20, images=images)}", "train.parquet, row 33")


@pytest.mark.parametrize("part", ["train", "test"])
def test_parquet_without_rows(make_parquet: Callable[..., Path], part: str) -> None:
    make_parquet("train", [0, 1, 2])
    says(f"parquet:{make_parquet(part, [], images=[])}", f"The {part} part has no images")
