from __future__ import annotations

import numpy as np
import pytest

from hwprune.latency.drift import drifted, follow
from hwprune.latency.model import TableModel
from hwprune.latency.sampling import pool
from hwprune.runtimes.fake import FakeDevice, FakeRuntime
from hwprune.structure.onnx_slice import slice_onnx


@pytest.fixture(scope="module")
def model(quiet_table, chain):
    content, space = chain
    return TableModel.fit(quiet_table, space, content)


@pytest.fixture
def measured(chain, fake_profile):
    """Networks, and their latencies on another pretended device."""
    content, space = chain

    def on(seed, count, **device):
        networks = pool(space, count, np.random.default_rng(seed))
        runtime = FakeRuntime(FakeDevice(**device))
        slices = [slice_onnx(content, space, tuple(widths)) for widths in networks]
        return networks, np.array([runtime.latency_ms(one, fake_profile) for one in slices])

    return on


def error(model, networks, truth_ms):
    return np.abs(model.predict(networks) / truth_ms - 1).mean()


def test_a_device_that_is_slower_as_a_whole_has_not_drifted(model, measured):
    networks, ms = measured(1, 12)
    assert not drifted(model, networks, ms, 0 * ms)
    assert not drifted(model, networks, 1.3 * ms, 0 * ms)


def test_noisy_measurements_are_not_taken_for_drift(model, measured):
    """Leaders are known to 2 % only, which is more than the model's own error."""
    networks, ms = measured(1, 40)
    noisy_ms = ms * (1 + 0.02 * np.random.default_rng(0).standard_normal(len(ms)))
    assert not drifted(model, networks, noisy_ms, 0.02 * noisy_ms)
    assert drifted(model, networks, ms * (1 + 0.1 * np.random.default_rng(0).standard_normal(40)), 0.02 * ms)
    followed = follow(model, networks, noisy_ms, 0.02 * noisy_ms)
    assert error(followed, networks, ms) < 0.02


def test_a_device_of_another_staircase_is_seen_and_followed(model, measured):
    changed = {"step": 32, "kernel_us": 4.0}
    networks, ms = measured(1, 15, **changed)
    assert drifted(model, networks, ms, 0 * ms)
    unseen, truth_ms = measured(2, 60, **changed)
    factor = float(np.median(ms / model.predict(networks)))
    followed = follow(model, networks, ms, 0 * ms)
    assert (
        error(followed, unseen, truth_ms) < 0.7 * np.abs(factor * model.predict(unseen) / truth_ms - 1).mean()
    )
    assert error(followed, networks, ms) < error(followed, unseen, truth_ms) + 0.01


def test_following_a_device_that_did_not_change_changes_little(model, measured):
    networks, ms = measured(1, 15)
    unseen, truth_ms = measured(2, 60)
    assert (
        error(follow(model, networks, ms, 0 * ms), unseen, truth_ms) < error(model, unseen, truth_ms) + 0.005
    )


def test_few_networks_show_no_drift(model, measured):
    networks, ms = measured(1, 4, step=32, kernel_us=4.0)
    assert not drifted(model, networks, ms, 0 * ms)


def test_kernels_can_be_scaled_one_by_one(model, chain):
    _, space = chain
    networks = pool(space, 10, np.random.default_rng(3))
    slots = model.kernels.slots
    first_ms = model.calibration.scale * model.kernel_us(slots[0], networks) / 1e3
    twice = model.scaled({slots[0]: 2.0})
    np.testing.assert_allclose(twice.predict(networks), model.predict(networks) + first_ms)
    other = networks[:, ::-1].copy()  # widths that are no choices of their groups
    np.testing.assert_allclose(twice.kernel_us(slots[0], other), 2 * model.kernel_us(slots[0], other))
