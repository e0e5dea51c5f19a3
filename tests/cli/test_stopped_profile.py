"""SIGINT, SIGTERM and SIGKILL in the middle of `profile`: what was measured is kept, and it goes on."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hwprune.latency.folder import TableFolder
from hwprune.project.lock import OWNER

NET = """
from torch import nn

def net(num_classes):
    return nn.Sequential(nn.Conv2d(3, 48, 3), nn.ReLU(), nn.Conv2d(48, 64, 3), nn.ReLU(),
                         nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, num_classes))
"""
KEPT = "What was finished is kept; the same command goes on from there."
SAID = {
    signal.SIGINT: (130, f"Stopped. {KEPT}"),
    signal.SIGTERM: (143, f"Terminated. {KEPT}"),
    signal.SIGKILL: (-9, ""),
}


def listen_to_ctrl_c() -> None:
    """What runs in the background of a script ignores Ctrl-C, and so would its children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.slow
def test_a_profile_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(NET)
    (tmp_path / "fake.toml").write_text('runtime = "fake"\ndevice = "cpu"\n[options]\nstep = 8\n')
    text = f'[model]\nname = "{tmp_path}/net.py:net"\n[data]\nsource = ""\nimage_size = 16\n'
    text += f'[target]\nprofile = "{tmp_path}/fake.toml"\n[profiling]\nmax_seconds = 1e9\nmax_error = 1e-4\n'
    (tmp_path / "hwprune.toml").write_text(text)
    command = [sys.executable, "-m", "hwprune", "profile", "--project", str(tmp_path)]
    table = tmp_path / "hwprune-work" / "latency" / "fake"
    before: dict[Path, int] = {}
    for how, (code, words) in SAID.items():
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=listen_to_ctrl_c)
        deadline = time.monotonic() + 240
        while len(measured(table)) < len(before) + 4:
            assert process.poll() is None, "profiling ended before it was stopped"
            assert time.monotonic() < deadline, "nothing measured within four minutes"
            time.sleep(0.02)
        process.send_signal(how)
        said = process.communicate(timeout=120)[1]
        assert process.returncode == code
        assert words in said
        assert "Traceback" not in said
        assert not (table / "profile.json").exists()
        assert (tmp_path / "hwprune-work" / OWNER).exists() == (how is signal.SIGKILL)
        assert before.items() <= measured(table).items(), "nothing is measured again"
        before = measured(table)

    subprocess.run([*command, "--max-time", "1s"], check=True, capture_output=True)
    assert TableFolder.load(table).model() is not None
    assert before.items() <= measured(table).items()


def measured(table: Path) -> dict[Path, int]:
    """The networks that were measured, and when."""
    return {path: path.stat().st_mtime_ns for path in (table / "networks").glob("network-*.json")}
