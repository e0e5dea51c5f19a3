from __future__ import annotations

import numpy as np
import pytest

from hwprune.errors import ConfigError, DeviceError, UsageError
from hwprune.runtimes import TargetProfile
from hwprune.runtimes.fake import FakeDevice, FakeRuntime
from hwprune.runtimes.probes import conv_chain

PROFILE = TargetProfile(name="fake", runtime="fake")


def test_latency_is_the_staircase_computed_by_hand():
    device = FakeDevice(step=16, macs_per_us=1000.0, kernel_us=2.0, run_us=3.0)
    runtime = FakeRuntime(device)
    for width, blocks in ((17, 2), (32, 2), (33, 3)):
        by_hand_us = 3.0 + 2.0 + (16 * blocks * 16) * 9 * 14 * 14 / 1000.0
        model = conv_chain([16, width])
        assert runtime.latency_ms(model, PROFILE) == pytest.approx(by_hand_us / 1e3)
        np.testing.assert_allclose(runtime.compile(model, PROFILE).time_runs(3), by_hand_us / 1e3)


def test_kernels_add_up_to_the_latency_and_fuse_activations():
    runtime = FakeRuntime(FakeDevice(run_us=0.0))
    model = conv_chain([8, 24, 40])
    kernels = runtime.profile_kernels(model, PROFILE)
    assert [kernel.tensor for kernel in kernels] == ["relu0", "output"]
    assert sum(kernel.time_us for kernel in kernels) / 1e3 == pytest.approx(
        runtime.latency_ms(model, PROFILE)
    )


def test_cliff_makes_misaligned_inputs_slower_and_adds_reorders():
    runtime = FakeRuntime(FakeDevice(step=16, cliff=4, cliff_cost=2.0))
    aligned, missed = conv_chain([16, 64, 64]), conv_chain([16, 63, 64])
    assert runtime.latency_ms(missed, PROFILE) > runtime.latency_ms(aligned, PROFILE)
    assert not any(kernel.reorder for kernel in runtime.profile_kernels(aligned, PROFILE))
    assert [kernel.tensor for kernel in runtime.profile_kernels(missed, PROFILE) if kernel.reorder] == [
        "relu0"
    ]


def test_noise_is_one_sided_seeded_and_drift_is_shared():
    model = conv_chain([16, 64, 64])
    quiet = FakeRuntime().latency_ms(model, PROFILE)
    noisy = [FakeRuntime(FakeDevice(noise=0.1, seed=1)).compile(model, PROFILE).time_runs(50) for _ in "ab"]
    np.testing.assert_array_equal(*noisy)
    assert noisy[0].min() >= quiet
    assert noisy[0].std() > 0
    drifting = FakeRuntime(FakeDevice(drift=0.2, drift_period_ms=quiet * 40))
    runs = drifting.compile(model, PROFILE).time_runs(40)
    assert runs.max() == pytest.approx(1.2 * quiet, rel=0.02)
    assert runs.min() == pytest.approx(0.8 * quiet, rel=0.02)
    assert drifting.elapsed_ms == pytest.approx(runs.sum())


def test_options_of_a_profile_override_the_device():
    profile = TargetProfile(name="x", runtime="fake", options={"step": 64})
    model = conv_chain([16, 17])
    assert FakeRuntime().latency_ms(model, profile) > FakeRuntime().latency_ms(model, PROFILE)
    with pytest.raises(ConfigError):
        FakeDevice(step=0)


def test_sessions_validate():
    session = FakeRuntime().compile(conv_chain([4, 4]), PROFILE)
    with pytest.raises(UsageError):
        session.time_runs(0)
    with session:
        assert session.time_runs(2).shape == (2,)
    with pytest.raises(DeviceError, match="closed"):
        session.time_runs(1)
    session.close()
