"""Repeats profile and search on a small model in one process and watches what grows.

    python benchmarks/soak.py --minutes 60

After each round: resident memory, open file handles, threads, and files in the folder for temporary ones.
A line is fitted to each over time, the first fifth left out (caches fill, allocators settle); the slope is
growth per hour with a 95 % interval by Theil and Sen, which single jumps do not move. The last line, which
`results/soak.json` holds too, is JSON.
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
from pathlib import Path
from typing import Any

from common import finish
from kill_runs import new_project
from scipy.stats import theilslopes

_PAGE = os.sysconf("SC_PAGE_SIZE")
_SETTLING = 0.2  # share of the rounds that the fit leaves out
_LEAST_ROUNDS = 10
# Growth per hour that counts: the lower end of the interval must be above it.
ALLOWED = {"rss_mb": 20.0, "handles": 1.0, "threads": 1.0, "temporary_files": 1.0}


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


def one_round(folder: Path, number: int) -> None:
    """A new project, profiled and searched; nothing of it stays on the disk."""
    from hwprune.api.profile import profile
    from hwprune.api.search import search

    project = new_project(folder / "project" / str(number % 2))
    profile(project=project)
    search(project=project, latency=f"{50 + number % 30}%")
    shutil.rmtree(folder / "project")
    gc.collect()


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


def soak(folder: Path, minutes: float) -> tuple[list[float], list[dict[str, float]]]:
    """Rounds until the time is over; the hours at which each ended, and the states after them."""
    temporary = folder / "tmp"
    temporary.mkdir()
    tempfile.tempdir = str(temporary)
    hours, states = [], []
    started = time.monotonic()
    while time.monotonic() - started < 60 * minutes or len(states) < _LEAST_ROUNDS:
        (folder / "project").mkdir()
        one_round(folder, len(states))
        hours.append((time.monotonic() - started) / 3600)
        states.append(state(temporary))
        print(f"{60 * hours[-1]:.1f} min: {states[-1]}", file=sys.stderr, flush=True)
    return hours, states


def main() -> int:
    """Soak, print the figures; the exit code is 1 when something grew."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        hours, states = soak(Path(name), options.minutes)
    grown = {key: growth(hours, [one[key] for one in states]) for key in states[0]}
    leaks = [key for key, most in ALLOWED.items() if grown[key]["interval_95"][0] > most]
    figures = {"minutes": round(60 * hours[-1], 1), "rounds": len(states), "grew": leaks, **grown}
    finish("soak", figures)
    return int(bool(leaks))


if __name__ == "__main__":
    sys.exit(main())
