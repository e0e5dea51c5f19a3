"""Types of plain data against those a dataclass declares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, TypedDict

import pytest

from hwprune.payloads import misfits


@dataclass(frozen=True)
class Inner:
    x: int


class Dated(TypedDict, total=False):
    date: str


class Row(Dated):
    number: int
    share: float | None


@dataclass(frozen=True)
class Outer:
    kind: ClassVar[str] = "k"
    name: str
    value: float | None
    many: tuple[int, ...]
    pair: tuple[float, float]
    inner: tuple[Inner, ...]
    rows: tuple[Row, ...]
    table: dict[str, Any]
    flag: bool


GOOD = {
    "name": "a",
    "value": 1,
    "many": [1, 2],
    "pair": [1, 2.5],
    "inner": [{"x": 1}],
    "rows": [{"number": 1, "share": None}, {"number": 2, "share": 0.5, "date": "today"}],
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
        ("value", -1e300),
        ("many", [1, "2"]),
        ("many", [True]),
        ("many", 3),
        ("pair", [1.0]),
        ("inner", [{"x": 1, "y": 2}]),
        ("inner", [{}]),
        ("inner", [1]),
        ("rows", [{}]),
        ("rows", [{"number": 1}]),
        ("rows", [{"number": "1", "share": None}]),
        ("rows", [{"number": 1, "share": None, "date": 3}]),
        ("rows", [{"number": 1, "share": None, "more": 3}]),
        ("rows", {"number": 1, "share": None}),
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
