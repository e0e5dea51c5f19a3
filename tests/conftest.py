"""Settings and fixtures that all tests share."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock
from hypothesis import settings

# The machines that run these tests are shared: a slow example is no failure. Examples are the same each time.
settings.register_profile("hwprune", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("hwprune")

ROOT = Path(__file__).parents[1]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the fuzz run, also under another `-m`, unless it was asked for."""
    if "fuzz" not in config.option.markexpr:
        skip = pytest.mark.skip(reason="100,000 inputs: only with `-m fuzz`")
        for item in items:
            if item.get_closest_marker("fuzz"):
                item.add_marker(skip)


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable[[Path], object]], Path]:
    """A function that fills a folder of a name, once for all workers of the run; not to be modified."""
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent  # that of the whole run

    def made(name: str, fill: Callable[[Path], object]) -> Path:
        folder, done = root / name, root / f"{name}.done"
        with FileLock(root / f"{name}.lock"):
            if not done.exists():
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                fill(folder)
                done.touch()
        return folder

    return made


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the repository."""
    return ROOT


@pytest.fixture(scope="session")
def cifar10() -> Path:
    """The folder with real CIFAR-10 images, kept beside the repository and not in it."""
    folder = ROOT.parent / "shared" / "data" / "cifar10"
    if not (folder / "train.parquet").is_file():
        pytest.skip(f"no CIFAR-10 images at {folder}")
    return folder


@pytest.fixture
def read_only_folder():
    """A folder that this process may look into but not write to, root or not."""
    yield from _folder_with_rights(0o555)


@pytest.fixture
def locked_folder():
    """A folder that this process may not even look into, root or not."""
    yield from _folder_with_rights(0o000)


def _folder_with_rights(mode: int):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "locked"
        folder.mkdir()
        os.chmod(name, 0o755)
        os.chmod(folder, mode)
        root = os.geteuid() == 0
        if root:  # root may do everything, so be nobody for a while
            os.seteuid(65534)
        try:
            yield folder
        finally:
            if root:
                os.seteuid(0)
            os.chmod(folder, 0o755)
