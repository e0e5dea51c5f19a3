"""One process at a time works in a project: a second one is told who has it, and stops.

The lock is the operating system's, so it is gone with its process, however that ended, and nothing must be
cleaned up. Who holds it stands beside it, for the message alone.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import os
import shlex
import shutil
import socket
import sys
import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from filelock import FileLock, Timeout

from hwprune import artifacts
from hwprune.errors import ArtifactError, BusyError
from hwprune.project.folder import WORK
from hwprune.units import format_seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from filelock import BaseFileLock

LOCK, OWNER = ".lock", "lock.json"
_KIND, _SCHEMA = "lock-owner", 1

P = ParamSpec("P")
R = TypeVar("R")


@dataclass
class _Held:
    """A lock of this process.

    Attributes:
        lock: The operating system's.
        made: Folders that were made for it, innermost first.
        entered: How many verbs of this process are inside.
    """

    lock: BaseFileLock
    made: list[Path]
    entered: int = 1


_held: dict[Path, _Held] = {}
_guard = threading.Lock()


def locked(verb: Callable[P, R]) -> Callable[P, R]:
    """A verb that writes into its `project`: it has the project to itself for its whole run."""
    default = inspect.signature(verb).parameters["project"].default

    @functools.wraps(verb)
    def alone(*args: P.args, **kwargs: P.kwargs) -> R:
        with project_lock(Path(str(kwargs.get("project", default)))):
            return verb(*args, **kwargs)

    return alone


@contextlib.contextmanager
def project_lock(project: Path) -> Iterator[None]:
    """Have a project to oneself; verbs and threads of one process share it.

    Args:
        project: The project folder; its work folder is made as needed, and taken away if nothing came of it.

    Raises:
        BusyError: Another process works in it; tells which, and since when.
        StorageError: The work folder cannot be written or locked.
    """
    folder = (project / WORK).resolve()
    with _guard:
        if folder in _held:
            _held[folder].entered += 1
        else:
            _held[folder] = _take(folder)
    try:
        yield
    finally:
        with _guard:
            _held[folder].entered -= 1
            if not _held[folder].entered:
                _give_back(folder, _held.pop(folder))


def _take(folder: Path) -> _Held:
    """Lock the folder, sign, and remove what a killed process left half-written."""
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    with artifacts.storage_errors(folder / LOCK):
        folder.mkdir(parents=True, exist_ok=True)
        # Not the package's stand-in for file systems without locks: a killed process would leave it behind.
        lock = FileLock(folder / LOCK, timeout=0, thread_local=False, fallback_to_soft=False)
        try:
            lock.acquire()
        except Timeout:
            raise _busy(folder) from None
    held = _Held(lock, made)
    try:
        owner = {"pid": os.getpid(), "host": socket.gethostname(), "command": _command()}
        started = datetime.now(UTC).isoformat(timespec="seconds")
        artifacts.write_json(folder / OWNER, _KIND, _SCHEMA, {**owner, "started": started})
        _remove_half_written(folder)
    except BaseException:
        _give_back(folder, held)
        raise
    return held


def holds_work(project: Path) -> bool:
    """Whether a project's work folder holds anything that a verb finished."""
    files = (path for path in (project / WORK).rglob("*") if path.is_file())
    return any(path.name not in (LOCK, OWNER) for path in files)


def _remove_half_written(folder: Path) -> None:
    """What is found now has no owner any more, for all that write here hold the lock."""
    pattern = f".*{artifacts.PART}"
    for path in [*folder.rglob(pattern), *folder.parent.glob(pattern)]:
        shutil.rmtree(path, ignore_errors=True)


def _give_back(folder: Path, held: _Held) -> None:
    """Unlock; what was made for the lock and holds nothing else goes away with it."""
    with contextlib.suppress(OSError):
        (folder / OWNER).unlink(missing_ok=True)
        if held.made and [path.name for path in folder.iterdir()] == [LOCK]:
            (folder / LOCK).unlink()
    held.lock.release()
    with contextlib.suppress(OSError):
        for path in held.made:
            path.rmdir()  # refuses a folder that something came into


def _busy(folder: Path) -> BusyError:
    return BusyError(
        "Another process works in this project.",
        where=folder / LOCK,
        got=_owner(folder),
        allowed="one process at a time",
        do="wait until it ends, or stop it; another --project folder is free",
    )


def _owner(folder: Path) -> str:
    """Who holds the lock, since when, doing what."""
    try:
        owner = artifacts.read_json(folder / OWNER, _KIND, _SCHEMA)
        age = datetime.now(UTC) - datetime.fromisoformat(owner["started"])
        ago = format_seconds(max(age.total_seconds(), 0.0))
        return f"pid {owner['pid']} on {owner['host']}, started {ago} ago: {owner['command']}"
    except (ArtifactError, KeyError, TypeError, ValueError):  # it is just coming or going
        return "a process that has not signed"


def _command() -> str:
    """This process's command line, as its user would type it."""
    program = Path(sys.argv[0])
    name = program.parent.name if program.name == "__main__.py" else program.name
    return shlex.join([name, *sys.argv[1:]])
