"""What every runtime for CPUs owes; nothing here depends on how fast the machine is."""

from __future__ import annotations

from dataclasses import replace

import onnx
import pytest
from test_ort_runtime import residual_net

from hwprune.errors import ConfigError, DeviceError, ModelError
from hwprune.runtimes import TargetProfile, get_runtime, load_profile
from hwprune.runtimes.base import physical_cores
from hwprune.runtimes.host_timing import HostTimedSession
from hwprune.runtimes.onnxruntime import OnnxRuntime
from hwprune.runtimes.openvino import OpenVino
from hwprune.runtimes.probes import conv_chain

PROFILE = TargetProfile(name="test")
INT8 = replace(PROFILE, precision="int8")
WIDTHS = [(16, 32), (16, 24), (15, 21), (20, 33), (8, 61)]


@pytest.fixture(params=[OnnxRuntime, OpenVino], ids=lambda kind: kind.name)
def runtime(request):
    made = request.param()
    if not made.available():
        pytest.skip(made.install)
    return made


def made_by(kernels):
    return {kernel.tensor for kernel in kernels if not kernel.reorder}


@pytest.mark.parametrize("threads", [1, 2])
def test_sessions_run_and_settle(runtime, threads):
    if threads > physical_cores():
        pytest.skip("OpenVINO takes no more threads than cores")
    with runtime.compile(residual_net(16, 24), replace(PROFILE, threads=threads)) as session:
        times = session.time_runs(4)
        session.settle()
    assert times.shape == (4,)
    assert (times > 0).all()
    with pytest.raises(DeviceError, match="closed"):
        session.time_runs(1)


def test_a_network_that_fails_while_it_runs_is_a_device_error():
    def fails():
        raise RuntimeError("the index is out of bounds")

    with (
        HostTimedSession([fails], PROFILE) as session,
        pytest.raises(DeviceError, match="while it ran") as told,
    ):
        session.time_runs(1)
    assert "out of bounds" in str(told.value)
    assert "smaller `batch`" in str(told.value)


def test_refuses_what_it_cannot_run(runtime):
    with pytest.raises(ModelError, match="refuses"):
        runtime.compile(b"not a model", PROFILE)
    model = onnx.load_model_from_string(conv_chain([3, 4]))
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "batch"
    with pytest.raises(ModelError, match="static shapes"):
        runtime.compile(model.SerializeToString(), PROFILE)


@pytest.mark.parametrize(
    "wrong", [{"precision": "bf16"}, {"options": {"spining": "off"}}, {"options": {"denormal_as_zero": "no"}}]
)
def test_settings_that_it_does_not_know_are_refused(runtime, wrong):
    with pytest.raises(ConfigError, match="does not know"):
        runtime.compile(residual_net(16, 24), replace(PROFILE, **wrong))


@pytest.mark.parametrize("widths", WIDTHS)
def test_every_kernel_is_traced_back_to_a_tensor_of_the_graph(runtime, widths):
    content = residual_net(*widths)
    kernels = runtime.profile_kernels(content, PROFILE, runs=3)
    tensors = {"input"} | {node.output[0] for node in onnx.load_model_from_string(content).graph.node}
    assert all(kernel.tensor in tensors for kernel in kernels)
    assert all(kernel.runs == 3 and kernel.time_us > 0 for kernel in kernels)
    # Each convolution and the linear layer is found, under its own tensor or that of what it was fused with.
    for alternatives in ({"c0", "r0"}, {"c1", "r1"}, {"c2", "sum", "r2"}, {"flat", "output"}):
        assert made_by(kernels) & alternatives


def test_nodes_without_names_are_told_apart(runtime):
    model = onnx.load_model_from_string(residual_net(16, 32))
    for node in model.graph.node:
        node.name = ""
    kernels = runtime.profile_kernels(model.SerializeToString(), PROFILE, runs=2)
    assert len(made_by(kernels)) >= 4
    assert all(kernel.tensor for kernel in kernels)


@pytest.mark.parametrize("widths", [(16, 32), (15, 21), (8, 61)])
def test_every_kernel_of_a_quantised_network_is_traced_back(runtime, widths):
    lowered = runtime.lower(residual_net(*widths), INT8)
    kernels = runtime.profile_kernels(lowered, INT8, runs=3)
    tensors = {"input"} | {node.output[0] for node in onnx.load_model_from_string(lowered).graph.node}
    assert all(kernel.tensor in tensors for kernel in kernels)
    for parts in (("c0", "r0"), ("c1", "r1"), ("c2", "sum", "r2"), ("pool",), ("output",)):
        assert any(str(tensor).startswith(parts) for tensor in made_by(kernels)), parts


def test_int8_is_computed_in_8_bits(runtime):
    """At a size where arithmetic decides: else the operators around would hide it."""
    content = conv_chain((64, 64, 64, 64), size=28)
    whole, eight = (
        sum(kernel.time_us for kernel in runtime.profile_kernels(runtime.lower(content, one), one, runs=5))
        for one in (PROFILE, INT8)
    )
    assert eight < whole


def test_shipped_profiles_for_one_thread_and_for_all_cores(runtime):
    stem = {"onnxruntime": "cpu", "openvino": "openvino"}[runtime.name]
    for ending, precision in (("", "fp32"), ("-int8", "int8")):
        names = {f"{stem}-1t{ending}": 1, f"{stem}{ending}": 0}
        for name, threads in names.items():
            profile = load_profile(name)
            assert (profile.precision, profile.threads, profile.batch) == (precision, threads, 1)
            assert type(get_runtime(profile)) is type(runtime)
            assert runtime.settings(profile)["precision"] == precision
