"""Readers of what other runs left: figures of `bench`, reports to compare, the owner of a lock."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING

import fuzz_seeds as seeds
from fuzz_files import at, bad_artifact
from fuzz_harness import Reader
from fuzz_mutator import sealed

from hwprune.errors import ArtifactError
from hwprune.gate.files import junit, markdown
from hwprune.gate.result import BenchResult
from hwprune.gate.words import headline
from hwprune.latency.table import condition_differences
from hwprune.project.lock import OWNER, _owner
from hwprune.report.compare import comparison, read_entry
from hwprune.report.facts import KIND, SCHEMA_VERSION
from hwprune.report.markdown import markdown as page
from hwprune.report.side_by_side import document
from hwprune.results import ExportResult, SearchResult, TrainResult
from hwprune.runtimes.probes import conv_chain
from hwprune.verbs.bench import bench

if TYPE_CHECKING:
    from pathlib import Path

_CONDITIONS = {
    "profile": seeds.PROFILE.to_payload(),
    "device": {"device": "cpu", "architecture": "x86_64", "model": "Pretended CPU", "cores": 2},
    "runtime": {"runtime": "fake", "version": "1.0"},
}
_DEVICE = {
    **_CONDITIONS,
    "name": "fake",
    "command": "hwprune profile",
    "settings": {},
    "libraries": {"numpy": "2.0"},
    "date": "2026-01-01T00:00:00+00:00",
}
_LOCK = {"pid": 7, "host": "here", "command": "hwprune profile", "started": "2026-01-01T00:00:00+00:00"}


def benches(sandbox: Path) -> tuple[bytes, ...]:
    """Figures of a network against a baseline, under all kinds of limits, and alone."""
    for name, layers in (("new", 2), ("old", 3)):
        (sandbox / f"{name}.onnx").write_bytes(conv_chain([16] * layers))
    (sandbox / "fake.toml").write_text('device = "cpu"\nruntime = "fake"\n')
    new, old, output, fake = (sandbox / name for name in ("new.onnx", "old.onnx", "bench.json", "fake.toml"))
    contents = []
    for more in ({"baseline": old, "max_regression": "5%", "budget": "15ms"}, {}):
        bench(new, profile=str(fake), output=output, **more)
        contents.append(output.read_bytes())
    for path in (new, old, output, fake):
        path.unlink()
    return tuple(contents)


def _read_bench(path: Path) -> None:
    """What every later run, and everybody who looks at it, does with it."""
    result = BenchResult.load(path)
    markdown(result).encode(), junit(result).encode(), headline(result).encode(), result.exit_code
    for pair in ((result.conditions, _CONDITIONS), (_CONDITIONS, result.conditions)):
        condition_differences(*pair)


def _reports() -> tuple[bytes, ...]:
    """Reports of a network that was exported, that was trained, and that was only searched."""
    found = {type(one): one for one in seeds.results()}
    search = asdict(replace(found[SearchResult], devices=(_DEVICE,)))
    train, export = asdict(found[TrainResult]), asdict(found[ExportResult])
    stages = ((train, export), (train, None), (None, None))
    return tuple(
        sealed(KIND, SCHEMA_VERSION, {"search": search, "train": train, "export": export})
        for train, export in stages
    )


def _read_report(path: Path, good: bytes) -> None:
    """Beside a good one, first and second."""
    other = path.with_name("good.json")
    other.write_bytes(good)
    entries = [read_entry("a", path), read_entry("b", other)]
    for pair in (entries, entries[::-1]):
        page(document(comparison(pair))).encode()


def _read_owner(path: Path) -> None:
    if _owner(path.parent) == "a process that has not signed":
        raise ArtifactError("Nobody is told to have the lock.")


def readers(sandbox: Path) -> list[Reader]:
    """All of them; seeds are written in the sandbox first."""
    reports = _reports()
    return [
        Reader(
            name="bench-result",
            seeds=benches(sandbox),
            mutate=bad_artifact,
            read=at("bench.json", _read_bench),
        ),
        Reader(
            name="report",
            seeds=reports,
            mutate=bad_artifact,
            read=at("report.json", lambda path: _read_report(path, reports[0])),
        ),
        Reader(
            name="lock-owner",
            seeds=(sealed("lock-owner", 1, _LOCK),),
            mutate=bad_artifact,
            read=at(OWNER, _read_owner),
        ),
    ]
