"""Static quantisation, and what ONNX Runtime executes of it."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from test_ort_runtime import residual_net

from hwprune.errors import ConfigError, ModelError
from hwprune.runtimes import TargetProfile, load_profile
from hwprune.runtimes.onnxruntime import OnnxRuntime
from hwprune.runtimes.quantise import quantise

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


def test_the_profiles_for_int8_come_with_hwprune():
    for name, threads in (("cpu-1t-int8", 1), ("cpu-int8", 0)):
        profile = load_profile(name)
        assert (profile.precision, profile.threads) == ("int8", threads)
        assert RUNTIME.settings(profile)["precision"] == "int8"
