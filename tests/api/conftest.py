"""A small project on a fake device with known latencies, taken through every verb once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from hwprune.api.export import export
from hwprune.api.profile import profile
from hwprune.api.project import Project
from hwprune.api.report import report
from hwprune.api.search import search
from hwprune.api.train import train
from hwprune.config import Config, save_config

FAKE = 'runtime = "fake"\ndevice = "cpu"\n'


def small_config(folder: Path) -> Config:
    """ResNet-20 on digits, every stage as short as it can be."""
    config = Config()
    return replace(
        config,
        target=replace(config.target, profile=str(folder / "fake.toml")),
        profiling=replace(config.profiling, max_seconds=20.0),
        data=replace(config.data, sub_val_per_class=5),
        pruningnet=replace(config.pruningnet, epochs=3, recalibration_images=100),
        search=replace(config.search, population=8, parents=4, mutants=4, crossovers=4, generations=3),
        training=replace(config.training, epochs=2),
    )


def new_project(folder: Path) -> Path:
    """A folder with settings and a fake device, nothing run yet."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "fake.toml").write_text(FAKE)
    save_config(folder / "hwprune.toml", small_config(folder))
    return folder


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
