"""TensorRT above a stand-in: a contract test for 10.x and 11.x, not a run; see docs/tensorrt-contract.md."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
from tensorrt_standin import DEVICE, VERSIONS, Machine, install

from hwprune.errors import ConfigError, DeviceError, ModelError
from hwprune.runtimes import TargetProfile, tensorrt_cuda
from hwprune.runtimes.fake import fake_kernels
from hwprune.runtimes.probes import conv_chain
from hwprune.runtimes.tensorrt import TensorRt, half
from hwprune.runtimes.tensorrt_layers import OnnxNames, read_layers

PROFILE = TargetProfile(name="trt", device="cuda:0", runtime="tensorrt")
NET = conv_chain([8, 16, 12, 8])
NET_MS = sum(kernel.time_us for kernel in fake_kernels(NET, DEVICE)) / 1e3


@pytest.fixture(params=[10, 11])
def machine(request, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    tensorrt_cuda._retained.cache_clear()
    yield install(monkeypatch, Machine(version=request.param))
    tensorrt_cuda._retained.cache_clear()


def of(precision="fp32", **options):
    return replace(PROFILE, precision=precision, options=options)


def test_an_engine_is_warmed_up_captured_replayed_and_freed(machine):
    free = machine.free_bytes
    with TensorRt().compile(NET, PROFILE) as session:
        assert machine.free_bytes < free
        before = len(machine.calls)
        times = session.time_runs(4)
        assert machine.calls[before:] == ["replay", "run"] * 5  # one ahead, as trtexec
    assert times == pytest.approx([NET_MS * 1.01] * 4)
    assert machine.free_bytes == free
    assert machine.contexts == 0
    assert machine.calls.count("primary context") == 1
    with pytest.raises(DeviceError, match="closed"):
        session.time_runs(1)


def test_the_build_is_strongly_typed_serial_and_without_tf32(machine):
    TensorRt().compile(NET, of(optimization_level=5, workspace_mib=64)).close()
    import tensorrt as trt

    assert machine.config == {
        "flags": 1 << trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED,
        "TF32": False,
        "WORKSPACE": 64 << 20,
        "profiling_verbosity": trt.ProfilingVerbosity.DETAILED,
        "builder_optimization_level": 5,
        "avg_timing_iterations": 8,
        "max_aux_streams": 0,
    }


@pytest.mark.parametrize("graphs", [True, False])
def test_without_cuda_bindings_runs_are_enqueued_and_the_table_says_so(machine, monkeypatch, graphs):
    install(monkeypatch, machine, graphs=graphs)
    with TensorRt().compile(NET, PROFILE) as session:
        session.time_runs(1)
    assert ("replay" in machine.calls) is graphs
    assert TensorRt().settings(PROFILE)["cuda_graph"] is graphs
    assert TensorRt().settings(of(cuda_graph=False))["cuda_graph"] is False


def test_layers_get_their_times_tensors_and_reformats(machine):
    runtime = TensorRt()
    kernels = runtime.profile_kernels(NET, PROFILE, runs=3)
    known = fake_kernels(NET, DEVICE)
    assert any(kernel.reorder for kernel in known)
    assert [(k.tensor, k.reorder) for k in kernels] == [(k.tensor, k.reorder) for k in known]
    assert [k.time_us for k in kernels] == pytest.approx([k.time_us * 1.01 for k in known])
    assert all(kernel.runs == 3 for kernel in kernels)
    runtime.compile(NET, PROFILE).close()
    assert machine.builds == 1  # what was profiled is what is timed


def test_layers_of_myelin_and_copies_of_inputs_are_traced_back():
    report = """{"Layers": [
        {"Name": "Reformatting CopyNode for Input Tensor 0 to node_conv0 + relu0", "LayerType": "Reformat",
         "Inputs": [{"Name": "input"}], "Outputs": [{"Name": "Reformatted Input Tensor 0 to node_conv0"}]},
        {"Name": "__myl_Conv_0", "LayerType": "kgen", "Inputs": [], "Outputs": [{"Name": "__mye1"}],
         "Metadata": "[ONNX Layer: node_conv0]\\u001e[ONNX Layer: relu0]"},
        {"Name": "node_conv1 + relu1", "LayerType": "CaskConvolution", "Outputs": [{"Name": "(Unnamed) 3"}]},
        {"Name": "{ForeignNode[x]}", "LayerType": "Myelin"}, "names only"], "Bindings": []}"""
    names = OnnxNames(NET)
    layers = read_layers(report)
    assert [names.tensor_of(layer) for layer in layers] == ["input", "relu0", "relu1", None, None]
    assert [layer.reformats for layer in layers] == [True, False, False, False, False]
    with pytest.raises(DeviceError, match="does not know"):
        read_layers("{}")


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_number_formats_come_from_the_network_and_are_verified(machine, precision):
    runtime, profile = TensorRt(), of(precision)
    lowered = runtime.lower(NET, profile)
    runtime.compile(lowered, profile).close()
    assert all(kernel.tensor for kernel in runtime.profile_kernels(lowered, profile, runs=1))
    with pytest.raises(DeviceError, match=f"does not compute in {precision}") as caught:
        runtime.compile(NET, profile)  # as it was given, 32 bits
    assert caught.value.got == "fp32"
    machine.force_fp32 = True
    with pytest.raises(DeviceError, match="does not compute"):
        TensorRt().compile(lowered, profile)


def test_half_computes_nearly_the_same_between_inputs_and_outputs_of_32_bits():
    import onnxruntime as ort

    images = np.random.default_rng(1).standard_normal((1, 8, 14, 14), dtype=np.float32)
    full, halved = (
        ort.InferenceSession(content, providers=["CPUExecutionProvider"]).run(None, {"input": images})[0]
        for content in (NET, half(NET))
    )
    assert halved.dtype == np.float32
    assert 0 < np.abs(full - halved).max() < 1e-2 * np.abs(full).max()
    kinds = {tensor.data_type for tensor in onnx.load_model_from_string(half(NET)).graph.initializer}
    assert kinds == {onnx.TensorProto.FLOAT16}


def test_integers_for_tensorrt_are_symmetric_with_biases_in_floats():
    graph = onnx.load_model_from_string(TensorRt()._lower(NET, of("int8"), ())).graph
    points = [tensor for tensor in graph.initializer if tensor.name.endswith("_zero_point")]
    assert points
    for tensor in points:
        assert tensor.data_type == onnx.TensorProto.INT8
        assert not onnx.numpy_helper.to_array(tensor).any()


def test_kernels_timed_once_are_known_to_later_builds_on_this_gpu(machine, tmp_path):
    TensorRt().compile(NET, PROFILE).close()
    (path,) = tmp_path.glob("hwprune/tensorrt/*")
    assert path.name.startswith("pretended-gpu-")
    assert path.name.endswith(f"-{VERSIONS[machine.version]}.timing")
    with TensorRt().compile(NET, PROFILE) as session:  # built again, from the kept times
        assert session.time_runs(1) == pytest.approx([NET_MS * 1.01])
    path.write_bytes(b'{"version": 9, "factor": 5}')  # another version's
    with TensorRt().compile(NET, PROFILE) as session:
        assert session.time_runs(1) == pytest.approx([NET_MS * 1.03])


def test_builds_differ_and_by_how_much_can_be_measured(machine, tmp_path):
    found = TensorRt().rebuild(NET, PROFILE, builds=3, runs=2)
    assert found == pytest.approx(NET_MS * np.array([1.01, 1.02, 1.03]))
    assert not list(tmp_path.glob("hwprune/tensorrt/*"))


@pytest.mark.parametrize(
    ("change", "what", "do"),
    [
        ({"driver": False}, "no NVIDIA GPU", "nvidia-driver"),
        ({"names": ()}, "no GPU cuda:0", "nvidia-smi"),
        ({"capability": (6, 1)}, "compute capability 6.1", "--profile"),
    ],
)
def test_says_what_the_machine_lacks(machine, change, what, do):
    vars(machine).update(change)
    assert not TensorRt().available()
    with pytest.raises(DeviceError, match=what) as caught:
        TensorRt().compile(NET, PROFILE)
    assert do in caught.value.do


@pytest.mark.parametrize("package", ["tensorrt", "pycuda"])
def test_says_which_package_is_missing(machine, monkeypatch, package):
    import importlib.util

    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == package else found(name))
    what, do = TensorRt().missing(PROFILE)
    assert package in what.lower()
    assert "hwprune[tensorrt]" in do


def test_failures_carry_tensorrts_own_words(machine):
    free = machine.free_bytes
    for message, what in (("CUDA: out of memory", "too little memory"), ("no tactic", "could not build")):
        machine.failure = message
        with pytest.raises(DeviceError, match=what) as caught:
            TensorRt().compile(NET, PROFILE)
        assert message in str(caught.value)
    machine.failure, machine.loads = "", False
    with pytest.raises(DeviceError, match="cannot load") as caught:
        TensorRt().compile(NET, PROFILE)
    assert "pip install --upgrade tensorrt" in caught.value.do
    machine.loads, machine.free_bytes = True, 7000  # enough for the input alone
    with pytest.raises(DeviceError, match="too little memory"):
        TensorRt().compile(NET, PROFILE)
    assert (machine.free_bytes, machine.contexts) == (7000, 0)
    assert free > 7000


def test_refuses_networks_and_settings_that_it_does_not_know(machine):
    model = onnx.load_model_from_string(NET)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "batch"
    with pytest.raises(ModelError, match="static shapes"):
        TensorRt().compile(model.SerializeToString(), PROFILE)
    model = onnx.load_model_from_string(NET)
    model.graph.node[0].op_type = "NonZero"
    with pytest.raises(ModelError, match="UNSUPPORTED_NODE"):
        TensorRt().compile(model.SerializeToString(), PROFILE)
    with pytest.raises(ConfigError) as caught:
        TensorRt().check(of("bf16", optimization_level=True, tf32=True))
    for text in ("0 to 5", "no such option", "fp32, fp16, int8"):
        assert text in str(caught.value)


def test_describes_what_tables_must_not_be_mixed_across(machine):
    assert TensorRt().describe()["version"] == VERSIONS[machine.version]
    assert "13.1" in TensorRt().describe()["build"]
    settings = TensorRt().settings(of(timing_iterations=2))
    assert (settings["gpu"], settings["capability"]) == ("Pretended GPU", "9.0")
    assert (settings["timing_iterations"], settings["tf32"]) == (2, False)
