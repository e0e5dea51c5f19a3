"""The wheel and the sdist: what is in them, and that both work outside the repository."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import venv
import zipfile
from pathlib import Path

import pytest
from filelock import FileLock

ROOT = Path(__file__).parents[1]
TABLE = "amd-epyc-zen5-avx512/cpu-1t/resnet20_32"
FAKE = 'runtime = "fake"\ndevice = "cpu"\n'
SHORT = """
[data]
image_size = 16
sub_val = 50
[pruningnet]
epochs = 4
recalibration_images = 100
[search]
population = 4
parents = 2
mutants = 2
crossovers = 2
generations = 2
[training]
epochs = 2
"""

pytestmark = pytest.mark.slow
# The checkout must not be found: neither by pip, as an installed hwprune, nor by Python.
ELSEWHERE = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sdist, and the wheel that is made of the sdist."""
    folder = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    # Building writes into the repository: two workers at once would take each other's files away.
    with FileLock(Path(tempfile.gettempdir()) / "hwprune-test-build.lock"):
        done = subprocess.run(build, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def wheel(dist: Path) -> Path:
    (path,) = dist.glob("*.whl")
    return path


def test_the_wheel_holds_the_package_the_profiles_and_the_tables(wheel: Path) -> None:
    held = set(zipfile.ZipFile(wheel).namelist())
    package = {f"hwprune/{path.relative_to(ROOT / 'hwprune')}" for path in (ROOT / "hwprune").rglob("*.py")}
    shipped = {
        f"hwprune/share/{path.relative_to(ROOT)}"
        for kind in ("profiles", "lut")
        for path in (ROOT / kind).rglob("*")
        if path.is_file()
    }
    assert package | shipped | {"hwprune/py.typed"} <= held
    rest = {name for name in held - package - shipped if ".dist-info/" not in name}
    assert rest == {"hwprune/py.typed"}, "nothing else belongs into the wheel"


def test_the_sdist_holds_every_file_of_the_repository(dist: Path) -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    (path,) = dist.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    assert {name for name in listed.stdout.split() if (ROOT / name).is_file()} <= held


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `hwprune` of an environment with the wheel."""
    return install(wheel, tmp_path_factory.mktemp("environment"))


@pytest.fixture(scope="module")
def installed_sdist(dist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `hwprune` of an environment with what pip makes of the sdist, by the setuptools that is here."""
    (path,) = dist.glob("*.tar.gz")
    folder = tmp_path_factory.mktemp("made")
    make = (
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--wheel-dir",
        str(folder),
        str(path),
    )
    subprocess.run([sys.executable, "-m", *make], check=True, env=ELSEWHERE)
    (made,) = folder.glob("*.whl")
    return install(made, tmp_path_factory.mktemp("environment"))


def install(package: Path, folder: Path) -> Path:
    """Install into a new environment whose other packages are those of the running interpreter.

    `.ci/package` installs the dependencies too, which takes minutes and a network.
    """
    venv.create(folder, symlinks=True)
    python = folder / "bin" / "python"
    command = ("pip", "--python", str(python), "install", "--quiet", "--no-deps", str(package))
    subprocess.run([sys.executable, "-m", *command], check=True, env=ELSEWHERE)
    packages = next((folder / "lib").glob("python*/site-packages"))
    # a path in a .pth file: found after the package, and its own .pth files (the checkout) are not read
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "bin" / "hwprune"


def run(program: Path, *words: str, folder: Path) -> str:
    """What a command prints in a folder far from the repository."""
    done = subprocess.run([program, *words], cwd=folder, env=ELSEWHERE, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("package", ["installed", "installed_sdist"])
def test_profiles_and_tables_are_found_outside_the_repository(
    package: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    installed: Path = request.getfixturevalue(package)
    python = installed.with_name("python")
    where = run(python, "-c", "import hwprune; print(hwprune.__file__)", folder=tmp_path)
    assert Path(where.strip()).is_relative_to(installed.parents[1])
    assert TABLE in run(installed, "lut", "list", folder=tmp_path)
    assert "uniform 50%" in run(installed, "predict", "--table", TABLE, "--uniform", "50%", folder=tmp_path)
    ask = "from hwprune.runtimes import profile_names; print(*profile_names())"
    names = run(python, "-c", ask, folder=tmp_path).split()
    assert names == sorted(path.stem for path in (ROOT / "profiles").glob("*.toml"))


def test_quickstart_runs_outside_the_repository(installed: Path, tmp_path: Path) -> None:
    """On a pretended device and in short; `.ci/package` does it as it is."""
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles" / "cpu-1t.toml").write_text(FAKE)
    project = tmp_path / "hwprune-quickstart"
    project.mkdir()
    (project / "hwprune.toml").write_text(SHORT)
    assert "Budget met" in run(installed, "quickstart", folder=tmp_path)
    assert (project / "pruned.onnx").is_file()
    assert (project / "report.html").is_file()
