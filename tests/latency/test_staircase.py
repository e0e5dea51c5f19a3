from __future__ import annotations

import numpy as np
import pytest

from hwprune.errors import HwpruneWarning
from hwprune.latency.staircase import channel_multiple, multiple_of, probe_staircase
from hwprune.runtimes import TargetProfile
from hwprune.runtimes.fake import FakeDevice, FakeRuntime

PROFILE = TargetProfile(name="fake", runtime="fake")
# Measured on a CPU with blocks of 16 channels and an alignment of 4; microseconds for widths 33 .. 64.
REAL_US = (
    "190 193 196 186 201 205 206 186 212 215 218 186 226 226 230 187 "
    "264 268 271 247 276 279 282 247 288 291 294 247 299 302 305 246"
)


@pytest.mark.parametrize("step", [1, 2, 4, 8, 16, 32, 64])
def test_any_step_is_found_through_noise_and_drift(step):
    for seed in range(3):
        device = FakeDevice(step=step, noise=0.05, drift=0.2, drift_period_ms=700.0, seed=seed)
        assert channel_multiple(FakeRuntime(device), PROFILE, seconds=1e-6) == step


def test_a_cliff_beside_an_alignment_does_not_hide_the_step():
    assert channel_multiple(FakeRuntime(FakeDevice(step=16, cliff=4)), PROFILE, seconds=1e-6) == 16
    assert channel_multiple(FakeRuntime(FakeDevice(step=8, cliff=8, noise=0.1)), PROFILE, seconds=1e-6) == 8


def test_a_measured_curve():
    times = [float(value) for value in REAL_US.split()]
    assert multiple_of(range(33, 65), times) == 16


@pytest.mark.parametrize("noise", [0.0, 0.01, 0.03])
def test_straight_lines_have_no_staircase_and_steps_keep_theirs(noise):
    rng = np.random.default_rng(5)
    channels = np.arange(32, 129)
    wobble = 1 + noise * rng.standard_normal(len(channels))
    assert multiple_of(channels, channels * wobble) <= (1 if noise < 0.02 else 2)
    assert multiple_of(channels, np.ceil(channels / 8) * wobble) == 8
    assert multiple_of(channels, np.ceil(channels / 32) * wobble) == 32


def test_too_few_widths_tell_nothing():
    assert multiple_of([33, 47], [1.0, 1.0]) == 1


@pytest.mark.parametrize("noise", [0.0, 0.02])
def test_a_device_too_fast_to_show_its_steps_gets_a_usual_multiple_and_says_so(noise):
    device = FakeDevice(step=16, kernel_us=1000.0, macs_per_us=1e9, noise=noise)
    with pytest.warns(HwpruneWarning, match="steps cannot be seen"):
        assert channel_multiple(FakeRuntime(device), PROFILE, seconds=1e-6) == 8


def test_the_curve_is_kept_with_its_errors():
    runtime = FakeRuntime(FakeDevice(step=8))
    stairs = probe_staircase(runtime, PROFILE, channels=[40, 33, 48], seconds=0.1)
    assert stairs.channels == (33, 40, 48)
    assert stairs.latency_ms[0] == pytest.approx(stairs.latency_ms[1])
    assert stairs.latency_ms[2] > stairs.latency_ms[1]
    assert max(stairs.error_ms) < 1e-9
