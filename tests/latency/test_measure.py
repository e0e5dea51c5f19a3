from __future__ import annotations

import numpy as np
import pytest

from hwprune.errors import DeviceError, UsageError
from hwprune.latency.measure import MIN_BLOCKS, Measurement, measure, measure_many, warm_up
from hwprune.latency.noise import machine_noise
from hwprune.runtimes import Session, TargetProfile
from hwprune.runtimes.fake import FakeDevice, FakeRuntime
from hwprune.runtimes.probes import conv_chain

PROFILE = TargetProfile(name="fake", runtime="fake")
NARROW, MIDDLE, WIDE = conv_chain([16, 32, 32]), conv_chain([16, 64, 64]), conv_chain([16, 128, 128])


def sessions(runtime, *models):
    return [runtime.compile(model, PROFILE) for model in models]


def test_quiet_machine_gives_the_exact_latency_and_no_error():
    runtime = FakeRuntime()
    result = measure(*sessions(runtime, WIDE, MIDDLE))
    assert result.ms == pytest.approx(runtime.latency_ms(WIDE, PROFILE))
    assert result.reference_ms == pytest.approx(runtime.latency_ms(MIDDLE, PROFILE))
    assert result.ratio == pytest.approx(result.ms / result.reference_ms)
    assert result.error_ms == pytest.approx(0.0, abs=1e-12)
    assert result.blocks == MIN_BLOCKS == len(result.samples_ms)
    assert [len(visits) for visits in result.reference_samples_ms] == [2 * MIN_BLOCKS]


def test_drift_is_cancelled_by_the_reference():
    device = FakeDevice(drift=0.3, drift_period_ms=4000.0)
    runtime = FakeRuntime(device)
    true_ratio = runtime.latency_ms(WIDE, PROFILE) / runtime.latency_ms(MIDDLE, PROFILE)
    results = [measure(*sessions(runtime, WIDE, MIDDLE)) for _ in range(8)]
    ratios = np.array([result.ratio for result in results])
    plain = np.array([np.median(np.concatenate(result.samples_ms)) for result in results])
    assert abs(ratios / true_ratio - 1).max() < 0.03
    assert plain.std() / plain.mean() > 2 * ratios.std() / ratios.mean()
    assert max(result.noise for result in results) > 0.02


def test_a_heavy_reference_cancels_what_slows_large_networks_only():
    """Cache taken by neighbours: the unpruned network suffers most, one of half its latency half of it."""
    runtime = FakeRuntime(FakeDevice(contention=0.1, contention_period_ms=9_000.0, heavy_ms=0.5))
    heavy, between = conv_chain([16, 256, 256]), WIDE
    true_ratio = runtime.latency_ms(between, PROFILE) / runtime.latency_ms(MIDDLE, PROFILE)
    one, two = [], []
    for _ in range(12):
        one.append(measure(*sessions(runtime, between, MIDDLE)).ratio / true_ratio)
        third = sessions(runtime, heavy)[0]
        units = tuple(runtime.latency_ms(model, PROFILE) for model in (MIDDLE, heavy))
        result = measure(*sessions(runtime, between, MIDDLE), heavy=third, units_ms=units)
        assert 0 < result.share < 1
        two.append(result.ms / runtime.latency_ms(between, PROFILE))
    assert np.std(two) < 0.6 * np.std(one)
    assert np.mean(two) == pytest.approx(1.0, abs=0.02)


def test_every_reference_needs_its_unit():
    light, heavy = sessions(FakeRuntime(), MIDDLE, WIDE)
    with pytest.raises(UsageError, match="one unit"):
        measure(light, light, heavy=heavy, units_ms=(1.0,))


class Preempted(Session):
    """Loses 1 ms in every run."""

    def _time_runs(self, count: int):
        self.stolen_ms += float(count)
        return np.ones(count)


def test_what_was_stolen_before_does_not_count_again():
    session, reference = Preempted(), Preempted()
    first = measure(session, reference)
    second = measure(session, reference)
    assert first.stolen == second.stolen
    assert 0.4 < first.stolen < 0.6


def test_references_of_one_speed_are_one_reference():
    runtime = FakeRuntime()
    light, heavy = sessions(runtime, MIDDLE, MIDDLE)
    result = measure(*sessions(runtime, WIDE), light, heavy=heavy)
    assert result.share == 0.0
    assert result.ms == pytest.approx(runtime.latency_ms(WIDE, PROFILE))


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_error_bar_reaches_the_asked_error_and_holds(seed):
    runtime = FakeRuntime(FakeDevice(noise=0.15, burst=0.1, seed=seed))
    truth = runtime.latency_ms(WIDE, PROFILE) / runtime.latency_ms(MIDDLE, PROFILE)
    loose = measure(*sessions(runtime, WIDE, MIDDLE), relative_error=0.05)
    tight = measure(*sessions(runtime, WIDE, MIDDLE), relative_error=0.004)
    assert tight.relative_error <= 0.004
    assert tight.blocks > loose.blocks
    assert abs(tight.ratio / truth - 1) < 0.02


def test_time_ends_a_measurement_that_never_gets_precise():
    runtime = FakeRuntime(FakeDevice(noise=0.5))
    result = measure(*sessions(runtime, WIDE, MIDDLE), relative_error=1e-6, max_seconds=1e-6)
    assert result.blocks == MIN_BLOCKS
    assert result.relative_error > 1e-6


def test_unit_of_an_earlier_session_is_kept():
    result = measure(*sessions(FakeRuntime(), WIDE, MIDDLE), units_ms=(10.0,))
    assert result.reference_ms == 10.0
    assert result.ms == pytest.approx(10.0 * result.ratio)


def test_many_networks_share_one_reference_and_one_unit():
    runtime = FakeRuntime(FakeDevice(drift=0.2, noise=0.02))
    models = [NARROW, MIDDLE, WIDE]
    results = measure_many(sessions(runtime, *models), *sessions(runtime, MIDDLE), relative_error=0.01)
    assert len({result.reference_ms for result in results}) == 1
    truth = np.array([runtime.latency_ms(model, PROFILE) for model in models])
    got = np.array([result.ratio for result in results])
    np.testing.assert_allclose(got / got[1], truth / truth[1], rtol=0.05)


def test_a_network_that_is_always_visited_has_as_many_blocks_as_the_slowest_to_be_known():
    def blocks(always: int) -> list[int]:
        networks = sessions(FakeRuntime(FakeDevice(noise=0.2, seed=3)), NARROW, MIDDLE, WIDE)
        found = measure_many(networks, networks[1], relative_error=0.003, always=always, seed=1)
        return [one.blocks for one in found]

    assert blocks(1)[0] == max(blocks(1))
    assert blocks(0)[0] < max(blocks(0))


def test_raw_samples_and_distribution_are_kept():
    result = measure(*sessions(FakeRuntime(FakeDevice(noise=0.1)), WIDE, MIDDLE))
    runs = np.concatenate(result.samples_ms)
    assert len(result.samples_ms) == result.blocks
    shape = result.distribution()
    assert shape["min"] == runs.min()
    assert shape["min"] <= shape["p10"] <= shape["median"] <= shape["p90"] <= shape["max"] == runs.max()


def test_noisy_machine_is_named_as_such():
    result = measure(
        *sessions(FakeRuntime(FakeDevice(drift=0.9, drift_period_ms=333)), WIDE, MIDDLE), max_seconds=1e-6
    )
    assert result.too_noisy
    with pytest.raises(DeviceError, match="too noisy") as raised:
        result.trusted()
    assert "hwprune doctor" in str(raised.value)
    quiet = measure(*sessions(FakeRuntime(), WIDE, MIDDLE))
    assert quiet.trusted() is quiet


class Warming(Session):
    """Each run is 10 % faster than the one before, down to 1 ms."""

    def __init__(self) -> None:
        self.count = 0

    def _time_runs(self, count: int):
        self.count += count
        return np.maximum(1.0, 50.0 * 0.9 ** np.arange(self.count - count, self.count))


def test_warm_up_lasts_until_nothing_gets_faster():
    session = Warming()
    assert warm_up(session) == pytest.approx(1.0, rel=0.05)
    assert session.time_runs(1)[0] == pytest.approx(1.0, rel=0.05)


def test_warm_up_gives_up_in_time():
    session = Warming()
    warm_up(session, max_seconds=1e-9)
    assert session.count < 12


def test_machine_noise_tells_quiet_from_noisy():
    quiet = machine_noise(FakeRuntime(), PROFILE, seconds=0.2)
    assert quiet.drift == quiet.bias == 0.0
    assert not quiet.too_noisy
    noisy = machine_noise(FakeRuntime(FakeDevice(drift=0.5, drift_period_ms=300)), PROFILE, seconds=0.5)
    assert noisy.drift > 0.2
    assert noisy.slowest > 1.2


def test_wrong_settings_are_refused():
    with pytest.raises(UsageError):
        measure(*sessions(FakeRuntime(), WIDE, MIDDLE), relative_error=0.0)
    with pytest.raises(UsageError):
        measure_many([], *sessions(FakeRuntime(), WIDE), max_seconds=-1)


def test_no_network_gives_no_measurement():
    assert measure_many([], *sessions(FakeRuntime(), WIDE)) == []


def test_measurement_compares_by_its_figures():
    one, two = (measure(*sessions(FakeRuntime(), WIDE, MIDDLE)) for _ in range(2))
    assert isinstance(one, Measurement)
    assert one == two
