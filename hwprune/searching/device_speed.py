"""How many times as long as when they were profiled devices took, in a file of the project.

A search depends on it. It is measured anew each time and never comes out twice the same, so what was found
before counts as long as it fits: a search that goes on later is then the same search.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hwprune.errors import ArtifactError
from hwprune.logbook import Logbook

if TYPE_CHECKING:
    from pathlib import Path

KIND, SCHEMA_VERSION = "device-speeds", 1


class Speeds:
    """The speeds on record.

    Args:
        path: The file; it is made with the first speed that is not 1.

    Raises:
        ArtifactError: It is damaged.
    """

    def __init__(self, path: Path) -> None:
        self._book = Logbook(path, KIND, SCHEMA_VERSION, {})
        self._known: dict[str, float] = {}
        for entry in self._book.entries:
            table, speed = _checked(entry, path)
            self._known[table] = speed

    def settle(self, table: str, found: float, tolerance: float) -> float:
        """The speed that counts for a device.

        Args:
            table: Stands for its latency table.
            found: Its speed now.
            tolerance: The relative difference up to which an earlier speed, or that of the table, still fits.
        """
        known = self._known.get(table, 1.0)
        for fits in (known, 1.0):
            if abs(found / fits - 1) <= tolerance:
                found = fits
                break
        if found != known:
            self._book.add({"table": table, "speed": found})
            self._known[table] = found
        return found


def _checked(entry: Any, path: Path) -> tuple[str, float]:
    table, speed = (entry.get("table"), entry.get("speed")) if isinstance(entry, dict) else (None, None)
    if not isinstance(table, str) or not isinstance(speed, float | int) or not 0 < speed < float("inf"):
        raise ArtifactError(
            "The speeds of devices cannot be read.",
            where=path,
            got=entry,
            do="delete the file and search again",
        )
    return table, float(speed)
