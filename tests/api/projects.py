"""Small projects on a pretended device, for the tests of the verbs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from hwprune.config import Config, save_config

FAKE = 'runtime = "fake"\ndevice = "cpu"\n'


def small_config(folder: Path) -> Config:
    """ResNet-20 on digits; every stage as short as it can be, PruningNet with some room to learn."""
    config = Config()
    return replace(
        config,
        target=replace(config.target, profile=str(folder / "fake.toml")),
        profiling=replace(config.profiling, max_seconds=20.0),
        data=replace(config.data, sub_val_per_class=5),
        pruningnet=replace(config.pruningnet, epochs=8, recalibration_images=100),
        search=replace(config.search, population=8, parents=4, mutants=4, crossovers=4, generations=3),
        training=replace(config.training, epochs=2),
    )


def new_project(folder: Path, *, images: bool = True) -> Path:
    """A folder with settings and a fake device, nothing run yet."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "fake.toml").write_text(FAKE)
    config = small_config(folder)
    if not images:
        config = replace(config, data=replace(config.data, source="", image_size=32))
    save_config(folder / "hwprune.toml", config)
    return folder
