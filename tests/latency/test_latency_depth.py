"""Networks without some blocks on the pretended device: what a block costs is learnt with the rest."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from torch import nn

import hwprune
from hwprune.latency.folder import TableFolder
from hwprune.latency.merge import merge
from hwprune.latency.model import TableModel
from hwprune.latency.plan import Plan
from hwprune.latency.profiler import profile_space
from hwprune.latency.sampling import planned
from hwprune.probe import probe
from hwprune.runtimes import TargetProfile
from hwprune.runtimes.fake import FakeDevice, FakeRuntime, fake_kernels
from hwprune.structure.kernels import derive_kernels
from hwprune.structure.onnx_slice import OnnxSlicer

FAKE = TargetProfile(name="fake", runtime="fake")


class Residual(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.a, self.b = nn.Conv2d(width, 24, 3, padding=1), nn.Conv2d(24, width, 3, padding=1)

    def forward(self, x):
        return torch.relu(x + self.b(torch.relu(self.a(x))))


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    stem = nn.Sequential(nn.Conv2d(3, 32, 3, padding=1), nn.ReLU())
    model = nn.Sequential(stem, *(Residual(32) for _ in range(5)), nn.Conv2d(32, 5, 1)).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        space = hwprune.trace(model, torch.randn(1, 3, 12, 12), depth=True)
    assert len(space.blocks) == 5
    return hwprune.export_base(model, (1, 3, 12, 12)), space


@pytest.fixture(scope="module")
def table(net, tmp_path_factory):
    base, space = net
    runtime = FakeRuntime(FakeDevice(noise=0.01))
    return profile_space(
        space, base, FAKE, runtime, folder=tmp_path_factory.mktemp("table"), max_networks=64, max_seconds=1e6
    )


def test_kernels_of_a_missing_block_are_not_executed(net):
    base, space = net
    kernels = derive_kernels(base, space)
    for gate in range(len(space.groups), len(space.genes)):
        widths = list(space.full())
        widths[gate] = 0
        network = np.array([space.check(widths)])
        gone = [slot for slot in kernels.slots if not slot.present(network)[0]]
        name = space.blocks[gate - len(space.groups)].name
        assert {slot.layer for slot in gone if slot.layer} == {f"{name}.a", f"{name}.b"}
        assert any(not slot.layer or "add" in slot.full.op for slot in gone), "and the sum"


def test_sampled_networks_have_gates(net):
    _, space = net
    networks = np.array([planned(space, index, 0) for index in range(60)])
    depths = networks[:, len(space.groups) :].sum(axis=1)
    assert set(depths.tolist()) == set(range(6))
    assert (networks == space.canonical(networks)).all()


def test_shallow_networks_are_predicted_as_well_as_deep_ones(net, table):
    base, space = net
    model = TableModel.fit(table, space, base)
    rng = np.random.default_rng(7)
    networks = np.array([space.sample(rng) for _ in range(40)])
    device, slicer = FakeDevice(), OnnxSlicer(base, space)
    kernels_us = [
        sum(k.time_us for k in fake_kernels(slicer.slice(one), device)) for one in networks.tolist()
    ]
    ratio = model.predict(networks) / (device.run_us + np.array(kernels_us))
    ratio /= np.median(ratio)
    assert np.abs(ratio - 1).mean() < 0.005
    assert np.abs(ratio - 1).max() < 0.02


def test_lookup_tables_equal_the_sum_kernel_by_kernel(net, table):
    base, space = net
    model = TableModel.fit(table, space, base)
    rng = np.random.default_rng(3)
    networks = np.array([space.sample(rng) for _ in range(30)])
    slow = sum(model.kernel_us(slot, networks) for slot in model.kernels.slots)
    np.testing.assert_allclose(model._sums(networks), slow)


class DenseStage(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Conv2d(width + 16 * i, 24, 1), nn.ReLU(), nn.Conv2d(24, 16, 3, padding=1))
            for i in range(4)
        )

    def forward(self, x):
        for layer in self.layers:
            x = torch.cat([x, layer(x)], 1)
        return x


def test_a_plan_of_dense_layers_gives_a_table_that_predicts(tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 16, 3), DenseStage(16), nn.Conv2d(80, 5, 1)).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        space = hwprune.trace(model, torch.randn(1, 3, 12, 12), depth=True)
    assert len(space.blocks) == 4
    plan = Plan.draw(space, hwprune.export_base(model, (1, 3, 12, 12)), FAKE, count=40, max_seconds=600.0)
    plan.save(tmp_path / "p.hwplan")
    again = Plan.load(tmp_path / "p.hwplan")
    assert again.space == space
    assert again.networks == plan.networks
    assert any(0 in widths[: len(space.groups)] for widths in again.networks)
    probe(again, tmp_path / "table")
    taken = merge([TableFolder.load(tmp_path / "table")])
    measured = taken.table.networks["latency_ms"].to_numpy()
    np.testing.assert_allclose(taken.model().predict(taken.table.widths), measured, rtol=0.05)
