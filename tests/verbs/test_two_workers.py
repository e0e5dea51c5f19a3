"""The whole job on two workers, and the same search on one."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from projects import new_project, small_config

from hwprune import logbook
from hwprune.config import save_config
from hwprune.results import ExportResult, SearchResult, TrainResult
from hwprune.verbs.search import search

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_the_whole_job_on_two_workers(tmp_path: Path) -> None:
    folder = new_project(tmp_path / "project")
    config = small_config(folder)
    save_config(folder / "hwprune.toml", replace(config, training=replace(config.training, epochs=1)))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*command, "-m", "hwprune", "quickstart", "--project", str(folder), "--latency", "60%"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("Search: done") == 1, "one worker reports"
    assert done.stdout.count("Budget met") == 1
    work = folder / "hwprune-work"
    found = SearchResult.load(work / "search.json")
    assert found.score_kind == "inherited"
    assert TrainResult.load(work / "train.json").widths == found.widths
    assert ExportResult.load(work / "export.json").within_budget

    (kept,) = work.glob("evaluations-*")
    known = {entry["network"] for entry in logbook.read(kept)[1]}
    assert len(known) >= len(found.candidates), "worker 0 keeps what the others evaluated"
    for pattern in ("search*.json*", "answer-*", "evaluations-*"):
        for kept in work.glob(pattern):
            kept.unlink()
    alone = search(project=folder, latency="60%")
    assert list(work.glob("evaluations-*")), "it was searched for anew"
    assert alone.widths == found.widths, "as one worker alone finds"
    assert alone.candidates == found.candidates
    assert alone.history == found.history


def worker_of(launcher: subprocess.Popen[str], rank: int) -> int | None:
    """The process of a rank, once it has been started."""
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == launcher.pid and f"RANK={rank}".encode() in (folder / "environ").read_bytes().split(
                b"\0"
            ):
                return int(folder.name)
    return None


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds the workers in /proc")
@pytest.mark.parametrize("rank", [0, 1])
def test_a_search_whose_worker_is_killed_says_so_and_goes_on_with_what_it_had(
    judged: Path, rank: int
) -> None:
    work = judged / "hwprune-work"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    words = ["-m", "hwprune", "search", "--project", str(judged), "--latency", "60%", "--population", "60"]
    with subprocess.Popen(
        [*command, *words], env={**os.environ, "PYTHONPATH": str(ROOT)}, stderr=subprocess.PIPE, text=True
    ) as launcher:
        deadline = time.monotonic() + 300
        while not list(work.glob("evaluations-*.jsonl")) and time.monotonic() < deadline:
            time.sleep(0.05)
        victim = worker_of(launcher, rank)
        assert victim is not None
        os.kill(victim, signal.SIGKILL)
        _, told = launcher.communicate(timeout=300)
    assert launcher.returncode == 1
    assert "error" in told
    assert "A worker of this run is gone" in told
    (kept,) = work.glob("evaluations-*.jsonl")
    before = kept.read_bytes()
    known = [entry["network"] for entry in logbook.read(kept)[1]]
    assert known
    again = search(project=judged, latency="60%", population=60)
    assert kept.read_bytes()[: len(before) // 2] == before[: len(before) // 2], "what was evaluated is kept"
    networks = [entry["network"] for entry in logbook.read(kept)[1]]
    assert networks[: len(known)] == known
    assert again.met
