"""Plans for target devices: complete, checked, and harmless whatever is in the file."""

from __future__ import annotations

import contextlib
import io
import json
import zipfile
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwprune.errors import HwpruneError
from hwprune.latency.bench import ROUND
from hwprune.latency.folder import TableFolder
from hwprune.latency.merge import merge
from hwprune.latency.plan import Plan, snapped
from hwprune.probe import main, probe


@pytest.fixture
def plan(chain, fake_profile):
    content, space = chain
    return Plan.draw(space, content, fake_profile, count=30, max_seconds=600.0, seed=3)


@pytest.fixture
def saved(plan, tmp_path):
    path = tmp_path / "out.hwplan"
    plan.save(path)
    return path


def test_a_plan_has_whole_rounds_over_the_whole_range(plan, chain):
    assert len(plan.networks) == -(-30 // ROUND) * ROUND
    space = chain[1]
    assert {space.full(), space.smallest()} <= set(plan.networks)
    assert len(set(plan.networks)) > 25


def test_round_trip(plan, saved):
    again = Plan.load(saved)
    assert again.space == plan.space
    assert again.base_onnx == plan.base_onnx
    assert again.networks == plan.networks
    assert again.profile.to_payload() == plan.profile.to_payload()


def test_widths_are_snapped_to_the_choices_of_the_device(chain):
    space = chain[1].with_choices(16)
    widths = snapped(space, tuple(group.width - 7 for group in chain[1].groups))
    assert space.check(widths) == widths
    assert all(width in group.choices for width, group in zip(widths, space.groups, strict=True))


def test_a_probe_writes_a_table_that_predicts_after_the_merge(plan, tmp_path):
    assert probe(plan, tmp_path / "table") == (len(plan.networks), 0)
    taken = merge([TableFolder.load(tmp_path / "table")])
    model = taken.model()
    assert model.relative_error < 0.01
    measured = taken.table.networks["latency_ms"].to_numpy()
    np.testing.assert_allclose(model.predict(taken.table.widths), measured, rtol=0.03)
    assert taken.table.provenance["prediction_error"]["held_out"] == len(plan.networks) // 4


def test_a_probe_goes_on_where_it_was_stopped(plan, tmp_path):
    def stop(done, total, /, **figures):
        if done == 2 * ROUND:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        probe(plan, tmp_path, stop)
    before = sorted(path.stat().st_mtime_ns for path in (tmp_path / "networks").glob("network-*"))
    assert len(before) == 2 * ROUND
    probe(plan, tmp_path)
    after = sorted(path.stat().st_mtime_ns for path in (tmp_path / "networks").glob("network-*"))
    assert after[: 2 * ROUND] == before, "nothing that was measured is measured again"
    assert len(after) == len(plan.networks)


def test_time_that_runs_out_leaves_a_smaller_table(plan, tmp_path):
    assert probe(replace(plan, max_seconds=1e-9), tmp_path) == (ROUND, 0)


def test_the_command_says_what_to_do_next(saved, capsys):
    assert main([str(saved)]) == 0
    captured = capsys.readouterr()
    assert "hwprune lut merge" in captured.out
    assert "32/32 networks" in captured.err
    assert TableFolder.load(saved.with_suffix(".table")).table.networks["latency_ms"].gt(0).all()


def test_the_command_explains_a_file_that_is_no_plan(tmp_path, capsys):
    assert main([str(tmp_path / "nothing.hwplan")]) == 1
    (tmp_path / "text.hwplan").write_text("hello")
    assert main([str(tmp_path / "text.hwplan")]) == 1
    text = capsys.readouterr().err
    assert "not there" in text
    assert "damaged" in text
    assert "Traceback" not in text


def zipped(files, compression=zipfile.ZIP_STORED):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in files:
            archive.writestr(name, content)
    return buffer.getvalue()


@pytest.mark.parametrize("name", ["../evil.onnx", "/etc/evil", "base.onnx/../../evil", "more.txt"])
def test_archives_with_other_members_are_refused_and_nothing_is_unpacked(saved, tmp_path, name):
    with zipfile.ZipFile(saved) as archive:
        files = [(info.filename, archive.read(info)) for info in archive.infolist()]
    saved.write_bytes(zipped([*files, (name, b"x")]))
    with pytest.raises(HwpruneError):
        Plan.load(saved)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.hwplan"]


def test_a_zip_bomb_is_refused_before_it_is_unpacked(saved):
    bomb = [("header.json", b"0" * 10**8), ("base.onnx", b"")]
    saved.write_bytes(zipped(bomb, zipfile.ZIP_DEFLATED))
    with pytest.raises(HwpruneError, match="damaged"):
        Plan.load(saved)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("networks", []),
        ("networks", [[1, 2]]),
        ("networks", [["a"] * 4]),
        ("max_seconds", -1),
        ("max_seconds", "soon"),
        ("snap", "yes"),
        ("seed", None),
        ("profile", {"name": "x", "runtime": "fake", "batch": -1}),
        ("space", {"model": "x"}),
    ],
)
def test_impossible_content_is_refused_even_with_a_right_checksum(saved, plan, key, value):
    from hwprune import artifacts

    content, files = artifacts.read_archive(saved, "profile-plan", 1, ("base.onnx",))
    artifacts.write_archive(saved, "profile-plan", 1, {**content, key: value}, files)
    with pytest.raises(HwpruneError):
        Plan.load(saved)


@settings(max_examples=150)
@given(data=st.data())
def test_only_documented_errors_come_out_of_mutated_plans(data, tmp_path_factory, chain, fake_profile):
    folder = tmp_path_factory.mktemp("fuzz")
    path = folder / "p.hwplan"
    Plan.draw(chain[1], chain[0], fake_profile, count=8, max_seconds=1.0).save(path)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    with contextlib.suppress(HwpruneError):
        Plan.load(path)
    assert [item.name for item in folder.iterdir()] == ["p.hwplan"]


def test_a_header_that_is_no_json_is_refused(saved):
    with zipfile.ZipFile(saved) as archive:
        base = archive.read("base.onnx")
    for header in (b"[1]", b"{}", b'{"payload": 3}', json.dumps({"kind": "x", "payload": {}}).encode()):
        saved.write_bytes(zipped([("header.json", header), ("base.onnx", base)]))
        with pytest.raises(HwpruneError):
            Plan.load(saved)
