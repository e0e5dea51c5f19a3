"""Repeats profile and search on a small model in one process and watches what grows.

    python benchmarks/soak.py --minutes 60

The model is measured on the real device: each round opens and closes many ONNX Runtime sessions. After each
round: resident memory, open file handles, threads, files in the folder for temporary ones; and whether the
project holds files that are half written, damaged, or that nobody knows. A line is fitted to each count over
time, the first fifth left out (caches fill, allocators settle); the slope is growth per hour with a 95 %
interval by Theil and Sen, which single jumps do not move. The last line, which `results/soak.json` holds too,
is JSON.

Exit code 0: the whole interval of each count lies below what is allowed. 1: one lies above it, or a file was
left. 3: cannot tell, for an interval reaches across what is allowed or too many rounds were broken off.
"""

from __future__ import annotations

import argparse
import gc
import os
import shutil
import sys
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from common import finish
from kill_checks import look
from kill_runs import new_project
from scipy.stats import theilslopes

from hwprune.config import FILE_NAME, load_config, save_config
from hwprune.errors import BudgetError, DeviceError
from hwprune.verbs.profile import profile
from hwprune.verbs.search import search

_PAGE = os.sysconf("SC_PAGE_SIZE")
_SETTLING = 0.2  # share of the rounds that the fit leaves out
_LEAST_ROUNDS = 10
# Growth per hour that would not matter; both ends of the interval are held against it.
ALLOWED = {"rss_mb": 10.0, "handles": 1.0, "threads": 1.0, "temporary_files": 1.0}
_PROFILE_S = 3.0  # device time for the table of one round


def state(temporary: Path) -> dict[str, float]:
    """What a leak would raise."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return {
        "rss_mb": pages * _PAGE / 2**20,
        "handles": float(len(os.listdir("/proc/self/fd"))),
        "threads": float(len(os.listdir("/proc/self/task"))),
        "python_threads": float(threading.active_count()),
        "temporary_files": float(sum(len(files) + len(folders) for _, folders, files in os.walk(temporary))),
    }


def real_project(folder: Path) -> Path:
    """The small project of the kills, on this machine's CPU in place of the device of known latencies."""
    project = new_project(folder)
    config = load_config(project / FILE_NAME)
    profiling = replace(config.profiling, max_seconds=_PROFILE_S, channel_multiple=8)
    target = replace(config.target, profile="cpu-1t")
    save_config(project / FILE_NAME, replace(config, target=target, profiling=profiling))
    return project


def one_round(folder: Path, number: int) -> tuple[list[str], str]:
    """A new project, profiled and searched; nothing of it stays on the disk.

    Returns:
        The files in it that should not be there or cannot be read; why the round was broken off, if it was.
    """
    project, stopped = real_project(folder / "project" / str(number % 2)), ""
    try:
        profile(project=project)
        search(project=project, latency=f"{60 + number % 30}%")
    except (DeviceError, BudgetError) as error:  # a noisy machine; it too must leave nothing
        stopped = str(error)
    found = look(project)
    shutil.rmtree(folder / "project")
    gc.collect()
    return [*found.corrupt, *found.half_written], stopped


def growth(hours: list[float], values: list[float]) -> dict[str, Any]:
    """First and last value, and the growth per hour with its interval."""
    kept = slice(int(len(hours) * _SETTLING), None)
    slope, _, low, high = theilslopes(values[kept], hours[kept], alpha=0.95)
    return {
        "first": round(values[0], 1),
        "last": round(values[-1], 1),
        "most": round(max(values), 1),
        "per_hour": round(float(slope), 2),
        "interval_95": [round(float(low), 2), round(float(high), 2)],
    }


def judge(grown: dict[str, dict[str, Any]]) -> tuple[list[str], list[str]]:
    """What grew by more than is allowed, and what cannot be told to have kept within it."""
    grew = [key for key, most in ALLOWED.items() if grown[key]["interval_95"][0] > most]
    across = [key for key, most in ALLOWED.items() if grown[key]["interval_95"][1] > most and key not in grew]
    return grew, across


def soak(folder: Path, minutes: float) -> tuple[list[float], list[dict[str, float]], list[str], int]:
    """Rounds until the time is over.

    Returns:
        The hours at which each round ended, the states after them, the files that they left, and how many
        rounds were broken off.
    """
    temporary = folder / "tmp"
    temporary.mkdir()
    tempfile.tempdir = str(temporary)
    hours: list[float] = []
    states: list[dict[str, float]] = []
    left: list[str] = []
    broken_off = 0
    started = time.monotonic()
    while time.monotonic() - started < 60 * minutes or len(states) < _LEAST_ROUNDS:
        (folder / "project").mkdir()
        files, stopped = one_round(folder, len(states))
        left += files
        broken_off += bool(stopped)
        hours.append((time.monotonic() - started) / 3600)
        states.append(state(temporary))
        print(f"{60 * hours[-1]:.1f} min: {states[-1]} {files or ''} {stopped}", file=sys.stderr, flush=True)
    return hours, states, left, broken_off


def main() -> int:
    """Soak, print the figures; the exit code says whether something grew or was left."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        hours, states, left, broken_off = soak(Path(name), options.minutes)
    grown = {key: growth(hours, [one[key] for one in states]) for key in states[0]}
    grew, cannot_tell = judge(grown)
    if 2 * broken_off > len(states):
        cannot_tell.append("rounds")
    figures = {
        "minutes": round(60 * hours[-1], 1),
        "rounds": len(states),
        "broken_off": broken_off,
        "files_left": left,
        "allowed_per_hour": ALLOWED,
        "grew": grew,
        "cannot_tell": cannot_tell,
        **grown,
    }
    finish("soak", figures)
    return 1 if grew or left else 3 if cannot_tell else 0


if __name__ == "__main__":
    sys.exit(main())
