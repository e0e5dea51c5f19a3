"""The probe on a target that has numpy, onnx and onnxruntime, and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hwprune.cli.main import main
from hwprune.verbs.predict import predict

PACKAGES = ("numpy", "onnx", "onnxruntime")


@pytest.fixture(scope="module")
def bare_python(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Path:
    """An interpreter with the three packages that the probe may need."""
    folder = tmp_path_factory.mktemp("bare")
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    python = folder / "bin" / "python"
    constraints = str(repository / "constraints.txt")
    command = [str(python), "-m", "pip", "install", "-q", "-c", constraints, *PACKAGES]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"the packages of a bare target cannot be installed here: {done.stderr[-200:]}")
    return python


@pytest.mark.slow
@pytest.mark.parametrize("profile", ["cpu-1t", "cpu-1t-int8"])
def test_a_bare_target_measures_a_plan_and_the_workstation_takes_its_table(
    bare_python: Path, repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], profile: str
) -> None:
    plan, project = tmp_path / "out.hwplan", tmp_path / "p"
    assert main(["init", "--project", str(project), "--data", ""]) == 0
    arguments = ["--project", str(project), "--profile", profile, "--plan", str(plan), "--max-time", "15s"]
    assert main(["profile", *arguments]) == 0
    assert "python -m hwprune.probe" in capsys.readouterr().out

    forbidden = (
        "import importlib.util as u; print([m for m in ('torch', 'pandas', 'sklearn') if u.find_spec(m)])"
    )
    found = subprocess.run([bare_python, "-c", forbidden], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
    environment = {**os.environ, "PYTHONPATH": str(repository)}
    command = [bare_python, "-m", "hwprune.probe", plan.name]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

    table = tmp_path / "taken"
    assert main(["lut", "merge", str(tmp_path / "out.table"), "--output", str(table)]) == 0
    assert main(["lut", "validate", str(table)]) == 0
    result = predict(table=table, uniform=("50%", "100%"))
    (_, _, half_ms, *_), (_, _, full_ms, *_) = result.rows
    assert 0 < half_ms < 1.05 * full_ms  # in 8 bits the narrow layers of this small network save little
    assert full_ms == pytest.approx(result.base_ms, rel=0.15)
    assert not (project / "hwprune-work" / "latency").exists(), "a plan measures nothing here"
