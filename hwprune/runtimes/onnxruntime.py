"""ONNX Runtime: sessions whose threads are fixed, timed through inputs and outputs that lie on the device."""

from __future__ import annotations

import functools
import importlib.util
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hwprune.errors import DeviceError, ModelError
from hwprune.runtimes import ort_profile, ort_providers
from hwprune.runtimes.base import KernelTime, Runtime, TargetProfile, refuse_settings
from hwprune.runtimes.cold import BUFFERS, copies
from hwprune.runtimes.host_timing import HostTimedSession, failure, random_values, static_shape
from hwprune.runtimes.ort_blocking import profiled_blocking
from hwprune.runtimes.quantise import quantise

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnxruntime as ort
    from numpy.typing import NDArray

LEVELS = {
    "disabled": "ORT_DISABLE_ALL",
    "basic": "ORT_ENABLE_BASIC",
    "extended": "ORT_ENABLE_EXTENDED",
    "all": "ORT_ENABLE_ALL",
}
# Idle worker threads spin for tens of milliseconds after a run and so steal the cores of the session timed
# next. `brief` spins as deployed between back-to-back runs, but sleeps soon after the last; `stop` sleeps
# as soon as a run ends; `off` never spins (other latencies); `default` leaves ONNX Runtime's own setting.
BRIEF_SPIN_US = 1000
SPINNING: dict[str, dict[str, str]] = {
    "default": {},
    "brief": {"session.intra_op.spin_duration_us": str(BRIEF_SPIN_US)},
    "stop": {"session.force_spinning_stop": "1"},
    "off": {"session.intra_op.allow_spinning": "0"},
}
_BRIEF_SINCE = (1, 31)  # older builds ignore the key of `brief` without a word; `stop` is the nearest
_OPTIONS = {
    "graph_optimization": tuple(LEVELS),
    "spinning": tuple(SPINNING),
    "denormal_as_zero": (True, False),
}
_GPU_OPTIONS = {
    "graph_optimization": tuple(LEVELS),
    "tf32": (True, False),
    "cuda_graph": (True, False),
    "buffers": BUFFERS,
}
_PRECISIONS = ("fp32", "int8")
_WARM_UP_RUNS = 3
_DTYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(int8)": np.int8,
    "tensor(uint8)": np.uint8,
    "tensor(int64)": np.int64,
}


class OnnxRuntime(Runtime):
    """ONNX Runtime on CPUs, and on GPUs through the providers of `ort_providers`.

    A run on a GPU is timed on the host, from its start until the GPU is done.

    Profile options of CPUs:
        graph_optimization: `disabled`, `basic`, `extended` or `all` (default).
        spinning: What idle worker threads do, see `SPINNING`; default `default` for one thread, which has
            no workers, and `brief` for more.
        denormal_as_zero: Flush denormal numbers to zero (default false).

    Profile options of GPUs:
        provider: `cuda` (default), `tensorrt` or `tensorrt_rtx`.
        graph_optimization: As on CPUs.
        tf32: Whether float32 products are computed in TensorFloat-32 (default false); with the provider
            `cuda` only, for the others cannot be told and take their own default.
        cuda_graph: Whether runs are captured and replayed as a CUDA graph (default false).
        buffers: `hot` (default) runs one session again and again, so that what fits stays in the L2 cache;
            `rotating` takes turns among sessions that together are twice as large as it.
    """

    name = "onnxruntime"
    install = "pip install onnxruntime"

    def available(self) -> bool:
        """Whether the onnxruntime package can be imported."""
        return importlib.util.find_spec("onnxruntime") is not None

    def describe(self) -> dict[str, str]:
        """Version and build line of ONNX Runtime."""
        import onnxruntime as ort

        return {"runtime": self.name, "version": ort.__version__, "build": ort.get_build_info().strip()}

    def missing(self, profile: TargetProfile | None = None) -> tuple[str, str] | None:
        """Besides the package: the provider that a profile for a GPU asks for."""
        if profile is None or not self.available():
            return super().missing(profile)
        self._check(profile)  # a provider that does not exist is not a missing one
        return ort_providers.missing(profile)

    def _check(self, profile: TargetProfile) -> None:
        gpu = profile.on_gpu
        known: dict[str, tuple[Any, ...]] = {**(_GPU_OPTIONS if gpu else _OPTIONS)}
        known["provider"] = tuple(name for name in ort_providers.PROVIDERS if (name != "cpu") == gpu)
        if ort_providers.provider_of(profile) != "cuda":
            known.pop("tf32", None)
        refuse_settings(self.name, profile, known, ("fp32",) if gpu else _PRECISIONS)

    def settings(self, profile: TargetProfile) -> dict[str, str | int | bool]:
        """Optimisation level, pool of threads and what its idle threads do, as they are in force."""
        level = str(profile.options.get("graph_optimization", "all"))
        if profile.on_gpu:
            return {
                **super().settings(profile),
                "graph_optimization": level,
                "provider": ort_providers.provider_of(profile),
                **ort_providers.gpu_settings(profile),
                "tf32": _tf32(profile),
                "cuda_graph": bool(profile.options.get("cuda_graph", False)),
                "buffers": str(profile.options.get("buffers", BUFFERS[0])),
            }
        return {
            **super().settings(profile),
            "graph_optimization": level,
            "spinning": spinning(profile),
            "inter_op_threads": 1,
            "execution": "sequential",
            "denormal_as_zero": bool(profile.options.get("denormal_as_zero", False)),
        }

    def _lower(self, onnx: bytes, profile: TargetProfile, images: Sequence[NDArray[np.float32]]) -> bytes:
        return quantise(onnx, images) if profile.precision == "int8" else onnx

    def _compile(self, onnx: bytes, profile: TargetProfile) -> OrtSession:
        sessions = [_open(onnx, session_options(profile), profile)]
        for _ in range(copies(onnx, profile) - 1):
            sessions.append(_open(onnx, session_options(profile), profile))
        try:
            return OrtSession(sessions, profile)
        except MemoryError as error:
            what = "There is no memory for the network's inputs and outputs."
            raise failure(what, profile, error) from error
        except RuntimeError as error:  # what a GPU's failures are, a full memory among them
            what = "The network's inputs and outputs cannot be laid out in memory."
            raise failure(what, profile, error) from error

    def check_table(self, profile: TargetProfile) -> None:
        """Refuse the TensorRT providers.

        Raises:
            DeviceError: The profile is for one of them.
        """
        provider = ort_providers.provider_of(profile)
        if provider not in ("cpu", "cuda"):
            raise DeviceError(
                "ONNX Runtime's TensorRT providers run a network as a single kernel: no latency table of "
                "layers can be made with them.",
                where=f"profile {profile.name}",
                got=f"provider = {provider}",
                allowed="provider = cuda",
                do="profile with --profile cuda-trt-fp32, cuda-torch-fp32 or cuda-ort-fp32; `hwprune bench` "
                "times files with this one",
            )

    def _profile_kernels(self, onnx: bytes, profile: TargetProfile, runs: int) -> list[KernelTime]:
        if not profile.on_gpu:
            return profiled(onnx, profile, runs)
        self.check_table(profile)
        # Inside a replayed graph no kernel is started by its operator, so none could be timed.
        options = {k: v for k, v in profile.options.items() if k not in ("cuda_graph", "buffers")}
        return profiled_blocking(onnx, replace(profile, options=options), runs)


def _tf32(profile: TargetProfile) -> bool | str:
    cuda = ort_providers.provider_of(profile) == "cuda"
    return bool(profile.options.get("tf32", False)) if cuda else "provider's default"


def profiled(onnx: bytes, profile: TargetProfile, runs: int) -> list[KernelTime]:
    """Kernels of a network by ONNX Runtime's profiler, its own cost taken off.

    Of a GPU these are the host's times; see `ort_blocking` on when they mean anything.
    """
    return _profiled(onnx, profile, runs, _profiling_floor_us(profile.thread_count, profile.device))


def session_options(profile: TargetProfile) -> ort.SessionOptions:
    """Session options for a profile, read back because ONNX Runtime accepts misspelt keys silently.

    Raises:
        DeviceError: A setting did not stick.
    """
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = profile.thread_count
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    level = str(profile.options.get("graph_optimization", "all"))
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, LEVELS[level])
    options.log_severity_level = 3
    for key, value in _config_entries(profile).items():
        options.add_session_config_entry(key, value)
        if options.get_session_config_entry(key) != value:
            raise DeviceError("ONNX Runtime did not take a setting.", where=key, allowed=value)
    return options


def spinning(profile: TargetProfile) -> str:
    """The spinning policy in force: the profile's, or the default for its number of threads."""
    import onnxruntime as ort

    default = "default" if profile.thread_count == 1 else "brief"
    policy = str(profile.options.get("spinning", default))
    version = tuple(int(part) for part in ort.__version__.split(".")[:2])
    return "stop" if policy == "brief" and version < _BRIEF_SINCE else policy


def _config_entries(profile: TargetProfile) -> dict[str, str]:
    if profile.on_gpu:
        return {ort_providers.NO_FALLBACK: "1"}
    entries = dict(SPINNING[spinning(profile)])
    if profile.options.get("denormal_as_zero"):
        entries["session.set_denormal_as_zero"] = "1"
    return entries


def _open(onnx: bytes, options: ort.SessionOptions, profile: TargetProfile) -> ort.InferenceSession:
    import onnxruntime as ort

    if profile.on_gpu:
        return ort_providers.open_on_gpu(onnx, options, profile)
    try:
        session = ort.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's exceptions share no base class of their own
        raise ModelError("ONNX Runtime refuses the network.", got=str(error)[:300]) from error
    session.disable_fallback()  # a failing run must fail, not silently go elsewhere
    return session


class OrtSession(HostTimedSession):
    """Sessions of one network that take turns, each bound to random inputs and preallocated outputs."""

    def __init__(self, sessions: Sequence[ort.InferenceSession], profile: TargetProfile) -> None:
        spins = profile.thread_count > 1 and spinning(profile) == "brief"
        runs = [partial(one.run_with_iobinding, _bind(one, profile)) for one in sessions]
        super().__init__(runs, profile, 2e-6 * BRIEF_SPIN_US if spins else 0.0)


def _bind(session: ort.InferenceSession, profile: TargetProfile) -> Any:
    import onnxruntime as ort

    place = ort_providers.memory_of(profile)
    rng = np.random.default_rng(0)
    binding = session.io_binding()
    for entry in session.get_inputs():
        values = random_values(rng, static_shape(entry.name, entry.shape), _dtype(entry))
        binding.bind_ortvalue_input(entry.name, ort.OrtValue.ortvalue_from_numpy(values, *place))
    for entry in session.get_outputs():
        shape = static_shape(entry.name, entry.shape)
        out = ort.OrtValue.ortvalue_from_shape_and_type(shape, _dtype(entry), *place)
        binding.bind_ortvalue_output(entry.name, out)
    return binding


def _dtype(entry: Any) -> Any:
    if entry.type not in _DTYPES:
        raise ModelError("The network has inputs or outputs of a kind that cannot be timed.", got=entry.type)
    return _DTYPES[entry.type]


def _profiled(onnx: bytes, profile: TargetProfile, runs: int, floor_us: float) -> list[KernelTime]:
    onnx = ort_profile.with_node_names(onnx)
    with tempfile.TemporaryDirectory(prefix="hwprune-ort-") as folder:
        optimised = Path(folder) / "optimised.onnx"
        options = session_options(profile)
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "trace")
        options.optimized_model_filepath = str(optimised)
        # The weights go to a file of their own, which nobody reads.
        options.add_session_config_entry(
            "session.optimized_model_external_initializers_file_name", "weights.bin"
        )
        session = _open(onnx, options, profile)
        with OrtSession([session], profile) as bound:
            bound.time_runs(_WARM_UP_RUNS + runs)
            trace = Path(session.end_profiling())
            bound.settle()
        return ort_profile.kernel_times(trace, optimised, onnx, runs, floor_us)


@functools.cache
def _profiling_floor_us(threads: int, device: str) -> float:
    """What the profiler reports for a kernel that does nothing: a chain of negations of four numbers."""
    options = {"graph_optimization": "disabled"}
    profile = TargetProfile(name="floor", device=device, threads=threads, options=options)
    kernels = _profiled(ort_profile.noop_chain(), profile, runs=30, floor_us=0.0)
    floor_us = float(np.median([kernel.time_us for kernel in kernels]))
    # A GPU's includes starting a kernel and waiting for it, which no loaded machine is to blame for.
    return floor_us if device != "cpu" else min(floor_us, ort_profile.HIGHEST_FLOOR_US)
