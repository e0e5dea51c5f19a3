"""TensorRT itself, through pycuda: engines timed as trtexec times them, layers by TensorRT's own profiler.

Tested above a stand-in that has only the published names; see docs/tensorrt-contract.md.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections import OrderedDict
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx as onnx_library

from hwprune.errors import ConfigError, ModelError
from hwprune.runtimes import tensorrt_build as building
from hwprune.runtimes.base import KernelTime, Runtime, TargetProfile
from hwprune.runtimes.cold import BUFFERS, copies
from hwprune.runtimes.half import half
from hwprune.runtimes.probes import conv_chain
from hwprune.runtimes.quantise import quantise
from hwprune.runtimes.tensorrt_cuda import can_capture, gpu_context, gpu_facts, missing_gpu
from hwprune.runtimes.tensorrt_layers import OnnxNames, check_precision, kernel_times, read_layers
from hwprune.runtimes.tensorrt_run import EngineRun, TensorRtSession

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_OPTIONS = {
    "optimization_level": range(6),
    "timing_iterations": range(1, 1001),
    "workspace_mib": range(1, 2**20),
    "cuda_graph": (True, False),
    "timing_cache": (True, False),
    "buffers": BUFFERS,
}
_PRECISIONS = ("fp32", "fp16", "int8")
_ENGINES = 12  # a round of eight networks and both references, with room to spare; each is some megabytes
_NEEDS = (
    ("tensorrt", "TensorRT is not installed.", "pip install 'hwprune[tensorrt]' (it contains tensorrt)"),
    (
        "pycuda",
        "pycuda is not installed.",
        "pip install 'hwprune[tensorrt]' (it builds pycuda with CUDA's nvcc: sudo apt-get install "
        "nvidia-cuda-toolkit)",
    ),
)


class TensorRt(Runtime):
    """TensorRT 10.8 and later, and 11: strongly typed networks, whose ONNX says every number format.

    A run's latency is the GPU's: events around it, one run queued ahead, no copies from or to the host. The
    engines of the last networks are kept, so that what is profiled is the engine that was timed: another
    build of the same network may choose other kernels.

    Profile options:
        optimization_level: How long TensorRT looks for kernels, 0 to 5 (default 3).
        timing_iterations: Runs of each kernel when it chooses (default 8, as trtexec).
        workspace_mib: Scratch memory that layers may use, MiB (default 1024).
        cuda_graph: Replay runs as a CUDA graph, where cuda-bindings is installed (default true).
        timing_cache: Keep the times of kernels for later builds on this GPU (default true).
        buffers: `hot` runs one engine again and again, so that what fits stays in the L2 cache; `rotating`
            takes turns among copies, each with weights and images of its own, that together are twice as
            large as it.
    """

    name = "tensorrt"
    install = "pip install 'hwprune[tensorrt]'"
    refuses_other_formats = True  # its formats are those of the ONNX

    def __init__(self) -> None:
        self._engines: OrderedDict[str, bytes] = OrderedDict()  # by fingerprint of network and profile
        self._captured: dict[str, bool] = {}  # by device

    def available(self) -> bool:
        """Whether TensorRT, pycuda and a first GPU are here."""
        return self.missing() is None

    def missing(self, profile: TargetProfile | None = None) -> tuple[str, str] | None:
        """What keeps TensorRT from working on the profile's GPU, and the command that brings it."""
        for package, what, do in _NEEDS:
            if importlib.util.find_spec(package) is None:
                return what, do
        try:
            import tensorrt  # noqa: F401
        except ImportError as error:
            return f"TensorRT does not load: {error}.", "pip install --force-reinstall tensorrt"
        return missing_gpu(profile.gpu_index if profile else 0)

    def describe(self) -> dict[str, str]:
        """Versions of TensorRT, of the driver and of CUDA."""
        import tensorrt as trt

        gpu = gpu_facts(0)
        build = f"CUDA {gpu.cuda} (pycuda), driver for CUDA {gpu.driver}"
        return {"runtime": self.name, "version": str(trt.__version__), "build": build}

    def settings(self, profile: TargetProfile) -> dict[str, str | int | bool]:
        """The build's settings, the GPU, and whether runs are replayed as CUDA graphs. Clocks float."""
        gpu = gpu_facts(profile.gpu_index)
        return {
            **super().settings(profile),
            **{key: int(profile.options.get(key, value)) for key, value in building.DEFAULTS.items()},
            "gpu": gpu.name,
            "capability": ".".join(map(str, gpu.capability)),
            "cuda_graph": _graph(profile) and self._captures(profile),
            "timing_cache": bool(profile.options.get("timing_cache", True)),
            "buffers": str(profile.options.get("buffers", BUFFERS[0])),
            "tf32": False,
            "aux_streams": 0,
        }

    def _captures(self, profile: TargetProfile) -> bool:
        """Whether runs can be captured here, tried with a small network: tables say how they were timed."""
        if profile.device not in self._captured:
            plain = replace(profile, precision="fp32", batch=1)
            with TensorRtSession(self._engine(conv_chain([8, 8]), plain), plain, graph=True) as session:
                self._captured[profile.device] = session.captured
        return self._captured[profile.device]

    def _check(self, profile: TargetProfile) -> None:
        wrong = [
            f"options.{key}: {value!r}; allowed: {_allowed(key)}"
            for key, value in profile.options.items()
            if not _fits(key, value)
        ]
        if profile.precision not in _PRECISIONS:
            wrong.append(f"precision: {profile.precision!r}; allowed: {', '.join(_PRECISIONS)}")
        if wrong:
            raise ConfigError(
                "The runtime tensorrt does not know this setting:\n  - " + "\n  - ".join(wrong),
                where=f"profile {profile.name}",
            )

    def _lower(self, onnx: bytes, profile: TargetProfile, images: Sequence[NDArray[np.float32]]) -> bytes:
        if profile.precision == "int8":
            return quantise(onnx, images, symmetric=True)
        return half(onnx) if profile.precision == "fp16" else onnx

    def _compile(self, onnx: bytes, profile: TargetProfile) -> TensorRtSession:
        return self._session(self._engine(onnx, profile), onnx, profile)

    def _session(self, plan: bytes, onnx: bytes, profile: TargetProfile) -> TensorRtSession:
        return TensorRtSession(plan, profile, graph=_graph(profile), copies=copies(onnx, profile))

    def _engine(self, onnx: bytes, profile: TargetProfile) -> bytes:
        """The engine of a network, built unless it is one of the last."""
        fingerprint = hashlib.sha256(onnx + repr(sorted(profile.to_payload().items())).encode()).hexdigest()
        if fingerprint not in self._engines:
            self._engines[fingerprint] = self._build(onnx, profile)
            while len(self._engines) > _ENGINES:
                self._engines.popitem(last=False)
        self._engines.move_to_end(fingerprint)
        return self._engines[fingerprint]

    def _build(self, onnx: bytes, profile: TargetProfile, *, cached: bool = True) -> bytes:
        _check_shapes(onnx)
        import tensorrt as trt

        gpu = gpu_facts(profile.gpu_index)
        path = building.cache_path(gpu.name, gpu.bus_id, str(trt.__version__))
        cached = cached and bool(profile.options.get("timing_cache", True))
        before = building.read_timings(path) if cached else b""
        with gpu_context(profile):
            plan, after = building.build(onnx, profile, before)
            run = EngineRun(plan, profile, graph=False)
            try:
                check_precision(_layers(run), OnnxNames(onnx), profile.precision)
            finally:
                run.free()
        if cached and after != before:
            building.write_timings(path, after)
        return plan

    def _profile_kernels(self, onnx: bytes, profile: TargetProfile, runs: int) -> list[KernelTime]:
        plan, profiler, reports = self._engine(onnx, profile), _layer_times(), []
        with gpu_context(profile):
            run = EngineRun(plan, profile, graph=_graph(profile), profiler=profiler)
            try:
                for _ in range(runs):
                    run.launch()
                    run.wait()
                    profiler.report = []
                    run.report()
                    reports.append(profiler.report)
                layers = _layers(run)
            finally:
                run.free()
        return kernel_times(layers, OnnxNames(onnx), reports)

    def rebuild(
        self, onnx: bytes, profile: TargetProfile, *, builds: int = 5, runs: int = 50
    ) -> NDArray[np.float64]:
        """How far builds differ, see `Runtime.rebuild`: without the timing cache, which repeats a choice."""
        self.check(profile)
        medians = []
        for _ in range(builds):
            plan = self._build(onnx, profile, cached=False)
            with self._session(plan, onnx, profile) as session:
                medians.append(float(np.median(session.time_runs(runs))))
        return np.array(medians)


def _graph(profile: TargetProfile) -> bool:
    return bool(profile.options.get("cuda_graph", True)) and can_capture()


def _fits(key: str, value: object) -> bool:
    allowed = _OPTIONS.get(key, ())
    return value in allowed and type(value) in {type(one) for one in allowed}  # True is no 1


def _allowed(key: str) -> str:
    allowed = _OPTIONS.get(key)
    if isinstance(allowed, range):
        return f"{allowed[0]} to {allowed[-1]}"
    if not allowed:
        return f"no such option; there are {', '.join(_OPTIONS)}"
    return ", ".join(str(value).lower() for value in allowed)


def _check_shapes(onnx: bytes) -> None:
    """Dynamic inputs would need an optimisation profile, which may choose other kernels."""
    try:
        graph = onnx_library.load_model_from_string(onnx).graph
    except Exception as error:  # protobuf's exceptions are not part of onnx
        raise ModelError("This is not an ONNX model.", got=str(error)[:300]) from error
    for entry in graph.input:
        if not all(dim.dim_value for dim in entry.type.tensor_type.shape.dim):
            raise ModelError(
                "Only networks with static shapes can be timed.",
                where=entry.name,
                do="export the network with a fixed batch size",
            )


def _layers(run: EngineRun) -> list[Any]:
    import tensorrt as trt

    inspector = run.engine.create_engine_inspector()
    inspector.execution_context = run.context
    return read_layers(inspector.get_engine_information(trt.LayerInformationFormat.JSON))


def _layer_times() -> Any:
    """A TensorRT profiler that keeps name and milliseconds of each layer, in order, in its `report`."""
    import tensorrt as trt

    class LayerTimes(trt.IProfiler):  # type: ignore[misc]  # the library has no types
        def __init__(self) -> None:
            trt.IProfiler.__init__(self)
            self.report: list[tuple[str, float]] = []

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            self.report.append((layer_name, ms))

    return LayerTimes()
