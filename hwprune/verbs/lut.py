"""`hwprune lut`: look at latency tables, check them, join them, compare them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hwprune.errors import HwpruneError, MismatchError, UsageError
from hwprune.progress import QUIET, Reporter

if TYPE_CHECKING:
    from collections.abc import Callable

    from hwprune.latency.folder import TableFolder

Action = Literal["list", "show", "validate", "merge", "diff"]


@dataclass(frozen=True)
class LutResult:
    """What was found out or made.

    Attributes:
        action: What was asked for.
        tables: Folder, or name of a table that comes with hwprune -> facts about it; for `diff` one entry.
        output: The folder that `merge` wrote, or "".
    """

    action: str
    tables: dict[str, dict[str, Any]]
    output: str = ""


def lut(
    action: Action,
    tables: tuple[Path, ...] = (),
    /,
    *,
    output: Path | None = None,
    reporter: Reporter = QUIET,
) -> LutResult:
    """Look at latency tables, check them, join them, compare them.

    Args:
        action: list (tables that come with hwprune), show (what is in it), validate (does it hold together),
            diff (two of them), merge (join runs of one device; takes what a probe wrote).
        tables: Folders that hold a table.json, such as hwprune-work/latency/cpu-1t, or names of `list`.
        output: The folder for the merged table; needed by merge.
        reporter: Told about progress.

    Returns:
        Facts about each table.

    Raises:
        UsageError: Too few or too many tables, or no `--output` for merge.
        MismatchError: Tables that cannot be merged, or that do not hold together; all problems are named.
        ArtifactError: A table is missing or damaged.
    """
    least, most = {"list": (0, 0), "diff": (2, 2)}.get(action, (1, math.inf))
    if not least <= len(tables) <= most:
        raise UsageError(
            f"`hwprune lut {action}` got a wrong number of tables.",
            got=len(tables),
            allowed=f"{least}" if least == most else f"{least} or more",
            do="name the folders that hold a table.json",
        )
    if (output is not None) != (action == "merge"):
        raise UsageError(
            "--output is the folder for a merged table.",
            got=f"{action} {'with' if output else 'without'} --output",
            allowed="merge with --output FOLDER",
        )
    work: dict[str, Callable[[], LutResult]] = {
        "list": _list,
        "show": lambda: _show(tables),
        "validate": lambda: _validate(tables, reporter),
        "merge": lambda: _merge(tables, output or Path()),
        "diff": lambda: _diff(tables),
    }
    return work[action]()


def _load(path: Path) -> TableFolder:
    from hwprune.latency.folder import TableFolder

    return TableFolder.load(path.parent if path.name == "table.json" else path)


def _list() -> LutResult:
    from hwprune.latency.compare import summary
    from hwprune.shipped import shipped_tables

    keys = ("model", "device", "profile", "networks", "fastest_ms", "slowest_ms")
    found = {name: summary(_load(path)) for name, path in shipped_tables().items()}
    return LutResult("list", {name: {key: facts[key] for key in keys} for name, facts in found.items()})


def _show(tables: tuple[Path, ...]) -> LutResult:
    from hwprune.latency.compare import summary

    return LutResult("show", {str(path): summary(_load(path)) for path in tables})


def _validate(tables: tuple[Path, ...], reporter: Reporter) -> LutResult:
    from hwprune.latency.compare import problems, summary

    found: dict[str, dict[str, Any]] = {}
    wrong: list[str] = []
    with reporter.stage("Validating", "tables") as progress:
        for count, path in enumerate(tables, start=1):
            try:
                folder = _load(path)
                wrong += [f"{path}: {text}" for text in problems(folder)]
                found[str(path)] = summary(folder)
            except HwpruneError as error:
                wrong.append(f"{path}: {error.what} {error.got or ''}".strip())
            progress(count, len(tables))
    if wrong:
        raise MismatchError(
            "Not every latency table holds together.",
            got="\n           ".join(wrong),
            do="make them again with `hwprune profile`",
        )
    return LutResult("validate", found)


def _merge(tables: tuple[Path, ...], output: Path) -> LutResult:
    from hwprune.latency.compare import summary
    from hwprune.latency.merge import merge

    if (output / "table.json").exists():
        raise UsageError(
            "The folder for the merged table holds a table already.", where=output, do="name another --output"
        )
    merged = merge([_load(path) for path in tables])
    merged.save(output)
    return LutResult("merge", {str(output): summary(merged)}, str(output))


def _diff(tables: tuple[Path, ...]) -> LutResult:
    from hwprune.latency.compare import compare

    one, other = (_load(path) for path in tables)
    return LutResult("diff", {f"{tables[0]} and {tables[1]}": compare(one, other)})
