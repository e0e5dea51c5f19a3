from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hwprune.latency.features import FEATURE_NAMES, Vocabulary, features, macs, traffic_bytes
from hwprune.latency.regressors import REGRESSORS
from hwprune.structure.kernels import KernelSpec

CONV = KernelSpec("conv", 61, 40, 3, 3, 2, 1, 14, 14, 1, "relu", "fp32")
DEPTHWISE = KernelSpec("dwconv", 36, 36, 3, 3, 1, 36, 7, 7, 2, "clip", "fp32")
POOL = KernelSpec("globalpool", 64, 64, 1, 1, 1, 1, 1, 1, 1, "", "fp32")


def test_macs_and_bytes_by_hand():
    specs = [CONV, DEPTHWISE, POOL]
    assert macs(specs).tolist() == [61 * 40 * 9 * 196, 2 * 36 * 9 * 49, 64]
    assert traffic_bytes([CONV])[0] == 4 * (61 * 28 * 28 + 61 * 40 * 9 + 40 * 14 * 14)


def test_features_know_blocks_and_alignments():
    row = dict(zip(FEATURE_NAMES, features([CONV], Vocabulary([CONV]))[0], strict=True))
    assert (row["in_blocks_16"], row["out_blocks_16"], row["block_product_16"]) == (4, 3, 12)
    assert (row["in_blocks_8"], row["out_blocks_8"]) == (8, 5)
    assert (row["in_multiple_4"], row["out_multiple_4"], row["out_multiple_8"], row["out_multiple_16"]) == (
        0,
        1,
        1,
        0,
    )
    assert row["log_padded_macs"] == pytest.approx(np.log2(64 * 48 * 9 * 196))
    assert row["intensity"] == pytest.approx(macs([CONV])[0] / traffic_bytes([CONV])[0])


def test_unknown_words_do_not_fail():
    words = Vocabulary([CONV])
    row = dict(zip(FEATURE_NAMES, features([DEPTHWISE], words)[0], strict=True))
    assert row["op"] == row["activation"] == -1


def staircase(spec: KernelSpec) -> float:
    """A device with blocks of 16 and a cliff at 4."""
    blocks = -(-spec.in_channels // 16) * -(-spec.out_channels // 16)
    return 2.0 + 3.0 * blocks * (1.8 if spec.in_channels % 4 else 1.0)


@pytest.mark.parametrize(("name", "limit"), [("shaped", 0.03), ("trees", 0.15), ("boosting", 0.15)])
def test_regressors_learn_a_staircase_from_few_points(name, limit):
    rng = np.random.default_rng(0)
    specs = [
        replace(CONV, in_channels=int(i), out_channels=int(o)) for i, o in rng.integers(8, 160, size=(400, 2))
    ]
    times = np.array([staircase(spec) for spec in specs])
    model = REGRESSORS[name]().fit(specs[:200], times[:200], np.ones(200))
    errors = np.abs(model.predict(specs[200:]) / times[200:] - 1)
    assert errors.mean() < limit


@pytest.mark.parametrize("name", REGRESSORS)
def test_regressors_take_zeros_few_rows_and_new_kinds(name):
    specs = [replace(POOL, out_channels=c, in_channels=c) for c in (16, 32, 48)]
    model = REGRESSORS[name]().fit(specs, np.array([0.0, 0.0, 1.0]), np.ones(3))
    found = model.predict([*specs, replace(POOL, height=28, width=28)])
    assert found.shape == (4,)
    assert (found >= 0).all()
    assert np.isfinite(found).all()


@pytest.mark.parametrize("name", REGRESSORS)
def test_refitting_gives_the_same_predictions(name):
    rng = np.random.default_rng(3)
    specs = [replace(CONV, in_channels=int(c)) for c in rng.integers(1, 100, 60)]
    times = np.array([staircase(spec) for spec in specs])
    one, two = (REGRESSORS[name]().fit(specs, times, np.ones(60)).predict(specs) for _ in range(2))
    np.testing.assert_array_equal(one, two)
