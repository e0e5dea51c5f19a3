"""`hwprune bench --also`: one file under several target profiles, pretended and real."""

from __future__ import annotations

from pathlib import Path

import pytest
from benches import command, true_ms

from hwprune.cli.main import main
from hwprune.errors import DeviceError
from hwprune.gate.result import BenchResult
from hwprune.structure.onnx_format import number_format


def test_other_profiles_are_timed_side_by_side_and_kept(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The pretended device runs a file in the same time under both."""
    (work / "four.toml").write_text('runtime = "fake"\nbatch = 4\n')
    assert command("slim.onnx", "--also", "four.toml", "--output", "out.json") == 0
    assert "slim.onnx under four (fake" in capsys.readouterr().out
    (found,) = BenchResult.load(work / "out.json").elsewhere
    assert (found.profile, found.runtime.split()[0]) == ("four", "fake")
    assert found.ms == pytest.approx(true_ms("slim"), rel=0.2)
    assert found.ratio == pytest.approx(1.0, rel=0.2)


def test_a_profile_that_is_not_there_is_named(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("slim.onnx", "--also", "openvino-9t") == 2
    assert "openvino-1t" in capsys.readouterr().err


def test_real_runtimes_are_compared(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("openvino")
    arguments = ["bench", "slim.onnx", "--profile", "cpu-1t", "--also", "openvino-1t", "--max-time", "1s"]
    assert main(arguments) == 0
    assert "slim.onnx under openvino-1t (openvino 20" in capsys.readouterr().out


def test_a_runtime_that_is_not_here_is_told_before_anything_is_measured(
    work: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hwprune.runtimes.openvino.OpenVino.available", lambda _: False)
    assert command("slim.onnx", "--also", "openvino-1t", "--output", "out.json") == 2
    told = capsys.readouterr().err
    assert "openvino" in told
    assert "Measuring" not in told


def test_the_verdict_stands_where_another_profile_fails(
    work: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (work / "four.toml").write_text('runtime = "fake"\nbatch = 4\n')

    def refuses(*_: object) -> None:
        raise DeviceError("The device is gone.")

    monkeypatch.setattr("hwprune.verbs.bench_elsewhere.side_by_side", refuses)
    assert command("slim.onnx", "--also", "four.toml", "--output", "out.json") == 0
    assert "Not timed under other profiles: The device is gone." in capsys.readouterr().err
    assert BenchResult.load(work / "out.json").elsewhere == ()


def test_a_profile_of_integers_times_integers(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    timed: list[str] = []

    def look(networks: list, seconds: float) -> list:
        timed.extend(number_format(content) for content, *_ in networks)
        raise DeviceError("Seen enough.")

    monkeypatch.setattr("hwprune.verbs.bench_elsewhere.side_by_side", look)
    arguments = ["bench", "slim.onnx", "--profile", "cpu-1t", "--also", "cpu-1t-int8", "--max-time", "1s"]
    assert main(arguments) == 0
    assert timed == ["fp32", "int8"]
