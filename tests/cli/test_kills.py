"""Every verb killed with SIGKILL at random instants: nothing is damaged, and it ends as when left alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from hwprune import artifacts
from hwprune.config import Config, save_config

KILLS = {"profile": 3, "search": 5, "train": 4, "export": 2, "report": 2}


@pytest.fixture(autouse=True)
def harness(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What kills is shared with `benchmarks/kills.py`, which does the same a hundred times."""
    monkeypatch.syspath_prepend(repository / "benchmarks")


@pytest.fixture
def killer(tmp_path: Path) -> Any:
    """A small project, and what kills its verbs."""
    from kill_runs import Killer, Runner

    return Killer(Runner(tmp_path), tmp_path, seed=1)


def test_damage_would_be_seen(tmp_path: Path) -> None:
    from kill_checks import look

    save_config(tmp_path / "hwprune.toml", Config())
    artifacts.write_json(tmp_path / "a.json", "kind", 1, {"epochs": [1, 2]})
    artifacts.write_tensors(tmp_path / "a.safetensors", "kind", 1, {"x": torch.ones(9)}, {})
    assert look(tmp_path) == ([], [])
    for path in tmp_path.iterdir():
        path.write_bytes(path.read_bytes()[:-1] + b"\0")
    (tmp_path / ".tmp123").touch()
    (tmp_path / ".a.json.x.hwprune-part").mkdir()
    state = look(tmp_path)
    names = {text.partition(":")[0] for text in state.corrupt}
    assert names == {"hwprune.toml", "a.json", "a.safetensors", ".tmp123"}
    assert len(state.half_written) == 1


def test_repeated_work_would_be_counted() -> None:
    from kill_runs import Units

    units = Units()
    for text in (
        "A: 1/9 epochs, 3/s\nA: 2/9 epochs, 3/s",
        "Note",
        "A: 2/9 epochs, 3/s",
        "A: 3/9 epochs, 3/s",
    ):
        units.read(text)
    assert units.lost == {"A": 1}


@pytest.mark.slow
def test_killed_verbs_go_on_and_end_as_unbroken_ones(killer: Any) -> None:
    for verb, kills in KILLS.items():
        killer.kill(verb, kills)
    found = killer.found
    assert found.corrupt == []
    assert found.different == []
    assert found.leftovers == 0, "the next run removes what was left half-written"
    assert found.kills == KILLS
    lost = {title for title, count in found.units.lost.items() if count}
    assert not lost, "a finished epoch, a scored candidate or a measured network is never lost"
