"""The soak runs on the real device, sees files that a round leaves, and says when it cannot tell."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hwprune import artifacts
from hwprune.errors import DeviceError
from hwprune.project.folder import Project

_QUIET = {"interval_95": [-0.5, 0.5]}


@pytest.fixture
def soak(repository: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(repository / "benchmarks")
    import soak

    return soak


def test_the_device_is_real(soak: Any, tmp_path: Path) -> None:
    target = Project(soak.real_project(tmp_path / "project")).target()
    assert (target.runtime, target.name) == ("onnxruntime", "cpu-1t")


def test_files_that_a_round_leaves_are_seen_before_it_is_deleted(
    soak: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def leaves(project: Path) -> None:
        (project / f".table.json.x{artifacts.PART}").mkdir()
        (project / "core.1234").touch()

    def too_noisy(**_: object) -> None:
        raise DeviceError("The machine is too noisy.")

    monkeypatch.setattr(soak, "profile", leaves)
    monkeypatch.setattr(soak, "search", too_noisy)
    (tmp_path / "project").mkdir()
    left, stopped = soak.one_round(tmp_path, 0)
    assert len(left) == 2
    assert "too noisy" in stopped
    assert not (tmp_path / "project").exists()


def test_an_interval_across_the_limit_is_no_pass(soak: Any) -> None:
    grown = dict.fromkeys(soak.ALLOWED, _QUIET)
    assert soak.judge(grown) == ([], [])
    assert soak.judge({**grown, "rss_mb": {"interval_95": [-1.0, 19.0]}}) == ([], ["rss_mb"])
    assert soak.judge({**grown, "handles": {"interval_95": [2.0, 4.0]}}) == (["handles"], [])
