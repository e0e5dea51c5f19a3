"""A small project on a fake device with known latencies, taken through every verb once."""

from __future__ import annotations

from pathlib import Path

import pytest
from benches import NETWORKS
from projects import FAKE, new_project

from hwprune.api.export import export
from hwprune.api.profile import profile
from hwprune.api.project import Project
from hwprune.api.report import report
from hwprune.api.search import search
from hwprune.api.train import train
from hwprune.runtimes.probes import conv_chain


@pytest.fixture(scope="session")
def profiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with a latency table; tests copy it before they go on."""
    folder = new_project(tmp_path_factory.mktemp("profiled"))
    profile(project=folder)
    return folder


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project that went through every verb; not to be modified."""
    folder = new_project(tmp_path_factory.mktemp("finished"))
    profile(project=folder)
    search(project=folder, latency="60%")
    train(project=folder)
    export(project=folder)
    report(project=folder)
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
