"""torch on an NVIDIA GPU: the ONNX network, operator by operator, as a CUDA graph, timed by events.

torch starts one kernel and more for each operator and fuses few of them, so this is another device model than
TensorRT: tables of the two are never mixed.
"""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
from typing import TYPE_CHECKING, Any

import numpy as np

from hwprune.errors import DeviceError
from hwprune.nvml import gpus
from hwprune.runtimes.base import KernelTime, Runtime, Session, TargetProfile, refuse_settings
from hwprune.runtimes.cold import BUFFERS, replicas
from hwprune.runtimes.gpu_errors import gpu_failure, out_of_memory
from hwprune.runtimes.gpu_timing import RunQueue, runs_per_pair, times_ms

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from hwprune.runtimes.torch_graph import TorchGraph

_OPTIONS: dict[str, tuple[Any, ...]] = {
    "tf32": (False, True),
    "cuda_graph": (True, False),
    "channels_last": (True, False),
    "cudnn_benchmark": (True, False),
    "buffers": BUFFERS,
}  # the first of each is the default
_DTYPES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}
WARM_UP_RUNS = 4  # cuDNN tries its algorithms in the first one


class TorchCudaRuntime(Runtime):
    """torch on CUDA.

    Profile options:
        tf32: Whether float32 products are computed in TensorFloat-32 (default false).
        cuda_graph: Replay one captured graph instead of starting each kernel from Python (default true).
        channels_last: Memory layout of weights and feature maps (default true).
        cudnn_benchmark: Let cuDNN try its algorithms and keep the fastest (default true).
        buffers: `hot` runs on the same weights and images again and again, so that what fits stays in the L2
            cache; `rotating` takes turns among copies that together are twice as large as it.
    """

    name = "torch_cuda"
    install = "pip install torch nvidia-ml-py"

    def available(self) -> bool:
        """Whether torch is here, was built for CUDA, and finds a GPU."""
        return self.missing() is None

    def missing(self, profile: TargetProfile | None = None) -> tuple[str, str] | None:
        """What keeps torch from using a GPU, and what to do."""
        if importlib.util.find_spec("torch") is None:
            return "torch is not installed.", f"install it: {self.install}"
        import torch

        if torch.version.cuda is None:
            again = "pip install --force-reinstall torch torchvision (on Linux, PyPI's are built for CUDA)"
            return "The torch that is installed was built without CUDA.", again
        if torch.cuda.is_available():
            return None
        if found := gpus():
            return (
                f"The driver {found[0]['gpu_driver']} is too old for the CUDA {torch.version.cuda} of torch.",
                "update it: sudo apt-get install nvidia-driver-580, then restart",
            )
        return (
            "There is no NVIDIA GPU here, or no driver for it.",
            "install the driver: sudo apt-get install nvidia-driver-580, then restart; in a container: "
            "docker run --gpus all; `nvidia-smi` must list the GPU",
        )

    def describe(self) -> dict[str, str]:
        """Versions of torch, CUDA and cuDNN."""
        import torch

        build = f"CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}"  # type: ignore[no-untyped-call]
        return {"runtime": self.name, "version": str(torch.__version__), "build": build}

    def settings(self, profile: TargetProfile) -> dict[str, str | int | bool]:
        """Number format, layout and the rest as they are in force, and the GPU as torch sees it."""
        import torch

        facts = torch.cuda.get_device_properties(torch.device(profile.device))
        return {
            **super().settings(profile),
            **{key: profile.options.get(key, allowed[0]) for key, allowed in _OPTIONS.items()},
            "gpu": facts.name,
            "capability": f"{facts.major}.{facts.minor}",
            "multiprocessors": facts.multi_processor_count,
        }

    def _check(self, profile: TargetProfile) -> None:
        refuse_settings(self.name, profile, _OPTIONS, _DTYPES)
        _check_gpu(profile)

    def _compile(self, onnx: bytes, profile: TargetProfile) -> TorchSession:
        import torch

        with _gpu_errors(profile, "torch cannot prepare the network on the GPU."):
            first = _graph(onnx, profile)
            device = torch.device(profile.device)
            cache_bytes = torch.cuda.get_device_properties(device).L2_cache_size
            rotating = profile.options.get("buffers") == "rotating"
            more = replicas(first.bytes, cache_bytes) - 1 if rotating else 0
            return TorchSession([first, *(_graph(onnx, profile) for _ in range(more))], profile)

    def _profile_kernels(self, onnx: bytes, profile: TargetProfile, runs: int) -> list[KernelTime]:
        from hwprune.runtimes.torch_profile import profiled

        with _gpu_errors(profile, "torch failed while it profiled the network."), switches(profile):
            return profiled(_graph(onnx, profile), runs)


def _check_gpu(profile: TargetProfile) -> None:
    import torch

    index, count = profile.gpu_index, torch.cuda.device_count()
    if index >= count:
        raise DeviceError(
            "There is no such GPU.",
            where=f"profile {profile.name}",
            got=profile.device,
            allowed=", ".join(f"cuda:{i}" for i in range(count)),
            do="use one of these; `nvidia-smi -L` lists them",
        )
    major, minor = torch.cuda.get_device_capability(index)
    if not has_code(torch.cuda.get_arch_list(), major, minor):
        raise DeviceError(
            "The torch that is installed has no code for this GPU.",
            where=f"{profile.device}: {torch.cuda.get_device_name(index)}",
            got=f"compute capability {major}.{minor}",
            allowed=", ".join(torch.cuda.get_arch_list()),
            do="pip install --upgrade torch torchvision for a newer GPU, or an older torch for an older one",
        )
    if profile.precision == "bf16" and major < 8:
        raise DeviceError(
            "This GPU has no instructions for bfloat16.",
            got=f"compute capability {major}.{minor}",
            allowed="8.0 and above",
            do="use a profile with precision fp16 or fp32",
        )


def has_code(architectures: Sequence[str], major: int, minor: int) -> bool:
    """Whether a build for `architectures` (sm_80, sm_90a, compute_120 ...) runs on a compute capability.

    Machine code (sm) runs on later GPUs of the same major number, intermediate code (compute) on all later.
    """
    for name in architectures:
        kind, _, digits = name.partition("_")
        code = int(digits.rstrip("af") or 0)
        if code <= 10 * major + minor and (kind == "compute" or code // 10 == major):
            return True
    return not architectures


@contextlib.contextmanager
def _gpu_errors(profile: TargetProfile, what: str) -> Iterator[None]:
    """What goes wrong in torch while `what` could not be done, as an error of hwprune's."""
    import torch

    try:
        yield
    except torch.OutOfMemoryError as error:
        torch.cuda.empty_cache()
        raise out_of_memory(profile, error) from error
    except RuntimeError as error:  # of cuDNN, of the driver, of a kernel that ran a while ago
        raise gpu_failure(what, profile, error) from error


def _graph(onnx: bytes, profile: TargetProfile) -> TorchGraph:
    import torch

    from hwprune.runtimes.torch_graph import TorchGraph

    dtype = getattr(torch, _DTYPES[profile.precision])
    last = bool(profile.options.get("channels_last", True))
    return TorchGraph(onnx, torch.device(profile.device), dtype, channels_last=last)


@contextlib.contextmanager
def switches(profile: TargetProfile) -> Iterator[None]:
    """Global settings of torch for a profile; they are put back, for training goes on with others."""
    benchmark = bool(profile.options.get("cudnn_benchmark", True))
    with products_in_tf32(bool(profile.options.get("tf32", False)), benchmark=benchmark):
        yield


@contextlib.contextmanager
def products_in_tf32(allowed: bool, *, benchmark: bool) -> Iterator[None]:
    """Whether products of 32-bit floats may be in TensorFloat-32: by default those of cuDNN are.

    Args:
        allowed: Whether.
        benchmark: Whether cuDNN tries its algorithms.
    """
    import torch

    products = torch.backends.cuda.matmul
    before = products.allow_tf32
    products.allow_tf32 = allowed
    try:
        with torch.backends.cudnn.flags(
            enabled=True, benchmark=benchmark, deterministic=False, allow_tf32=allowed
        ):
            yield
    finally:
        products.allow_tf32 = before


class TorchSession(Session):
    """A network on a GPU, or several copies of it that take turns, on a stream of their own.

    As TensorRT's sessions do, it queues one run ahead of those that are timed.
    """

    def __init__(self, graphs: list[TorchGraph], profile: TargetProfile) -> None:
        import torch

        self._profile = profile
        self._stream = torch.cuda.Stream(torch.device(profile.device))  # type: ignore[no-untyped-call]
        self._kept: list[object] = []
        self._pool: Any = None  # where the graphs of all copies keep what they compute
        with self._working():
            self._turns = itertools.cycle([self._runner(graph) for graph in graphs])
            self._queue = self._queued()
            self._runs_per_pair = runs_per_pair(self._queue, profile.name, len(graphs))

    @contextlib.contextmanager
    def _working(self) -> Iterator[None]:
        import torch

        with (
            torch.cuda.device(self._profile.device),
            torch.cuda.stream(self._stream),
            switches(self._profile),
        ):
            yield

    def _runner(self, graph: TorchGraph) -> Callable[[], object]:
        """What runs the network once: all its kernels started by one call, or one by one."""
        import torch

        self._stream.wait_stream(torch.cuda.default_stream(torch.device(self._profile.device)))
        for _ in range(WARM_UP_RUNS):
            graph(graph.example)
        if not self._profile.options.get("cuda_graph", True):
            return lambda: graph(graph.example)
        self._stream.synchronize()
        captured = torch.cuda.CUDAGraph()
        try:
            # Copies take turns and nobody reads their results, so what they compute may lie in one place.
            with torch.cuda.graph(captured, pool=self._pool, stream=self._stream):
                result = graph(graph.example)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            raise DeviceError(
                "The network cannot be captured as a CUDA graph.",
                where=f"profile {self._profile.name}",
                got=str(error).splitlines()[0],
                do="use a profile with `cuda_graph = false` under [options]",
            ) from error
        self._pool = captured.pool()
        # The captured kernels read the weights and write the result wherever they were: both must stay.
        self._kept.append((graph, result))
        return captured.replay

    def _queued(self) -> RunQueue:
        import torch

        return RunQueue(
            launch=lambda: next(self._turns)(),
            event=lambda: torch.cuda.Event(enable_timing=True),  # type: ignore[no-untyped-call]
            record=lambda event: event.record(self._stream),
            elapsed_ms=lambda before, after: float(before.elapsed_time(after)),
            wait=self._stream.synchronize,
        )

    def _time_runs(self, count: int) -> NDArray[np.float64]:
        with _gpu_errors(self._profile, "The network failed while it ran."), self._working():
            return np.array(times_ms(self._queue, count, self._runs_per_pair))

    def _close(self) -> None:
        self._turns = itertools.cycle([])
        vars(self).pop("_queue", None)
        self._kept = []
