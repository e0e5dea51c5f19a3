"""`hwprune check`: what it tells of a network before anything is measured for long."""

from __future__ import annotations

from pathlib import Path

import pytest
from projects import FAKE

from hwprune.api.check import check
from hwprune.cli.main import main
from hwprune.errors import ModelError, UsageError
from hwprune.runtimes.probes import conv_chain


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
    assert "OUT OF REACH" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("model", "budget", "error"), [("nothing.onnx", "", ModelError), ("net.onnx", "fast", UsageError)]
)
def test_bad_input_is_told(folder: Path, model: str, budget: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        check(model, profile="fake.toml", latency=budget)
