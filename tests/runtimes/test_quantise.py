"""Static quantisation, and what ONNX Runtime executes of it."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from test_ort_runtime import residual_net
from torch import nn

import hwprune
from hwprune.errors import ConfigError, ModelError
from hwprune.runtimes import TargetProfile
from hwprune.runtimes.onnxruntime import OnnxRuntime
from hwprune.runtimes.quantise import quantise
from hwprune.structure.kernels import derive_kernels


class Residual(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.a, self.b = nn.Conv2d(width, 12, 3, padding=1), nn.Conv2d(12, width, 3, padding=1)

    def forward(self, x):
        return torch.relu(x + self.b(torch.relu(self.a(x))))


class DenseStage(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Conv2d(width + 6 * i, 12, 1), nn.ReLU(), nn.Conv2d(12, 6, 3, padding=1))
            for i in range(2)
        )

    def forward(self, x):
        for layer in self.layers:
            x = torch.cat([x, layer(x)], 1)
        return x


INT8 = TargetProfile(name="test", precision="int8")
RUNTIME = OnnxRuntime()


def run(content: bytes, image: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return session.run(None, {"input": image})[0]


@pytest.fixture(scope="module")
def images() -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    return [rng.standard_normal((1, 3, 16, 16), dtype=np.float32) for _ in range(8)]


def test_a_quantised_network_computes_nearly_the_same(images):
    content = residual_net(16, 24)
    lowered = RUNTIME.lower(content, INT8, images)
    expected = np.concatenate([run(content, image) for image in images])
    got = np.concatenate([run(lowered, image) for image in images])
    assert np.corrcoef(expected.ravel(), got.ravel())[0, 1] > 0.99
    assert not np.array_equal(expected, got)
    assert len(lowered) < len(content)


def test_the_images_decide_the_scales(images):
    content = residual_net(16, 24)

    def scale(batches):
        graph = onnx.load_model_from_string(quantise(content, batches)).graph
        (found,) = [t for t in graph.initializer if t.name == "input_scale"]
        return float(onnx.numpy_helper.to_array(found))

    assert scale([10 * image for image in images]) == pytest.approx(10 * scale(images), rel=0.01)


def test_every_output_channel_has_a_scale_of_its_own():
    graph = onnx.load_model_from_string(quantise(residual_net(16, 24))).graph
    arrays = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    assert arrays["conv1.weight_quantized"].dtype == np.int8
    assert arrays["conv1.weight_scale"].shape == (24,)


def test_other_precisions_are_left_or_refused():
    content = residual_net(16, 24)
    assert RUNTIME.lower(content, TargetProfile(name="x")) is content
    with pytest.raises(ConfigError, match="precision"):
        RUNTIME.lower(content, TargetProfile(name="x", precision="bf16"))
    with pytest.raises(ModelError, match="cannot be quantised"):
        quantise(b"no model")


@pytest.mark.parametrize("widths", [(16, 32), (15, 21), (8, 61)])
def test_every_kernel_of_a_quantised_network_is_traced_back(widths):
    lowered = RUNTIME.lower(residual_net(*widths), INT8)
    kernels = RUNTIME.profile_kernels(lowered, INT8, runs=3)
    given = onnx.load_model_from_string(lowered).graph
    tensors = {"input"} | {node.output[0] for node in given.node}
    assert all(kernel.tensor in tensors for kernel in kernels)
    made = [kernel.tensor for kernel in kernels if not kernel.reorder]
    for parts in (("c0", "r0"), ("c1", "r1"), ("c2",), ("sum", "r2"), ("pool",), ("output",)):
        assert any(str(tensor).startswith(parts) for tensor in made), (parts, made)
    changed = {kernel.op for kernel in kernels if kernel.reorder}
    assert {"QuantizeLinear", "DequantizeLinear"} <= changed


def test_zero_points_are_sliced_with_what_they_belong_to() -> None:
    """ONNX Runtime does not look at those of biases, OpenVINO does."""
    model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 8, 1)).eval()
    shape = (1, 3, 16, 16)
    lowered = RUNTIME.lower(hwprune.export_base(model, shape), INT8)
    space = hwprune.trace(model, torch.randn(shape))
    content = hwprune.slice_onnx(lowered, space, space.uniform(0.5))
    graph = onnx.load_model_from_string(content).graph
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    decoders = [node for node in graph.node if node.op_type == "DequantizeLinear" and node.input[0] in shapes]
    assert any(node.input[0].endswith("bias_quantized") for node in decoders)
    for node in decoders:
        assert shapes[node.input[2]] in ((), shapes[node.input[0]][:1]), node.input[2]


@pytest.mark.parametrize("kind", ["residual", "dense"])
def test_blocks_are_left_out_of_a_quantised_network(kind):
    torch.manual_seed(0)
    body = [Residual(16), Residual(16)] if kind == "residual" else [DenseStage(16), nn.Conv2d(28, 16, 1)]
    model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), *body, nn.Conv2d(16, 10, 1)).eval()
    shape = (1, 3, 16, 16)
    space, base = hwprune.trace(model, torch.randn(shape), depth=True), hwprune.export_base(model, shape)
    images = [np.random.default_rng(seed).standard_normal(shape, dtype=np.float32) for seed in range(4)]
    lowered = RUNTIME.lower(base, INT8, images)
    kernels = derive_kernels(lowered, space, precision="int8")
    for depth in (1.0, 0.5, 0.0):
        widths = space.uniform(1.0, depth)
        content = hwprune.slice_onnx(lowered, space, widths)
        expected = run(hwprune.slice_onnx(base, space, widths), images[0])
        assert np.corrcoef(expected.ravel(), run(content, images[0]).ravel())[0, 1] > 0.98
        there = [slot for slot in kernels.slots if slot.present(np.array([widths]))[0] and slot.layer]
        convs = sum(node.op_type == "Conv" for node in onnx.load_model_from_string(content).graph.node)
        blocks = len(space.blocks) - len(space.left_out(widths))
        assert len(there) == convs == 2 * blocks + (2 if kind == "residual" else 3)
        executed = RUNTIME.profile_kernels(content, INT8, runs=2)
        made = {"input"} | {
            name for n in onnx.load_model_from_string(content).graph.node for name in n.output
        }
        assert all(kernel.tensor in made for kernel in executed)
