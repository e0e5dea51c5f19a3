"""How latency tables look on a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.text import Text

from hwprune.cli.parts import Next, facts
from hwprune.report.verdict import MISSING
from hwprune.report.words import error_words
from hwprune.units import format_ms, format_seconds

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.console import RenderableType

    from hwprune.verbs.lut import LutResult


def lut(result: LutResult) -> Iterable[RenderableType | Next]:
    """What `hwprune lut` shows."""
    if result.action == "list":
        yield from _shipped(result)
        return
    for name, known in result.tables.items():
        yield Text(name)  # not the title of its table: that would be as narrow as the table is
        yield facts("", *(_named_fact(key, value) for key, value in known.items()))
    if result.action == "validate":
        yield Text(f"{len(result.tables)} table(s) hold together.")
    if result.output:
        yield Text(f"Wrote {result.output}.")
        yield Next(f"predict --table {result.output}")


def _shipped(result: LutResult) -> Iterable[RenderableType | Next]:
    """The tables that come with hwprune; a name has a line of its own, to be copied."""
    for name, told in result.tables.items():
        span = f"{format_ms(told['fastest_ms'])} to {format_ms(told['slowest_ms'])}"
        yield Text(f"{name}\n  {told['model']} on {told['device']}: {told['networks']} networks, {span}")
    if result.tables:
        yield Next(f"predict --table {next(iter(result.tables))}")


def _named_fact(key: str, value: Any) -> tuple[str, str]:
    """A fact with its unit; `key` ends in it."""
    name, _, unit = key.rpartition("_")
    known = {"ms": format_ms, "seconds": format_seconds, "percent": error_words}
    if unit in known and name:
        title = f"{name} time" if unit == "seconds" else name
        return title.replace("_", " "), MISSING if value is None else known[unit](value)
    return key.replace("_", " "), _fact(value)


def _fact(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_fact(part)}" for name, part in value.items()) or MISSING
    if isinstance(value, list):
        return "; ".join(_fact(part) for part in value) or "no difference"
    return f"{value:.4g}" if isinstance(value, float) else MISSING if value is None else str(value)
