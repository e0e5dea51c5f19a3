"""What is promised when the machine fails: damaged bytes, full and read-only disks, clocks that jump back."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from projects import new_project

from hwprune.api.export import export
from hwprune.api.profile import profile
from hwprune.api.report import report
from hwprune.api.search import search
from hwprune.api.train import train
from hwprune.cli.main import main
from hwprune.latency.folder import TableFolder
from hwprune.report.facts import collect
from hwprune.results import SearchResult

# Verb -> files that it reads, as patterns; each is damaged in its middle.
READS = {
    "search": ("latency/fake/profile.json", "latency/fake/space.json", "latency/fake/table.json",
               "latency/fake/kernels.csv", "latency/fake/networks.csv", "latency/fake/base.onnx"),
    "train": ("search.json", "search-space.json", "base-*.safetensors", "pruned-*.safetensors"),
    "export": ("search.json", "search-space.json", "pruned.safetensors"),
    "report": ("search.json", "search-space.json", "train.json", "export.json",
               "latency/fake/profile.json", "latency/fake/curves.json", "latency/fake/staircase.json"),
}  # fmt: skip
OPTIONS = {"search": ["--latency", "55%", "--score", "macs"]}


NET = """
from torch import nn

def net(num_classes):
    return nn.Sequential(nn.Conv2d(3, 48, 3, 2), nn.BatchNorm2d(48), nn.ReLU(), nn.Conv2d(48, 64, 3, 2),
                         nn.BatchNorm2d(64), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                         nn.Linear(64, num_classes))
"""


@pytest.fixture(scope="module")
def profiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network with a latency table."""
    folder = new_project(tmp_path_factory.mktemp("profiled") / "p")
    (folder.parent / "net.py").write_text(NET)
    settings = (folder / "hwprune.toml").read_text()
    (folder / "hwprune.toml").write_text(settings.replace('"resnet20"', f'"{folder.parent}/net.py:net"'))
    profile(project=folder)
    return folder


@pytest.fixture(scope="module")
def finished(profiled: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, taken through every verb."""
    folder = Path(shutil.copytree(profiled, tmp_path_factory.mktemp("finished") / "p"))
    search(project=folder, latency="60%")
    train(project=folder)
    export(project=folder)
    return folder


def damaged(path: Path) -> None:
    """Change one letter or digit in the middle of a file: what a bad disk does."""
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    place = next((i for i in range(middle, len(content)) if chr(content[i]).isalnum()), middle)
    content[place] ^= 1
    path.write_bytes(content)


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> Path:
    """A finished project that a test may spoil."""
    return Path(shutil.copytree(finished, tmp_path / "copy"))


@pytest.mark.slow
@pytest.mark.parametrize(("verb", "name"), [(verb, name) for verb in READS for name in READS[verb]])
def test_a_damaged_byte_is_noticed_by_the_verb_that_reads_it(
    verb: str, name: str, copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (path,) = (copy / "hwprune-work").glob(name)
    damaged(path)
    code = main([verb, *OPTIONS.get(verb, []), "--project", str(copy)])
    text = capsys.readouterr().err
    assert code == 1, f"{verb} did not notice"
    assert path.name in text or path.parent.name == "fake"
    assert "do:" in text
    assert "Traceback" not in text


# Command -> file that it goes on from, and what must be gone for that.
AGAIN = {
    "search --latency 60%": ("search-*.jsonl", "answer-*.json"),
    "search --latency 50%": ("pruningnet-*.safetensors", ""),
    "train --point 1": ("front.json", ""),
}


@pytest.mark.slow
@pytest.mark.parametrize("command", AGAIN)
def test_a_damaged_byte_is_noticed_by_a_verb_that_goes_on_from_it(
    command: str, finished: Path, copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name, gone = AGAIN[command]
    for path in (copy / "hwprune-work").glob(gone or "nothing"):
        path.unlink()
    if name == "front.json":
        search(project=copy, latency="50%:60%", points=2, score="macs")
    (path,) = (copy / "hwprune-work").glob(name)
    damaged(path)
    assert main([*command.split(), "--project", str(copy)]) == 1
    text = capsys.readouterr().err
    assert path.name in text
    assert "do:" in text
    assert "Traceback" not in text


def test_a_damaged_graph_is_noticed_where_a_table_is_used(
    copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its operators, that is: values of weights play no part in a table."""
    table = copy / "hwprune-work" / "latency" / "fake"
    content = (table / "graph.onnx").read_bytes()
    (table / "graph.onnx").write_bytes(content.replace(b"Relu", b"Rel5", 1))
    assert main(["predict", "--table", str(table), "--uniform", "50%"]) == 1
    text = capsys.readouterr().err
    assert str(table) in text
    assert "do:" in text


def test_a_damaged_answer_of_an_earlier_search_is_found_again(finished: Path, copy: Path) -> None:
    (path,) = (copy / "hwprune-work").glob("answer-*.json")
    damaged(path)
    again = search(project=copy, latency="60%")
    assert again.widths == SearchResult.load(finished / "hwprune-work" / "search.json").widths


def test_damaged_evaluations_are_made_again(copy: Path, caplog: pytest.LogCaptureFixture) -> None:
    (path,) = (copy / "hwprune-work").glob("evaluations-*.jsonl")
    damaged(path)
    found = search(project=copy, latency="50%")
    assert found.met
    assert "candidates are evaluated again" in caplog.text


def test_a_damaged_answer_is_not_taken_for_the_result(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    damaged(copy / "pruned.onnx")
    found = collect(copy / "hwprune-work", copy)
    assert found.export is None, "a file of another digest is not the one that was measured"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A mounted disk of its own, which tests may fill or make read-only."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root can mount a disk, and not everywhere")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.slow
def test_a_full_disk_stops_a_search_with_a_message_and_loses_nothing(
    disk: Path, profiled: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    project = Path(shutil.copytree(profiled, disk / "p"))
    rest = disk / "rest"
    free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
    rest.write_bytes(bytes(free - 8192))
    command = ["search", "--latency", "60%", "--score", "macs", "--project", str(project)]
    assert main(command) == 1
    text = capsys.readouterr().err
    assert "free some space" in text
    assert "Traceback" not in text
    assert not list(project.rglob("*.hwprune-part"))
    TableFolder.load(project / "hwprune-work" / "latency" / "fake")
    rest.unlink()
    assert main(command) == 0
    assert SearchResult.load(project / "hwprune-work" / "search.json").met


@pytest.mark.slow
def test_a_disk_that_is_read_only_is_told_and_can_still_be_asked(
    disk: Path, profiled: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    project = Path(shutil.copytree(profiled, disk / "p"))
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    assert main(["search", "--latency", "60%", "--score", "macs", "--project", str(project)]) == 1
    text = capsys.readouterr().err
    assert "choose a folder on a disk that is not read-only" in text
    assert "Traceback" not in text
    assert main(["predict", "--uniform", "50%", "--project", str(project)]) == 0


@pytest.mark.slow
def test_a_clock_that_jumps_back_changes_no_result(
    profiled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    straight, jumping = (Path(shutil.copytree(profiled, tmp_path / name)) for name in ("straight", "jumping"))
    search(project=straight, latency="60%", score="macs")
    start, calls = time.time(), iter(range(10**9))
    monkeypatch.setattr(time, "time", lambda: start - 3600.0 * next(calls))
    search(project=jumping, latency="60%", score="macs")
    one, other = (SearchResult.load(p / "hwprune-work" / "search.json") for p in (straight, jumping))
    assert one.widths == other.widths
    assert one.figures == other.figures
    assert report(project=jumping).met
