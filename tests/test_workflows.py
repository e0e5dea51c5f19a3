"""The workflows of this repository, and the one of docs/ci.md, run their shell steps here as a runner would.

The rules: a step with `uses` is the runner's own and is not run. A step called `Install` fetches packages and
is not run; no other step may, nor the scripts and make targets that it calls, but for those in FETCHING. Long
steps run with small settings, and only variables that the workflow itself defines may be set. Steps run with
`bash -e`, in order, with the variables of workflow, job and step.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
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
# Scripts that fetch something by their nature, and why.
FETCHING = {
    ".ci/run": "installs a browser, where there is none",
    ".ci/package": "installs what it built, with all dependencies, into clean environments",
    ".ci/audit": "asks the advisory service",
}
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


def environment_of(job: Mapping[str, Any], folder: Path) -> Path:
    """The environment that the step called Install makes, with this interpreter."""
    folder.mkdir()
    (folder / "bin").symlink_to(Path(sys.executable).parent)
    installs = " ".join(step["run"] for step in job["steps"] if step.get("name") == "Install")
    for stamp in re.findall(r"\.installed[\w-]*", installs):
        (folder / stamp).touch()
    return folder


def scripts(text: str) -> list[str]:
    """The scripts of this repository that a text names."""
    return re.findall(r"\.ci/[\w-]+", text)


def code_behind(text: str, venv: Path) -> Iterator[tuple[str, str]]:
    """(name, code) of what a text of shell runs: itself, its scripts, what make would do for its targets."""
    lines = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    yield "", lines
    for script in scripts(lines):
        for name, code in code_behind((ROOT / script).read_text(), venv):
            yield name or script, code
    for target in re.findall(r"\bmake ([a-z]+)", lines):
        command = ["make", "--dry-run", f"VENV={venv}", target]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        yield f"make {target}", done.stdout


@pytest.mark.parametrize("name", all_workflows())
def test_only_the_step_called_install_fetches_anything(name: str, tmp_path: Path) -> None:
    workflow = all_workflows()[name]
    for job in workflow["jobs"]:
        venv = environment_of(workflow["jobs"][job], tmp_path / job)
        for step in shell_steps(workflow, job):
            assert not EXPRESSION.search(step["run"]), "an expression in a script is how scripts are injected"
            for where, code in code_behind(step["run"], venv):
                if where not in FETCHING:
                    assert not FETCHES.search(code), f"{step['name']} {where}"


@pytest.mark.parametrize("script", FETCHING)
def test_every_exception_fetches_something(script: str, tmp_path: Path) -> None:
    assert any(FETCHES.search(code) for name, code in code_behind(script, tmp_path) if name == script)


@pytest.mark.parametrize("name", all_workflows())
def test_every_shell_step_is_valid_and_its_scripts_can_be_run(name: str) -> None:
    workflow = all_workflows()[name]
    for job in workflow["jobs"]:
        for step in shell_steps(workflow, job):
            subprocess.run(["bash", "-n", "-c", step["run"]], check=True)
            for script in scripts(step["run"]):
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
# stands in for hwprune and for a benchmark: leaves the files that the script reads; `bench` ends with
# $STUB_CODE, and with $STUB_PREVIOUS where the last run's network is the baseline
verb=$1; code=$STUB_CODE; shift
while [ $# -gt 0 ]; do
  case $1 in --project) folder=$2 ;; --max-regression) code=$STUB_PREVIOUS ;; esac; shift
done
case $verb in
  export) mkdir -p "$folder" && echo network > "$folder/pruned.onnx" ;;
  report) echo "# report" > "$folder/report.md" ;;
  bench) exit "$code" ;;
  accuracy) echo noise; echo '{"median_error_percent": 1}'; exit "${STUB_BENCHMARK:-0}" ;;
esac
"""


@pytest.fixture
def benchmark(
    tmp_path: Path, runner: dict[str, str]
) -> Callable[..., list[subprocess.CompletedProcess[str]]]:
    """Runs the job with the stub; its arguments say how the stub ends."""
    stub = tmp_path / "stub"
    stub.write_text(STUB)
    stub.chmod(0o755)
    small = {
        "HWPRUNE": str(stub),
        "BENCHMARK": f"{stub} accuracy",
        "RUNS": str(tmp_path / "runs"),
        "PREVIOUS": str(tmp_path / "previous"),
        "PIP_ARGS": "",
    }

    def run(**stub_ends: int) -> list[subprocess.CompletedProcess[str]]:
        codes = {"STUB_CODE": 0, "STUB_PREVIOUS": 0, **stub_ends}
        given = {**runner, **{name: str(code) for name, code in codes.items()}}
        return run_job("benchmark.yml", "benchmark", ROOT, given, small, timeout_s=60)

    return run


@pytest.mark.parametrize(
    ("code", "expected", "word"), [(0, 0, ""), (1, 1, "::error::"), (3, 0, "::warning::")]
)
def test_the_benchmark_fails_on_a_broken_limit_only(
    tmp_path: Path, runner: dict[str, str], benchmark: Any, code: int, expected: int, word: str
) -> None:
    done = benchmark(STUB_CODE=code)
    assert [step.returncode for step in done][:2] == [0, expected]
    assert word in done[1].stdout
    assert Path(runner["GITHUB_STEP_SUMMARY"]).read_text().count("# report") == 3
    kept = [path.name for path in (tmp_path / "previous").glob("*.onnx")]
    assert len(kept) == (0 if expected else 3)


@pytest.mark.parametrize(
    ("code", "expected", "word", "content"),
    [(0, 0, "", "network\n"), (1, 1, "::error::", "old"), (3, 0, "::warning::", "old")],
)
def test_a_network_that_the_last_one_does_not_vouch_for_is_no_baseline(
    tmp_path: Path, benchmark: Any, code: int, expected: int, word: str, content: str
) -> None:
    (tmp_path / "previous").mkdir()
    (tmp_path / "previous" / "resnet20.onnx").write_text("old")
    done = benchmark(STUB_PREVIOUS=code)
    assert [step.returncode for step in done][:2] == [0, expected]
    assert done[1].stdout.count("bench-previous") == bool(code), (
        "no other model has a network of the last run"
    )
    assert word in done[1].stdout
    assert (tmp_path / "previous" / "resnet20.onnx").read_text() == content


@pytest.mark.parametrize("code", [0, 1])
def test_the_repositorys_own_benchmark_comes_into_the_summary(
    runner: dict[str, str], benchmark: Any, code: int
) -> None:
    done = benchmark(STUB_BENCHMARK=code)
    assert done[1].returncode == code
    summary = Path(runner["GITHUB_STEP_SUMMARY"]).read_text()
    assert summary.count('```json\n{"median_error_percent": 1}\n```') == (0 if code else 3)


def test_the_benchmark_that_runs_is_one_of_the_repository() -> None:
    for text in (all_workflows()["benchmark.yml"]["env"]["BENCHMARK"], (ROOT / ".ci/benchmark").read_text()):
        (script,) = re.findall(r"benchmarks/\w+\.py", text)
        assert (ROOT / script).is_file()


@pytest.mark.workflows
def test_the_benchmark_workflow_prunes_and_judges(tmp_path: Path, runner: dict[str, str]) -> None:
    small = {
        "PIP_ARGS": "",
        "HWPRUNE": "hwprune",
        "MODELS": "resnet20",
        "PROFILE_TIME": "10s",
        "MAX_SHARE": "90%",
        "BENCH_TIME": "5s",
        "BENCHMARK": f"{sys.executable} benchmarks/latency_accuracy.py --seconds 5 --truth-seconds 0.05",
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
    assert "How well latencies of resnet20 are predicted" in text


@pytest.mark.workflows
@pytest.mark.parametrize("job", ["check", "test"])
def test_the_ci_workflow_checks_and_tests(tmp_path: Path, runner: dict[str, str], job: str) -> None:
    venv = environment_of(all_workflows()["ci.yml"]["jobs"][job], tmp_path / "venv")
    small = {"PIP_ARGS": "", "PYTEST_ARGS": "tests/test_units.py -q"}
    done = run_job("ci.yml", job, ROOT, {**runner, "VENV": str(venv)}, small, timeout_s=1200)
    assert [step.returncode for step in done] == [0], done[-1].stdout + done[-1].stderr
    assert "Contracts: " in done[-1].stdout
    assert bool(re.search(r"\d+ passed", done[-1].stdout)) == (job == "test")


@pytest.mark.workflows
def test_the_docs_workflow_builds_the_pages(tmp_path: Path, runner: dict[str, str]) -> None:
    venv = environment_of(all_workflows()["docs.yml"]["jobs"]["site"], tmp_path / "venv")
    done = run_job("docs.yml", "site", ROOT, {**runner, "VENV": str(venv)}, {"PIP_ARGS": ""}, timeout_s=300)
    assert [step.returncode for step in done] == [0], done[-1].stderr
    assert (ROOT / "site" / "index.html").is_file()


def test_every_run_that_is_left_out_by_default_is_in_a_workflow() -> None:
    steps = [
        step["run"]
        for workflow in all_workflows().values()
        for job in workflow["jobs"]
        for step in shell_steps(workflow, job)
    ]
    for words in ("-m fuzz", "-m workflows", "HWPRUNE_NEWCOMER=1"):
        assert any(words in step for step in steps), words
