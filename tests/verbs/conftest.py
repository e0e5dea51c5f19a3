"""A small project on a fake device with known latencies, taken through every verb once."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from benches import NETWORKS
from projects import FAKE, new_project

from hwprune.project.folder import Project
from hwprune.runtimes.probes import conv_chain
from hwprune.verbs.export import export
from hwprune.verbs.profile import profile
from hwprune.verbs.report import report
from hwprune.verbs.search import search
from hwprune.verbs.train import train


@pytest.fixture(scope="session")
def profiled(made_once: Callable[..., Path]) -> Path:
    """A project with a latency table; tests copy it before they go on."""
    return made_once("profiled", lambda folder: profile(project=new_project(folder)))


@pytest.fixture(scope="session")
def finished(profiled: Path, made_once: Callable[..., Path]) -> Path:
    """A project that went through every verb; not to be modified."""

    def fill(folder: Path) -> None:
        shutil.copytree(profiled, folder, dirs_exist_ok=True)
        search(project=folder, latency="60%")
        train(project=folder, epochs=1)
        export(project=folder)
        report(project=folder)

    return made_once("finished", fill)


@pytest.fixture
def judged(finished: Path, tmp_path: Path) -> Path:
    """A project whose unpruned network is trained, and nothing after that, for a test to go on with."""
    folder = Path(shutil.copytree(finished, tmp_path / "judged"))
    for path in (folder / "hwprune-work").iterdir():
        if path.is_file() and not path.name.startswith("base-"):
            path.unlink()
    return folder


@pytest.fixture
def opened(finished: Path) -> Project:
    """The finished project."""
    return Project(finished)


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with ONNX files and the profile of a pretended device; the current one."""
    for name, channels in NETWORKS.items():
        (tmp_path / f"{name}.onnx").write_bytes(conv_chain(channels))
    (tmp_path / "fake.toml").write_text(FAKE)
    monkeypatch.chdir(tmp_path)
    return tmp_path
