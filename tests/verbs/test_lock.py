"""Two processes on one project: the second says so and stops, and nothing is damaged."""

from __future__ import annotations

import errno
import fcntl
import importlib
import inspect
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from projects import new_project

from hwprune import artifacts
from hwprune.cli.main import VERBS, main
from hwprune.errors import BusyError, MissingArtifactError, StorageError
from hwprune.project.lock import LOCK, OWNER, locked, project_lock
from hwprune.results import ProfileResult
from hwprune.verbs.init import init
from hwprune.verbs.profile import profile
from hwprune.verbs.report import report
from hwprune.verbs.train import train

# A verb that says when it is in the middle of its work, and goes on when it is told to.
HOLDER = """
import sys
from pathlib import Path
from hwprune.verbs.profile import profile
from hwprune.progress import Quiet

class Waiting(Quiet):
    def note(self, text):
        if text.startswith("Tracing"):
            print("inside", flush=True)
            sys.stdin.readline()

profile(project=Path(sys.argv[1]), reporter=Waiting())
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that is profiling the project `p`."""
    folder = new_project(tmp_path / "p")
    command = [sys.executable, "-c", HOLDER, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "inside\n"
        yield process
        process.kill()


@pytest.mark.slow
def test_a_second_process_is_refused_and_the_first_goes_on(
    holder: subprocess.Popen[str], tmp_path: Path
) -> None:
    arguments = ["search", "--latency", "60%", "--project", str(tmp_path / "p")]
    command = [sys.executable, "-m", "hwprune", *arguments]
    second = subprocess.run(command, capture_output=True, text=True, check=False)
    assert second.returncode == 1
    assert second.stderr.startswith("error: Another process works in this project.")
    assert str(tmp_path / "p" / "hwprune-work" / LOCK) in second.stderr
    assert f"pid {holder.pid} on " in second.stderr
    assert " s ago: -c " in second.stderr, "what its user typed"
    assert "do:" in second.stderr
    assert "Traceback" not in second.stderr
    holder.stdin.write("\n")
    holder.stdin.flush()
    assert holder.wait() == 0
    folder = tmp_path / "p" / "hwprune-work"
    assert ProfileResult.load(folder / "latency" / "fake" / "profile.json").base_ms > 0
    assert not (folder / OWNER).exists()


def test_a_killed_process_leaves_nothing_to_clean(holder: subprocess.Popen[str], tmp_path: Path) -> None:
    folder = tmp_path / "p" / "hwprune-work"
    with pytest.raises(BusyError, match="Another process"), project_lock(tmp_path / "p"):
        pass
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert (folder / OWNER).exists(), "it could not take its name away"
    with project_lock(tmp_path / "p"):
        assert f'"pid": {holder.pid}' not in (folder / OWNER).read_text()


def test_verbs_inside_verbs_and_threads_share_the_lock(tmp_path: Path) -> None:
    together = threading.Barrier(2, timeout=60)

    @locked
    def inner(*, project: Path = tmp_path) -> None:
        together.wait()

    @locked
    def outer(*, project: Path = tmp_path) -> None:
        other = threading.Thread(target=inner)
        other.start()
        inner(project=project / "." / "sub" / "..")
        other.join()
        assert (tmp_path / "hwprune-work" / OWNER).exists(), "still inside"

    (tmp_path / "sub").mkdir()
    outer()
    assert not (tmp_path / "hwprune-work").exists()


def test_every_verb_that_writes_takes_the_lock_and_no_other_does() -> None:
    functions = {verb: getattr(importlib.import_module(f"hwprune.verbs.{verb}"), verb) for verb in VERBS}
    taking = {verb for verb, function in functions.items() if inspect.unwrap(function) is not function}
    assert taking == set(VERBS) - {"predict", "lut", "doctor", "bench", "compare", "check"}


def test_the_next_process_removes_what_was_left_half_written(tmp_path: Path) -> None:
    work = tmp_path / "hwprune-work" / "latency"
    for folder in (work, tmp_path):
        left = folder / ".a.json.x1.hwprune-part"
        left.mkdir(parents=True)
        (left / ".tmp123").write_text("half")
        artifacts.write_json(folder / "a.json", "kind", 1, {})
    elsewhere = tmp_path / "data" / ".a.json.x1.hwprune-part"
    elsewhere.mkdir(parents=True)
    with project_lock(tmp_path):
        assert [path.name for path in work.iterdir()] == ["a.json"]
        assert not (tmp_path / elsewhere.name).exists()
        assert elsewhere.exists(), "nobody else's folders are searched"


def test_a_mistyped_project_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(MissingArtifactError):
        train(project=tmp_path / "typo" / "p")
    assert list(tmp_path.iterdir()) == []
    init(project=tmp_path / "p")
    assert [path.name for path in (tmp_path / "p").iterdir()] == ["hwprune.toml"]


def test_a_folder_that_may_not_be_written_is_told(
    read_only_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["profile", "--project", str(read_only_folder)]) == 1
    text = capsys.readouterr().err
    assert str(read_only_folder / "hwprune-work" / LOCK) in text
    assert "choose a folder you may write to" in text


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK])
def test_a_file_system_without_locks_is_told(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, "no locks here")

    monkeypatch.setattr(fcntl, "flock", refuse)
    for verb in (profile, report):
        with pytest.raises(StorageError) as caught:
            verb(project=tmp_path / "p")
        assert "local disk" in str(caught.value)
