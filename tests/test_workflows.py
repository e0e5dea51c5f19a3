"""The workflows of this repository, and the one of docs/ci.md, run their shell steps here as a runner would.

The rules: a step with `uses` is the runner's own and is not run. A step called `Install` fetches packages and
is not run; no other step may. Long steps run with small settings, and only variables that the workflow itself
defines may be set. Steps run with `bash -e`, in order, with the variables of workflow, job and step.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml

from hwprune.gate.result import BenchResult
from hwprune.runtimes.probes import conv_chain

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
FETCHES = re.compile(r"\bpip\b|\.installed|\bapt(-get)?\b|\bcurl\b|\bwget\b|\bgit clone\b|\bnpm\b")
EXPRESSION = re.compile(r"\$\{\{\s*(.*?)\s*\}\}")


def documented() -> str:
    """The workflow of docs/ci.md."""
    (block,) = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs" / "ci.md").read_text(), flags=re.S)
    return str(block)


def all_workflows() -> dict[str, dict[str, Any]]:
    texts = {path.name: path.read_text() for path in WORKFLOWS} | {"docs/ci.md": documented()}
    return {name: yaml.safe_load(text) for name, text in texts.items()}


def shell_steps(workflow: Mapping[str, Any], job: str) -> Iterator[dict[str, Any]]:
    """The steps of a job that are run here."""
    for step in workflow["jobs"][job]["steps"]:
        if "run" in step and step.get("name") != "Install":
            yield step


def environment(workflow: Mapping[str, Any], job: str, step: Mapping[str, Any]) -> dict[str, str]:
    """The variables that a workflow defines for a step."""
    layers = (workflow, workflow["jobs"][job], step)
    return {name: str(value) for layer in layers for name, value in layer.get("env", {}).items()}


def bash(script: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a script as a runner does."""
    command = ["bash", "-e", "-c", script]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, **options
    )


def run_job(
    name: str, job: str, folder: Path, outside: Mapping[str, str], small: Mapping[str, str], timeout_s: float
) -> list[subprocess.CompletedProcess[str]]:
    """Run the shell steps of a job up to the first that fails.

    Args:
        name: The workflow.
        job: The job.
        folder: Where the runner would be.
        outside: Variables that the runner gives.
        small: Settings in place of the workflow's own.
        timeout_s: Most seconds for each step.
    """
    workflow, done = all_workflows()[name], []
    for step in shell_steps(workflow, job):
        given = environment(workflow, job, step)
        assert set(small) <= set(given), f"{name} does not define {set(small) - set(given)}"
        values = {**given, **small}
        assert not any(EXPRESSION.search(value) for value in values.values()), "give a value for it"
        where = {**os.environ, **outside, **values}
        done.append(bash(step["run"], cwd=folder, env=where, timeout=timeout_s))
        if done[-1].returncode:
            break
    return done


@pytest.mark.parametrize("name", all_workflows())
def test_a_workflow_is_what_a_runner_accepts(name: str) -> None:
    workflow = all_workflows()[name]
    assert workflow["name"]
    assert workflow[True], "YAML reads the key `on` as true"
    assert workflow["permissions"] == {"contents": "read"}
    for job in workflow["jobs"].values():
        assert job["runs-on"]
        assert job["timeout-minutes"]
        for step in job["steps"]:
            assert ("uses" in step) != ("run" in step)
            assert "run" not in step or step["name"]
            assert re.fullmatch(r"[\w/-]+@v\d+", step.get("uses", "a/b@v1"))


@pytest.mark.parametrize("name", all_workflows())
def test_only_the_step_called_install_fetches_anything(name: str) -> None:
    workflow = all_workflows()[name]
    for job in workflow["jobs"]:
        for step in shell_steps(workflow, job):
            assert not FETCHES.search(step["run"]), step["name"]
            assert not EXPRESSION.search(step["run"]), "an expression in a script is how scripts are injected"


@pytest.mark.parametrize("name", all_workflows())
def test_every_shell_step_is_valid_and_its_scripts_can_be_run(name: str) -> None:
    workflow = all_workflows()[name]
    for job in workflow["jobs"]:
        for step in shell_steps(workflow, job):
            subprocess.run(["bash", "-n", "-c", step["run"]], check=True)
            for script in re.findall(r"\.ci/[\w-]+", step["run"]):
                assert os.access(ROOT / script, os.X_OK), script
                subprocess.run(["bash", "-n", script], cwd=ROOT, check=True)


def test_ci_covers_every_supported_python() -> None:
    matrix = all_workflows()["ci.yml"]["jobs"]["test"]["strategy"]["matrix"]
    assert matrix["python"] == ["3.11", "3.12", "3.13", "3.14"]


@pytest.fixture
def runner(tmp_path: Path) -> dict[str, str]:
    """What a runner and the step called Install leave: `hwprune` on the path, a file for the summary."""
    binaries = tmp_path / "bin"
    binaries.mkdir()
    script = binaries / "hwprune"
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m hwprune "$@"\n')
    script.chmod(0o755)
    summary = tmp_path / "summary.md"
    summary.touch()
    return {
        "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "GITHUB_STEP_SUMMARY": str(summary),
    }


def git(folder: Path, *arguments: str) -> None:
    who = ("-c", "user.name=tests", "-c", "user.email=tests@localhost", "-c", "init.defaultBranch=main")
    subprocess.run(["git", *who, *arguments], cwd=folder, check=True, capture_output=True)


def clone(folder: Path) -> Path:
    """A user's repository with a model, and a clone of it as the runner checks it out."""
    origin = folder / "origin"
    origin.mkdir()
    git(origin, "init")
    (origin / "model.onnx").write_bytes(conv_chain([32] * 4, size=28))
    git(origin, "add", ".")
    git(origin, "commit", "-m", "A model")
    git(folder, "clone", str(origin), "checkout")
    return folder / "checkout"


@pytest.mark.skipif(shutil.which("git") is None, reason="no git here")
@pytest.mark.parametrize(("channels", "code"), [([32] * 2, 0), ([32] * 13, 1)])
def test_the_documented_workflow_judges_a_change(
    tmp_path: Path, runner: dict[str, str], channels: list[int], code: int
) -> None:
    checkout = clone(tmp_path)
    profiles = checkout / "profiles"  # the default profile, on a device of known latencies
    profiles.mkdir()
    (profiles / "cpu-1t.toml").write_text('device = "cpu"\nruntime = "fake"\n')
    (checkout / "model.onnx").write_bytes(conv_chain(channels, size=28))
    small = {"BRANCH": "main", "MAX_TIME": "4s"}
    done = run_job("docs/ci.md", "latency", checkout, runner, small, timeout_s=120)
    assert [step.returncode for step in done] == [0, code], done[-1].stderr
    result = BenchResult.load(checkout / "bench.json")
    assert result.compared_with == "model"
    assert result.exit_code == code
    assert "hwprune bench" in Path(runner["GITHUB_STEP_SUMMARY"]).read_text()
    assert ElementTree.parse(checkout / "bench.xml").getroot().attrib["failures"] == str(code)


def test_the_documented_way_to_be_warned_only_keeps_other_failures() -> None:
    (ending,) = re.findall(r"^(\|\| \{ code=.*\})$", (ROOT / "docs" / "ci.md").read_text(), flags=re.M)
    for code, expected in ((0, 0), (1, 1), (2, 2), (3, 0)):
        done = subprocess.run(
            ["bash", "-e", "-c", f"(exit {code}) {ending}"], capture_output=True, check=False
        )
        assert done.returncode == expected
        assert (b"::warning::" in done.stdout) == (code == 3)


STUB = """#!/bin/sh
# stands in for hwprune: leaves the files that the script reads, and `bench` ends with $STUB_CODE
verb=$1; shift
while [ $# -gt 0 ]; do case $1 in --project) folder=$2 ;; esac; shift; done
case $verb in
  export) mkdir -p "$folder" && echo network > "$folder/pruned.onnx" ;;
  report) echo "# report" > "$folder/report.md" ;;
  bench) exit "$STUB_CODE" ;;
esac
"""


@pytest.mark.parametrize(
    ("code", "expected", "word"), [(0, 0, ""), (1, 1, "::error::"), (3, 0, "::warning::")]
)
def test_the_benchmark_fails_on_a_broken_limit_only(
    tmp_path: Path, runner: dict[str, str], code: int, expected: int, word: str
) -> None:
    stub = tmp_path / "stub"
    stub.write_text(STUB)
    stub.chmod(0o755)
    small = {"HWPRUNE": str(stub), "RUNS": str(tmp_path / "runs"), "PREVIOUS": str(tmp_path / "previous")}
    given = {**runner, "STUB_CODE": str(code)}
    done = run_job("benchmark.yml", "benchmark", ROOT, given, {**small, "PIP_ARGS": ""}, timeout_s=60)
    assert [step.returncode for step in done][:2] == [0, expected]
    assert word in done[1].stdout
    assert Path(runner["GITHUB_STEP_SUMMARY"]).read_text().count("# report") == 3
    kept = [path.name for path in (tmp_path / "previous").glob("*.onnx")]
    assert len(kept) == (0 if expected else 3)


@pytest.mark.workflows
def test_the_benchmark_workflow_prunes_and_judges(tmp_path: Path, runner: dict[str, str]) -> None:
    small = {
        "PIP_ARGS": "",
        "HWPRUNE": "hwprune",
        "MODELS": "resnet20",
        "PROFILE_TIME": "10s",
        "MAX_SHARE": "90%",
        "BENCH_TIME": "5s",
        "RUNS": str(tmp_path / "runs"),
        "PREVIOUS": str(tmp_path / "previous"),
    }
    done = run_job("benchmark.yml", "benchmark", ROOT, runner, small, timeout_s=1200)
    assert [step.returncode for step in done] == [0, 0, 0], done[-1].stdout + done[-1].stderr
    folder = tmp_path / "runs" / "resnet20"
    assert BenchResult.load(folder / "bench.json").exit_code in (0, 3)
    assert (folder / "report.html").is_file()
    assert (tmp_path / "previous" / "resnet20.onnx").read_bytes() == (folder / "pruned.onnx").read_bytes()
    text = Path(runner["GITHUB_STEP_SUMMARY"]).read_text()
    assert "# resnet20 under 60%" in text
    assert "hwprune bench" in text


@pytest.mark.workflows
@pytest.mark.parametrize("job", ["check", "test"])
def test_the_ci_workflow_checks_and_tests(tmp_path: Path, runner: dict[str, str], job: str) -> None:
    """With this interpreter in place of the environment that the step called Install makes."""
    venv = tmp_path / "venv"
    venv.mkdir()
    (venv / "bin").symlink_to(Path(sys.executable).parent)
    for stamp in (".installed", ".installed-dev"):
        (venv / stamp).touch()
    small = {"PIP_ARGS": "", "PYTEST_ARGS": "tests/test_units.py -q"}
    done = run_job("ci.yml", job, ROOT, {**runner, "VENV": str(venv)}, small, timeout_s=1200)
    assert [step.returncode for step in done] == [0], done[-1].stdout + done[-1].stderr
    assert "Contracts: " in done[-1].stdout
    assert bool(re.search(r"\d+ passed", done[-1].stdout)) == (job == "test")
