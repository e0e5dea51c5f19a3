"""`FakeRuntime`: a device whose latencies are known, so that everything above it can be tested exactly.

The latency of a kernel is a staircase in its channels, as on real devices: channels count in whole blocks,
and a width that misses the alignment falls off a cliff. Noise is one-sided and the machine's speed drifts
in simulated time, shared by all sessions of a runtime, as on a shared machine.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from hwprune.errors import ConfigError
from hwprune.runtimes.base import KernelTime, Runtime, Session, TargetProfile

if TYPE_CHECKING:
    from numpy.typing import NDArray

_ACTIVATIONS = {
    "Relu",
    "Clip",
    "Sigmoid",
    "HardSwish",
    "HardSigmoid",
    "LeakyRelu",
    "BatchNormalization",
    "PRelu",
}
_POSITIVE = ("step", "cliff", "macs_per_us", "bytes_per_us", "heavy_ms", "tile_rows", "tile_channels")
_FREE = {"Identity", "Dropout", "Flatten", "Reshape", "Constant"}


@dataclass(frozen=True, kw_only=True)
class FakeDevice:
    """What the pretended device is like. Every field may be set in a profile's options too.

    Attributes:
        step: Channels in one block; convolutions pay for whole blocks.
        cliff: Input channels of a convolution should be a multiple of this.
        cliff_cost: How many times slower a convolution is that misses it.
        processors: Tiles that are computed at a time, as on a GPU: a convolution pays for whole waves of
            them, and `step` only counts the channels read; 0 has no tiles.
        tile_rows: Positions of the output in a tile.
        tile_channels: Channels of the output in a tile.
        macs_per_us: Multiply-accumulates per microsecond and thread.
        bytes_per_us: Bytes moved per microsecond by all other kernels.
        kernel_us: Cost of starting a kernel, microseconds.
        run_us: Cost of starting a run, microseconds.
        noise: Scale of the one-sided noise of a run (0.02: about 2 %).
        burst: Chance that a run is preempted and takes three times as long.
        drift: How far the machine's speed wanders (0.1: 10 % either way).
        drift_period_ms: Simulated time in which it wanders to and fro.
        contention: How far neighbours slow large networks on top, by taking cache (0.1: 10 % either way).
        contention_period_ms: Simulated time in which that wanders to and fro.
        heavy_ms: Latency from which on a network suffers all of it; a faster one in proportion.
        seed: Seed of the noise.
    """

    step: int = 16
    cliff: int = 1
    cliff_cost: float = 1.8
    processors: int = 0
    tile_rows: int = 64
    tile_channels: int = 64
    macs_per_us: float = 40_000.0
    bytes_per_us: float = 10_000.0
    kernel_us: float = 1.0
    run_us: float = 2.0
    noise: float = 0.0
    burst: float = 0.0
    drift: float = 0.0
    drift_period_ms: float = 5_000.0
    contention: float = 0.0
    contention_period_ms: float = 20_000.0
    heavy_ms: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        low = [f.name for f in fields(self) if getattr(self, f.name) < 0]
        low += [name for name in _POSITIVE if not getattr(self, name) > 0]
        if low:
            raise ConfigError("A pretended device has impossible properties.", got=", ".join(low))


class FakeRuntime(Runtime):
    """A runtime that computes latencies from the graph instead of running it."""

    name = "fake"

    def __init__(self, device: FakeDevice | None = None) -> None:
        self.device = device or FakeDevice()
        self.elapsed_ms = 0.0  # simulated time since the runtime was made
        self._rng = np.random.default_rng(self.device.seed)

    def available(self) -> bool:
        """Always."""
        return True

    def describe(self) -> dict[str, str]:
        """Name and properties of the pretended device."""
        return {"runtime": self.name, "version": "1", "build": str(self.device)}

    def speed(self) -> float:
        """How many times slower than usual the machine is at this moment of simulated time."""
        phase = 2 * math.pi * self.elapsed_ms / self.device.drift_period_ms
        return 1.0 + self.device.drift * math.sin(phase)

    def _pressure(self, quiet_ms: float) -> float:
        phase = 2 * math.pi * self.elapsed_ms / self.device.contention_period_ms
        return 1.0 + self.device.contention * math.sin(phase) * min(quiet_ms / self.device.heavy_ms, 1.0)

    def spend(self, quiet_ms: float) -> float:
        """Let a run that takes `quiet_ms` on the quiet machine happen now; returns what it takes."""
        noise = 1.0 + self.device.noise * abs(float(self._rng.standard_normal()))
        noise *= 3.0 if self._rng.random() < self.device.burst else 1.0
        took = quiet_ms * self.speed() * self._pressure(quiet_ms) * noise
        self.elapsed_ms += took
        return took

    def latency_ms(self, onnx_model: bytes, profile: TargetProfile) -> float:
        """The true latency of a network on the quiet machine, milliseconds."""
        device = self._device(profile)
        kernels = fake_kernels(onnx_model, device, profile.thread_count)
        return (sum(kernel.time_us for kernel in kernels) + device.run_us) / 1e3

    def _check(self, profile: TargetProfile) -> None:
        self._device(profile)

    def _device(self, profile: TargetProfile) -> FakeDevice:
        known = {f.name for f in fields(FakeDevice)}
        if unknown := sorted(set(profile.options) - known):
            raise ConfigError(
                "The fake runtime does not know this option.",
                where=f"profile {profile.name}",
                got=", ".join(unknown),
                allowed=", ".join(sorted(known)),
            )
        options: dict[str, Any] = dict(profile.options)
        return replace(self.device, **options)

    def _compile(self, onnx: bytes, profile: TargetProfile) -> FakeSession:
        return FakeSession(self, self.latency_ms(onnx, profile))

    def _profile_kernels(self, onnx: bytes, profile: TargetProfile, runs: int) -> list[KernelTime]:
        kernels = fake_kernels(onnx, self._device(profile), profile.thread_count)
        quiet_ms = [kernel.time_us / 1e3 for kernel in kernels]
        times_us = 1e3 * np.array(
            [[self.spend(ms) for ms in quiet_ms] for _ in range(runs)]
        )  # (runs, kernels)
        middle = np.median(times_us, axis=0).tolist()
        return [replace(kernel, time_us=us, runs=runs) for kernel, us in zip(kernels, middle, strict=True)]


class FakeSession(Session):
    """A session of a known latency."""

    def __init__(self, runtime: FakeRuntime, quiet_ms: float) -> None:
        self._runtime, self._quiet_ms = runtime, quiet_ms

    def _time_runs(self, count: int) -> NDArray[np.float64]:
        return np.array([self._runtime.spend(self._quiet_ms) for _ in range(count)])


def fake_kernels(content: bytes, device: FakeDevice, threads: int = 1) -> list[KernelTime]:
    """The kernels of a network on a pretended device; activations are fused into what they follow."""
    graph = onnx.shape_inference.infer_shapes(onnx.load_model_from_string(content)).graph
    shapes = _shapes(graph)
    anchors = _anchors(graph)
    kernels = []
    for node in graph.node:
        if node.op_type in _FREE or node.output[0] not in anchors:
            continue
        time_us = _node_us(node, shapes, device, threads)
        tensor = anchors[node.output[0]]
        kernels.append(KernelTime(tensor, node.op_type, False, time_us, 0.0, 1))
        if _leaves_blocks(node, shapes, device):
            moved_us = device.kernel_us + _bytes(shapes[node.output[0]]) / device.bytes_per_us
            kernels.append(KernelTime(tensor, "Reorder", True, moved_us, 0.0, 1))
    return kernels


def _shapes(graph: Any) -> dict[str, tuple[int, ...]]:
    shapes = {init.name: tuple(init.dims) for init in graph.initializer}
    for entry in (*graph.input, *graph.value_info, *graph.output):
        shapes[entry.name] = tuple(dim.dim_value for dim in entry.type.tensor_type.shape.dim)
    return shapes


def _anchors(graph: Any) -> dict[str, str]:
    """Output of each node that is a kernel -> the tensor at the end of the activations fused into it."""
    consumers: dict[str, list[Any]] = {}
    for node in graph.node:
        for name in node.input:
            consumers.setdefault(name, []).append(node)
    anchors: dict[str, str] = {}
    swallowed: set[str] = set()
    for node in graph.node:
        end = node.output[0]
        if end in swallowed:
            continue
        while len(after := consumers.get(end, [])) == 1 and after[0].op_type in _ACTIVATIONS:
            end = after[0].output[0]
            swallowed.add(end)
        anchors[node.output[0]] = end
    return anchors


def _node_us(node: Any, shapes: dict[str, tuple[int, ...]], device: FakeDevice, threads: int) -> float:
    if node.op_type not in ("Conv", "Gemm"):
        return device.kernel_us + _bytes(shapes[node.output[0]]) / device.bytes_per_us
    weight, out = shapes[node.input[1]], shapes[node.output[0]]
    outputs, inputs = (weight[0], weight[1]) if node.op_type == "Conv" or _transposed(node) else weight[1::-1]
    if device.processors and inputs > 1:
        return device.kernel_us + _waves_us(outputs, inputs * math.prod(weight[2:]), out, device)
    blocks = math.ceil(outputs / device.step) * device.step
    if inputs > 1:  # not depthwise
        blocks *= math.ceil(inputs / device.step) * device.step
    macs = blocks * math.prod(weight[2:]) * math.prod(out[2:]) * out[0]
    slow = device.cliff_cost if inputs > device.cliff and inputs % device.cliff else 1.0
    return device.kernel_us + slow * macs / device.macs_per_us / threads


def _waves_us(outputs: int, depth: int, out: tuple[int, ...], device: FakeDevice) -> float:
    """Whole waves of whole tiles, each as deep as the sum of one element, in steps of channels."""
    rows = math.ceil(out[0] * math.prod(out[2:]) / device.tile_rows)
    waves = math.ceil(rows * math.ceil(outputs / device.tile_channels) / device.processors)
    depth = math.ceil(depth / device.step) * device.step
    tile_macs = device.tile_rows * device.tile_channels * depth
    return waves * tile_macs * device.processors / device.macs_per_us


def _transposed(node: Any) -> bool:
    return any(attribute.name == "transB" and attribute.i == 1 for attribute in node.attribute)


def _leaves_blocks(node: Any, shapes: dict[str, tuple[int, ...]], device: FakeDevice) -> bool:
    """Whether an aligned convolution feeds layers for which its outputs are not aligned."""
    if node.op_type != "Conv" or device.cliff == 1:
        return False
    outputs, inputs = shapes[node.input[1]][:2]
    return inputs % device.cliff == 0 and outputs % device.cliff != 0


def _bytes(shape: tuple[int, ...]) -> int:
    return 4 * math.prod(shape)
