"""`hwprune check`: what it tells of a network before anything is measured for long."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from projects import FAKE

from hwprune.cli.main import main
from hwprune.errors import ModelError, UsageError
from hwprune.latency import profiler
from hwprune.latency.table import LatencyTable
from hwprune.runtimes.probes import conv_chain
from hwprune.structure.space import SearchSpace
from hwprune.verbs.check import check
from hwprune.verbs.init import init

module = importlib.import_module("hwprune.verbs.check")  # the package exports the function by this name


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a pretended device and an ONNX file; the current one."""
    (tmp_path / "fake.toml").write_text(FAKE)
    (tmp_path / "net.onnx").write_bytes(conv_chain((3, 32, 48, 32)))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_network_is_described_and_nothing_is_written(folder: Path) -> None:
    before = sorted(folder.iterdir())
    found = check("net.onnx", profile="fake.toml", latency="95%", max_time="2s")
    assert sorted(folder.iterdir()) == before
    assert found.groups == 2, "the last layer makes the outputs"
    assert 0.5 < found.removable_macs < 1
    assert 0 < found.smallest_ms < found.base_ms
    assert found.checks
    assert found.kernels["conv"] == 3
    assert any("outputs" in reason for reason in found.frozen.values())
    assert found.reachable
    assert found.exit_code == 0


def test_a_budget_out_of_reach_is_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["check", "net.onnx", "--profile", "fake.toml", "--latency", "1us", "--max-time", "2s"]
    assert main(arguments) == 1
    told = capsys.readouterr().out
    assert "OUT OF REACH" in told
    assert "Next: hwprune check net.onnx --latency BUDGET" in told


def test_the_next_step_is_the_one_that_goes_on_with_the_same_model(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["check", "net.onnx", "--profile", "fake.toml", "--max-time", "2s"]
    assert main(arguments) == 0
    assert "Next: hwprune init --model net.onnx" in capsys.readouterr().out
    init(model="net.onnx", profile="fake.toml")
    assert main(arguments) == 0
    assert "Next: hwprune profile" in capsys.readouterr().out


def test_the_time_of_tracing_counts(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, given = [0.0], []
    as_is, traced = profiler.profile_space, module.traced

    def slow(*args: Any) -> SearchSpace:
        clock[0] += 6.0
        return traced(*args)

    def look(*args: Any, max_seconds: float, **more: Any) -> LatencyTable:
        given.append(max_seconds)
        return as_is(*args, max_seconds=1.0, **more)

    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    monkeypatch.setattr(module, "traced", slow)
    monkeypatch.setattr(profiler, "profile_space", look)
    check("net.onnx", profile="fake.toml", max_time="8s")
    assert given == [2.0]


@pytest.mark.parametrize(
    ("model", "budget", "error"), [("nothing.onnx", "", ModelError), ("net.onnx", "fast", UsageError)]
)
def test_bad_input_is_told(folder: Path, model: str, budget: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        check(model, profile="fake.toml", latency=budget)
