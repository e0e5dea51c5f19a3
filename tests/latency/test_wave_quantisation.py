"""The latency model on a pretended GPU, which computes in waves of tiles."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hwprune.latency import model as model_module
from hwprune.latency.model import TableModel
from hwprune.latency.profiler import profile_space
from hwprune.latency.regressors import REGRESSORS
from hwprune.latency.staircase import channel_multiple
from hwprune.latency.wave_quantisation import Tiled
from hwprune.runtimes import TargetProfile
from hwprune.runtimes.fake import FakeDevice, FakeRuntime
from hwprune.structure.kernels import KernelSpec

PROFILE = TargetProfile(name="gpu", device="cuda:0", runtime="fake")
GPU = FakeDevice(step=8, processors=20, tile_rows=64, tile_channels=32, macs_per_us=400_000.0)
CONV = KernelSpec("conv", 64, 64, 3, 3, 1, 1, 28, 28, 4, "relu", "fp16")


def waves_us(spec, wave=108, rows=128, channels=64):
    tiles = -(-spec.batch * spec.height * spec.width // rows) * -(-spec.out_channels // channels)
    depth = -(-spec.in_channels // 8) * 8 * spec.kernel_h * spec.kernel_w
    return 3.0 + 0.05 * -(-tiles // wave) * depth


def drawn(count, seed):
    rng = np.random.default_rng(seed)
    kinds = [CONV, replace(CONV, kernel_h=1, kernel_w=1), replace(CONV, height=56, width=56)]
    widths = rng.integers(8, 512, size=(count, 2)).tolist()
    return [
        replace(kinds[i % 3], in_channels=reads, out_channels=makes)
        for i, (reads, makes) in enumerate(widths)
    ]


def test_tiles_and_waves_are_found_and_predict_what_other_regressors_cannot():
    seen, unseen = drawn(240, 0), drawn(240, 1)
    times, wanted = (np.array([waves_us(spec) for spec in specs]) for specs in (seen, unseen))

    def error(cls):
        fitted = cls().fit(seen, times, np.ones(len(seen)))
        return float(np.abs(fitted.predict(unseen) / wanted - 1).mean())

    # Which tile and which wave it were cannot always be told: two small tiles are as one of twice the size.
    missed = error(Tiled)
    assert missed < 0.01
    assert missed < 0.5 * min(error(cls) for cls in REGRESSORS.values())


def test_refitting_gives_the_same_and_few_rows_or_new_kinds_do_not_fail():
    specs = drawn(9, 2)
    times = np.array([waves_us(spec) for spec in specs])
    one, two = (Tiled().fit(specs, times, np.ones(9)).predict(specs) for _ in range(2))
    np.testing.assert_array_equal(one, two)
    other = replace(CONV, op="linear", height=1, width=1)
    assert np.isfinite(Tiled().fit(specs, times, np.ones(9)).predict([other])).all()


@pytest.fixture(scope="module")
def gpu_table(net_of, tmp_path_factory):
    content, space = net_of((16, 160, 256, 10), size=28)
    folder = tmp_path_factory.mktemp("gpu")
    table = profile_space(
        space, content, PROFILE, FakeRuntime(GPU), folder=folder, max_error=1e-9, max_networks=32
    )
    return table, space, content


def test_held_out_networks_are_predicted_better_with_tiles_than_without(gpu_table, monkeypatch):
    table, space, content = gpu_table
    plain = {k: v for k, v in table.provenance.items() if not k.startswith("regressor")}
    table = replace(table, provenance=plain)
    tiled = TableModel.fit(table, space, content)
    monkeypatch.setattr(model_module, "GPU_REGRESSORS", REGRESSORS)
    without = TableModel.fit(table, space, content)
    assert tiled.cross_validation.regressors["conv"] == "tiled"
    assert tiled.relative_error < without.relative_error


def test_tables_of_cpus_are_fitted_as_before(gpu_table):
    table, space, content = gpu_table
    profile = {**table.provenance["profile"], "device": "cpu"}
    plain = {k: v for k, v in table.provenance.items() if not k.startswith("regressor")}
    table = replace(table, provenance={**plain, "profile": profile})
    assert "tiled" not in TableModel.fit(table, space, content).cross_validation.kernel_errors["conv"]


@pytest.mark.parametrize("tile", [8, 16, 32, 64])
def test_the_channel_multiple_of_a_gpu_is_discovered(tile):
    """One tile of channels at a time: the last channel of a tile is as cheap as its first."""
    device = replace(GPU, processors=1, step=8 * 9, tile_rows=196, tile_channels=tile, macs_per_us=40_000.0)
    assert channel_multiple(FakeRuntime(device), PROFILE, seconds=1e-6) == tile
