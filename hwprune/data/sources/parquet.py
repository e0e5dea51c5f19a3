"""`train.parquet`, `test.parquet` and `validation.parquet` in the layout of Hugging Face's image data sets.

Column `image` is a struct of the encoded file (`bytes`) and its name (`path`, never opened), column `label`
an integer. The names of the classes come from Hugging Face's metadata when the file has it.
"""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

from hwprune.data.sources.base import RawData, Source
from hwprune.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pyarrow as pa
    import pyarrow.parquet as pq
    from numpy.typing import NDArray
    from torch import Tensor

_EXPANSION, _SLACK_BYTES, _ROWS = 20, 64 * 2**20, 256
_PARTS = ("train", "test", "validation|valid|val")
_LAYOUT = "image: struct<bytes: binary, path: string>, label: int64"


class RowSource(Source):
    """Encoded images in a column of a parquet file, held in memory as they are."""

    def __init__(self, path: Path, encoded: pa.ChunkedArray, labels: Tensor, rows: NDArray[np.int64]) -> None:
        super().__init__(labels)
        self._path, self._encoded, self._rows = path, encoded, rows

    def _where(self, index: int) -> str:
        return f"{self._path}, row {self._rows[index]}"

    def _open(self, index: int) -> Image.Image:
        content = self._encoded[int(self._rows[index])].as_py()
        if content is None:
            raise DataError("A row has no image.", where=self._where(index), allowed=_LAYOUT)
        return Image.open(io.BytesIO(content))

    def take(self, indices: Sequence[int]) -> RowSource:
        """The images at `indices`, in that order."""
        rows = np.asarray(indices, dtype=np.int64)
        return RowSource(self._path, self._encoded, self.labels[torch.from_numpy(rows)], self._rows[rows])


def read(root: str) -> RawData:
    """Read a train file and, when they are there, a test file and a validation file from a folder.

    They are named `train`, `test`, and `validation`, `valid` or `val`, with anything after a dash, dot or
    underscore; without a test file the last serves as test.

    Raises:
        DataError: No such folder or file, not a parquet file, several files of a part, a missing column, or a
            label that is missing, out of range, or never seen in train.
    """
    folder = Path(root).expanduser()
    if not folder.is_dir():
        raise DataError("There is no such folder.", where=folder, do="check the path")
    found = [_file(folder, names) for names in _PARTS]
    train = found[0] or folder / "train.parquet"
    table = _read_table(train)
    numbers = _label_numbers(train, table)
    names = _class_names(table)
    if names is None:  # any set of numbers will do as classes
        values = np.unique(numbers)
        names = tuple(str(value) for value in values)
    else:
        values = np.arange(len(names))
    parts = [path for path in found[1:] if path is not None]
    both = len(parts) == 2
    return RawData(
        classes=names,
        train=_source(train, table, numbers, values),
        test=_part(parts[0], values, trained=numbers) if parts else None,
        test_name=parts[0].name if parts else "",
        val=_part(parts[1], values, trained=numbers) if both else None,
        val_name=parts[1].name if both else "",
        unused=tuple(sorted(path.name for path in folder.glob("*.parquet") if path not in found)),
    )


def _file(folder: Path, names: str) -> Path | None:
    """The file of a part, if there is one: its name begins with one of `names`."""
    pattern = re.compile(rf"({names})([-_.].*)?\.parquet")
    found = sorted(path for path in folder.glob("*.parquet") if pattern.fullmatch(path.name))
    if len(found) > 1:
        raise DataError(
            f"There are several {names.partition('|')[0]} files.",
            where=folder,
            got=", ".join(path.name for path in found),
            allowed="one",
            do="join them, or move the others away",
        )
    return found[0] if found else None


def _part(path: Path, values: NDArray[np.int64], trained: NDArray[np.int64]) -> RowSource:
    table = _read_table(path)
    numbers = _label_numbers(path, table)
    source = _source(path, table, numbers, values)
    unseen = np.flatnonzero(~np.isin(numbers, trained))
    if len(unseen):
        raise _bad_label(path, unseen[0], numbers[unseen[0]], "a label that train.parquet has, too")
    return source


def _read_table(path: Path) -> pa.Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not path.is_file():
        raise DataError("The parquet file is not there.", where=path, do="check the path")
    try:
        with pq.ParquetFile(path) as file:
            found = file.schema_arrow
            _check_schema(path, found)
            return _read_columns(path, file)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:  # the last of names of columns
        raise DataError("The file is not a readable parquet file.", where=path, got=error) from error


def _read_columns(path: Path, file: pq.ParquetFile) -> pa.Table:
    """Images and labels, read piece by piece: encoded images hardly shrink, so small files hold little."""
    import pyarrow as pa

    most = _EXPANSION * path.stat().st_size + _SLACK_BYTES
    declared = sum(file.metadata.row_group(i).total_byte_size for i in range(file.metadata.num_row_groups))
    batches, size = [], 0
    if declared <= most:
        for batch in file.iter_batches(_ROWS, columns=["image.bytes", "label"]):
            batches.append(batch)
            size += batch.nbytes
            if size > most:
                break
    if max(declared, size) > most:
        raise DataError(
            "The parquet file holds far more than its size; reading it could exhaust the memory.",
            where=path,
            got=f"more than {most} bytes in a file of {path.stat().st_size}",
            do="write it again from images that are encoded",
        )
    return pa.Table.from_batches(batches) if batches else file.read(columns=["image.bytes", "label"])


def _check_schema(path: Path, schema: pa.Schema) -> None:
    import pyarrow as pa

    kinds = {field.name: field.type for field in schema}
    image, label = kinds.get("image"), kinds.get("label")
    content = image.field("bytes").type if image is not None and _has_bytes(image) else None
    binary = content is not None and (pa.types.is_binary(content) or pa.types.is_large_binary(content))
    if binary and label is not None and pa.types.is_integer(label):
        return
    raise DataError(
        "The parquet file does not have the columns of an image data set.",
        where=path,
        got=", ".join(f"{name}: {kind}" for name, kind in kinds.items()) or "no columns",
        allowed=_LAYOUT,
    )


def _has_bytes(kind: pa.DataType) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_struct(kind)) and kind.get_field_index("bytes") >= 0


def _class_names(table: pa.Table) -> tuple[str, ...] | None:
    """The names in Hugging Face's metadata, or None when there are none."""
    try:
        features = json.loads((table.schema.metadata or {})[b"huggingface"])["info"]["features"]
        names: Any = features["label"]["names"]
    except (KeyError, TypeError, ValueError):
        return None
    return tuple(map(str, names)) if isinstance(names, list) and names else None


def _label_numbers(path: Path, table: pa.Table) -> NDArray[np.int64]:
    column = table["label"]
    if column.null_count:
        row = np.flatnonzero(column.is_null().to_numpy())[0]
        raise _bad_label(path, row, "nothing", "an integer in every row")
    numbers: NDArray[np.int64] = column.to_numpy().astype(np.int64)
    return numbers


def _source(path: Path, table: pa.Table, numbers: NDArray[np.int64], values: NDArray[np.int64]) -> RowSource:
    """Turn the file's numbers into labels 0 .. classes-1."""
    import pyarrow.compute as pc

    bad = np.flatnonzero(~np.isin(numbers, values) | (numbers < 0))
    if len(bad):
        raise _bad_label(path, bad[0], numbers[bad[0]], f"0 to {values[-1]}")
    labels = torch.from_numpy(np.searchsorted(values, numbers))
    encoded = pc.struct_field(table["image"], "bytes")
    return RowSource(path, encoded, labels, np.arange(len(numbers)))


def _bad_label(path: Path, row: int, got: object, allowed: str) -> DataError:
    return DataError("A label is out of range.", where=f"{path}, row {row}", got=got, allowed=allowed)
