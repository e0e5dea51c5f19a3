"""ONNX networks in torch, on its CPU, against ONNX Runtime."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from hwprune.errors import DeviceError, ModelError
from hwprune.models.registry import build
from hwprune.runtimes.probes import conv_chain, model_bytes
from hwprune.runtimes.torch_graph import TorchGraph
from hwprune.runtimes.torch_profile import kernel_times, profiled
from hwprune.structure.export import export_base

CPU = torch.device("cpu")


def torch_graph(content: bytes, dtype: torch.dtype = torch.float32, last: bool = True) -> TorchGraph:
    return TorchGraph(content, CPU, dtype, channels_last=last)


def both(content: bytes, last: bool = True) -> tuple[np.ndarray, np.ndarray]:
    graph = torch_graph(content, last=last)
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    wanted = session.run(None, {name: graph.example.contiguous().numpy()})[0]
    return graph(graph.example).numpy(), wanted


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("resnet20", 32),
        ("mobilenet_v2", 32),
        ("torchvision:mobilenet_v3_small", 64),  # hard swish, squeeze-and-excite
        ("torchvision:shufflenet_v2_x0_5", 64),  # shapes, slices, transposes
        ("torchvision:squeezenet1_1", 64),  # concat, pools that round up
    ],
)
def test_networks_give_what_onnxruntime_gives(name, size):
    content = export_base(build(name, num_classes=10, image_size=size), (2, 3, size, size))
    got, wanted = both(content)
    assert np.abs(got - wanted).max() <= 1e-5 * np.abs(wanted).max()


def one_operator(op: str, shape: tuple[int, ...], inputs=(), **attributes) -> bytes:
    """input -> op -> output, with further inputs as constants."""
    constants = [numpy_helper.from_array(np.asarray(value), f"c{i}") for i, value in enumerate(inputs)]
    node = helper.make_node(op, ["input", *(c.name for c in constants)], ["output"], **attributes)
    ends = [
        helper.make_tensor_value_info("input", TensorProto.FLOAT, shape),
        helper.make_tensor_value_info("output", TensorProto.FLOAT, None),
    ]
    return model_bytes(helper.make_graph([node], "one", ends[:1], ends[1:], constants))


RNG = np.random.default_rng(0)
WEIGHT = RNG.standard_normal((4, 3, 3, 3), dtype=np.float32)
CASES = [
    ("Conv", [WEIGHT], {"pads": [0, 1, 2, 1], "kernel_shape": [3, 3]}),  # uneven, as TensorFlow pads
    ("Conv", [WEIGHT], {"strides": [2, 1], "dilations": [1, 2], "pads": [1] * 4, "kernel_shape": [3, 3]}),
    ("ConvTranspose", [RNG.standard_normal((3, 5, 2, 2), dtype=np.float32)], {"strides": [2, 2]}),
    ("MaxPool", [], {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [0, 0, 1, 1]}),
    ("MaxPool", [], {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}),
    ("AveragePool", [], {"kernel_shape": [3, 3], "pads": [1] * 4, "count_include_pad": 1}),
    ("AveragePool", [], {"kernel_shape": [3, 3], "pads": [1] * 4}),
    ("GlobalMaxPool", [], {}),
    ("Clip", [np.float32(-0.5), np.float32(0.5)], {}),
    ("Clip", [np.float32(-0.5)], {}),
    ("HardSigmoid", [], {"alpha": 0.3, "beta": 0.4}),
    ("LeakyRelu", [], {"alpha": 0.2}),
    ("PRelu", [RNG.standard_normal((3, 1, 1), dtype=np.float32)], {}),
    ("Slice", [np.array([1]), np.array([-1]), np.array([2]), np.array([2])], {}),
    ("Gather", [np.array([[2, 0]])], {"axis": 1}),
    ("Gather", [np.array(1)], {"axis": 2}),
    ("Reshape", [np.array([0, -1])], {}),
    ("Squeeze", [np.array([0])], {}),
    ("Softmax", [], {"axis": 1}),
    ("ReduceMean", [], {"axes": [2, 3], "keepdims": 0}),
    ("Flatten", [], {"axis": 2}),
    ("Transpose", [], {"perm": [0, 2, 3, 1]}),
    ("Erf", [], {}),
    ("BatchNormalization", [np.array([i + 1, 2, 3], dtype=np.float32) for i in range(4)], {}),
    ("LayerNormalization", [np.arange(8, dtype=np.float32), np.ones(8, dtype=np.float32)], {}),
    ("Conv", [WEIGHT[:3, :1].copy()], {"group": 3, "kernel_shape": [3, 3]}),
    ("Pow", [np.float32(2)], {}),
    ("Softplus", [], {}),
]


@pytest.mark.parametrize(("op", "inputs", "attributes"), CASES)
@pytest.mark.parametrize("last", [True, False])
def test_operators_give_what_onnxruntime_gives(op, inputs, attributes, last):
    got, wanted = both(one_operator(op, (1, 3, 9, 8), inputs, **attributes), last)
    assert got.shape == wanted.shape
    np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-5, equal_nan=True)


def test_gemm_in_all_its_forms():
    weight, bias = RNG.standard_normal((6, 5), dtype=np.float32), RNG.standard_normal(5, dtype=np.float32)
    for case in (
        {"inputs": [weight.T.copy(), bias], "transB": 1},
        {"inputs": [weight, bias], "alpha": 0.5, "beta": 2.0},
        {"inputs": [weight]},
    ):
        got, wanted = both(one_operator("Gemm", (3, 6), case.pop("inputs"), **case))
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-5)


def test_half_precision_and_layout_reach_weights_and_images():
    graph = torch_graph(conv_chain([8, 16, 4]), torch.bfloat16)
    assert graph.example.dtype == torch.bfloat16
    assert graph.example.is_contiguous(memory_format=torch.channels_last)
    result = graph(graph.example)
    assert result.dtype == torch.bfloat16
    assert result.is_contiguous(memory_format=torch.channels_last)
    full = torch_graph(conv_chain([8, 16, 4]))
    wanted = full(full.example)
    assert (result.float() - wanted).abs().max() < 0.05 * wanted.abs().max()
    assert graph.bytes == full.bytes / 2


def test_refuses_what_it_does_not_know():
    with pytest.raises(ModelError, match="not know an operator") as unknown:
        torch_graph(one_operator("Sinh", (1, 3, 4, 4)))
    assert "Sinh" in str(unknown.value)
    assert "--profile" in str(unknown.value)
    with pytest.raises(ModelError, match="not an ONNX file"):
        torch_graph(b"not a model")
    model = onnx.load_model_from_string(conv_chain([3, 4]))
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "batch"
    with pytest.raises(ModelError, match="static shapes"):
        torch_graph(model.SerializeToString())


def test_the_profiler_times_every_operator_under_its_tensor():
    content = conv_chain([3, 8, 4], size=32)
    kernels = profiled(torch_graph(content), runs=3)
    assert [kernel.tensor for kernel in kernels] == ["conv0", "relu0", "conv1", "output"]
    assert [kernel.op for kernel in kernels] == ["Conv", "Relu"] * 2
    assert all(kernel.runs == 3 and kernel.time_us > 0 for kernel in kernels)


class Event:
    """As the profiler's: a `record_function` on the host, with the kernels that were started inside it."""

    class Kernel:
        def __init__(self, name, duration):
            self.name, self.duration = name, duration

    class Type:
        def __init__(self, name):
            self.name = name

    def __init__(self, name, kernels=(), children=(), device="CPU"):
        self.name, self.cpu_children = name, list(children)
        self.kernels = [self.Kernel(*kernel) for kernel in kernels]
        self.device_type = self.Type(device)
        self.cpu_time_total = 1e6  # of the host, which must not count


def test_on_a_gpu_the_kernels_count_and_changes_of_layout_are_told_apart():
    graph = torch_graph(conv_chain([3, 8]))

    def run(conv_us):
        inside = Event("aten::cudnn_convolution", [("nchwToNhwcKernel", 3.0), ("sm90_xmma_fprop", conv_us)])
        conv = Event("hwprune/0", children=[Event("aten::conv2d", children=[inside]), Event("aten::add_")])
        relu = Event("hwprune/1", [("relu_kernel", 2.0)])
        return [conv, inside, relu, Event("hwprune/0", device="CUDA"), Event("cudaLaunchKernel")]

    kernels = kernel_times(graph, [*run(10.0), *run(14.0), *run(11.0)], on_gpu=True)
    assert [(k.tensor, k.op, k.reorder, k.time_us, k.runs) for k in kernels] == [
        ("conv0", "Conv", True, 3.0, 3),
        ("conv0", "Conv", False, 11.0, 3),
        ("output", "Relu", False, 2.0, 3),
    ]


def test_runs_whose_kernels_were_not_recorded_do_not_count_and_none_at_all_is_an_error():
    graph = torch_graph(conv_chain([3, 8]))
    run = [Event("hwprune/0", [("conv", 10.0)]), Event("hwprune/1", [("relu", 2.0)])]
    lost = [Event("hwprune/0"), Event("hwprune/1")]
    assert [(k.time_us, k.runs) for k in kernel_times(graph, [*run, *lost, *lost], on_gpu=True)] == [
        (10.0, 1),
        (2.0, 1),
    ]
    with pytest.raises(DeviceError, match="CUPTI") as told:
        kernel_times(graph, lost, on_gpu=True)
    assert "ERR_NVGPUCTRPERM" in told.value.do


def test_the_fields_read_are_those_of_the_profilers_events():
    from torch.autograd.profiler_util import FunctionEvent, Kernel

    assert {"name", "duration"} <= set(Kernel._fields)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as watch:
        torch.zeros(2)
    event = watch.events()[0]
    assert isinstance(event, FunctionEvent)
    assert event.device_type.name == "CPU"
    assert event.kernels == []
    assert isinstance(event.cpu_children, list)
