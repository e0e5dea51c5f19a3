"""The whole job on two workers, and the same search on one."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from projects import new_project, small_config

from hwprune import logbook
from hwprune.api.search import search
from hwprune.config import save_config
from hwprune.results import ExportResult, SearchResult, TrainResult

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
    assert len(found.pruningnet_history) == config.pruningnet.epochs
    assert TrainResult.load(work / "train.json").widths == found.widths
    assert ExportResult.load(work / "export.json").within_budget

    (kept,) = work.glob("evaluations-*")
    judged = {entry["network"] for entry in logbook.read(kept)[1]}
    assert len(judged) >= len(found.candidates), "worker 0 keeps what the others evaluated"
    for pattern in ("search*.json*", "answer-*", "evaluations-*"):
        for kept in work.glob(pattern):
            kept.unlink()
    alone = search(project=folder, latency="60%")
    assert list(work.glob("evaluations-*")), "it was searched for anew"
    assert alone.widths == found.widths, "as one worker alone finds"
    assert alone.candidates == found.candidates
    assert alone.history == found.history
