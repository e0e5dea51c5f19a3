"""Files that a verb writes where the user says: refused where writing would do harm."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hwprune.config import FILE_NAME
from hwprune.errors import UsageError
from hwprune.project.folder import WORK

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

_KEPT = (FILE_NAME, "report.json")  # files of a project folder that are read


def checked_outputs(
    outputs: Mapping[str, Path | None], inputs: Iterable[tuple[str, Path]]
) -> tuple[Path | None, ...]:
    """The files to write, links followed.

    Args:
        outputs: Option -> what the user gave.
        inputs: (name, path) of what is read; of a project folder that is all that its stages left.

    Raises:
        UsageError: Not a place for a file, or a file that is read or written already.
    """
    taken = {place: name for what, path in inputs for name, place in _read(what, path)}
    checked: list[Path | None] = []
    for option, path in outputs.items():
        place = None if path is None else path.resolve()
        if place is not None:
            if place.exists() and not place.is_file():
                raise UsageError(f"{option} is not a file.", got=path, do="name a file that may be written")
            if other := next((taken[one] for one in (place, *place.parents) if one in taken), None):
                raise UsageError(f"{option} would overwrite {other}.", got=path, do="name another file")
            taken[place] = f"what {option} writes"
        checked.append(place)
    return tuple(checked)


def _read(what: str, path: Path) -> Iterator[tuple[str, Path]]:
    """(name, place) of each file and of each folder of which everything is read."""
    place = path.resolve()
    if not path.is_dir():
        yield what, place
        return
    project = place.parent if place.name == WORK else place
    for name in (WORK, *_KEPT):
        yield f"{name} of {what}", project / name
