"""A real process, interrupted: it says so, leaves what was finished, and goes on from there."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from hwprune.config import Config, save_config
from hwprune.results import TrainResult
from hwprune.verbs.profile import profile
from hwprune.verbs.search import search

EPOCHS = 5
NET = """
from hwprune.models.resnet_cifar import CifarResNet

def net(num_classes):
    return CifarResNet(1, num_classes)
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A small project on a fake device, ready to be trained."""
    (tmp_path / "fake.toml").write_text('runtime = "fake"\ndevice = "cpu"\n')
    (tmp_path / "net.py").write_text(NET)
    config = Config()
    save_config(
        tmp_path / "hwprune.toml",
        replace(
            config,
            model=replace(config.model, name=f"{tmp_path}/net.py:net"),
            data=replace(config.data, image_size=16),
            target=replace(config.target, profile=str(tmp_path / "fake.toml")),
            training=replace(config.training, epochs=EPOCHS),
        ),
    )
    profile(project=tmp_path)
    search(project=tmp_path, latency="60%", score="macs")
    return tmp_path


def listen_to_ctrl_c() -> None:
    """What runs in the background of a script ignores Ctrl-C, and so would its children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.slow
def test_training_goes_on_where_it_was_stopped(project: Path) -> None:
    command = [sys.executable, "-m", "hwprune", "train", "--project", str(project)]
    told = stopped_after_an_epoch(command, project, signal.SIGINT)
    assert told.returncode == 130
    assert "the same command goes on" in told.stderr
    assert "Traceback" not in told.stderr
    stopped_after_an_epoch(command, project, signal.SIGKILL)
    assert not (project / "hwprune-work" / "train.json").exists()

    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=True)
    first = next(line for line in done.stderr.splitlines() if "/5 epochs" in line)
    assert not re.search("unpruned network: [12]/5", first), "the finished epochs are not repeated"
    result = TrainResult.load(project / "hwprune-work" / "train.json")
    assert [epoch["epoch"] for epoch in result.base_history] == list(range(1, EPOCHS + 1))


def stopped_after_an_epoch(
    command: list[str], project: Path, how: signal.Signals
) -> subprocess.CompletedProcess[str]:
    """Start training, and stop it when it has finished one more epoch of the unpruned network."""

    def checkpoints() -> dict[Path, int]:
        """Finished epochs, each with its seconds in the header; the first file has none yet."""
        kept = (project / "hwprune-work").glob("base-*.safetensors")
        return {path: found for path in kept if (found := path.read_bytes().count(b"seconds"))}

    before, deadline = checkpoints(), time.monotonic() + 240
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=listen_to_ctrl_c)
    while checkpoints() == before:
        assert process.poll() is None, "training ended before its checkpoint"
        assert time.monotonic() < deadline, "no checkpoint within four minutes"
        time.sleep(0.05)
    process.send_signal(how)
    _, text = process.communicate(timeout=120)
    return subprocess.CompletedProcess(command, process.returncode, stderr=text)
