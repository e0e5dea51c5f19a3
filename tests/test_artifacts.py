from __future__ import annotations

import contextlib
import errno
import json
import os
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import safetensors
import torch
from hypothesis import given
from hypothesis import strategies as st

from hwprune import artifacts
from hwprune.errors import ArtifactError, MismatchError, MissingArtifactError, StorageError

numbers = st.integers(-(2**60), 2**60) | st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(
    st.none() | st.booleans() | numbers | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)
payloads = st.dictionaries(st.text(max_size=6), values, max_size=5)


@pytest.fixture
def tiny_disk(tmp_path):
    """A disk of 64 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() != 0:
        pytest.skip("only root can mount a tiny disk")
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("this machine does not let us mount a tiny disk")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


@given(payloads)
def test_json_comes_back_bit_for_bit(payload):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.json"
        artifacts.write_json(path, "kind", 1, payload)
        assert artifacts.read_json(path, "kind", 1) == payload
        assert names(Path(folder)) == ["a.json"]


def test_number_keys_and_tuples_become_what_json_has(tmp_path):
    path = tmp_path / "a.json"
    artifacts.write_json(path, "kind", 1, {"table": {2: "two", 10: "ten"}, "pair": (1, 2)})
    assert artifacts.read_json(path, "kind", 1) == {"table": {"2": "two", "10": "ten"}, "pair": [1, 2]}


def test_numbers_that_json_lacks_are_never_written(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        artifacts.write_json(tmp_path / "a.json", "kind", 1, {"x": float("nan")})
    assert names(tmp_path) == []


def test_folders_are_made_as_needed_and_the_file_is_plain_json(tmp_path):
    path = tmp_path / "a" / "b" / "c.json"
    artifacts.write_json(path, "kind", 3, {"x": [1, 2.5]})
    file = json.loads(path.read_text())
    assert (file["kind"], file["schema_version"], file["payload"]) == ("kind", 3, {"x": [1, 2.5]})
    assert path.stat().st_mode & 0o777 == 0o644


def test_any_truncation_of_a_json_file_is_noticed(tmp_path):
    path = tmp_path / "a.json"
    artifacts.write_json(path, "kind", 1, {"x": [1, 2, 3], "name": "stem"})
    whole = path.read_bytes()
    for length in range(len(whole) - 2):  # the last two bytes are a brace and a line end
        path.write_bytes(whole[:length])
        with pytest.raises(ArtifactError, match="damaged"):
            artifacts.read_json(path, "kind", 1)


def test_any_altered_byte_of_a_json_file_is_noticed_or_changes_nothing(tmp_path):
    path, payload = tmp_path / "a.json", {"x": [1, 2, 3], "name": "stem"}
    artifacts.write_json(path, "kind", 1, payload)
    whole = path.read_bytes()
    for position in range(len(whole)):
        for other in (0x00, 0x20, 0x31, 0xFF):
            path.write_bytes(whole[:position] + bytes([other]) + whole[position + 1 :])
            with contextlib.suppress(ArtifactError):
                assert artifacts.read_json(path, "kind", 1) == payload


@pytest.mark.parametrize(
    "content",
    [
        *[b"", b"[]", b"null", b"{}", b'{"payload": []}', b"\xff\xfe", b"[" * 100_000, b"9" * 10_000],
        *[b'{"payload": {}, "kind": []}', b'{"payload": {"a": NaN}, "kind": "kind", "schema_version": 1}'],
    ],
)
def test_a_file_that_is_not_ours_is_refused(tmp_path, content):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match="damaged") as caught:
        artifacts.read_json(path, "kind", 1, made_by="hwprune search")
    assert "hwprune search" in str(caught.value.do)
    assert path.read_bytes() == content


def test_another_kind_or_schema_version_is_told_apart_from_damage(tmp_path):
    path = tmp_path / "a.json"
    artifacts.write_json(path, "kind", 1, {})
    with pytest.raises(MismatchError, match="schema version") as caught:
        artifacts.read_json(path, "kind", 2)
    assert (caught.value.got, caught.value.allowed) == (1, 2)
    with pytest.raises(ArtifactError, match="damaged") as other:
        artifacts.read_json(path, "another", 1)
    assert "'kind'" in str(other.value.got)


def test_a_missing_file_names_the_command_that_makes_it(tmp_path):
    for read in (
        lambda p, m: artifacts.read_json(p, "k", 1, m),
        lambda p, m: artifacts.read_tensors(p, "k", 1, m),
    ):
        with pytest.raises(MissingArtifactError) as caught:
            read(tmp_path / "table.json", "hwprune profile")
        assert caught.value.do == "run `hwprune profile` first"


def test_a_file_above_its_limit_is_not_read(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"12345")
    assert artifacts.read_bytes(path, limit=5) == b"12345"
    with pytest.raises(ArtifactError, match="too large"):
        artifacts.read_bytes(path, limit=4)


def test_a_table_comes_back_with_every_digit(tmp_path):
    path = tmp_path / "t.csv"
    table = pd.DataFrame({"op": ["conv", "", "add"], "us": [0.1 + 0.2, 1e-17, np.nan], "n": [1, 2, 3]})
    checksum = artifacts.write_csv(path, table, table.itertuples(index=False, name=None))
    pd.testing.assert_frame_equal(artifacts.read_table(path, checksum), table, check_exact=True)


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=20))
def test_floats_in_tables_are_exact(figures):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "t.csv"
        checksum = artifacts.write_csv(path, ["us"], ((figure,) for figure in figures))
        assert artifacts.read_table(path, checksum)["us"].tolist() == figures


def test_an_altered_or_empty_table_is_refused(tmp_path):
    path = tmp_path / "t.csv"
    checksum = artifacts.write_csv(path, ["us"], [(1.0,), (2.0,)])
    path.write_bytes(path.read_bytes().replace(b"2.0", b"3.0"))
    with pytest.raises(ArtifactError, match="damaged"):
        artifacts.read_table(path, checksum)
    path.write_bytes(b"")
    with pytest.raises(ArtifactError, match="damaged"):
        artifacts.read_table(path, artifacts.sha256(b""))


TENSORS = {
    "weight": torch.arange(6, dtype=torch.float32).reshape(2, 3),
    "scale": torch.tensor(0.5, dtype=torch.bfloat16),
    "count": torch.tensor([1, 2, 3]),
    "empty": torch.zeros(0, 4),
    "mask": torch.tensor([True, False]),
}


def test_tensors_come_back_bit_for_bit_with_their_info(tmp_path):
    path = tmp_path / "w.safetensors"
    info = {"widths": [8, 16], "accuracy": 0.1 + 0.2, "nested": {"a": None}}
    artifacts.write_tensors(path, "weights", 1, TENSORS, info)
    tensors, found = artifacts.read_tensors(path, "weights", 1)
    assert found == info
    assert tensors.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert tensors[name].dtype == tensor.dtype
        assert torch.equal(tensors[name], tensor)


def test_views_that_share_memory_and_gradients_can_be_written(tmp_path):
    base = torch.arange(12.0, requires_grad=True)
    views = {"a": base.reshape(3, 4).t(), "b": base[2:5]}
    artifacts.write_tensors(tmp_path / "w", "weights", 1, views, {})
    tensors, _ = artifacts.read_tensors(tmp_path / "w", "weights", 1)
    assert torch.equal(tensors["a"], views["a"])
    assert torch.equal(tensors["b"], views["b"])


def test_any_altered_byte_of_a_tensor_file_is_noticed_or_changes_nothing(tmp_path):
    path = tmp_path / "w.safetensors"
    artifacts.write_tensors(path, "weights", 1, TENSORS, {"accuracy": 0.9})
    whole = path.read_bytes()
    caught = 0
    for position in range(len(whole)):
        for other in (0x20, 0x31, 0xFF):
            path.write_bytes(whole[:position] + bytes([other]) + whole[position + 1 :])
            try:
                tensors, info = artifacts.read_tensors(path, "weights", 1)
            except ArtifactError:
                caught += 1
            else:
                assert info == {"accuracy": 0.9}
                assert all(torch.equal(tensors[name], TENSORS[name]) for name in TENSORS)
    assert caught > 2 * len(whole)


def test_a_truncated_tensor_file_is_refused(tmp_path):
    path = tmp_path / "w.safetensors"
    artifacts.write_tensors(path, "weights", 1, TENSORS, {})
    whole = path.read_bytes()
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        with pytest.raises(ArtifactError, match="damaged"):
            artifacts.read_tensors(path, "weights", 1)


def test_tensors_of_another_kind_or_version_are_refused(tmp_path):
    path = tmp_path / "w.safetensors"
    artifacts.write_tensors(path, "weights", 1, TENSORS, {})
    with pytest.raises(MismatchError):
        artifacts.read_tensors(path, "weights", 2)
    with pytest.raises(ArtifactError, match="damaged"):
        artifacts.read_tensors(path, "checkpoint", 1)


def test_a_pickle_is_never_executed(tmp_path):
    import pickle

    class Bomb:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "exploded"),))

    path = tmp_path / "w.pt"
    path.write_bytes(pickle.dumps(Bomb()))
    for read in (artifacts.read_json, artifacts.read_tensors):
        with pytest.raises(ArtifactError):
            read(path, "weights", 1)
    assert names(tmp_path) == ["w.pt"]


def test_a_full_disk_keeps_the_old_file_and_leaves_no_rest(tiny_disk):
    path = tiny_disk / "a.json"
    artifacts.write_json(path, "kind", 1, {"x": 1})
    with pytest.raises(StorageError) as caught:
        artifacts.write_json(path, "kind", 1, {"x": list(range(50_000))})
    assert "free some space" in str(caught.value.do)
    assert caught.value.where == path
    assert artifacts.read_json(path, "kind", 1) == {"x": 1}
    assert names(tiny_disk) == ["a.json"]


@pytest.mark.parametrize(
    ("number", "do"),
    [
        (errno.ENOSPC, "free some space"),
        (errno.EDQUOT, "quota"),
        (errno.EROFS, "not read-only"),
        (errno.EIO, "check that path"),
    ],
)
@pytest.mark.parametrize("function", ["fsync", "replace"])
def test_a_refusal_at_the_last_moment_keeps_the_old_file(tmp_path, monkeypatch, number, do, function):
    path = tmp_path / "a.json"
    artifacts.write_json(path, "kind", 1, {"x": 1})

    def refuse(*args):
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patched:
        patched.setattr(os, function, refuse)
        with pytest.raises(StorageError) as caught:
            artifacts.write_json(path, "kind", 1, {"x": 2})
    assert do in str(caught.value.do)
    assert os.strerror(number) in str(caught.value)
    assert artifacts.read_json(path, "kind", 1) == {"x": 1}
    assert names(tmp_path) == ["a.json"]


def test_ctrl_c_while_writing_leaves_no_rest(tmp_path, monkeypatch):
    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        artifacts.write_json(tmp_path / "a.json", "kind", 1, {})
    assert names(tmp_path) == []


def test_a_folder_that_may_not_be_written_to_is_said(read_only_folder):
    with pytest.raises(StorageError) as caught:
        artifacts.write_json(read_only_folder / "a.json", "kind", 1, {})
    assert "may write to" in str(caught.value.do)
    with pytest.raises(StorageError):
        artifacts.write_json(read_only_folder / "new" / "a.json", "kind", 1, {})
    assert names(read_only_folder) == []


def test_a_file_behind_a_locked_folder_is_no_crash(locked_folder):
    with pytest.raises(StorageError) as caught:
        artifacts.read_json(locked_folder / "a.json", "kind", 1)
    assert "permissions" in str(caught.value.do)


def test_a_file_where_a_folder_should_be_is_said(tmp_path):
    (tmp_path / "runs").write_text("a file")
    with pytest.raises(StorageError):
        artifacts.write_json(tmp_path / "runs" / "a.json", "kind", 1, {})
    assert (tmp_path / "runs").read_text() == "a file"


def test_tensors_are_written_from_where_they_lie(tmp_path):
    whole, part = torch.arange(6.0), torch.arange(8.0)
    tensors = {"whole": whole, "first": part[:4], "again": part, "twice": whole, "turned": part.view(2, 4).T}
    plain = artifacts._apart(tensors)
    assert plain["whole"].data_ptr() == whole.data_ptr()
    assert len({tensor.untyped_storage().data_ptr() for tensor in plain.values()}) == len(tensors)
    artifacts.write_tensors(tmp_path / "t.safetensors", "test", 1, tensors, {"a": 1})
    read, info = artifacts.read_tensors(tmp_path / "t.safetensors", "test", 1)
    assert info == {"a": 1}
    assert all(torch.equal(read[name], tensor) for name, tensor in tensors.items())
    assert [path.name for path in tmp_path.iterdir()] == ["t.safetensors"]


def test_a_full_disk_leaves_the_old_tensors(tmp_path, monkeypatch):
    path = tmp_path / "t.safetensors"
    artifacts.write_tensors(path, "test", 1, {"a": torch.zeros(3)}, {})
    before = path.read_bytes()

    def refuse(*args, **kwargs):
        raise safetensors.SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("safetensors.torch.save_file", refuse)
    with pytest.raises(StorageError) as caught:
        artifacts.write_tensors(path, "test", 1, {"a": torch.ones(3)}, {})
    assert "free some space" in caught.value.do
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
