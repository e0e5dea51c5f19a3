"""Latency over width, and the search for narrower networks that are slower."""

from __future__ import annotations

import json

import numpy as np
import pytest

from hwprune.errors import ArtifactError
from hwprune.latency.measure import measure_many
from hwprune.latency.model import TableModel
from hwprune.latency.profiler import profile_space
from hwprune.latency.width_sweep import MOST_MEASURED, WidthSweep, inversions, width_sweep
from hwprune.runtimes.fake import FakeDevice, FakeRuntime
from hwprune.structure.onnx_slice import OnnxSlicer


def model_on(device, net, profile, folder):
    content, space = net
    runtime = FakeRuntime(device)
    table = profile_space(space, content, profile, runtime, folder=folder, max_error=1e-9, max_networks=64)

    def measured(networks):
        slicer = OnnxSlicer(content, space)
        sessions = [runtime.compile(slicer.slice(widths), profile) for widths in networks]
        return measure_many(sessions, runtime.compile(content, profile))

    return TableModel.fit(table, space, content), measured


def around(space):
    return {"unpruned": space.full(), "middle": space.uniform(0.5)}


def test_curves_follow_the_model(chain, fake_profile, tmp_path):
    model, _ = model_on(FakeDevice(step=16), chain, fake_profile, tmp_path)
    curves = width_sweep(model)
    assert [curve.group for curve in curves] == [group.name for group in model.space.groups]
    for index, curve in enumerate(curves):
        networks = np.tile(np.array(model.space.full()), (len(curve.widths), 1))
        networks[:, index] = curve.widths
        np.testing.assert_allclose(curve.network_ms, model.predict(networks))
        # a layer of the chain follows the group that it makes and the one that it reads
        assert set(curve.layers_us) == {f"conv{index}", f"conv{index + 1}"}
        assert curve.layers_us[f"conv{index}"][0] < curve.layers_us[f"conv{index}"][-1]


def test_a_cliff_is_found_and_confirmed_by_measuring(net_of, fake_profile, tmp_path):
    """Widths that miss a multiple of 8 are three times slower here."""
    device = FakeDevice(step=4, cliff=8, cliff_cost=3.0)
    model, measured = model_on(device, net_of(multiple=4), fake_profile, tmp_path)
    found = inversions(model, around(model.space), measured)
    assert found
    assert all(one.narrow % 8 or one.wide % 8 for one in found)
    assert [one.predicted_percent for one in found] == sorted(
        (one.predicted_percent for one in found), reverse=True
    )
    looked_at = [one for one in found if one.confirmed is not None]
    assert len(looked_at) == min(len(found), MOST_MEASURED)
    assert all(one.confirmed for one in looked_at)


def test_aligned_widths_have_no_inversion_on_a_plain_staircase(net_of, fake_profile, tmp_path):
    model, measured = model_on(FakeDevice(step=16), net_of(multiple=16), fake_profile, tmp_path)
    assert inversions(model, around(model.space), measured) == ()


def test_what_is_measured_to_be_slower_is_found_though_the_model_did_not_expect_it(
    net_of, fake_profile, tmp_path
):
    model, _ = model_on(FakeDevice(step=16), net_of(multiple=16), fake_profile, tmp_path)
    content, space = net_of(multiple=16)
    upside_down = FakeRuntime(FakeDevice(step=16))

    def measured(networks):
        """On a device where narrower is always slower."""
        slicer = OnnxSlicer(content, space)
        sessions = [
            upside_down.compile(slicer.slice(tuple(np.subtract(space.full(), widths) + 1)), fake_profile)
            for widths in networks
        ]
        return measure_many(sessions, upside_down.compile(content, fake_profile))

    found = inversions(model, {"unpruned": space.full()}, measured, most=3)
    assert found
    assert all(one.confirmed and one.predicted_percent <= 0 for one in found)


def test_curves_are_kept_and_refused_when_damaged(net_of, fake_profile, tmp_path):
    device = FakeDevice(step=4, cliff=8, cliff_cost=3.0)
    model, measured = model_on(device, net_of(multiple=4), fake_profile, tmp_path / "table")
    found = inversions(model, around(model.space), measured)
    curves = WidthSweep(curves=width_sweep(model), inversions=found)
    curves.save(tmp_path / "curves.json")
    assert WidthSweep.load(tmp_path / "curves.json") == curves
    file = json.loads((tmp_path / "curves.json").read_text())
    file["payload"]["curves"][0]["widths"] = "none"
    (tmp_path / "curves.json").write_text(json.dumps(file))
    with pytest.raises(ArtifactError):
        WidthSweep.load(tmp_path / "curves.json")
