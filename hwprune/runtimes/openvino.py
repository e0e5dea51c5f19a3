"""OpenVINO on CPUs: the same ONNX file, compiled for latency on a fixed number of threads."""

from __future__ import annotations

import functools
import importlib.util
from typing import TYPE_CHECKING, Any

import numpy as np

from hwprune.errors import DeviceError, ModelError
from hwprune.runtimes import openvino_profile
from hwprune.runtimes.base import KernelTime, Runtime, TargetProfile, refuse_settings
from hwprune.runtimes.host_timing import HostTimedSession, failure, random_values, static_shape
from hwprune.runtimes.quantise import quantise

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

_OPTIONS = {"pinning": (False, True), "denormal_as_zero": (False, True)}  # the first is the default
_PRECISIONS = ("fp32", "int8")
_WARM_UP_RUNS = 3
_SETTLE_S = 2e-3  # after which idle workers sleep


class OpenVino(Runtime):
    """OpenVINO's CPU plugin, one stream, with the latency hint.

    Networks of 32-bit floats are computed in 32-bit floats, also where the processor knows bfloat16, which
    OpenVINO would choose by itself. int8 is what `quantise` makes: quantise/dequantise pairs, which OpenVINO
    turns into 8-bit kernels; what is not quantised stays in 32-bit floats.

    Profile options:
        pinning: Whether each thread stays on a core of its own (default false: on a machine that is shared,
            a pinned thread waits for whoever else uses its core).
        denormal_as_zero: Flush denormal numbers to zero (default false).
    """

    name = "openvino"
    install = "pip install 'hwprune[openvino]'"

    def available(self) -> bool:
        """Whether the openvino package can be imported."""
        return importlib.util.find_spec("openvino") is not None

    def describe(self) -> dict[str, str]:
        """Version and build of OpenVINO."""
        import openvino

        return {"runtime": self.name, "version": openvino.__version__, "build": openvino.get_version()}

    def settings(self, profile: TargetProfile) -> dict[str, str | int | bool]:
        """Hint, streams and options, as they are in force."""
        chosen = {key: bool(profile.options.get(key, allowed[0])) for key, allowed in _OPTIONS.items()}
        return {**super().settings(profile), "hint": "latency", "streams": 1, **chosen}

    def _check(self, profile: TargetProfile) -> None:
        refuse_settings(self.name, profile, _OPTIONS, _PRECISIONS)

    def _lower(self, onnx: bytes, profile: TargetProfile, images: Sequence[NDArray[np.float32]]) -> bytes:
        return quantise(onnx, images) if profile.precision == "int8" else onnx

    def _compile(self, onnx: bytes, profile: TargetProfile) -> HostTimedSession:
        return _session(compiled(onnx, profile), profile)

    def _profile_kernels(self, onnx: bytes, profile: TargetProfile, runs: int) -> list[KernelTime]:
        named, tensors = openvino_profile.with_node_names(onnx)
        network = compiled(named, profile, PERF_COUNT=True)
        request = _request(network, profile)
        with HostTimedSession([_run(request)], profile, _settle_s(profile)) as session:
            session.time_runs(_WARM_UP_RUNS)
            reports = [request.profiling_info]
            for _ in range(runs):
                session.time_runs(1)
                reports.append(request.profiling_info)
            session.settle()
        return openvino_profile.kernel_times(network.get_runtime_model(), tensors, reports, _WARM_UP_RUNS)


@functools.cache
def _core() -> Any:
    import openvino

    return openvino.Core()


def compiled(onnx: bytes, profile: TargetProfile, **more: object) -> Any:
    """A network compiled for a profile: OpenVINO's `CompiledModel`.

    Args:
        onnx: The network, static shapes.
        profile: The conditions.
        more: Further properties of the compilation.

    Raises:
        ModelError: OpenVINO refuses the network, or a shape is not fixed.
        DeviceError: A setting did not stick.
    """
    import openvino

    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": profile.thread_count,
        "INFERENCE_PRECISION_HINT": openvino.Type.f32,
        "ENABLE_CPU_PINNING": bool(profile.options.get("pinning", False)),
        "CPU_DENORMALS_OPTIMIZATION": bool(profile.options.get("denormal_as_zero", False)),
    }
    try:
        model = _core().read_model(onnx)
        for port in (*model.inputs, *model.outputs):
            sizes = (size.get_length() if size.is_static else str(size) for size in port.partial_shape)
            static_shape(port.any_name, sizes)
        network = _core().compile_model(model, "CPU", {**settings, **more})
    except ModelError:
        raise
    except Exception as error:  # OpenVINO's are plain RuntimeErrors, and bindings may raise anything
        raise ModelError("OpenVINO refuses the network.", got=str(error)[-300:]) from error
    _check_taken(network, settings)
    return network


def _check_taken(network: Any, settings: Mapping[str, object]) -> None:
    """Refuse a network that was compiled under other settings; the hint is a default for those given here."""
    for key, value in settings.items():
        got = network.get_property(key)
        if key == "PERFORMANCE_HINT" or got == value:
            continue
        if key == "INFERENCE_NUM_THREADS":
            raise DeviceError(
                "OpenVINO takes no more threads than cores that this process may use.",
                where=key,
                got=value,
                allowed=got,
                do="choose a profile with fewer threads, or give the process more cores",
            )
        raise DeviceError("OpenVINO did not take a setting.", where=key, got=got, allowed=value)


def _session(network: Any, profile: TargetProfile) -> HostTimedSession:
    return HostTimedSession([_run(_request(network, profile))], profile, _settle_s(profile))


def _run(request: Any) -> Callable[[], Any]:
    """One run of a request; its outputs stay in its own memory, as other runtimes' do."""
    return functools.partial(request.infer, share_outputs=True)


def _request(network: Any, profile: TargetProfile) -> Any:
    """A request whose inputs are filled with random numbers."""
    import openvino

    rng = np.random.default_rng(0)
    try:
        request = network.create_infer_request()
        for index, port in enumerate(network.inputs):
            values = random_values(rng, tuple(port.shape), port.element_type.to_dtype())
            request.set_input_tensor(index, openvino.Tensor(values))
    except (MemoryError, RuntimeError) as error:
        raise failure("There is no memory for the network's inputs and outputs.", profile, error) from error
    return request


def _settle_s(profile: TargetProfile) -> float:
    return _SETTLE_S if profile.thread_count > 1 else 0.0
