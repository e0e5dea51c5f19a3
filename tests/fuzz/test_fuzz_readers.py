"""Mutated inputs for every reader: a sample by default, more than 100,000 with `pytest -m fuzz`."""

from __future__ import annotations

import ctypes
import dataclasses
import importlib.util
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from fuzz_harness import MEMORY_BYTES, Reader, fuzz, watched
from fuzz_readers import SHARES, all_readers, counts

from hwprune.errors import UsageError

if TYPE_CHECKING:
    from random import Random

SAMPLE, WHOLE = 1_500, 100_000


@pytest.fixture(scope="session")
def readers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Reader]:
    return all_readers(tmp_path_factory.mktemp("seeds"))


def check(readers: dict[str, Reader], name: str, folder: Path, count: int, seed: int) -> None:
    others = tuple(content for reader in readers.values() for content in reader.seeds)
    outcome = fuzz(readers[name], folder, count=count, seed=seed, others=others)
    assert outcome.failures == []
    assert outcome.inputs == count
    assert outcome.refused, "mutations that never hurt test nothing"
    assert outcome.peak_mb < MEMORY_BYTES / 2**20


@pytest.mark.parametrize("name", SHARES)
def test_a_sample_gives_documented_errors_only(readers: dict[str, Reader], name: str, tmp_path: Path) -> None:
    check(readers, name, tmp_path, counts(SAMPLE)[name], seed=1)


@pytest.mark.fuzz
@pytest.mark.parametrize("name", SHARES)
def test_a_hundred_thousand_inputs_give_documented_errors_only(
    readers: dict[str, Reader], name: str, tmp_path: Path
) -> None:
    check(readers, name, tmp_path, counts(WHOLE)[name], seed=0)


def test_the_marked_run_has_enough_inputs() -> None:
    assert sum(counts(WHOLE).values()) >= WHOLE


def module_in(folder: Path) -> object:
    """Import a Python file that lies in a folder."""
    (folder / "foreign.py").write_text("")
    spec = importlib.util.spec_from_file_location("foreign", folder / "foreign.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("deed", "word"),
    [
        (lambda path: int("x"), "ValueError"),
        (lambda path: (path / "x").read_text(), "FileNotFoundError"),
        (lambda path: bytearray(2 * MEMORY_BYTES), "MemoryError"),
        (lambda path: (path.parent / "elsewhere").write_text("x"), "elsewhere"),
        (lambda path: Path("/etc/passwd").read_text(), "/etc/passwd"),
        (lambda path: os.mkdir(path.parent / "made"), "made"),
        (lambda path: subprocess.run(["true"], check=True), "subprocess.Popen"),
        (lambda path: os.spawnv(os.P_WAIT, "/bin/true", ["true"]), "os."),
        (lambda path: ctypes.CDLL(None), "ctypes.dlopen"),
        (lambda path: eval("1 + 1"), "exec"),
        (lambda path: exec(b"1 + 1"), "exec"),
        (lambda path: compile("1 + 1", dataclasses.__file__, "eval"), "compile"),
        (lambda path: module_in(path), "exec"),
    ],
)
def test_a_bad_reader_would_be_seen(tmp_path: Path, deed: object, word: str) -> None:
    sandbox = tmp_path / "sandbox"
    sandbox.mkdir()

    def read(path: Path, content: bytes) -> None:
        if content == b"bad":
            deed(path)  # type: ignore[operator]

    def mutate(rng: Random, content: bytes) -> bytes:
        return b"bad"

    outcome = fuzz(Reader(name="bad", seeds=(b"good",), mutate=mutate, read=read), sandbox, count=1)
    assert len(outcome.failures) == 1
    assert word in outcome.failures[0]
    assert outcome.accepted + outcome.refused == 0


def test_a_documented_error_is_no_failure_and_inputs_can_be_made_again(tmp_path: Path) -> None:
    seen = []

    def read(path: Path, content: bytes) -> None:
        seen.append(content)
        if content != b"good":
            raise UsageError("No.")

    def mutate(rng: Random, content: bytes) -> bytes:
        return rng.randbytes(8)

    reader = Reader(name="r", seeds=(b"good",), mutate=mutate, read=read)
    assert fuzz(reader, tmp_path, count=5).refused == 5
    first = seen[1:]
    seen.clear()
    fuzz(reader, tmp_path, count=2, first=3)
    assert seen[1:] == first[3:]


def test_nothing_is_watched_afterwards(tmp_path: Path) -> None:
    with watched(tmp_path / "sandbox") as seen:
        pass
    (tmp_path / "x").write_text("x")
    assert seen == []
