"""The only module that opens the project's data files: JSON, CSV, safetensors and plain zips of these.

Every file is written in a temporary folder beside it and renamed, so a reader sees the old file or the new
one, never half of one. Every file names its `kind` and `schema_version` and carries a SHA-256 `checksum`.
Nothing read is ever executed: no pickle, no `torch.load` of untrusted objects.
"""

from __future__ import annotations

import contextlib
import csv
import errno
import hashlib
import io
import json
import os
import re
import tempfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hwprune import strict_json
from hwprune.errors import ArtifactError, MismatchError, MissingArtifactError, StorageError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
    from types import ModuleType

    import pandas as pd
    import torch

MAX_JSON_BYTES = 512 * 2**20
MAX_ARCHIVE_BYTES = 4 * 2**30
MAX_ONNX_BYTES = 2**31  # protobuf ends here
_HEADER = "header.json"
_NO_LOCKS, _NO_RIGHTS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP), (errno.EACCES, errno.EPERM)
PART = ".hwprune-part"  # nobody else's: what a killed process left may be removed unasked


def sha256(*blocks: bytes) -> str:
    """Hexadecimal SHA-256 of the blocks, one after the other."""
    sha = hashlib.sha256()
    for block in blocks:
        sha.update(block)
    return sha.hexdigest()


@contextlib.contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn the operating system's refusals into errors that say what to do.

    Raises:
        StorageError: In place of any `OSError`.
    """
    try:
        yield
    except OSError as error:
        do = {
            errno.ENOSPC: "free some space on that disk and run the same command again",
            errno.EDQUOT: "free some of your quota and run the same command again",
            errno.EROFS: "choose a folder on a disk that is not read-only",
            **dict.fromkeys(_NO_RIGHTS, "choose a folder you may write to, or change its permissions"),
            **dict.fromkeys(_NO_LOCKS, "choose a folder on a local disk: this file system has no locks"),
        }.get(error.errno or 0, "check that path")
        raise StorageError(
            "The file cannot be written or read.", where=path, got=error.strerror, do=do
        ) from error


def write_bytes(path: Path, content: bytes | memoryview) -> None:
    """Write `content` to `path` atomically, creating folders as needed.

    Raises:
        StorageError: Full disk, no permission; the old file, if any, is untouched.
    """
    _write_atomically(path, lambda temporary: Path(temporary).write_bytes(content))


def append_bytes(path: Path, content: bytes, size: int) -> None:
    """Put `content` behind the first `size` bytes of a file; what was there is cut off.

    Not atomic: a kill or a full disk may leave a part of it, which the file's reader must be able to tell.

    Raises:
        StorageError: Full disk, no permission, or the file is gone.
    """
    with storage_errors(path), open(path, "r+b") as file:
        file.truncate(size)
        file.seek(size)
        file.write(content)


def _write_atomically(path: Path, write: Callable[[str], object]) -> None:
    """Let `write` fill a new file, which takes the place of `path` when it is whole and on the disk."""
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        # A folder, for safetensors writes through a temporary file of its own beside the one it is given.
        with tempfile.TemporaryDirectory(
            prefix=f".{path.name}.", suffix=PART, dir=path.parent, ignore_cleanup_errors=True
        ) as folder:
            temporary = os.path.join(folder, path.name)
            write(temporary)
            with open(temporary, "rb+") as file:
                os.fsync(file.fileno())
            os.chmod(temporary, 0o644)
            os.replace(temporary, path)


def is_file(path: Path) -> bool:
    """Whether there is a file.

    Raises:
        StorageError: The system refuses the name, such as a very long one.
    """
    with storage_errors(path):
        return path.is_file()


def read_bytes(path: Path, made_by: str = "", limit: int | None = None) -> bytes:
    """Read a whole file.

    Args:
        path: The file.
        made_by: The command that makes it, for the message when it is missing.
        limit: The most bytes such a file may have.

    Raises:
        MissingArtifactError: There is no such file.
        ArtifactError: It is larger than `limit`.
        StorageError: It may not be read.
    """
    with storage_errors(path):
        if not path.is_file():
            do = f"run `{made_by}` first" if made_by else None
            raise MissingArtifactError("A file that this step needs is not there.", where=path, do=do)
        if limit is not None and path.stat().st_size > limit:
            raise ArtifactError(
                "The file is too large to be one of hwprune's.", where=path, allowed=f"{limit} bytes"
            )
        return path.read_bytes()


def broken(path: Path, got: object, made_by: str = "") -> ArtifactError:
    """The error for a file whose content cannot be what hwprune wrote."""
    do = f"make it again with `{made_by}`" if made_by else "delete the file and make it again"
    return ArtifactError("The file is damaged or was not written by hwprune.", where=path, got=got, do=do)


def _check_header(
    path: Path, header: Mapping[str, Any], kind: str, schema_version: int | str, made_by: str
) -> None:
    if header.get("kind") != kind:
        raise broken(path, f"kind {header.get('kind')!r}, expected {kind!r}", made_by)
    if header.get("schema_version") != schema_version:
        raise MismatchError(
            "The file has another schema version.",
            where=path,
            got=header.get("schema_version"),
            allowed=schema_version,
            do=f"make it again with `{made_by}`" if made_by else "make it again with this version of hwprune",
        )


def write_json(path: Path, kind: str, schema_version: int, payload: Mapping[str, Any]) -> None:
    """Write `payload` as JSON with its kind, schema version and checksum.

    Raises:
        StorageError: Full disk, no permission.
    """
    write_bytes(path, _json_file(kind, schema_version, payload))


def _json_file(kind: str, schema_version: int, payload: Mapping[str, Any]) -> bytes:
    body = json.dumps(payload, indent=1, sort_keys=False, allow_nan=False)
    # What a reader will see: JSON turns tuples into lists and number keys into text.
    seen = json.loads(body)
    header = {"kind": kind, "schema_version": schema_version, "checksum": sha256(_canonical(seen))}
    return (json.dumps(header, indent=1)[:-2] + ',\n "payload": ' + body + "\n}\n").encode()


def _canonical(payload: Any) -> bytes:
    return json.dumps(payload, sort_keys=True, separators=(",", ":")).encode()


def read_json(path: Path, kind: str, schema_version: int, made_by: str = "") -> dict[str, Any]:
    """Read the payload of a file that `write_json` wrote.

    Raises:
        MissingArtifactError: There is no such file; names the command that makes it.
        MismatchError: Written with another schema version.
        ArtifactError: Not such a file, truncated or altered.
    """
    content = read_bytes(path, made_by, MAX_JSON_BYTES)
    return _json_payload(path, content, kind, schema_version, made_by)


def _json_payload(path: Path, content: bytes, kind: str, schema_version: int, made_by: str) -> dict[str, Any]:
    try:
        file = strict_json.parse(content)
    except (ValueError, RecursionError) as error:
        raise broken(path, error, made_by) from error
    if not isinstance(file, dict) or not isinstance(file.get("payload"), dict):
        raise broken(path, "no payload", made_by)
    _check_header(path, file, kind, schema_version, made_by)
    if file.get("checksum") != sha256(_canonical(file["payload"])):
        raise broken(path, "its checksum does not fit its content", made_by)
    payload: dict[str, Any] = file["payload"]
    return payload


def write_archive(
    path: Path, kind: str, schema_version: int, payload: Mapping[str, Any], files: Mapping[str, bytes]
) -> None:
    """Write JSON-able data and some files as one uncompressed zip.

    Raises:
        StorageError: Full disk, no permission.
    """
    sums = {name: sha256(content) for name, content in files.items()}
    header = _json_file(kind, schema_version, {"content": payload, "files": sums})
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, content in {_HEADER: header, **files}.items():
            archive.writestr(zipfile.ZipInfo(name), content)
    write_bytes(path, buffer.getbuffer())


def read_archive(
    path: Path, kind: str, schema_version: int, names: Collection[str], made_by: str = ""
) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Read what `write_archive` wrote: its data and exactly the files `names`.

    Nothing is unpacked to the disk, and a compressed member is refused, so neither a path nor a size in the
    archive can do harm.

    Raises:
        MissingArtifactError: There is no such file.
        MismatchError: Written with another schema version.
        ArtifactError: Not such an archive, truncated or altered.
    """
    content = read_bytes(path, made_by, MAX_ARCHIVE_BYTES)
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = archive.infolist()
            if sorted(info.filename for info in members) != sorted({_HEADER, *names}):
                raise ValueError(f"it should hold {', '.join(sorted({_HEADER, *names}))} and nothing else")
            if any(info.compress_type != zipfile.ZIP_STORED for info in members):
                raise ValueError("a member is compressed")
            files = {info.filename: archive.read(info) for info in members}
    except (zipfile.BadZipFile, ValueError, RuntimeError, NotImplementedError, EOFError, OSError) as error:
        raise broken(path, error, made_by) from error
    payload = _json_payload(path, files.pop(_HEADER), kind, schema_version, made_by)
    if payload.get("files") != {name: sha256(files[name]) for name in files}:
        raise broken(path, "a checksum does not fit its content", made_by)
    if not isinstance(payload.get("content"), dict):
        raise broken(path, "no content", made_by)
    return payload["content"], files


def write_csv(path: Path, columns: Iterable[str], rows: Iterable[tuple[Any, ...]]) -> str:
    """Write rows as CSV and return the checksum of the file, to be kept beside it.

    Floats are written so that they are read back exactly.

    Raises:
        StorageError: Full disk, no permission.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    content = text.getvalue().encode()
    write_bytes(path, content)
    return sha256(content)


def read_table(path: Path, checksum: str, made_by: str = "", texts: Collection[str] = ()) -> pd.DataFrame:
    """Read a CSV file whose checksum was kept elsewhere; the columns `texts` are text, whatever is in them.

    Raises:
        MissingArtifactError: There is no such file.
        ArtifactError: Truncated, altered, or not a CSV table.
    """
    import pandas as pd

    content = read_bytes(path, made_by, MAX_JSON_BYTES)
    if sha256(content) != checksum:
        raise broken(path, "its checksum does not fit its content", made_by)
    try:
        # pandas reads floats exactly from 3.1 on; before, only when told to.
        exact = {} if _version(pd) >= (3, 1) else {"float_precision": "round_trip"}
        kinds = dict.fromkeys(texts, str)
        return pd.read_csv(
            io.BytesIO(content), keep_default_na=False, na_values=["nan"], dtype=kinds, **exact
        )
    except (ValueError, pd.errors.ParserError) as error:
        raise broken(path, error, made_by) from error


def _version(module: ModuleType) -> tuple[int, ...]:
    return tuple(int(part) for part in module.__version__.split(".")[:2])


def write_tensors(
    path: Path, kind: str, schema_version: int, tensors: Mapping[str, torch.Tensor], info: Mapping[str, Any]
) -> None:
    """Write named tensors and a JSON-able `info` as one safetensors file.

    Tensors are written from where they lie: a PruningNet of gigabytes is not copied.

    Raises:
        StorageError: Full disk, no permission.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    plain = _apart(tensors)
    text = json.dumps(info, allow_nan=False)
    header = {
        "kind": kind,
        "schema_version": str(schema_version),
        "checksum": _tensor_digest(plain, text),
        "info": text,
    }

    def write(temporary: str) -> None:
        try:
            save_file(plain, temporary, metadata=header)
        except SafetensorError as error:  # the system's refusals come as text, with their number in it
            number = re.search(r"os error (\d+)", str(error))
            raise OSError(int(number[1]) if number else 0, str(error)) from error

    _write_atomically(path, write)


def _apart(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors on the CPU, contiguous, no two in one block of memory; copied where they must be."""
    plain: dict[str, torch.Tensor] = {}
    taken = set()
    for name, tensor in tensors.items():
        one = tensor.detach().cpu().contiguous()
        block = one.untyped_storage()
        whole = block.nbytes() == one.nbytes
        plain[name] = one if whole and block.data_ptr() not in taken else one.clone()
        taken.add(plain[name].untyped_storage().data_ptr())
    return plain


def _tensor_digest(tensors: Mapping[str, torch.Tensor], info: str) -> str:
    import torch

    sha = hashlib.sha256(info.encode())
    for name, tensor in sorted(tensors.items()):
        sha.update(f"\n{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        sha.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return sha.hexdigest()


def read_tensors(
    path: Path, kind: str, schema_version: int, made_by: str = ""
) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Read the tensors and the info that `write_tensors` wrote.

    Raises:
        MissingArtifactError: There is no such file.
        MismatchError: Written with another schema version.
        ArtifactError: Not such a file, truncated or altered.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    content = read_bytes(path, made_by)
    try:
        length = int.from_bytes(content[:8], "little")
        header = strict_json.parse(content[8 : 8 + length]).get("__metadata__", {})
        tensors = load(content)
        text = header.get("info", "{}")
        info = strict_json.parse(text)
        if not isinstance(info, dict):
            raise TypeError("its info is not a table")
    except (SafetensorError, ValueError, AttributeError, RecursionError, TypeError, OverflowError) as error:
        raise broken(path, error, made_by) from error
    _check_header(path, header, kind, str(schema_version), made_by)
    if header.get("checksum") != _tensor_digest(tensors, text):
        raise broken(path, "its checksum does not fit its content", made_by)
    return tensors, info


def tensors_claim(path: Path, key: str) -> str:
    """The `checksum` or the `info` that a file of `write_tensors` claims, from its header alone, or ""."""
    with (
        contextlib.suppress(OSError, ValueError, KeyError, TypeError, RecursionError),
        path.open("rb") as file,
    ):
        length = min(int.from_bytes(file.read(8), "little"), MAX_JSON_BYTES)
        return str(strict_json.parse(file.read(length))["__metadata__"][key])
    return ""
