"""Tiny data sets of every kind, made on the spot."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

NAMES = ("ant", "bee", "cat")


def picture(label: int, number: int, side: int = 32, height: int | None = None) -> Image.Image:
    """A picture that tells its label and number: red is the label, green the number, blue noise."""
    pixels = np.random.default_rng((abs(label), number)).integers(
        0, 256, (height or side, side, 3), dtype=np.uint8
    )
    pixels[..., 0], pixels[..., 1] = 40 * abs(label) % 256, number
    return Image.fromarray(pixels)


def png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def make_folder(tmp_path: Path) -> Callable[..., Path]:
    """Write CLASS/NUMBER.png for each part (`""` for none) of an image folder."""

    def make(parts: Sequence[str] = ("train", "val"), count: int = 10, side: int = 32, **more: Any) -> Path:
        root = tmp_path / "images"
        for part in parts:
            for label, name in enumerate(more.get("names", NAMES)):
                folder = root / part / name
                folder.mkdir(parents=True)
                for number in range(count):
                    picture(label, number, side, more.get("height")).save(folder / f"{number:03}.png")
        return root

    return make


@pytest.fixture
def make_parquet(tmp_path: Path) -> Callable[..., Path]:
    """Write one parquet file in Hugging Face's image layout and return its folder."""

    def make(
        part: str,
        labels: Sequence[int | None],
        *,
        names: Sequence[str] | None = NAMES,
        images: Sequence[bytes | None] | None = None,
        drop: str | None = None,
        label_type: Any = None,
    ) -> Path:
        encoded = images or [png(picture(int(label or 0), row)) for row, label in enumerate(labels)]
        structs = [{"bytes": content, "path": None} for content in encoded]
        kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        columns = {"image": pa.array(structs, kind), "label": pa.array(labels, label_type or pa.int64())}
        if drop:
            del columns[drop]
        table = pa.table(columns)
        if names is not None:
            label = {"_type": "ClassLabel", "names": list(names)}
            info = {"info": {"features": {"image": {"_type": "Image"}, "label": label}}}
            table = table.replace_schema_metadata({"huggingface": json.dumps(info)})
        folder = tmp_path / "rows"
        folder.mkdir(exist_ok=True)
        pq.write_table(table, folder / f"{part}.parquet")
        return folder

    return make
