"""A latency table through the torch runtime, with torch's CPU in place of a GPU."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch

from hwprune.latency.model import TableModel
from hwprune.latency.profiler import profile_space
from hwprune.runtimes import TargetProfile
from hwprune.runtimes.base import Session
from hwprune.runtimes.torch_cuda import TorchCudaRuntime
from hwprune.runtimes.torch_graph import TorchGraph
from hwprune.runtimes.torch_profile import profiled

PROFILE = TargetProfile(name="gpu", device="cuda:0", runtime="torch_cuda")


def on_cpu(onnx, profile):
    return TorchGraph(onnx, torch.device("cpu"), torch.float32, channels_last=True)


class CpuSession(Session):
    """Times the same graph by the host's clock."""

    def __init__(self, graph):
        self.graph = graph

    def _time_runs(self, count):
        stamps = [time.perf_counter()]
        for _ in range(count):
            self.graph(self.graph.example)
            stamps.append(time.perf_counter())
        return np.diff(stamps) * 1e3


class OnCpu(TorchCudaRuntime):
    """The same runtime with torch's CPU in place of a GPU."""

    def missing(self, profile=None):
        return None

    def _check(self, profile):
        pass

    def settings(self, profile):
        return {}

    def _compile(self, onnx, profile):
        return CpuSession(on_cpu(onnx, profile))

    def _profile_kernels(self, onnx, profile, runs):
        return profiled(on_cpu(onnx, profile), runs)


@pytest.mark.filterwarnings("ignore::hwprune.errors.HwpruneWarning")  # a short look on a busy machine
def test_a_latency_table_is_made_of_what_the_profiler_says(net_of, tmp_path):
    """Everything above the device: sampling, profiling by operator, table, latency model, predictions."""
    content, space = net_of((3, 24, 32, 10))
    table = profile_space(
        space, content, PROFILE, OnCpu(), folder=tmp_path, max_seconds=1.0, max_error=0.9, max_networks=8
    )
    assert {spec.family for spec in table.specs()} == {"conv", "relu"}
    assert {"conv0", "relu0", "conv2", "output"} <= set(table.kernels["tensor"])
    model = TableModel.fit(table, space, content)
    narrow, full = model.predict([space.smallest(), space.full()])
    assert 0 < narrow < full
