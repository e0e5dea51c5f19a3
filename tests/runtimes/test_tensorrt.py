"""TensorRT above a stand-in: a contract test for 10.x and 11.x, not a run; see docs/tensorrt-contract.md."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import onnx
import pytest
from tensorrt_standin import DEVICE, VERSIONS, Machine, install
from test_ort_runtime import residual_net

from hwprune.errors import ConfigError, DeviceError, ModelError
from hwprune.runtimes import TargetProfile, cold, tensorrt_cuda
from hwprune.runtimes.fake import fake_kernels
from hwprune.runtimes.gpu_timing import LEAST_PAIR_MS
from hwprune.runtimes.half import half
from hwprune.runtimes.probes import conv_chain
from hwprune.runtimes.quantise import quantise
from hwprune.runtimes.tensorrt import TensorRt
from hwprune.runtimes.tensorrt_layers import (
    EngineLayer,
    OnnxNames,
    check_precision,
    kernel_times,
    read_layers,
)
from hwprune.structure.onnx_graph import read_graph

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
        # one ahead, as trtexec; runs this short share a pair of events
        assert machine.calls[before:] == ["replay", "run"] * (
            1 + 4 * math.ceil(LEAST_PAIR_MS / (NET_MS * 1.01))
        )
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


@pytest.mark.parametrize("graph", [True, False])
def test_rotating_buffers_take_turns_among_engines_with_buffers_of_their_own(machine, monkeypatch, graph):
    monkeypatch.setattr(cold, "replicas", lambda network, cache: 3)
    free, rotating = machine.free_bytes, of(buffers="rotating", cuda_graph=graph)
    with TensorRt().compile(NET, rotating) as session:
        assert machine.builds == 1  # copies of one engine, not builds of their own
        held = len(machine.live)
        before = len(machine.ran)
        assert session.time_runs(6) == pytest.approx([NET_MS * 1.01] * 6)
        ran = machine.ran[before:]
        assert len(set(ran)) == 3
        assert all(len(set(ran[i : i + 3])) == 3 for i in range(len(ran) - 2))
    assert held == 3 * 2  # an input and an output each
    assert machine.free_bytes == free
    assert TensorRt().settings(rotating)["buffers"] == "rotating"
    assert TensorRt().settings(PROFILE)["buffers"] == "hot"
    assert TensorRt().for_probes(rotating) == of(cuda_graph=graph)


def test_copies_that_do_not_fit_are_all_given_back(machine, monkeypatch):
    monkeypatch.setattr(cold, "replicas", lambda network, cache: 3)
    TensorRt().settings(PROFILE)
    machine.free_bytes = 2 * (8 + 8) * 14 * 14 * 4 + 100  # two copies' buffers
    left = machine.free_bytes
    with pytest.raises(DeviceError, match="too little memory"):
        TensorRt().compile(NET, of(buffers="rotating"))
    assert (machine.free_bytes, machine.contexts) == (left, 0)


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


def test_the_engines_of_a_round_are_kept_and_no_more(machine, monkeypatch):
    runtime = TensorRt()
    nets = [conv_chain([8, width]) for width in range(8, 18)]  # eight networks and two references
    for net in nets:
        runtime.compile(net, PROFILE).close()
    for net in nets:
        runtime.profile_kernels(net, PROFILE, runs=1)
    assert machine.builds == len(nets)
    monkeypatch.setattr("hwprune.runtimes.tensorrt._ENGINES", 2)
    runtime.compile(conv_chain([8, 7]), PROFILE).close()
    runtime.profile_kernels(nets[-1], PROFILE, runs=1)
    runtime.compile(nets[-2], PROFILE).close()
    assert machine.builds == len(nets) + 2


def test_a_network_that_cannot_be_captured_is_enqueued_and_the_table_says_so(machine, caplog):
    machine.captures = False
    with TensorRt().compile(NET, PROFILE) as session:
        assert not session.captured
        assert session.time_runs(2) == pytest.approx([NET_MS * 1.01] * 2)
    assert "replay" not in machine.calls
    assert "cannot be captured" in caplog.text
    assert TensorRt().settings(PROFILE)["cuda_graph"] is False


def test_a_capture_is_ended_whatever_happens_inside(machine):
    def fails():
        raise RuntimeError("while it is enqueued")

    machine.calls.append("run")
    with pytest.raises(RuntimeError, match="enqueued"):
        tensorrt_cuda.CudaGraph.capture(7, fails)
    assert machine.captured is None


def test_layers_of_one_name_are_told_apart_by_their_order():
    layers = [EngineLayer("twin", "Conv", outputs=(name,)) for name in ("conv0", "conv1")]
    layers.append(EngineLayer("one", "Conv", outputs=("conv2",)))
    run = [("twin", 1.0), ("twin", 3.0), ("one", 5.0), ("new", 7.0)]
    kernels = kernel_times(layers, OnnxNames(NET), [run, run])
    assert [(k.tensor, k.time_us, k.runs) for k in kernels] == [
        ("conv0", 1000.0, 2),
        ("conv1", 3000.0, 2),
        ("conv2", 5000.0, 2),
        (None, 7000.0, 2),
    ]
    for reports in ([run[1:]], [run, run[::-1]]):
        with pytest.raises(DeviceError, match="disagree"):
            kernel_times(layers, OnnxNames(NET), reports)


def test_a_layer_makes_the_tensor_of_its_last_node_in_the_network():
    mixed = EngineLayer("__myl_0", "kgen", nodes=("node_conv1", "node_conv0", "relu0"))
    assert OnnxNames(NET).tensor_of(mixed) == "conv1"


def test_most_layers_of_an_int8_engine_must_compute_in_int8(caplog):
    def engine(*formats):
        return [
            EngineLayer(f"l{i}", "", outputs=("conv0",), formats=frozenset({f}))
            for i, f in enumerate(formats)
        ]

    check_precision(engine("int8", "int8", "fp32"), OnnxNames(NET), "int8")
    assert "1 of 3 layers do not compute in int8: l2" in caplog.text
    with pytest.raises(DeviceError, match="does not compute in int8") as told:
        check_precision(engine("int8", "fp32", "fp32"), OnnxNames(NET), "int8")
    assert told.value.where == "l1, l2"


def test_copies_that_change_a_format_do_not_count_as_layers_with_weights(caplog):
    """A copy of a convolution's output back to 32 bits, as at the end of every network in 16 bits."""
    conv = EngineLayer("node_conv0", "CaskConvolution", outputs=("made",), formats=frozenset({"fp16"}))
    copy = EngineLayer(
        "Reformatting CopyNode for Output Tensor 0 to node_conv1",
        "Reformat",
        inputs=("Reformatted Output Tensor 0 to node_conv1",),
        outputs=("conv1",),
        formats=frozenset({"fp32"}),
    )
    names = OnnxNames(NET)
    assert [names.has_weights(layer) for layer in (conv, copy)] == [True, False]
    check_precision([conv, copy], names, "fp16")
    check_precision([replace(conv, formats=frozenset({"int8"})), copy], names, "int8")
    assert not caplog.text


def test_the_stand_in_refuses_what_a_gpu_would(machine):
    import pycuda.driver as cuda

    with pytest.raises(cuda.LogicError, match="no CUDA context"):
        cuda.mem_alloc(4)
    with pytest.raises(cuda.LogicError, match="no CUDA context"):
        cuda.Stream()
    with tensorrt_cuda.gpu_context(PROFILE):
        buffer = cuda.mem_alloc(4)
        buffer.free()
        with pytest.raises(AssertionError, match="freed"):
            cuda.memcpy_htod(buffer, np.ones(1))
    with pytest.raises(DeviceError, match="reports an error"), tensorrt_cuda.gpu_context(PROFILE):
        buffer.free()


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
    onnx.checker.check_model(onnx.load_model_from_string(half(NET)))
    assert [node.op for node in read_graph(half(NET)).nodes] == [node.op for node in read_graph(NET).nodes]
    kinds = {tensor.data_type for tensor in onnx.load_model_from_string(half(NET)).graph.initializer}
    assert kinds == {onnx.TensorProto.FLOAT16}


def test_integers_for_tensorrt_are_symmetric_with_biases_in_floats():
    graph = onnx.load_model_from_string(TensorRt()._lower(NET, of("int8"), ())).graph
    points = [tensor for tensor in graph.initializer if tensor.name.endswith("_zero_point")]
    assert points
    for tensor in points:
        assert tensor.data_type == onnx.TensorProto.INT8
        assert not onnx.numpy_helper.to_array(tensor).any()


def test_nothing_is_quantised_between_a_layer_with_weights_and_what_it_is_fused_with():
    """NVIDIA's guide to explicit quantisation: else TensorRT cannot fuse the activation."""
    content = quantise(residual_net(16, 24), symmetric=True)
    graph = onnx.load_model_from_string(content).graph
    makers = {name: node.op_type for node in graph.node for name in node.output}
    quantised = [node.input[0] for node in graph.node if node.op_type == "QuantizeLinear"]
    assert quantised == ["input", "r0", "r1", "flat"]
    assert not {makers.get(name) for name in quantised} & {"Conv", "Gemm"}
    read = [node.input[0] for node in graph.node if node.op_type in ("Conv", "Gemm")]
    assert {makers[name] for name in read} == {"DequantizeLinear"}


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
    assert "--profile cuda-torch-fp32" in caught.value.do
    assert "nvcr.io/nvidia/tensorrt" in caught.value.do  # pip's TensorRT has no trtexec
    machine.failure, machine.loads = "", False
    with pytest.raises(DeviceError, match="cannot load") as caught:
        TensorRt().compile(NET, PROFILE)
    assert "pip install --upgrade tensorrt" in caught.value.do
    machine.loads, machine.free_bytes = True, 7000  # enough for the input alone
    with pytest.raises(DeviceError, match="too little memory"):
        TensorRt().compile(NET, PROFILE)
    assert (machine.free_bytes, machine.contexts) == (7000, 0)
    assert free > 7000


def test_a_failure_has_its_reason_while_other_engines_live(machine):
    """TensorRT tells the logger that it was given first, for as long as anything lives that uses it."""
    runtime = TensorRt()
    with runtime.compile(NET, PROFILE) as session:
        machine.failure = "no tactic"
        with pytest.raises(DeviceError) as caught:
            runtime.compile(conv_chain([8, 24]), PROFILE)
        assert caught.value.got == "no tactic"
        machine.failure, machine.loads = "", False
        with pytest.raises(DeviceError) as caught:
            runtime.compile(conv_chain([8, 40]), PROFILE)
        assert caught.value.got == "Version tag does not match"  # and nothing of the failure before
        session._runs[0]._enqueue = lambda: False
        session._runs[0]._graph = None
        with pytest.raises(DeviceError) as caught:
            session.time_runs(1)
        assert caught.value.got == "TensorRT gave no reason"
    machine.loads = True
    runtime.compile(NET, PROFILE).close()


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
    with pytest.raises(ConfigError, match="hot, rotating"):
        TensorRt().check(of(buffers="warm"))
    for text in ("0 to 5", "no such option", "fp32, fp16, int8"):
        assert text in str(caught.value)


def test_describes_what_tables_must_not_be_mixed_across(machine):
    assert TensorRt().describe()["version"] == VERSIONS[machine.version]
    assert "13.1" in TensorRt().describe()["build"]
    settings = TensorRt().settings(of(timing_iterations=2))
    assert (settings["gpu"], settings["capability"]) == ("Pretended GPU", "9.0")
    assert (settings["timing_iterations"], settings["tf32"]) == (2, False)
