"""Tables with their space and graph: kept together, merged, compared, validated."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hwprune.errors import ArtifactError, MismatchError, UsageError
from hwprune.latency.compare import compare, problems, summary
from hwprune.latency.folder import TableFolder
from hwprune.latency.merge import merge
from hwprune.latency.profiler import profile_space
from hwprune.runtimes.fake import FakeDevice, FakeRuntime
from hwprune.structure.onnx_graph import read_graph, without_weights


def run_of(chain, folder, *, seed=0, networks=32, profile, **device):
    content, space = chain
    runtime = FakeRuntime(FakeDevice(step=16, **device))
    table = profile_space(
        space, content, profile, runtime, folder=folder, seed=seed, max_error=1e-9, max_networks=networks
    )
    return TableFolder(table, space, without_weights(content))


@pytest.fixture(scope="module")
def two_runs(chain, fake_profile, tmp_path_factory):
    folders = [tmp_path_factory.mktemp(f"run{seed}") for seed in (0, 1)]
    return [run_of(chain, folder, seed=seed, profile=fake_profile) for seed, folder in enumerate(folders)]


def test_a_graph_without_weights_is_small_and_the_same_graph(chain):
    content, _ = chain
    bare = without_weights(content)
    assert len(bare) < len(content) / 10
    assert read_graph(bare) == read_graph(content)


def test_a_folder_round_trip_predicts_the_same(two_runs, tmp_path):
    one = two_runs[0]
    one.save(tmp_path)
    again = TableFolder.load(tmp_path)
    drawn = np.array([one.space.sample(np.random.default_rng(seed)) for seed in range(20)])
    np.testing.assert_allclose(again.model().predict(drawn), one.model().predict(drawn))


def test_files_of_different_tables_are_refused(two_runs, concat_net, tmp_path):
    two_runs[0].save(tmp_path)
    (tmp_path / "graph.onnx").write_bytes(without_weights(concat_net[0]))
    with pytest.raises(MismatchError, match="belong together"):
        TableFolder.load(tmp_path)
    (tmp_path / "graph.onnx").unlink()
    with pytest.raises(ArtifactError, match="not there"):
        TableFolder.load(tmp_path)


def test_merging_keeps_every_network_and_its_figures(two_runs):
    one, other = (part.table for part in two_runs)
    merged = merge(two_runs).table
    assert len(merged.networks) == len(one.networks) + len(other.networks)
    assert merged.networks["network"].is_unique
    np.testing.assert_array_equal(merged.widths, np.concatenate([one.widths, other.widths]))
    np.testing.assert_array_equal(merged.held_out, np.concatenate([one.held_out, other.held_out]))
    ratios = np.concatenate([one.networks["ratio"], other.networks["ratio"]])
    light_ms, heavy_ms = merged.units_ms
    share = merged.networks["share"]
    expected = ratios * light_ms ** (1 - share) * heavy_ms**share
    np.testing.assert_allclose(merged.networks["latency_ms"], expected)
    sums_ms = merged.kernels.groupby("network")["time_us"].sum() / 1e3 + merged.run_ms
    np.testing.assert_allclose(sums_ms, merged.networks.set_index("network")["latency_ms"])
    assert len(merged.kernels) == len(one.kernels) + len(other.kernels)


def test_a_merged_table_says_where_its_parts_come_from(two_runs):
    merged = merge(two_runs).table
    assert [part["seed"] for part in merged.provenance["merged_from"]] == [0, 1]
    assert sum(part["networks"] for part in merged.provenance["merged_from"]) == len(merged.networks)
    assert merged.provenance["prediction_error"]["held_out"] == merged.held_out.sum()


def test_merging_with_itself_changes_no_figure_of_a_network(two_runs):
    one = two_runs[0]
    merged = merge([one, one]).table
    count = len(one.table.kernels)
    for column in ("tensor", "op", "in_channels", "out_channels", "parts"):
        assert merged.kernels[column].tolist()[:count] == one.table.kernels[column].tolist()
    np.testing.assert_allclose(merged.kernels["time_us"][:count], one.table.kernels["time_us"])


def test_runs_under_different_conditions_are_refused_with_every_reason(two_runs, chain):
    one, other = two_runs
    table = other.table
    device = {**table.provenance["device"], "model": "abacus"}
    profile = {**table.provenance["profile"], "batch": 8}
    strange = replace(table, provenance={**table.provenance, "device": device, "profile": profile})
    with pytest.raises(MismatchError) as caught:
        merge([one, replace(other, table=strange)])
    assert "abacus" in str(caught.value)
    assert "batch: 1, not 8" in str(caught.value)
    with pytest.raises(UsageError):
        merge([])


def test_a_comparison_finds_a_device_that_is_slower(chain, fake_profile, two_runs, tmp_path):
    slow = run_of(chain, tmp_path, profile=fake_profile, macs_per_us=25_000.0)
    facts = compare(two_runs[0], slow)
    assert facts["latency_ratio_median"] > 1.2
    same = compare(*two_runs)
    assert same["conditions"] == []
    assert same["latency_ratio_median"] == pytest.approx(1.0, abs=0.02)


def test_a_table_that_holds_together_has_no_problems_and_a_spoilt_one_has(two_runs):
    one = two_runs[0]
    assert problems(one) == []
    kernels = one.table.kernels.copy()
    kernels.loc[kernels["network"] == 3, "time_us"] *= 1.1
    spoilt = replace(one, table=replace(one.table, kernels=kernels))
    assert any("network 3" in text for text in problems(spoilt))


def test_a_summary_names_units_and_origin(two_runs):
    facts = summary(two_runs[0])
    assert facts["networks"] == 32
    assert facts["fastest_ms"] < facts["slowest_ms"]
    assert set(facts["microseconds_by_family"]) <= set(facts["regressors"])
    total_ms = two_runs[0].table.networks["latency_ms"].mean()
    kernels_ms = sum(facts["microseconds_by_family"].values()) / 1e3
    assert kernels_ms + two_runs[0].table.run_ms == pytest.approx(total_ms, rel=1e-6)
