from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from hwprune.environment import device_fingerprint
from hwprune.errors import DeviceError, HwpruneWarning, MismatchError, UsageError
from hwprune.latency import bench
from hwprune.latency.bench import ROUND, is_held_out
from hwprune.latency.profiler import MIN_NETWORKS, profile_space
from hwprune.latency.records import Journal, steady
from hwprune.latency.table import LatencyTable
from hwprune.runtimes.fake import FakeDevice, FakeRuntime


class Counting(FakeRuntime):
    """Counts what it compiles, and dies at the asked profile."""

    def __init__(self, dies_at: int | None = None, **device) -> None:
        super().__init__(FakeDevice(**device))
        self.compiled: list[bytes] = []
        self.profiled = 0
        self.dies_at = dies_at

    def _compile(self, onnx, profile):
        self.compiled.append(onnx)
        return super()._compile(onnx, profile)

    def _profile_kernels(self, onnx, profile, runs):
        self.profiled += 1
        if self.profiled == self.dies_at:
            raise DeviceError("The device went away.")
        return super()._profile_kernels(onnx, profile, runs)


def profiled(chain, fake_profile, folder, runtime=None, **settings):
    content, space = chain
    settings = {"max_seconds": 60.0, "max_error": 0.05, "seed": 1, **settings}
    return profile_space(space, content, fake_profile, runtime or Counting(), folder=folder, **settings)


def test_it_stops_at_the_asked_error(chain, fake_profile, tmp_path):
    table = profiled(chain, fake_profile, tmp_path)
    assert len(table.networks) == MIN_NETWORKS
    assert table.provenance["prediction_error"]["interval_95"][1] <= 0.05
    assert table.held_out.sum() == sum(map(is_held_out, range(MIN_NETWORKS))) > 0
    assert len({tuple(widths) for widths in table.widths.tolist()}) > 0.8 * MIN_NETWORKS


def test_it_stops_when_the_time_is_over(chain, fake_profile, tmp_path):
    table = profiled(chain, fake_profile, tmp_path, max_seconds=1e-6, max_error=1e-9)
    assert len(table.networks) == ROUND


@pytest.mark.parametrize("device", ["cuda:0", "cpu"])
def test_builds_for_a_gpu_are_no_device_time(chain, fake_profile, tmp_path, monkeypatch, device):
    clock = {"s": 0.0}
    monkeypatch.setattr(bench, "time", SimpleNamespace(perf_counter=lambda: clock["s"]))

    class Building(Counting):
        def _compile(self, onnx, profile):
            clock["s"] += 30.0
            return super()._compile(onnx, profile)

        def _profile_kernels(self, onnx, profile, runs):
            clock["s"] += 10.0  # a process of its own
            return super()._profile_kernels(onnx, profile, runs)

    told = {}
    table = profiled(
        chain,
        replace(fake_profile, device=device),
        tmp_path,
        Building(),
        max_networks=2 * ROUND,
        max_seconds=60.0,
        max_error=1e-9,
        progress=lambda done, total, **figures: told.update(figures),
    )
    (record, *_) = Journal(tmp_path / "networks", table.provenance).load()
    if device == "cpu":
        assert len(table.networks) == ROUND
        assert (record.seconds, record.preparing) == (40.0, 0.0)
        assert "preparing_seconds" not in told
    else:
        assert len(table.networks) == 2 * ROUND
        assert record.seconds < 1.0
        assert told["preparing_seconds"] == pytest.approx(2 * ROUND * 40.0, rel=0.01)


def test_a_table_is_kept_when_builds_cannot_be_compared(chain, fake_profile, tmp_path, caplog):
    class Building(Counting):
        medians = (1.0, 1.1, 0.9)

        def rebuild(self, onnx, profile, *, builds=5, runs=50):
            if not self.medians:
                raise DeviceError("The device went away.")
            assert builds == len(self.medians)
            return np.array(self.medians)

    few = {"max_networks": ROUND, "max_error": 1e-9}
    assert "builds" not in profiled(chain, fake_profile, tmp_path / "none", **few).provenance
    table = profiled(chain, fake_profile, tmp_path / "some", Building(), **few)
    assert table.provenance["builds"]["median_ms"] == [1.0, 1.1, 0.9]
    assert LatencyTable.load(tmp_path / "some").build_spread == pytest.approx(0.1)
    failing = Building()
    failing.medians = ()
    assert len(profiled(chain, fake_profile, tmp_path / "failed", failing, **few).networks) == ROUND
    assert "could not be measured: The device went away." in caplog.text


def test_a_network_whose_kernels_were_not_recorded_counts_with_its_latency_alone(
    chain, fake_profile, tmp_path
):
    class Losing(Counting):
        def _profile_kernels(self, onnx, profile, runs):
            found = super()._profile_kernels(onnx, profile, runs)
            return [] if self.profiled == 3 else found

    table = profiled(chain, fake_profile, tmp_path, Losing(), max_networks=MIN_NETWORKS)
    assert 2 in set(table.networks["network"])
    assert 2 not in set(table.kernels["network"])


def test_a_killed_profile_goes_on_without_repeating_anything(chain, fake_profile, tmp_path):
    with pytest.raises(DeviceError, match="went away"):
        profiled(chain, fake_profile, tmp_path, Counting(dies_at=2 * ROUND + 3))
    kept = sorted(path.name for path in (tmp_path / "networks").glob("network-*.json"))
    done = 2 * ROUND + 2  # two rounds, and what was profiled of the third
    assert len(kept) == done
    before = {name: (tmp_path / "networks" / name).read_bytes() for name in kept}
    second = Counting()
    table = profiled(chain, fake_profile, tmp_path, second)
    assert second.profiled == len(table.networks) - done
    assert {name: (tmp_path / "networks" / name).read_bytes() for name in kept} == before
    assert sorted(table.networks["network"]) == list(range(len(table.networks)))


def test_a_finished_profile_is_not_measured_again_but_can_be_extended(chain, fake_profile, tmp_path):
    first = profiled(chain, fake_profile, tmp_path)
    idle = Counting()
    again = profiled(chain, fake_profile, tmp_path, idle)
    assert idle.compiled == []
    assert again.networks.equals(LatencyTable.load(tmp_path).networks)
    more = profiled(chain, fake_profile, tmp_path, max_error=1e-9, max_networks=len(first.networks) + 1)
    assert len(more.networks) == len(first.networks) + ROUND


def test_a_damaged_record_is_measured_again(chain, fake_profile, tmp_path):
    profiled(chain, fake_profile, tmp_path)
    victim = tmp_path / "networks" / "network-00005.json"
    victim.write_bytes(victim.read_bytes()[:100])
    runtime = Counting()
    table = profiled(chain, fake_profile, tmp_path, runtime)
    assert 1 <= runtime.profiled <= ROUND
    assert 5 in table.networks["network"].tolist()
    assert json.loads(victim.read_bytes())["payload"]["index"] == 5


def test_records_of_other_conditions_are_refused(chain, fake_profile, tmp_path):
    profiled(chain, fake_profile, tmp_path)
    with pytest.raises(MismatchError, match="other conditions") as raised:
        profiled(chain, fake_profile, tmp_path, seed=2)
    assert "seed" in str(raised.value)
    assert "delete that folder" in str(raised.value)


def test_progress_tells_each_network_and_the_error_once_known(chain, fake_profile, tmp_path):
    calls = []
    table = profiled(
        chain, fake_profile, tmp_path, max_error=1e-9, max_networks=40,
        progress=lambda done, total, **figures: calls.append((done, total, figures)),
    )  # fmt: skip
    assert [done for done, _, _ in calls] == list(range(1, len(table.networks) + 1))
    assert all(total >= done for done, total, _ in calls)
    assert "error_percent" not in calls[0][2]
    assert calls[-1][2]["error_percent"] < 5


def test_raw_samples_and_reports_are_kept(chain, fake_profile, tmp_path):
    table = profiled(chain, fake_profile, tmp_path)
    identity = json.loads((tmp_path / "networks" / "session.json").read_text())["payload"]
    records = Journal(tmp_path / "networks", identity).load()
    assert len(records) == len(table.networks)
    for record in records:
        assert len(record.samples_ms) == record.blocks
        assert all(kernel.tensor for kernel in record.kernels)
    assert [r.ratio for r in records] == table.networks["ratio"].tolist()


def test_drift_between_profiling_and_timing_is_taken_out(chain, fake_profile, tmp_path):
    content, _space = chain
    runtime = FakeRuntime(FakeDevice(drift=0.3, drift_period_ms=333.0))
    table = profiled(chain, fake_profile, tmp_path, runtime, max_networks=32)
    quiet = FakeRuntime()
    full = table.kernels[table.kernels["network"] == 0]
    truth = quiet.profile_kernels(content, fake_profile)
    share = full["time_us"].to_numpy() / full["time_us"].sum()
    want = np.array([kernel.time_us for kernel in truth])
    np.testing.assert_allclose(share, want / want.sum(), rtol=0.35)
    ratios = table.networks.set_index("network")["latency_ms"]
    small = quiet.latency_ms(content, fake_profile) / ratios[0]
    assert ratios[0] / ratios[1] > 3
    assert small == pytest.approx(1.0, rel=0.35)


def test_batch_of_the_profile_is_what_runs(chain, tmp_path, fake_profile):

    table = profiled(chain, replace(fake_profile, batch=4), tmp_path, max_seconds=1e-6)
    assert set(table.kernels["batch"]) == {4}
    single = profiled(chain, fake_profile, tmp_path / "one", max_seconds=1e-6)
    assert table.networks["latency_ms"][0] > 3 * single.networks["latency_ms"][0]


def test_senseless_limits_are_refused(chain, fake_profile, tmp_path):
    with pytest.raises(UsageError):
        profiled(chain, fake_profile, tmp_path, max_seconds=0)
    with pytest.raises(UsageError):
        profiled(chain, fake_profile, tmp_path, max_error=-1)


def test_onnx_runtime_profiles_a_space_end_to_end(chain, tmp_path):
    from hwprune.latency.model import TableModel
    from hwprune.runtimes import TargetProfile
    from hwprune.runtimes.onnxruntime import OnnxRuntime

    content, space = chain
    profile = TargetProfile(name="ort")
    table = profile_space(space, content, profile, OnnxRuntime(), folder=tmp_path, max_seconds=1e-6)
    assert len(table.networks) == ROUND
    assert {"conv"} <= {op.split("/")[0].split("+")[0] for op in table.kernels["op"]}
    predicted = TableModel.fit(table, space, content).predict([space.full(), space.smallest()])
    assert (predicted > 0).all()


def test_a_table_from_too_noisy_a_machine_is_named_as_such(chain, fake_profile, tmp_path):
    wild = FakeRuntime(FakeDevice(drift=0.95, drift_period_ms=333.0))
    with pytest.warns(HwpruneWarning, match="too noisy") as caught:
        profiled(chain, fake_profile, tmp_path, wild, max_seconds=1e-6)
    assert "hwprune doctor" in str(caught[0].message)


def test_a_profile_goes_on_after_a_change_that_does_not_matter_and_not_after_one_that_does(
    chain, fake_profile, tmp_path, monkeypatch
):
    profiled(chain, fake_profile, tmp_path)
    here = device_fingerprint("cpu")
    monkeypatch.setattr(
        bench, "device_fingerprint", lambda _: {**here, "system": "Linux 99", "memory_gib": 1}
    )
    profiled(chain, fake_profile, tmp_path)
    monkeypatch.setattr(bench, "device_fingerprint", lambda _: {**here, "model": "abacus"})
    with pytest.raises(MismatchError, match="other conditions") as caught:
        profiled(chain, fake_profile, tmp_path)
    assert "abacus" in str(caught.value)


class Moved(Counting):
    """A machine that runs at half its speed from the first round on, except for the smallest kernels."""

    def __init__(self, moves_at: int) -> None:
        super().__init__()
        self.moves_at = moves_at

    def spend(self, quiet_ms):
        moved = self.profiled >= self.moves_at
        return super().spend(quiet_ms * (2.0 + quiet_ms) if moved else quiet_ms)


def test_networks_of_another_state_of_the_machine_are_left_out(chain, fake_profile, tmp_path):
    runtime = Moved(moves_at=ROUND)
    with pytest.warns(HwpruneWarning, match="left out"):
        table = profiled(chain, fake_profile, tmp_path, runtime, max_error=1e-9, max_networks=24)
    kept = len(Journal(tmp_path / "networks", profile_identity(tmp_path)).load())
    assert len(table.networks) == 24
    assert table.provenance["left_out"] == ROUND
    assert kept == 24 + ROUND
    sessions = table.networks["reference_ms"]
    assert sessions.max() / sessions.min() < 1.2


def profile_identity(folder):
    return json.loads((folder / "networks" / "session.json").read_text())["payload"]


def test_records_that_cannot_be_continued_say_what_to_delete(chain, fake_profile, tmp_path):
    profiled(chain, fake_profile, tmp_path, max_networks=8)
    session = tmp_path / "networks" / "session.json"
    session.write_text(session.read_text().replace('"seed": 1', '"seed": 2'))
    with pytest.raises(MismatchError, match="delete the folder"):
        profiled(chain, fake_profile, tmp_path, max_networks=16)
    session.unlink()  # the records are nobody's then, and must not be taken for this profile's
    with pytest.raises(MismatchError, match="delete the folder"):
        profiled(chain, fake_profile, tmp_path, max_networks=16)


def test_every_run_of_the_references_is_kept(chain, fake_profile, tmp_path):
    profiled(chain, fake_profile, tmp_path, max_networks=16)
    rounds = sorted((tmp_path / "networks").glob("round-*.json"))
    assert len(rounds) == 2
    payload = json.loads(rounds[0].read_text())["payload"]
    assert payload["networks"] == list(range(ROUND))
    assert len(payload["light_ms"]) >= len(payload["heavy_ms"]) > 1
    assert all(len(visit) > 1 for visit in payload["light_ms"])


def test_steady_keeps_the_state_that_lasted_longest():
    class Record:
        def __init__(self, reference_ms):
            self.reference_ms = reference_ms

    records = [Record(value) for value in (1.0, 2.1, 1.05, 0.97, 2.0, 1.1, 30.0)]
    assert [record.reference_ms for record in steady(records)] == [1.0, 1.05, 0.97, 1.1]
    assert steady([]) == []
