"""What profiling and a run cost beside the kernels, found from whole networks."""

from __future__ import annotations

import numpy as np
import pytest

from hwprune.latency.overhead import Overhead


def figures(run_us, kernel_us, scale=0.97, noise=0.0, count=40):
    rng = np.random.default_rng(0)
    kernels = rng.integers(5, 60, count).astype(float)
    true_us = kernels * rng.uniform(1, 20, count)
    reported_us = true_us + kernel_us * kernels
    return reported_us, kernels, (scale * true_us + run_us) * (1 + noise * rng.standard_normal(count))


@pytest.mark.parametrize(("run_us", "kernel_us"), [(0, 0), (5, 0), (0, 0.8), (3, 0.7)])
def test_both_costs_are_found(run_us, kernel_us):
    found = Overhead.fit(*figures(run_us, kernel_us))
    assert found.run_us == pytest.approx(run_us, abs=1e-6)
    assert found.kernel_us == pytest.approx(kernel_us, abs=1e-6)


def test_noise_and_outliers_move_them_little():
    reported_us, kernels, latency_us = figures(3, 0.7, noise=0.01)
    latency_us[::10] *= 1.3
    found = Overhead.fit(reported_us, kernels, latency_us)
    assert found.run_us == pytest.approx(3, abs=1.5)
    assert found.kernel_us == pytest.approx(0.7, abs=0.15)


def test_no_cost_is_below_zero_and_few_networks_tell_nothing():
    found = Overhead.fit(*figures(-4, -1))
    assert min(found.run_us, found.kernel_us) >= 0
    assert Overhead.fit(*figures(3, 0.7, count=5)) == Overhead()


def test_some_of_a_kernels_time_is_always_left():
    assert Overhead(0, 0.8).less(5.0) == pytest.approx(4.2)
    assert Overhead(0, 0.8).less(0.5) == pytest.approx(0.05)
