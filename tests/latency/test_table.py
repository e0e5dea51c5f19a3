from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from hwprune.environment import device_fingerprint
from hwprune.errors import ArtifactError, MismatchError, MissingArtifactError
from hwprune.latency.profiler import profile_space
from hwprune.latency.table import (
    KERNEL_COLUMNS,
    NETWORK_COLUMNS,
    LatencyTable,
    _check_provenance,
    condition_differences,
)
from hwprune.runtimes.fake import FakeDevice, FakeRuntime


@pytest.fixture
def saved(quiet_table, tmp_path):
    quiet_table.save(tmp_path)
    return tmp_path


def test_columns_are_documented_and_in_the_file(quiet_table, saved):
    assert list(quiet_table.kernels) == list(KERNEL_COLUMNS)
    assert list(quiet_table.networks) == list(NETWORK_COLUMNS)
    written = json.loads((saved / "table.json").read_text())["payload"]["columns"]
    assert written == {"kernels": KERNEL_COLUMNS, "networks": NETWORK_COLUMNS}
    assert all("microseconds" in KERNEL_COLUMNS[name] for name in KERNEL_COLUMNS if name.endswith("_us"))


def test_provenance_says_where_the_figures_come_from(quiet_table):
    where = {"profile", "device", "runtime", "libraries", "space", "graph", "fusion", "reference"}
    how = {"seed", "date", "noise", "prediction_error", "regressors", "regressor_errors", "judgement", "load"}
    assert where | how <= set(quiet_table.provenance)
    assert quiet_table.provenance["device"] == device_fingerprint("cpu")
    assert quiet_table.reference_ms > 0
    assert quiet_table.seconds > 0


def test_round_trip(quiet_table, saved):
    loaded = LatencyTable.load(saved)
    assert loaded.specs() == quiet_table.specs()
    np.testing.assert_array_equal(loaded.widths, quiet_table.widths)
    np.testing.assert_allclose(loaded.kernels["time_us"], quiet_table.kernels["time_us"])
    assert loaded.provenance == json.loads(json.dumps(dict(quiet_table.provenance)))
    assert loaded.fusion == quiet_table.fusion


def test_kernels_of_each_network_add_up_to_its_latency(quiet_table):
    sums_ms = quiet_table.kernels.groupby("network")["time_us"].sum() / 1e3 + quiet_table.run_ms
    np.testing.assert_allclose(sums_ms, quiet_table.networks.set_index("network")["latency_ms"])


def test_missing_and_damaged_tables(saved, tmp_path_factory):
    with pytest.raises(MissingArtifactError, match="not there") as missing:
        LatencyTable.load(tmp_path_factory.mktemp("empty"))
    assert "hwprune profile" in str(missing.value)
    text = (saved / "kernels.csv").read_text()
    (saved / "kernels.csv").write_text(text[: len(text) // 2])
    with pytest.raises(ArtifactError, match="damaged"):
        LatencyTable.load(saved)
    (saved / "kernels.csv").unlink()
    with pytest.raises(MissingArtifactError):
        LatencyTable.load(saved)


@pytest.mark.parametrize(
    ("frame", "column", "value"),
    [
        ("kernels", "time_us", -1.0),
        ("networks", "latency_ms", 0.0),
        ("kernels", "in_channels", np.inf),
        ("networks", "widths", "1 x"),
        ("networks", "ratio", 0.0),
        ("networks", "share", 1.5),
        ("networks", "network", 1),
        ("kernels", "parts", 1e12),
        ("kernels", "groups", 0),
        ("kernels", "precision", "fp7"),
        ("kernels", "network", 10_000),
    ],
)
def test_impossible_figures_are_refused(quiet_table, tmp_path, frame, column, value):
    broken = getattr(quiet_table, frame).copy().astype({column: object})
    broken.loc[0, column] = value
    replace(quiet_table, **{frame: broken}).save(tmp_path)
    with pytest.raises(ArtifactError):
        LatencyTable.load(tmp_path)


@pytest.mark.parametrize("key", ["fusion", "profile", "reference"])
def test_missing_provenance_is_refused(quiet_table, tmp_path, key):
    replace(quiet_table, provenance={k: v for k, v in quiet_table.provenance.items() if k != key}).save(
        tmp_path
    )
    with pytest.raises(ArtifactError):
        LatencyTable.load(tmp_path)


def test_a_table_of_the_same_conditions_is_accepted(quiet_table, chain, fake_profile):
    _, space = chain
    quiet_table.check_matches(fake_profile, FakeRuntime(), space)
    quiet_table.check_matches(replace(fake_profile, name="renamed"), FakeRuntime(), space.with_choices(8))


def test_every_difference_is_named(quiet_table, chain, fake_profile):
    _, space = chain
    other_device = {**device_fingerprint(), "model": "Another CPU"}
    other_space = replace(space, model="other", groups=space.groups[:-1])
    with pytest.raises(MismatchError) as raised:
        quiet_table.check_matches(
            replace(fake_profile, batch=8, threads=4), NextMajor(), other_space, device=other_device
        )
    text = str(raised.value)
    for words in (
        "batch: 1, not 8",
        "threads: 1, not 4",
        "Another CPU",
        "fake 1, not fake 2",
        "not this other",
    ):
        assert words in text
    assert "hwprune profile" in text


class NextMajor(FakeRuntime):
    def describe(self):
        return {**super().describe(), "version": "2.0"}


def test_drift_is_the_spread_of_the_reference_over_the_sessions(quiet_table):
    assert quiet_table.drift == pytest.approx(0.0, abs=1e-6)
    networks = quiet_table.networks.copy()
    steps = np.where(np.arange(len(networks)) % 2, 0.99, 1.01)
    networks["reference_ms"] = quiet_table.reference_ms * steps
    assert replace(quiet_table, networks=networks).drift == pytest.approx(0.0148, rel=0.02)


def test_pressure_is_how_far_small_and_large_networks_drift_apart(quiet_table):
    assert quiet_table.contention == pytest.approx(0.0, abs=1e-6)
    networks, (light, heavy) = quiet_table.networks.copy(), quiet_table.units_ms
    steps = np.where(np.arange(len(networks)) % 2, 0.99, 1.01)
    networks["reference_ms"], networks["heavy_ms"] = light * steps, heavy * steps
    assert replace(quiet_table, networks=networks).contention == pytest.approx(0.0, abs=1e-6), "both alike"
    networks["reference_ms"] = light
    spread = 1.4826 * 0.01  # of the heavy one's latency over the light one's
    expected = spread / np.log(heavy / light)
    assert replace(quiet_table, networks=networks).contention == pytest.approx(expected, rel=0.02)
    networks["reference_ms"] = heavy  # references alike cannot tell
    assert replace(quiet_table, networks=networks).contention == 0


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [("1.31.1", "1.31.9", True), ("1.31.1", "1.32.0", False), ("11.0.1", "11.0.4", True)],
)
def test_runtimes_change_their_kernels_with_the_second_part_of_the_version(quiet_table, one, other, same):
    def under(version):
        runtime = {**quiet_table.provenance["runtime"], "version": version}
        return {**quiet_table.provenance, "runtime": runtime}

    assert (condition_differences(under(one), under(other)) == []) is same


def test_cores_count_only_where_a_run_takes_all_of_them(quiet_table):
    where = quiet_table.provenance
    more = {**where, "device": {**where["device"], "physical_cores": 999}}
    assert condition_differences(where, more) == []
    all_cores = {"profile": {**where["profile"], "threads": 0}}
    assert any("999" in text for text in condition_differences({**where, **all_cores}, {**more, **all_cores}))


def test_a_space_of_one_group_has_a_table_too(tmp_path, net_of, fake_profile):
    content, space = net_of((3, 64, 10))
    runtime = FakeRuntime(FakeDevice(step=16))
    table = profile_space(space, content, fake_profile, runtime, folder=tmp_path, max_networks=16)
    assert len(space.groups) == 1
    np.testing.assert_array_equal(LatencyTable.load(tmp_path).widths, table.widths)


@pytest.mark.parametrize("builds", [[], {"spread": "much"}, {"spread": -0.1}, {"spread": float("nan")}])
def test_a_spread_of_builds_that_cannot_be_is_refused(quiet_table, builds):
    _check_provenance({**quiet_table.provenance, "builds": {"spread": 0.02}})
    assert quiet_table.build_spread == 0.0  # this device builds nothing
    with pytest.raises(ValueError, match="builds"):
        _check_provenance({**quiet_table.provenance, "builds": builds})
