"""What comes with hwprune is found by name, wherever the user is."""

from __future__ import annotations

from pathlib import Path

import pytest

from hwprune.cli.main import main
from hwprune.errors import MissingArtifactError
from hwprune.latency.folder import find_table, known_table
from hwprune.shipped import shipped_folders, shipped_tables

NAME = "amd-epyc-zen5-avx512/cpu-1t/resnet20_32"


def test_every_committed_table_has_a_name(repository: Path) -> None:
    tables = {path.parent for path in (repository / "lut").rglob("table.json")}
    assert set(shipped_tables().values()) == tables
    assert shipped_folders("profiles") == [repository / "profiles"]


def test_a_folder_of_the_user_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert known_table(Path(NAME)) == known_table(Path("lut") / NAME) == shipped_tables()[NAME]
    Path(NAME).mkdir(parents=True)
    Path(NAME, "table.json").touch()
    assert known_table(Path(NAME)) == Path(NAME)


def test_an_unknown_table_is_told_with_names_spelt_alike() -> None:
    with pytest.raises(MissingArtifactError, match="lut list") as told:
        find_table(Path("amd-epyc-zen5-avx512/cpu-1t/resnet21_32"))
    assert NAME in str(told.value)


def test_a_shipped_table_is_asked_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["predict", "--table", NAME, "--uniform", "50%"]) == 0
    assert "not measured" in capsys.readouterr().out


def test_lut_list_gives_each_name_a_line_to_be_copied(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lut", "list"]) == 0
    assert set(shipped_tables()) <= set(capsys.readouterr().out.splitlines())
    assert main(["lut", "list", NAME]) == 2
