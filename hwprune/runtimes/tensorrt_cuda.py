"""CUDA for TensorRT: the GPU's primary context, its facts, its errors and captured graphs.

Everything happens in the *primary* context, which torch and the CUDA runtime use too: a context of one's own
(`pycuda.autoinit`) would make their pointers and streams invalid.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
from typing import TYPE_CHECKING, Any, NamedTuple

from hwprune.errors import DeviceError
from hwprune.runtimes.gpu_errors import gpu_failure, out_of_memory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from hwprune.runtimes.base import TargetProfile

LEAST_CAPABILITY = (7, 5)  # TensorRT 10.8 and later, and 11


class Gpu(NamedTuple):
    """A GPU as its driver describes it.

    Attributes:
        name: Product name.
        capability: Compute capability.
        bus_id: Its place in the machine.
        driver: Highest CUDA version that the driver serves.
        cuda: CUDA version that pycuda was built with.
    """

    name: str
    capability: tuple[int, int]
    bus_id: str
    driver: str
    cuda: str


def gpu_facts(index: int) -> Gpu:
    """What the driver tells about a GPU."""
    import pycuda.driver as cuda

    cuda.init()
    device = cuda.Device(index)
    number = cuda.get_driver_version()
    return Gpu(
        device.name(),
        device.compute_capability(),
        device.pci_bus_id(),
        f"{number // 1000}.{number % 1000 // 10}",
        ".".join(str(part) for part in cuda.get_version()),
    )


def missing_gpu(index: int) -> tuple[str, str] | None:
    """What keeps pycuda from using a GPU, and what to do; None when nothing does."""
    driver = "sudo apt-get install nvidia-driver-580, then restart; in a container: docker run --gpus all"
    try:
        import pycuda.driver as cuda
    except ImportError as error:
        return f"pycuda does not load: {error}.", f"install the NVIDIA driver: {driver}"
    try:
        cuda.init()
    except cuda.Error as error:
        return f"There is no NVIDIA GPU here, or no driver for it: {error}.", f"install the driver: {driver}"
    if index >= (count := cuda.Device.count()):
        return (
            f"There is no GPU cuda:{index}.",
            f"use one of cuda:0 ... cuda:{count - 1}; see `nvidia-smi -L`",
        )
    capability = cuda.Device(index).compute_capability()
    if capability < LEAST_CAPABILITY:
        return (
            f"TensorRT has no code for {cuda.Device(index).name()}: compute capability "
            f"{_dotted(capability)}, it needs {_dotted(LEAST_CAPABILITY)} or more.",
            "use another runtime: --profile cuda-torch-fp32",
        )
    return None


def _dotted(capability: tuple[int, int]) -> str:
    return ".".join(map(str, capability))


@functools.cache
def _retained(index: int) -> Any:
    import pycuda.driver as cuda

    cuda.init()
    return cuda.Device(index).retain_primary_context()


@contextlib.contextmanager
def gpu_context(profile: TargetProfile) -> Iterator[None]:
    """Make the primary context of the profile's GPU current, and turn CUDA's errors into the user's.

    Raises:
        DeviceError: CUDA reports an error, too little memory among them.
    """
    import pycuda.driver as cuda

    try:
        _retained(profile.gpu_index).push()
        try:
            yield
        finally:
            cuda.Context.pop()
    except cuda.MemoryError as error:
        raise out_of_memory(profile, error) from error
    except cuda.Error as error:
        raise gpu_failure("The GPU reports an error.", profile, error) from error


def can_capture() -> bool:
    """Whether a package is here that can capture CUDA graphs; pycuda cannot."""
    try:
        return importlib.util.find_spec("cuda.bindings.runtime") is not None
    except ImportError:
        return False


class CudaGraph:
    """Work that was captured on a stream, to be replayed without the host's share of it. See `capture`."""

    def __init__(self, runtime: Any, stream: int, graph: Any) -> None:
        self._runtime, self._stream = runtime, stream
        try:
            self._executable = self._ask(runtime.cudaGraphInstantiate(graph, 0))
        finally:
            self._ask(runtime.cudaGraphDestroy(graph))

    @classmethod
    def capture(cls, stream: int, enqueue: Callable[[], bool]) -> CudaGraph | None:
        """What one call enqueues on a stream; None where it cannot be captured.

        Args:
            stream: Handle of the stream.
            enqueue: Enqueues the work; tells whether it could. It must have run once before.
        """
        from cuda.bindings import runtime

        good, enqueued = runtime.cudaError_t.cudaSuccess, False
        mode = runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        if runtime.cudaStreamBeginCapture(stream, mode)[0] != good:
            return None
        try:
            enqueued = enqueue()
        finally:  # else nothing could run on the stream any more
            status, graph = runtime.cudaStreamEndCapture(stream)
        if status != good:
            return None
        if not enqueued:
            runtime.cudaGraphDestroy(graph)
            return None
        try:
            return cls(runtime, stream, graph)
        except DeviceError:
            return None

    def launch(self) -> None:
        """Replay it once."""
        self._ask(self._runtime.cudaGraphLaunch(self._executable, self._stream))

    def close(self) -> None:
        """Free it."""
        self._ask(self._runtime.cudaGraphExecDestroy(self._executable))

    def _ask(self, answer: Any) -> Any:
        """The value of a call of the CUDA runtime, whose answers start with an error code."""
        if answer[0] != self._runtime.cudaError_t.cudaSuccess:
            raise DeviceError(
                "A CUDA graph failed.",
                got=answer[0],
                do="set cuda_graph = false in the options of the target profile",
            )
        return answer[1] if len(answer) > 1 else None
