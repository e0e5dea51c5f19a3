"""Whether plain data, as JSON gives it, is what a dataclass declares. Whatever is in a file is untrusted."""

from __future__ import annotations

import functools
import hashlib
import re
import types
import typing
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any

_NONSENSE = 1e100  # no figure of ours is near it, and in other units it would not stay finite
NOT_IN_NAMES = r"[/\\\0]"  # of files, whatever the system


def digest(*parts: object) -> str:
    """A short name for a set of settings, to tell whether a file was made with them."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def as_tuples(value: Any) -> Any:
    """The data with tuples for lists: JSON knows lists only, our dataclasses hold tuples."""
    if isinstance(value, dict):
        return {name: as_tuples(item) for name, item in value.items()}
    return tuple(as_tuples(item) for item in value) if isinstance(value, list) else value


def misfits(payload: Any, cls: type) -> list[str]:
    """Fields of a dataclass or `TypedDict` that are missing, of a wrong type, or no fields of it at all.

    Args:
        payload: A table, one key for each field; inner dataclasses are tables, tuples are lists.
        cls: The class; every field of a dataclass is wanted, of a `TypedDict` what it requires.
    """
    if not isinstance(payload, dict):
        return [f"{type(payload).__name__} in place of a table"]
    hints = _hints(cls)
    wrong = hints.keys() ^ (payload.keys() | getattr(cls, "__optional_keys__", frozenset()))
    wrong |= {name for name in payload.keys() & hints.keys() if not _fits(payload[name], hints[name])}
    return sorted(str(name)[:80] for name in wrong)


def is_file_name(name: str) -> bool:
    """Whether a name that becomes part of a path stays in its folder."""
    return name not in ("", ".", "..") and not re.search(NOT_IN_NAMES, name)


@functools.cache
def _hints(cls: type) -> dict[str, Any]:
    """Field -> its type."""
    hints = typing.get_type_hints(cls)
    if typing.is_typeddict(cls):
        return hints
    return {item.name: hints[item.name] for item in fields(cls)}


def _fits(value: Any, hint: Any) -> bool:
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return True
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, one) for one in inner)
    if origin is tuple:
        return isinstance(value, list | tuple) and _fit_each(value, inner)
    if origin in (dict, Mapping):
        return isinstance(value, dict) and all(_fits(item, inner[1]) for item in value.values())
    if is_dataclass(hint) or typing.is_typeddict(hint):
        return not misfits(value, hint)
    if isinstance(hint, type) and issubclass(hint, Enum):
        return any(value == one.value for one in hint)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _NONSENSE
    return type(value) is hint


def _fit_each(values: list[Any] | tuple[Any, ...], hints: tuple[Any, ...]) -> bool:
    if hints[-1] is Ellipsis:
        return all(_fits(value, hints[0]) for value in values)
    return len(values) == len(hints) and all(map(_fits, values, hints))
