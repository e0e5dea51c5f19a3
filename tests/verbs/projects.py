"""Small projects on a pretended device, for the tests of the verbs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from hwprune.config import Config, save_config

MODEL = f"{Path(__file__).with_name('resnet8.py')}:resnet8"
IMAGE_SIZE = 16
FAKE = 'runtime = "fake"\ndevice = "cpu"\n'


def small_config(folder: Path) -> Config:
    """ResNet-8 on small digits; all as short as it can be, the unpruned network with room to learn."""
    config = Config()
    return replace(
        config,
        model=replace(config.model, name=MODEL),
        target=replace(config.target, profile=str(folder / "fake.toml")),
        profiling=replace(config.profiling, max_seconds=20.0),
        data=replace(config.data, image_size=IMAGE_SIZE, sub_val=50),
        pruningnet=replace(config.pruningnet, epochs=4, recalibration_images=100),
        search=replace(
            config.search, score="inherited", population=8, parents=4, mutants=4, crossovers=4, generations=3
        ),
        training=replace(config.training, epochs=7),
    )


def new_project(folder: Path, *, images: bool = True) -> Path:
    """A folder with settings and a fake device, nothing run yet.

    With images it is about a small network, so the device has finer steps; without, about ResNet-20.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "fake.toml").write_text(FAKE + "options = { step = 8 }\n" if images else FAKE)
    config = small_config(folder)
    if not images:
        model, data = replace(config.model, name="resnet20"), replace(config.data, source="", image_size=32)
        search = replace(config.search, score="auto")
        config = replace(config, model=model, data=data, search=search)
    save_config(folder / "hwprune.toml", config)
    return folder
