"""Types of plain data against those a dataclass declares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import pytest

from hwprune.payloads import misfits


@dataclass(frozen=True)
class Inner:
    x: int


@dataclass(frozen=True)
class Outer:
    kind: ClassVar[str] = "k"
    name: str
    value: float | None
    many: tuple[int, ...]
    pair: tuple[float, float]
    inner: tuple[Inner, ...]
    table: dict[str, Any]
    flag: bool


GOOD = {
    "name": "a",
    "value": 1,
    "many": [1, 2],
    "pair": [1, 2.5],
    "inner": [{"x": 1}],
    "table": {"a": [None]},
    "flag": True,
}


def test_what_fits() -> None:
    assert misfits(GOOD, Outer) == []
    assert misfits({**GOOD, "value": None, "many": [], "inner": []}, Outer) == []


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("name", 1),
        ("value", "1"),
        ("value", True),
        ("many", [1, "2"]),
        ("many", [True]),
        ("many", 3),
        ("pair", [1.0]),
        ("inner", [{"x": 1, "y": 2}]),
        ("inner", [{}]),
        ("inner", [1]),
        ("table", []),
        ("flag", 1),
        ("more", 1),
    ],
)
def test_what_does_not(key: str, value: Any) -> None:
    assert misfits({**GOOD, key: value}, Outer) == [key]


def test_what_is_missing_or_no_table() -> None:
    assert misfits({key: value for key, value in GOOD.items() if key != "flag"}, Outer) == ["flag"]
    assert misfits([1], Outer) == ["list in place of a table"]
