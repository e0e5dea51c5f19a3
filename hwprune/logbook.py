"""A file that grows by one entry at a time, so that a killed process loses nothing it had finished.

The first line is a header, each further one an entry with its own checksum. Adding an entry writes its line
and nothing else. A kill in the middle of that leaves half a line, which the next reader leaves out and the
next entry overwrites.
"""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

from hwprune import artifacts, strict_json
from hwprune.errors import MismatchError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_log = logging.getLogger(__name__)


class Logbook:
    """Entries of JSON-able data, in memory and, where there is a path, in a file.

    Args:
        path: The file; it is made with the first entry. None keeps nothing.
        kind: What the entries are.
        schema_version: Of the entries.
        head: What the entries depend on. A file that was begun with another head is refused.
        afresh: Begin anew, whatever the file holds; it is replaced with the first entry.

    Attributes:
        path: The file, or None.
        entries: What an earlier process added.

    Raises:
        MismatchError: The file is of another schema version or head; tells what differs.
        ArtifactError: It is damaged, and not just cut off at its end.
    """

    def __init__(
        self,
        path: Path | None,
        kind: str,
        schema_version: int,
        head: Mapping[str, Any],
        *,
        afresh: bool = False,
    ) -> None:
        self.entries: list[Any] = []
        self.path, self._size = path, 0
        self._header = {"kind": kind, "schema_version": schema_version, "head": _as_read(head)}
        if path is not None and path.exists() and not afresh:
            header, self.entries, self._size = read(path)
            self._check(path, header)

    def add(self, entry: Any) -> None:
        """Write one more entry behind the others.

        Raises:
            StorageError: Full disk, no permission; the entries before it are safe.
        """
        if self.path is None:
            return
        line = _line(entry)
        if self._size:
            artifacts.append_bytes(self.path, line, self._size)
        else:
            line = _line(self._header) + line
            artifacts.write_bytes(self.path, line)
        self._size += len(line)

    def _check(self, path: Path, header: dict[str, Any]) -> None:
        if header.get("kind") != self._header["kind"]:
            raise artifacts.broken(path, f"it is no {self._header['kind']}")
        if header != self._header:
            raise MismatchError(
                f"The {self._header['kind']} in this file belongs to something else.",
                where=path,
                got=f"another {', '.join(_other(header, self._header) or ['head'])}",
                do="delete the file to begin anew, or repeat the options it was made with",
            )


def read(path: Path) -> tuple[dict[str, Any], list[Any], int]:
    """The header of a file, its entries, and the bytes that these take; half a line at the end is left out.

    Raises:
        ArtifactError: It is no such file, or damaged.
    """
    *lines, rest = artifacts.read_bytes(path, limit=artifacts.MAX_JSON_BYTES).split(b"\n")
    found = []
    for number, line in enumerate(lines, start=1):
        try:
            found.append(_content(line))
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            if 1 < number == len(lines):
                break
            raise artifacts.broken(path, f"line {number}: {error}") from error
    if not found or not isinstance(found[0], dict):
        raise artifacts.broken(path, "no header")
    if rest or len(found) < len(lines):
        _log.warning("%s: the last entry is not whole and is left out", path)
    return found[0], found[1:], sum(len(line) + 1 for line in lines[: len(found)])


def _other(found: dict[str, Any], asked: dict[str, Any]) -> list[str]:
    """Names of what differs."""
    if found.get("schema_version") != asked["schema_version"]:
        return ["schema version"]
    known = found.get("head")
    known = known if isinstance(known, dict) else {}
    return [key for key, value in asked["head"].items() if known.get(key) != value]


def _line(content: Any) -> bytes:
    text = _text(content)
    return f'{{"sum":"{artifacts.sha256(text.encode())[:16]}","entry":{text}}}\n'.encode()


def _content(line: bytes) -> Any:
    found = strict_json.parse(line)
    entry = found["entry"]
    if found["sum"] != artifacts.sha256(_text(entry).encode())[:16]:
        raise ValueError("its checksum does not fit its content")
    return entry


def _text(content: Any) -> str:
    return json.dumps(content, separators=(",", ":"), allow_nan=False)


def _as_read(content: Mapping[str, Any]) -> Any:
    """What a reader will see: JSON turns tuples into lists and number keys into text."""
    return json.loads(json.dumps(content, allow_nan=False))
