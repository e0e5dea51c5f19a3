"""The commands of each page, typed one after the other in one folder, as a reader would.

The device is pretended and every stage short. With HWPRUNE_NEWCOMER=1 the tutorial is typed as it stands too,
on the real device, which takes minutes.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from pages import PAGES, Command, blocks, commands

from hwprune import probe
from hwprune.cli.main import main
from hwprune.config import FILE_NAME, load_config, save_config
from hwprune.runtimes.probes import conv_chain

# What is not typed here, and why. Such commands are still checked in `test_documented_commands.py`.
NOT_TYPED = {
    r"make |(\.venv/bin/)?pytest |pip install ": "installs or runs all tests: CI and test_packaging.py do",
    r"source ": "of the shell",
    r"torchrun ": "two processes: tests/verbs/test_two_workers.py",
    r".*runs/mobilenet_v2": "needs ImageNet: tests/test_paper.py has the project on a few images",
    r"(\.venv/bin/)?python (benchmarks|docs/tools)/": "for a quiet machine, or a page's maker",
    r"hwprune quickstart": "its 50 % is out of reach on the pretended device: test_quickstart_and_doctor.py",
    r"hwprune compare A B": "names to fill in: tests/report/test_comparing.py",
    r"hwprune profile .*cuda": "needs a GPU: tests/test_gpu.py",
    r"hwprune bench .*--(data|min-accuracy|max-drop)": "needs a trained file: test_bench_accuracy.py",
    r"hwprune .*--task my_task.py": "needs the reader's own files: tests/verbs/test_own_task.py",
    r"hwprune doctor": "times the real machine: tests/verbs/test_quickstart_and_doctor.py",
}
ELSEWHERE = {"docs/pretrained.md"}  # the tutorial's commands, from weights that would have to be trained
FAKE = 'runtime = "fake"\ndevice = "cpu"\n'


def reason(command: Command) -> str:
    """Why a command is not typed here, or ""."""
    return next((why for pattern, why in NOT_TYPED.items() if re.match(pattern, command.text)), "")


TYPED = [
    page for page in PAGES if page not in ELSEWHERE and any(not reason(command) for command in commands(page))
]


def shorten(folder: Path) -> None:
    """Make every stage of a project as short as it can be."""
    config = load_config(folder / FILE_NAME)
    side = 16 if config.data.source == "digits" else config.data.image_size
    config = replace(
        config,
        profiling=replace(config.profiling, max_seconds=20.0),
        data=replace(config.data, sub_val=50, image_size=side),
        pruningnet=replace(config.pruningnet, epochs=4, recalibration_images=100),
        search=replace(config.search, population=4, parents=2, mutants=2, crossovers=2, generations=2),
        training=replace(config.training, epochs=2),
    )
    save_config(folder / FILE_NAME, config)


@pytest.fixture(scope="session")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a profiled project, and the tables, networks and results that pages bring along."""
    folder = tmp_path_factory.mktemp("desk")
    (folder / "profiles").mkdir()
    for name in ("cpu", "cpu-1t"):
        (folder / "profiles" / f"{name}.toml").write_text(FAKE + f"threads = {len(name) % 3}\n")
    with pytest.MonkeyPatch.context() as here:
        here.chdir(folder)
        assert main(["init"]) == 0
        shorten(folder)
        assert main(["profile", "--profile", "cpu"]) == main(["profile"]) == 0
        results(folder)
    for name, layers in {"model": 2, "new": 2, "old": 3, "unpruned": 9, "pruned": 2, "net": 4}.items():
        (folder / f"{name}.onnx").write_bytes(conv_chain([32] * layers, size=28))
    table = folder / "hwprune-work" / "latency" / "cpu-1t"
    for other in ("boards/pi", "board", "out.table", "again.table", "other/latency/cpu-1t"):
        shutil.copytree(table, folder / other)
    return folder


def results(desk: Path) -> None:
    """Projects with a result and a report, to compare."""
    first = desk / "project-a"
    shutil.copytree(desk / "hwprune-work", first / "hwprune-work")
    shutil.copy(desk / FILE_NAME, first)
    assert main(["search", "--project", str(first), "--latency", "60%", "--score", "macs"]) == 0
    assert main(["report", "--project", str(first)]) == 0
    for other in ("project-b", "a", "b"):
        shutil.copytree(first, desk / other)


def type_in(command: str) -> None:
    """Run one command, in this process where that saves starting torch."""
    program, *words = shlex.split(command)
    if program == "hwprune":
        if words[0] == "lut" and "--output" in words:  # a table is never overwritten
            shutil.rmtree(words[-1], ignore_errors=True)
        if words[0] == "init":  # a project of the page's own
            Path(FILE_NAME).unlink(missing_ok=True)
            shutil.rmtree("hwprune-work", ignore_errors=True)
        assert main(words) == 0
        if words[0] == "init":
            shorten(Path())
    elif words[:2] == ["-m", "hwprune.probe"]:
        shutil.rmtree(Path(words[2]).with_suffix(".table"), ignore_errors=True)
        assert probe.main(words[2:]) == 0
    else:
        assert program == "python"
        subprocess.run(
            [sys.executable, "-I", *words], check=True
        )  # -I: without hwprune's checkout in the path


@pytest.mark.slow
@pytest.mark.parametrize("page", TYPED)
@pytest.mark.filterwarnings("ignore::hwprune.errors.HwpruneWarning")
def test_the_commands_of_a_page_work_in_a_row(
    page: str, desk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "reader"
    shutil.copytree(desk, folder)
    monkeypatch.chdir(folder)
    for block in blocks(page, "python"):  # files that the page tells to write
        if name := re.match(r"# (\w+\.py)\n", block):
            (folder / name[1]).write_text(block)
    for command in commands(page):
        if not reason(command):
            type_in(command.text)


@pytest.mark.skipif("HWPRUNE_NEWCOMER" not in os.environ, reason="minutes long; HWPRUNE_NEWCOMER=1 runs it")
def test_the_tutorial_as_it_stands_ends_with_an_application(tmp_path: Path) -> None:
    for block in blocks("docs/tutorial.md", "python"):
        if name := re.match(r"# (\w+\.py)\n", block):
            (tmp_path / name[1]).write_text(block)
    for command in commands("docs/tutorial.md"):
        program, *words = shlex.split(command.text)
        run = [sys.executable, *(["-m", "hwprune"] if program == "hwprune" else []), *words]
        printed = subprocess.run(run, cwd=tmp_path, check=True, stdout=subprocess.PIPE, text=True).stdout
    assert printed.strip() == blocks("docs/tutorial.md", "text")[-1].strip()


def test_every_exception_is_used_and_the_rest_is_typed() -> None:
    every = [command for page in PAGES for command in commands(page)]
    for pattern in NOT_TYPED:
        assert any(re.match(pattern, command.text) for command in every), f"{pattern} excepts nothing"
    assert sum(not reason(command) for command in every) > len(every) / 2
