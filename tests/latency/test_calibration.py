from __future__ import annotations

import numpy as np
import pytest

from hwprune.latency.calibration import Calibration, mean_error


def test_scale_and_offset_are_found_through_outliers():
    rng = np.random.default_rng(0)
    sums = rng.uniform(1, 10, 200)
    measured = (1.1 * sums + 0.5) * (1 + 0.01 * rng.standard_normal(200))
    measured[:10] *= 2
    found = Calibration.fit(sums, measured)
    assert found.scale == pytest.approx(1.1, abs=0.02)
    assert found.offset_ms == pytest.approx(0.5, abs=0.1)
    assert found.spread == pytest.approx(0.01, abs=0.005)


def test_few_networks_give_a_factor_only_and_none_gives_nothing():
    found = Calibration.fit(np.array([1.0, 2.0, 4.0]), np.array([1.2, 2.4, 4.8]))
    assert found.offset_ms == pytest.approx(0.0, abs=1e-6)
    assert 1.05 < found.scale < 1.2
    assert Calibration.fit(np.array([np.nan, np.nan]), np.array([1.0, 2.0])) == Calibration()


def test_latency_never_gets_negative():
    assert (Calibration(1.0, -5.0)(np.array([0.1, 1.0])) > 0).all()


def test_error_and_its_interval():
    mean, (low, high) = mean_error(np.full(4, 0.02))
    assert mean == low == high == pytest.approx(0.02)
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(300):
        errors = 0.03 * rng.standard_normal(10)
        _, (low, high) = mean_error(np.abs(errors))
        covered += low <= 0.03 * np.sqrt(2 / np.pi) <= high
    assert covered >= 265  # 95 % of 300, less what skewed errors cost at ten networks
    assert mean_error(np.zeros(1))[1][1] >= 1.0
    assert mean_error(np.zeros(0)) == (1.0, (0.0, 1.0))
