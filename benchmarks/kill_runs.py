"""A small project whose verbs are killed with SIGKILL at random instants and started again.

Shared by `kills.py` and `tests/cli/test_kills.py`. Each run is a process of its own, forked from a server
that has imported the libraries and started no thread: a hundred runs do not import torch a hundred times.
"""

from __future__ import annotations

import multiprocessing
import os
import re
import shutil
import signal
import sys
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
from kill_checks import differences, look

from hwprune.config import Config, save_config

if TYPE_CHECKING:
    from pathlib import Path

OPTIONS = {"profile": [], "search": ["--latency", "60%"], "train": [], "export": [], "report": []}
_LIBRARIES = (
    *("onnx", "onnxruntime", "pandas", "plotly", "rich", "scipy", "sklearn.ensemble", "torch", "torchvision"),
    *("torch.onnx", "tyro", "hwprune.cli.console"),
    *(f"hwprune.verbs.{verb}" for verb in OPTIONS),
)
_BEGINS = re.compile(r"^(.+) \.\.\.$")  # how the console tells that a stage begins
_UNIT = re.compile(r"^(.+): (\d+)/\d+ \w+, ")  # ... and that a unit of its work is finished
_SOONER = 0.8  # an instant that comes after the end of a whole run is brought forward by this factor

NET = """
from torch import nn


def layer(inputs, outputs, stride):
    return nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()


def net(num_classes):
    body = *layer(3, 48, 2), *layer(48, 64, 2), *layer(64, 96, 2)
    return nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(96, num_classes))
"""


def new_project(folder: Path) -> Path:
    """Settings under which every stage is short, on a device whose latencies are known.

    The networks that `profile` measures follow from the seed alone: it stops before it draws any by what the
    model knows least, for where a model is fitted depends on where a run was broken off.
    """
    (folder.parent / "net.py").write_text(NET)
    profile = folder.parent / "fake.toml"
    profile.write_text('runtime = "fake"\ndevice = "cpu"\n[options]\nstep = 8\n')
    config = Config()
    folder.mkdir()
    save_config(
        folder / "hwprune.toml",
        replace(
            config,
            model=replace(config.model, name=f"{folder.parent}/net.py:net"),
            target=replace(config.target, profile=str(profile)),
            profiling=replace(config.profiling, max_seconds=1e4, max_error=0.9),
            data=replace(config.data, sub_val=200, image_size=16),
            pruningnet=replace(config.pruningnet, epochs=6, recalibration_images=200, precision="fp32"),
            search=replace(config.search, population=16, parents=6, mutants=8, crossovers=8, generations=6),
            training=replace(config.training, epochs=4, precision="fp32"),  # runs are compared bit for bit
        ),
    )
    return folder


@dataclass(frozen=True)
class Run:
    """One run of a verb.

    Attributes:
        killed: Whether it was killed before its end.
        seconds: From its start to its end.
        text: What it printed.
    """

    killed: bool
    seconds: float
    text: str


class Runner:
    """Runs verbs in processes of their own.

    Args:
        logs: A folder for what they print.
    """

    def __init__(self, logs: Path) -> None:
        self.log = logs / "log.txt"
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(list(_LIBRARIES))
        process = self.context.Process(target=int)  # the server imports now, on nobody's account
        process.start()
        process.join()

    def __call__(self, folder: Path, verb: str, kill_after_s: float | None = None) -> Run:
        """Run a verb on a project; kill it if it still runs after `kill_after_s`.

        Raises:
            RuntimeError: The verb failed by itself; with all that it printed.
        """
        arguments = [verb, *OPTIONS[verb], "--project", str(folder)]
        process = self.context.Process(target=_command, args=(arguments, str(self.log)))
        started = time.monotonic()
        process.start()
        process.join(kill_after_s)
        process.kill()
        process.join()
        seconds, text = time.monotonic() - started, self.log.read_text()
        killed = process.exitcode == -signal.SIGKILL
        if process.exitcode and not killed:
            raise RuntimeError(f"hwprune {verb} failed:\n{text}")
        return Run(killed, seconds, text)


def _command(arguments: list[str], log: str) -> None:
    """The command line, in a process of its own."""
    import torch

    from hwprune.cli import console
    from hwprune.cli.main import main

    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    torch.set_num_threads(1)  # small networks, and others may be at work here
    console._LINE_EVERY_S = 0.0  # every finished unit has its line
    sys.argv = ["hwprune", *arguments]
    sys.exit(main(arguments))


@dataclass
class Units:
    """Counts units of work that were finished and told, and yet done again by the next run.

    Attributes:
        lost: What they belong to -> how many.
    """

    lost: Counter[str] = field(default_factory=Counter)
    _last: dict[str, int] = field(default_factory=dict)

    def read(self, text: str) -> None:
        """Take in what one run printed."""
        seen: dict[str, int] = {}
        for title, number in (found.groups() for found in map(_UNIT.match, text.splitlines()) if found):
            if title not in seen:
                self.lost[title] += max(0, self._last.get(title, 0) + 1 - int(number))
            seen[title] = int(number)
        self._last |= seen

    def forget(self) -> None:
        """The next run begins with nothing done."""
        self._last.clear()


@dataclass
class Findings:
    """What all kills showed.

    Attributes:
        kills: Verb -> how often it was killed.
        during: Stage -> how often a verb was killed in it; the verb's name for what is in no stage.
        corrupt: Files that were damaged after a kill.
        half_written: Half-written files, out of the way, after a kill.
        leftovers: Of these, how many were still there when the verb had been brought to its end.
        different: In what the results differ from those of an unbroken run.
        units: Units of work that were done again.
    """

    kills: Counter[str] = field(default_factory=Counter)
    during: Counter[str] = field(default_factory=Counter)
    corrupt: list[str] = field(default_factory=list)
    half_written: int = 0
    leftovers: int = 0
    different: list[str] = field(default_factory=list)
    units: Units = field(default_factory=Units)


class Killer:
    """Takes a project through all verbs, each killed many times.

    Args:
        runner: Runs the verbs.
        folder: An empty folder for the projects.
        seed: Decides the instants.
    """

    def __init__(self, runner: Runner, folder: Path, seed: int = 0) -> None:
        self.runner, self.rng, self.found = runner, np.random.default_rng(seed), Findings()
        self.whole, self.broken = new_project(folder / "whole"), new_project(folder / "broken")
        self.before = folder / "before"

    def kill(self, verb: str, kills: int) -> None:
        """Run the next verb unbroken; then kill it again and again, and compare what it ends with.

        The instants are spread over the time of the unbroken run. A run that goes on needs less than that and
        may end before its instant; then the verb begins anew, on the project as it was before it.
        """
        needed_s = self.runner(self.whole, verb).seconds
        spread = (self.rng.permutation(kills) + self.rng.random(kills)) / kills
        instants = [float(instant) for instant in spread * needed_s]
        _copy(self.broken, self.before)
        while instants:
            _copy(self.before, self.broken)
            self.found.units.forget()
            before = len(instants)
            while self._run(verb, instants):
                pass
            if len(instants) == before:
                instants[0] *= _SOONER
            self.found.leftovers += len(look(self.broken).half_written)
            self.found.different += [f"{verb}: {text}" for text in differences(verb, self.broken, self.whole)]

    def _run(self, verb: str, instants: list[float]) -> bool:
        """One run, up to the next instant; whether it was killed."""
        run = self.runner(self.broken, verb, instants[0] if instants else None)
        self.found.units.read(run.text)
        if run.killed:
            instants.pop(0)
            self.found.kills[verb] += 1
            self.found.during[_stage(run.text) or verb] += 1
            state = look(self.broken)
            self.found.corrupt += [f"{verb}: {text}" for text in state.corrupt]
            self.found.half_written += len(state.half_written)
        return run.killed


def _stage(text: str) -> str:
    """The stage that was under way at the end of what a run printed, if any."""
    title = ""
    for line in text.splitlines():
        if begins := _BEGINS.match(line):
            title = begins[1]
        elif line.startswith(f"{title}: done in "):
            title = ""
    return title


def _copy(source: Path, target: Path) -> None:
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target)
