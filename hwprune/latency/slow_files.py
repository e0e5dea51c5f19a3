"""What makes an ONNX file slow for no reason, and what cures it."""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from hwprune.errors import HwpruneError
from hwprune.structure.onnx_fold import fold_batch_norm
from hwprune.structure.onnx_graph import parse_model
from hwprune.structure.onnx_weights import WeightedGraph

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hwprune.runtimes.base import KernelTime, Runtime, TargetProfile

# Below these multiples of channels a device leaves its fast path, whatever the layer: blocks of vector units
# on CPUs (ONNX Runtime's blocked layout asks for 4), of tensor cores on GPUs.
LEAST_STEPS = {"cpu": 4, "cuda": 8}
_DENORMAL_SHARE = 1e-3  # of the weights of a layer
_REORDER_SHARE = 0.1  # of the time of all kernels
_RUNS = 5
_CONVOLUTIONS = ("Conv", "ConvTranspose")
_NUMBER_FORMATS = ("QuantizeLinear", "DequantizeLinear", "FakeQuantize", "Convert", "Cast")


def slow_causes(
    content: bytes,
    target: TargetProfile,
    runtime: Runtime,
    *,
    step: int = 0,
    table_runtime: Mapping[str, str] | None = None,
) -> tuple[str, ...]:
    """Look at a file that was measured.

    Args:
        content: The file, as the runtime compiles it.
        target: The conditions it was measured under.
        runtime: What ran it.
        step: The step of channels in which the device's latency changes, 1 where it has none; 0 where that is
            not known.
        table_runtime: What `Runtime.describe` told when the latency table behind the file was measured.

    Returns:
        A sentence for each cause, with its cure.
    """
    model = parse_model(content)
    kernels: Sequence[KernelTime] = ()
    with contextlib.suppress(HwpruneError):  # some runtimes, and some files, cannot be looked into
        runtime.check_table(target)
        kernels = runtime.profile_kernels(content, target, runs=_RUNS)
    least = LEAST_STEPS[target.device.partition(":")[0]]
    found = (
        "" if _takes_denormals(target) else denormal_weights(model),
        weights_as_inputs(model),
        dynamic_shapes(model),
        channels_between_steps(model, min(step or least, least)),
        reorders(kernels),
        older_runtime(table_runtime or {}, runtime.describe()),
    )
    return tuple(filter(None, found))


def _takes_denormals(target: TargetProfile) -> bool:
    """Whether denormal numbers cost nothing: GPUs compute them as others, and the option does without."""
    return target.device != "cpu" or bool(target.options.get("denormal_as_zero", False))


def denormal_weights(model: onnx.ModelProto) -> str:
    """Layers with weights so small that processors compute them in microcode; "" without."""
    net = WeightedGraph.of(_copy(model))
    fold_batch_norm(net)  # as runtimes do when they load the file: a small scale makes small weights
    layers = []
    for name, array in net.arrays.items():
        if array.dtype in (np.float32, np.float64) and array.size:
            small = (array != 0) & (np.abs(array) < np.finfo(array.dtype).smallest_normal)
            if small.mean() > _DENORMAL_SHARE:
                layers.append((float(small.mean()), name))
    if not layers:
        return ""
    share, name = max(layers)
    return (
        f"{_counted(len(layers), 'weight tensor has', 'weight tensors have')} denormal numbers, after batch "
        f"normalisation is folded in (most in {name}: {share:.1%}): arithmetic with them takes many times as "
        "long. Set them to zero in the file, or set denormal_as_zero = true under [options] of the profile."
    )


def weights_as_inputs(model: onnx.ModelProto) -> str:
    """Weights that a caller may replace, so that runtimes neither fold nor reorder them; "" without."""
    weights = {tensor.name for tensor in model.graph.initializer}
    both = [entry.name for entry in model.graph.input if entry.name in weights]
    if not both:
        return ""
    return (
        f"{_counted(len(both), 'weight is an input', 'weights are inputs')} of the graph too ({both[0]}): "
        "runtimes must expect other values at every run, and neither fold nor reorder them. Export with "
        "keep_initializers_as_inputs=False, or remove these names from the graph's inputs."
    )


def dynamic_shapes(model: onnx.ModelProto) -> str:
    """Tensors whose sizes are only known while the network runs; "" without."""
    inputs = [entry.name for entry in model.graph.input if _is_open(entry)]
    inner: list[str] = []
    if not inputs:
        bare = _copy(model)
        del bare.graph.value_info[:]
        with contextlib.suppress(onnx.shape_inference.InferenceError):
            inferred = onnx.shape_inference.infer_shapes(bare, data_prop=True).graph
            inner = [entry.name for entry in (*inferred.value_info, *inferred.output) if _is_open(entry)]
    if not inputs and not inner:
        return ""
    where = f"input {inputs[0]}" if inputs else f"{_counted(len(inner), 'tensor', 'tensors')}: {inner[0]}"
    return (
        f"The file has sizes that are not fixed ({where}): memory cannot be planned and kernels cannot be "
        "chosen beforehand. Export it with fixed batch and image size, without dynamic axes."
    )


def channels_between_steps(model: onnx.ModelProto, step: int) -> str:
    """Convolutions that make a number of channels inside one of the device's steps; "" without."""
    shapes = {tensor.name: list(tensor.dims) for tensor in model.graph.initializer}
    outputs = {entry.name for entry in model.graph.output}
    between = []
    for node in model.graph.node:
        if node.op_type in _CONVOLUTIONS and node.output[0] not in outputs and node.input[1] in shapes:
            group = next((a.i for a in node.attribute if a.name == "group"), 1)
            shape = shapes[node.input[1]]
            made = shape[0] if node.op_type == "Conv" else shape[1] * group
            if made % step:
                between.append((node.input[1], made))
    if not between:
        return ""
    name, made = between[0]
    return (
        f"{_counted(len(between), 'convolution makes', 'convolutions make')} channels that are no multiple "
        f"of {step} ({name}: {made}): the device computes them up to the next step, or leaves its fast path. "
        f"Prune to multiples of {step} (channel_multiple = {step} under [profiling])."
    )


def reorders(kernels: Sequence[KernelTime]) -> str:
    """A large share of time in kernels that only change a memory layout; "" without."""
    total = sum(kernel.time_us for kernel in kernels)
    moving = [
        kernel
        for kernel in kernels
        if kernel.op == "Transpose" or (kernel.reorder and kernel.op not in _NUMBER_FORMATS)
    ]
    share = sum(kernel.time_us for kernel in moving) / total if total else 0.0
    if share < _REORDER_SHARE:
        return ""
    most = max(moving, key=lambda kernel: kernel.time_us)
    return (
        f"{share:.0%} of the time goes into {_counted(len(moving), 'change', 'changes')} of memory layout "
        f"(the longest: {most.tensor}). Export in the layout NCHW without Transpose between convolutions, "
        "and keep channels at concatenations and pooling to multiples of 16."
    )


def older_runtime(table_runtime: Mapping[str, str], here: Mapping[str, str]) -> str:
    """A runtime of an earlier version than the one behind the latency table; "" where it is not."""
    name, then, now = here.get("runtime", ""), table_runtime.get("version", ""), here.get("version", "")
    if table_runtime.get("runtime") != name or _version(now) >= _version(then):
        return ""
    return (
        f"{name} {now} is older than the {then} that the latency table was measured with: kernels may be "
        f"slower than predicted. Update {name}, or run `hwprune profile` again."
    )


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", text.partition("-")[0])[:3])


def _is_open(entry: Any) -> bool:
    kind = entry.type.tensor_type
    sizes = [dim.dim_value for dim in kind.shape.dim if not dim.HasField("dim_value") or dim.dim_value < 0]
    return entry.type.HasField("tensor_type") and (not kind.HasField("shape") or bool(sizes))


def _copy(model: onnx.ModelProto) -> onnx.ModelProto:
    other = onnx.ModelProto()
    other.CopyFrom(model)
    return other


def _counted(count: int, one: str, many: str) -> str:
    return f"{count} {one if count == 1 else many}"
