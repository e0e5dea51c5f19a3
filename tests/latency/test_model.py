from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from hwprune.errors import MismatchError
from hwprune.latency.kernel_model import KernelModel
from hwprune.latency.lookup import KernelSums
from hwprune.latency.model import TableModel
from hwprune.latency.profiler import profile_space
from hwprune.latency.sampling import pool
from hwprune.runtimes.fake import FakeDevice, FakeRuntime
from hwprune.structure.kernels import derive_kernels
from hwprune.structure.onnx_slice import slice_onnx


def truth_ms(runtime, profile, content, space, networks):
    return np.array([runtime.latency_ms(slice_onnx(content, space, tuple(w)), profile) for w in networks])


@pytest.fixture(scope="module")
def quiet_model(quiet_table, chain):
    content, space = chain
    return TableModel.fit(quiet_table, space, content)


def test_unseen_networks_are_predicted(quiet_model, chain, fake_profile):
    content, space = chain
    networks = pool(space, 60, np.random.default_rng(99))
    truth = truth_ms(FakeRuntime(), fake_profile, content, space, networks)
    errors = np.abs(quiet_model.predict(networks) / truth - 1)
    assert errors.mean() < 0.02
    assert quiet_model.relative_error < 0.03
    assert quiet_model.relative_error_interval[0] <= quiet_model.relative_error
    macs = space.macs(networks).astype(float)
    proxy = macs * (truth / macs).mean()
    assert errors.mean() < np.abs(proxy / truth - 1).mean() / 3


def test_what_a_table_keeps_of_its_judgement_saves_time_and_changes_nothing(quiet_table, chain, monkeypatch):
    content, space = chain
    networks = pool(space, 60, np.random.default_rng(5))
    anew = TableModel.fit(quiet_table, space, content, anew=True)
    monkeypatch.setattr(KernelModel, "_cross_predict", None)  # would be called otherwise
    kept = TableModel.fit(quiet_table, space, content)
    np.testing.assert_array_equal(kept.predict(networks), anew.predict(networks))
    np.testing.assert_array_equal(kept.uncertainty_ms(networks), anew.uncertainty_ms(networks))
    assert kept.relative_error_interval == anew.relative_error_interval


@pytest.mark.parametrize(
    "damage",
    [
        {"of": [1, 2]},
        {"spreads": {}},
        {"spreads": None},
        {"calibration": [1.0]},
        {"calibration": [float("nan"), 0.0, 0.0]},
        {"calibration": [-1.0, 0.0, 0.0]},
        {"judged_ms": ["much"]},
        {"judged_ms": [[1.0, 0.0, 0.0]]},
    ],
)
def test_a_judgement_that_does_not_serve_is_made_again(quiet_table, chain, damage):
    content, space = chain
    where = dict(quiet_table.provenance)
    where["judgement"] = {**where["judgement"], **damage}
    table = replace(quiet_table, provenance=where)
    networks = pool(space, 20, np.random.default_rng(5))
    expected = TableModel.fit(quiet_table, space, content).predict(networks)
    np.testing.assert_allclose(TableModel.fit(table, space, content).predict(networks), expected, rtol=1e-9)


def test_measured_kernels_keep_their_measurement_when_there_is_no_noise(chain, fake_profile, tmp_path):
    content, space = chain
    runtime = FakeRuntime(FakeDevice(run_us=0.0, kernel_us=7.0))
    table = profile_space(
        space, content, fake_profile, runtime, folder=tmp_path, max_error=1e-9, max_networks=16
    )
    model = TableModel.fit(table, space, content)
    measured = table.kernels["time_us"].to_numpy()
    np.testing.assert_allclose(model._model.predict(table.specs()), measured, rtol=1e-6)


def test_noisy_tables_predict_better_than_their_noise(chain, fake_profile, tmp_path):
    content, space = chain
    device = FakeDevice(noise=0.1, drift=0.2, burst=0.05, drift_period_ms=900.0)
    table = profile_space(
        space, content, fake_profile, FakeRuntime(device), folder=tmp_path, max_error=1e-9, max_networks=64
    )
    model = TableModel.fit(table, space, content)
    networks = pool(space, 60, np.random.default_rng(99))
    truth = truth_ms(FakeRuntime(), fake_profile, content, space, networks)
    ratio = model.predict(networks) / truth
    assert np.abs(ratio / np.median(ratio) - 1).mean() < 0.03


def test_prediction_is_vectorised_and_does_not_depend_on_company(quiet_model, chain):
    _, space = chain
    networks = pool(space, 20_000, np.random.default_rng(0))
    together = quiet_model.predict(networks)
    assert together.shape == (20_000,)
    alone = [quiet_model.predict(networks[i])[0] for i in range(0, 20_000, 2_500)]
    np.testing.assert_array_equal(together[::2_500], alone)


@pytest.mark.parametrize("net", ["chain_net", "concat_net"])
def test_lookup_equals_the_sum_over_kernels(net, request):
    content, space = request.getfixturevalue(net)
    kernels = derive_kernels(content, space)

    def value(specs):
        return np.array([s.in_channels * 1000.0 + s.out_channels + 0.1 * s.groups for s in specs])

    sums = KernelSums(kernels, space, value)
    rng = np.random.default_rng(0)
    networks = np.array([space.sample(rng) for _ in range(300)])
    networks[::3] = [
        [int(rng.integers(1, g.width + 1)) for g in space.groups] for _ in networks[::3]
    ]  # no choices
    by_hand = [value(kernels.specs(tuple(widths))).sum() for widths in networks.tolist()]
    np.testing.assert_allclose(sums(networks), by_hand)
    np.testing.assert_allclose(sums(networks[:7]), by_hand[:7])


def test_concatenations_are_predicted(fake_profile, concat_net, tmp_path):
    content, space = concat_net
    table = profile_space(
        space,
        content,
        fake_profile,
        FakeRuntime(FakeDevice(step=4)),
        folder=tmp_path,
        max_networks=40,
        max_error=1e-9,
    )
    model = TableModel.fit(table, space, content)
    networks = pool(space, 40, np.random.default_rng(5))
    truth = truth_ms(FakeRuntime(FakeDevice(step=4)), fake_profile, content, space, networks)
    assert np.abs(model.predict(networks) / truth - 1).mean() < 0.03


def test_the_better_regressor_is_chosen_and_all_are_told(quiet_model, quiet_table):
    errors = quiet_model.cross_validation.kernel_errors["conv"]
    assert set(errors) == {"shaped", "trees", "boosting"}
    assert quiet_model.cross_validation.regressors["conv"] == min(errors, key=errors.get)
    assert quiet_table.provenance["regressors"]["conv"] in errors


def test_refitting_from_the_table_gives_the_same_predictions(quiet_table, chain):
    content, space = chain
    networks = pool(space, 50, np.random.default_rng(1))
    one, two = (TableModel.fit(quiet_table, space, content).predict(networks) for _ in range(2))
    np.testing.assert_array_equal(one, two)


def test_an_operation_nobody_measured_raises(quiet_model):
    spec = replace(quiet_model.kernels.slots[0].full, op="fft")
    with pytest.raises(MismatchError, match="no kernel of this operation") as raised:
        quiet_model._model.predict([spec])
    assert "fft" in str(raised.value)


def test_a_table_of_another_space_is_refused(quiet_table, net_of):
    content, space = net_of((3, 48, 64, 80, 10))
    with pytest.raises(MismatchError, match="another search space"):
        TableModel.fit(quiet_table, space, content)


def test_uncertainty_grows_where_the_table_is_thin(quiet_table, chain):
    content, space = chain
    narrow = quiet_table.widths[:, 0] <= 24
    few = replace(
        quiet_table,
        networks=quiet_table.networks[narrow].reset_index(drop=True),
        kernels=quiet_table.kernels[
            quiet_table.kernels["network"].isin(quiet_table.networks["network"][narrow])
        ].reset_index(drop=True),
    )
    model = TableModel.fit(few, space, content)
    networks = pool(space, 300, np.random.default_rng(2))
    doubt = model.uncertainty_ms(networks) / model.predict(networks)
    assert (doubt > 0).all()
    known = networks[:, 0] <= 24
    assert doubt[~known].mean() > doubt[known].mean()


def test_latency_imports_no_torch_and_no_runtime():
    code = (
        "import hwprune.latency.profiler, hwprune.latency.staircase, hwprune.latency.noise, sys;"
        "sys.exit('torch' in sys.modules or 'onnxruntime' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
