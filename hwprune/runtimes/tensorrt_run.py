"""Run a TensorRT engine: buffers, a stream of its own, a CUDA graph, events around each run as in trtexec."""

from __future__ import annotations

import itertools
import logging
from typing import TYPE_CHECKING, Any

import numpy as np

from hwprune.runtimes.base import Session, TargetProfile
from hwprune.runtimes.gpu_timing import RunQueue, runs_per_pair, times_ms
from hwprune.runtimes.tensorrt_build import failure, fresh_logger
from hwprune.runtimes.tensorrt_cuda import CudaGraph, gpu_context

if TYPE_CHECKING:
    from numpy.typing import NDArray

_log = logging.getLogger(__name__)
_WARM_UP_RUNS = 3


class EngineRun:
    """An engine that is loaded, bound to random inputs, warmed up and, if asked, captured.

    All methods need the GPU's context, see `gpu_context`.

    Args:
        plan: The serialised engine.
        profile: The conditions.
        graph: Whether to replay a CUDA graph.
        profiler: Told how long each layer takes, by `report`.
        stream: What it runs on; by default a stream of its own.

    Raises:
        DeviceError: The engine cannot be loaded or run.
    """

    def __init__(
        self, plan: bytes, profile: TargetProfile, *, graph: bool, profiler: Any = None, stream: Any = None
    ) -> None:
        import pycuda.driver as cuda
        import tensorrt as trt

        self._profile, self._logger = profile, fresh_logger()
        self._runtime = trt.Runtime(self._logger)
        self.engine = self._runtime.deserialize_cuda_engine(plan)
        if self.engine is None:
            raise failure("TensorRT cannot load the engine.", self._logger.problems, profile)
        self.context = self.engine.create_execution_context()
        if self.context is None:
            raise failure("TensorRT cannot prepare the engine.", self._logger.problems, profile)
        self.stream = stream or cuda.Stream()  # on the default stream TensorRT waits for the whole GPU
        self._graph: CudaGraph | None = None
        self._buffers: list[Any] = []
        try:
            self._prepare(graph, profiler)
        except BaseException:
            self.free()
            raise

    def _prepare(self, graph: bool, profiler: Any) -> None:
        if profiler is not None:
            self.context.profiler = profiler
            self.context.enqueue_emits_profile = False  # else each run is waited for
        self._bind()
        for _ in range(_WARM_UP_RUNS):  # what happens once only must not be captured
            self.launch()
            self.wait()
        if graph:
            self._graph = CudaGraph.capture(self.stream.handle, self._enqueue)
            if self._graph is None:
                _log.warning("this network cannot be captured as a CUDA graph: its runs are enqueued")
            self.launch()
            self.wait()

    def _bind(self) -> None:
        import pycuda.driver as cuda
        import tensorrt as trt

        rng = np.random.default_rng(0)  # all-zero inputs would time shortcuts, and draw less power
        for index in range(self.engine.num_io_tensors):
            name = self.engine.get_tensor_name(index)
            shape = tuple(self.engine.get_tensor_shape(name))
            kind = np.dtype(trt.nptype(self.engine.get_tensor_dtype(name)))
            values = rng.standard_normal(shape).astype(kind)
            buffer = cuda.mem_alloc(max(values.nbytes, 1))
            self._buffers.append(buffer)
            if self.engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT:
                cuda.memcpy_htod(buffer, values)
            if not self.context.set_tensor_address(name, int(buffer)):
                raise failure("TensorRT does not take a buffer.", self._logger.problems, self._profile)

    def _enqueue(self) -> bool:
        return bool(self.context.execute_async_v3(self.stream.handle))

    @property
    def captured(self) -> bool:
        """Whether runs are replayed as a CUDA graph."""
        return self._graph is not None

    def launch(self) -> None:
        """Start a run; returns before it is over."""
        if self._graph is not None:
            self._graph.launch()
        elif not self._enqueue():
            raise failure("TensorRT cannot run the engine.", self._logger.problems, self._profile)

    def wait(self) -> None:
        """Wait until all runs are over."""
        self.stream.synchronize()

    def report(self) -> None:
        """Let the profiler know the layers' times of the run that is over."""
        if not self.context.report_to_profiler():
            raise failure("TensorRT reports no layer times.", self._logger.problems, self._profile)

    def free(self) -> None:
        """Give everything back, TensorRT's objects before the memory they use."""
        if self._graph is not None:
            self._graph.close()
        self._graph = self.context = self.engine = self._runtime = None
        while self._buffers:
            self._buffers.pop().free()


class TensorRtSession(Session):
    """An engine on a GPU, ready to be timed, or copies of it that take turns on one stream.

    Attributes:
        captured: Whether its runs are replayed as a CUDA graph; false where that was not asked for or fails.
    """

    def __init__(self, plan: bytes, profile: TargetProfile, *, graph: bool, copies: int = 1) -> None:
        self._profile = profile
        self._runs: list[EngineRun] = []
        with gpu_context(profile):
            try:
                for _ in range(copies):
                    stream = self._runs[0].stream if self._runs else None
                    self._runs.append(EngineRun(plan, profile, graph=graph, stream=stream))
                self._turns = itertools.cycle(self._runs)
                self._queue = self._queued()
                self._runs_per_pair = runs_per_pair(self._queue, profile.name, copies)
            except BaseException:
                self._free()
                raise
        self.captured = all(run.captured for run in self._runs)

    def _queued(self) -> RunQueue:
        import pycuda.driver as cuda

        return RunQueue(
            launch=lambda: next(self._turns).launch(),
            event=cuda.Event,
            record=lambda event: event.record(self._runs[0].stream),
            elapsed_ms=lambda before, after: float(before.time_till(after)),
            wait=self._runs[0].wait,
        )

    def _time_runs(self, count: int) -> NDArray[np.float64]:
        fresh_logger()  # what sessions said before is none of this one's reasons
        with gpu_context(self._profile):
            return np.array(times_ms(self._queue, count, self._runs_per_pair))

    def _close(self) -> None:
        with gpu_context(self._profile):
            self._free()

    def _free(self) -> None:
        # What holds the runs goes first: streams must end while the context is current.
        self._turns = itertools.cycle(())
        vars(self).pop("_queue", None)
        while self._runs:
            self._runs.pop().free()
