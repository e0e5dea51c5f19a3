"""Each fault that makes a file slow is named with its cure; a file without it is not warned of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from hwprune.latency.slow_files import (
    channels_between_steps,
    denormal_weights,
    dynamic_shapes,
    older_runtime,
    reorders,
    slow_causes,
    weights_as_inputs,
)
from hwprune.runtimes import KernelTime, TargetProfile
from hwprune.runtimes.fake import FakeRuntime
from hwprune.runtimes.onnxruntime import OnnxRuntime
from hwprune.runtimes.probes import conv_chain, model_bytes

PROFILE = TargetProfile(name="test")


def chain(*channels: int) -> onnx.ModelProto:
    return onnx.load_model_from_string(conv_chain(channels or (16, 32, 64)))


def change(model: onnx.ModelProto, edit: Callable[[np.ndarray], np.ndarray]) -> onnx.ModelProto:
    """The first weight of a model, changed."""
    weight = model.graph.initializer[0]
    weight.CopyFrom(numpy_helper.from_array(edit(numpy_helper.to_array(weight)), weight.name))
    return model


def with_norm(scale: float) -> onnx.ModelProto:
    """A convolution and a batch normalisation, which runtimes fold into it."""
    rng = np.random.default_rng(0)
    values = {
        "w": rng.standard_normal((16, 8, 3, 3), dtype=np.float32),
        "scale": np.full(16, scale, np.float32),
        **{name: np.zeros(16, np.float32) for name in ("shift", "mean")},
        "variance": np.ones(16, np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["input", "w"], ["c"], pads=[1] * 4),
        helper.make_node("BatchNormalization", ["c", "scale", "shift", "mean", "variance"], ["output"]),
    ]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, channels, 8, 8])
        for name, channels in (("input", 8), ("output", 16))
    ]
    weights = [numpy_helper.from_array(value, name) for name, value in values.items()]
    return onnx.load_model_from_string(
        model_bytes(helper.make_graph(nodes, "norm", ends[:1], ends[1:], weights))
    )


def test_denormal_weights() -> None:
    assert denormal_weights(chain()) == ""
    zeros = change(chain(), lambda array: np.where(array > 0, array, 0.0).astype(np.float32))
    assert denormal_weights(zeros) == ""
    small = change(chain(), lambda array: np.where(array > 0, array, 1e-40).astype(np.float32))
    told = denormal_weights(small)
    assert told.startswith("1 weight tensor has denormal numbers")
    assert "conv0.weight" in told
    assert "denormal_as_zero = true" in told


def test_weights_that_become_denormal_when_they_are_folded() -> None:
    assert denormal_weights(with_norm(0.5)) == ""
    assert "(most in w: " in denormal_weights(with_norm(1e-38))


def test_weights_that_are_inputs_of_the_graph() -> None:
    model = chain()
    assert weights_as_inputs(model) == ""
    shape = list(model.graph.initializer[0].dims)
    model.graph.input.append(helper.make_tensor_value_info("conv0.weight", TensorProto.FLOAT, shape))
    told = weights_as_inputs(model)
    assert told.startswith("1 weight is an input of the graph too (conv0.weight)")
    assert "keep_initializers_as_inputs=False" in told


def test_open_sizes_of_inputs_and_inside() -> None:
    model = chain()
    assert dynamic_shapes(model) == ""
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "batch"
    assert "(input input)" in dynamic_shapes(model)
    entry = helper.make_tensor_value_info("input", TensorProto.FLOAT, [4])
    result = helper.make_tensor_value_info("output", TensorProto.INT64, [1, None])
    node = helper.make_node("NonZero", ["input"], ["output"])
    inside = onnx.load_model_from_string(model_bytes(helper.make_graph([node], "g", [entry], [result])))
    assert "without dynamic axes" in dynamic_shapes(inside)


@pytest.mark.parametrize("step", [4, 8])
def test_channels_between_steps(step: int) -> None:
    assert channels_between_steps(chain(16, 32, 64), step) == ""
    told = channels_between_steps(chain(16, 30, 64, 64), step)
    assert told.startswith("1 convolution makes channels that are no multiple of")
    assert "(conv0.weight: 30)" in told
    assert f"channel_multiple = {step}" in told


def test_reorders_that_take_a_large_share() -> None:
    def kernel(time_us: float, op: str, reorder: bool) -> KernelTime:
        return KernelTime("t", op, reorder, time_us, 0.0, 5)

    conv = kernel(100.0, "Conv", False)
    assert reorders([]) == ""
    assert reorders([conv, kernel(5.0, "ReorderInput", True)]) == ""
    assert reorders([conv, kernel(50.0, "QuantizeLinear", True)]) == ""
    assert "20% of the time goes into 1 change of memory layout" in reorders(
        [conv, kernel(25.0, "ReorderInput", True)]
    )
    assert "without Transpose" in reorders([conv, kernel(25.0, "Transpose", False)])


def test_a_runtime_older_than_the_table() -> None:
    def told(now: str, then: str, name: str = "onnxruntime") -> str:
        return older_runtime({"runtime": name, "version": then}, {"runtime": "onnxruntime", "version": now})

    assert told("1.30.0", "1.30.0") == told("1.31.1", "1.30.2") == told("1.9.0", "1.10.0", "openvino") == ""
    assert older_runtime({}, {"runtime": "onnxruntime", "version": "1.30.0"}) == ""
    assert "onnxruntime 1.9.0 is older than the 1.10.0" in told("1.9.0", "1.10.0")


def test_a_sound_file_is_not_warned_of_and_a_faulty_one_is_by_every_cause() -> None:
    runtime = OnnxRuntime()
    assert slow_causes(conv_chain((16, 64, 64, 64)), PROFILE, runtime) == ()
    faulty = change(chain(16, 30, 64), lambda array: np.full_like(array, 1e-40))
    told = slow_causes(
        faulty.SerializeToString(),
        PROFILE,
        runtime,
        table_runtime={"runtime": "onnxruntime", "version": "99.0"},
    )
    assert [text.split(" ", 2)[1] for text in told] == [
        "weight",
        "convolution",
        runtime.describe()["version"],
    ]


def test_denormals_that_cost_nothing_are_not_told() -> None:
    faulty = change(chain(16, 64, 64), lambda array: np.full_like(array, 1e-40)).SerializeToString()
    assert any("denormal" in one for one in slow_causes(faulty, PROFILE, OnnxRuntime()))
    cured = replace(PROFILE, options={**PROFILE.options, "denormal_as_zero": True})
    assert not any("denormal" in one for one in slow_causes(faulty, cured, OnnxRuntime()))


def test_a_device_without_steps_is_not_warned_of_any() -> None:
    content = conv_chain((16, 30, 64))
    assert slow_causes(content, PROFILE, FakeRuntime(), step=1) == ()
    assert len(slow_causes(content, PROFILE, FakeRuntime(), step=16)) == 1
