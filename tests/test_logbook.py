from __future__ import annotations

import errno

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwprune import artifacts, logbook
from hwprune.errors import ArtifactError, MismatchError, StorageError
from hwprune.logbook import Logbook

HEAD = {"seed": 0, "groups": [["a", "1 2"]]}
ENTRIES = [{"asked": ["1 2", "3 4"]}, {"score": 0.5}, {"closed": None}]


def book(path, head=HEAD, **options):
    return Logbook(path, "test-log", 1, head, **options)


def written(path, entries=ENTRIES):
    one = book(path)
    for entry in entries:
        one.add(entry)
    return path


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.lists(JSON, min_size=1, max_size=5))
def test_what_was_added_is_read_again(tmp_path_factory, entries):
    path = written(tmp_path_factory.mktemp("book") / "log.jsonl", entries)
    assert book(path).entries == entries


def test_there_is_no_file_before_the_first_entry(tmp_path):
    one = book(tmp_path / "log.jsonl")
    assert list(tmp_path.iterdir()) == []
    one.add(1)
    assert book(tmp_path / "log.jsonl").entries == [1]


def test_wherever_writing_breaks_off_the_entries_before_are_kept_and_it_goes_on(tmp_path):
    whole = written(tmp_path / "log.jsonl").read_bytes()
    lines = whole.splitlines(keepends=True)
    for cut in range(len(lines[0]), len(whole)):
        path = tmp_path / "cut.jsonl"
        path.write_bytes(whole[:cut])
        one = book(path)
        kept = whole[:cut].count(b"\n") - 1
        assert one.entries == ENTRIES[:kept]
        for entry in ENTRIES[kept:]:
            one.add(entry)
        assert path.read_bytes() == whole


def test_a_file_without_a_whole_header_is_refused(tmp_path):
    path = written(tmp_path / "log.jsonl")
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(ArtifactError, match="damaged"):
        book(path)


def test_any_altered_byte_before_the_last_line_is_found(tmp_path):
    content = written(tmp_path / "log.jsonl").read_bytes()
    for place in range(content[:-1].rindex(b"\n")):
        altered = bytearray(content)
        altered[place] ^= 1
        (tmp_path / "log.jsonl").write_bytes(altered)
        with pytest.raises((ArtifactError, MismatchError)):
            book(tmp_path / "log.jsonl")


def test_a_damaged_last_line_is_left_out(tmp_path):
    path = written(tmp_path / "log.jsonl")
    path.write_bytes(path.read_bytes().replace(b"null", b"true"))
    assert book(path).entries == ENTRIES[:-1]


def test_another_head_is_refused_and_named(tmp_path):
    path = written(tmp_path / "log.jsonl")
    with pytest.raises(MismatchError) as caught:
        book(path, {**HEAD, "seed": 1})
    assert caught.value.got == "another seed"
    assert caught.value.where == path
    with pytest.raises(MismatchError) as caught:
        Logbook(path, "test-log", 2, HEAD)
    assert caught.value.got == "another schema version"
    with pytest.raises(ArtifactError, match="damaged"):
        Logbook(path, "other-log", 1, HEAD)


def test_afresh_leaves_the_file_until_the_first_entry(tmp_path):
    path = written(tmp_path / "log.jsonl")
    one = book(path, {"seed": 5}, afresh=True)
    assert book(path).entries == ENTRIES
    one.add(7)
    assert book(path, {"seed": 5}).entries == [7]


def test_after_a_full_disk_the_next_entry_takes_the_place_of_the_half_written_one(tmp_path, monkeypatch):
    path = written(tmp_path / "log.jsonl")
    one = book(path)

    def half(place, content, size):
        with open(place, "ab") as file:
            file.write(content[:5])
        raise StorageError("full", got=errno.ENOSPC)

    with monkeypatch.context() as patch:
        patch.setattr(artifacts, "append_bytes", half)
        with pytest.raises(StorageError):
            one.add("lost")
    one.add("kept")
    assert book(path).entries == [*ENTRIES, "kept"]
    assert logbook.read(path)[2] == path.stat().st_size
