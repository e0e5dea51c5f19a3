"""`hwprune lut`, as a user types it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from projects import MODEL

from hwprune.cli.main import main


@pytest.fixture
def table(profiled: Path) -> Path:
    """The folder of a latency table."""
    (path,) = (profiled / "hwprune-work" / "latency").glob("*/table.json")
    return path.parent


def test_show_tells_what_is_in_a_table(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lut", "show", str(table), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)["tables"][str(table)]
    assert facts["model"] == MODEL
    assert facts["fastest_ms"] < facts["slowest_ms"]
    assert main(["lut", "show", str(table)]) == 0
    assert MODEL in capsys.readouterr().out


def test_validate_passes_a_good_table_and_names_what_is_wrong_with_others(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["lut", "validate", str(table)]) == 0
    assert "1 table(s) hold together" in capsys.readouterr().out
    assert main(["lut", "validate", str(table), str(tmp_path / "nowhere")]) == 1
    text = capsys.readouterr().err
    assert "nowhere" in text
    assert "Traceback" not in text


def test_merge_writes_a_table_that_validates_and_is_no_other(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    merged = tmp_path / "merged"
    assert main(["lut", "merge", str(table), str(table), "--output", str(merged)]) == 0
    assert main(["lut", "validate", str(merged)]) == 0
    capsys.readouterr()
    assert main(["lut", "diff", str(table), str(merged), "--json"]) == 0
    ((facts,),) = [json.loads(capsys.readouterr().out)["tables"].values()]
    assert facts["conditions"] == []
    assert facts["latency_ratio_median"] == pytest.approx(1.0, abs=0.02)
    before = (merged / "table.json").read_bytes()
    assert main(["lut", "merge", str(table), str(table), "--output", str(merged)]) == 2
    assert (merged / "table.json").read_bytes() == before, "a table is never overwritten"


@pytest.mark.parametrize(
    "arguments",
    [
        ("merge", "a", "b"),
        ("diff", "a"),
        ("show", "a", "--output", "c"),
    ],
)
def test_wrong_numbers_of_tables_are_usage_errors(
    arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["lut", *arguments]) == 2
    assert "allowed" in capsys.readouterr().err
