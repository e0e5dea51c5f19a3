"""Feeds mutated inputs to a reader and watches what it does.

A reader may accept an input or raise one of `hwprune.errors`. Anything else is a failure: another exception,
half a minute for an input, memory beyond the limit, a file opened outside of the sandbox, a process started,
a connection opened, a pickled object looked up, Python code run that came from elsewhere than a library.
"""

from __future__ import annotations

import ast
import collections
import contextlib
import dataclasses
import inspect
import logging
import os
import resource
import signal
import sys
import traceback
import typing
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from hwprune.errors import HwpruneError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MEMORY_BYTES = 2**31  # that a reader may take beyond what the process has
_SECONDS = 30.0
_SWAPPED = 0.02  # share of inputs that are another reader's files
_RUNS = (
    "subprocess.Popen",
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.fork",
    "os.forkpty",
    "os.spawn",
    "ctypes.dlopen",
    "socket.connect",
    "pickle.find_class",
)
_CHANGES = ("os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.symlink", "os.link", "os.chmod")
_LIBRARIES = tuple(map(os.path.realpath, (sys.prefix, sys.base_prefix, Path(__file__).parents[2])))
# These make code of what other code says: fields of a class, annotations, a literal that is not run.
_MAKERS = {module.__file__ for module in (ast, collections, dataclasses, inspect, typing)}
_SYSTEM = ("/proc/", "/sys/", "/dev/", "/usr/", "/lib")


@dataclass(frozen=True, kw_only=True)
class Reader:
    """Something that reads what others wrote.

    Attributes:
        name: What it reads.
        seeds: Good inputs, which it must accept.
        mutate: Makes a bad input of a good one.
        read: Reads an input; gets the sandbox to write it to.
    """

    name: str
    seeds: tuple[bytes, ...]
    mutate: Callable[[Random, bytes], bytes]
    read: Callable[[Path, bytes], object]


@dataclass
class Outcome:
    """What came of the inputs of one reader.

    Attributes:
        accepted: Inputs that were read.
        refused: Inputs that a documented error came of.
        failures: What else happened, and how to make that input again.
        peak_mb: How much the most memory that the process ever had grew.
    """

    accepted: int = 0
    refused: int = 0
    failures: list[str] = field(default_factory=list)
    peak_mb: float = 0.0

    @property
    def inputs(self) -> int:
        """All inputs."""
        return self.accepted + self.refused + len(self.failures)


def fuzz(
    reader: Reader,
    sandbox: Path,
    *,
    count: int,
    seed: int = 0,
    first: int = 0,
    others: tuple[bytes, ...] = (),
) -> Outcome:
    """Feed `count` mutated inputs to a reader.

    Args:
        reader: The reader.
        sandbox: An empty folder, the only one it may touch.
        count: How many.
        seed: Decides the inputs, together with their numbers.
        first: Number of the first input: input `i` of a seed is always the same.
        others: Files of other readers, which take the place of some inputs.
    """
    outcome = Outcome()
    for content in reader.seeds:
        reader.read(sandbox, content)  # must not raise; and what is imported late is imported now
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with _limits():
        for number in range(first, first + count):
            content = input_of(reader, seed, number, others)
            _feed(reader, sandbox, content, f"{reader.name}, seed {seed}, input {number}", outcome)
    outcome.peak_mb = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    return outcome


def input_of(reader: Reader, seed: int, number: int, others: tuple[bytes, ...] = ()) -> bytes:
    """One input, always the same."""
    rng = Random(f"{reader.name} {seed} {number}")
    if others and rng.random() < _SWAPPED:
        return rng.choice(others)
    return reader.mutate(rng, rng.choice(reader.seeds))


def _feed(reader: Reader, sandbox: Path, content: bytes, label: str, outcome: Outcome) -> None:
    signal.setitimer(signal.ITIMER_REAL, _SECONDS)
    try:
        with watched(sandbox) as seen:
            reader.read(sandbox, content)
        outcome.accepted += not seen
    except HwpruneError as error:
        str(error)
        outcome.refused += not seen
    except Exception as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        seen.append(
            f"{type(error).__name__}: {str(error)[:200]} at {Path(frame.filename).name}:{frame.lineno}"
        )
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    if seen:
        outcome.failures.append(f"{label}: {'; '.join(seen)}")


@contextlib.contextmanager
def _limits() -> Iterator[None]:
    """Bound memory and time, and put both back."""

    def late(*_: object) -> None:
        raise TimeoutError(f"still reading after {_SECONDS:.0f} s")

    with open("/proc/self/statm") as file:
        now = int(file.read().split()[0]) * resource.getpagesize()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    handler = signal.signal(signal.SIGALRM, late)
    resource.setrlimit(resource.RLIMIT_AS, (now + MEMORY_BYTES, hard))
    logging.disable()  # a warning for each input would be the most of the work
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        signal.signal(signal.SIGALRM, handler)


_watching: tuple[str, list[str]] | None = (
    None  # an audit hook stays for good, so it asks whether it is wanted
)
_hooked = False


@contextlib.contextmanager
def watched(sandbox: Path) -> Iterator[list[str]]:
    """Collect what is done outside of the sandbox, and what is run at all."""
    global _watching, _hooked
    if not _hooked:
        sys.addaudithook(_hook)
        _hooked = True
    seen: list[str] = []
    _watching = (os.path.realpath(sandbox), seen)
    try:
        yield seen
    finally:
        _watching = None


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if _watching is None:
        return
    sandbox, seen = _watching
    if event in _RUNS or (event in ("compile", "exec", "import") and _foreign(event, arguments)):
        seen.append(f"{event} {arguments!r}"[:200])
    elif (event == "open" or event in _CHANGES) and isinstance(arguments[0], str | bytes | os.PathLike):
        path = os.path.abspath(os.fsdecode(arguments[0]))
        mode = arguments[1] if event == "open" else "w"
        if path != sandbox and not path.startswith(sandbox + os.sep) and not _harmless(path, mode):
            seen.append(f"{event} {path} ({mode})")


def _foreign(event: str, arguments: tuple[Any, ...]) -> bool:
    """Whether Python code that is compiled, run or loaded is not of a library."""
    if event == "import":  # of a file, such as a library in C
        return arguments[1] is not None and not str(arguments[1]).startswith(_LIBRARIES)
    caller = sys._getframe(2).f_code.co_filename
    if caller.startswith("<frozen importlib"):
        file = arguments[0].co_filename if event == "exec" else os.fsdecode(arguments[1] or "")
        return not file.startswith(_LIBRARIES)
    return caller not in _MAKERS


def _harmless(path: str, mode: Any) -> bool:
    """Whether that is a library looking at itself or at the system."""
    reading = mode is None or not set(str(mode)) & set("wax+")
    return reading and path.startswith((*_LIBRARIES, *_SYSTEM))
