"""The stand-in's machine, and its `pycuda.driver` and `cuda.bindings.runtime`; see `tensorrt_standin`."""

from __future__ import annotations

import enum
import weakref
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import numpy as np


@dataclass
class Machine:
    """The pretended machine: its GPUs, and what was done to them."""

    version: int = 11
    names: tuple[str, ...] = ("Pretended GPU",)
    capability: tuple[int, int] = (9, 0)
    driver: bool = True
    free_bytes: int = 2**30
    now_ms: float = 0.0
    contexts: int = 0  # pushed and not popped yet
    builds: int = 0
    networks: set[int] = field(default_factory=set)  # of which engines were built
    captures: bool = True  # whether TensorRT's work can be captured
    streams: int = 0  # made so far
    worked: int = 0  # handle of the stream of the last run
    live: set[int] = field(default_factory=set)  # addresses of buffers that are not freed yet
    calls: list[str] = field(default_factory=list)
    ran: list[int] = field(default_factory=list)  # which execution context did, each run
    config: dict[str, object] = field(default_factory=dict)
    failure: str = ""  # why the next engine is not built
    loads: bool = True  # whether engines can be loaded
    force_fp32: bool = False  # builds an engine in 32 bits whatever the network says
    captured: object = None  # what a capture in progress has seen
    graphs: dict[int, object] = field(default_factory=dict)
    loggers: list[tuple[Any, Any]] = field(default_factory=list)  # (user, logger), neither kept alive

    def given(self, user, logger):
        """A builder or runtime was given a logger: TensorRT keeps the first while any user of it lives."""
        self.loggers = [pair for pair in self.loggers if pair[0]() is not None]
        first = self.loggers[0][1] if self.loggers else weakref.ref(logger)
        self.loggers.append((weakref.ref(user), first))

    def say(self, severity, message):
        """Tell the logger, which would be a crash if it were gone."""
        logger = self.loggers[0][1]()
        assert logger is not None, "the first logger is gone, its users are not"
        logger.log(severity, message)


class Strict:
    """An object that has the names of its class and no others, as those of the bindings."""

    def __setattr__(self, name, value):
        if not name.startswith("_") and not hasattr(type(self), name):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        super().__setattr__(name, value)


def driver_module(machine: Machine) -> ModuleType:
    """The module `pycuda.driver`."""

    class Error(Exception):
        pass

    class MemoryError(Error):
        pass

    class LogicError(Error):
        pass

    def init(flags=0):
        if not machine.driver:
            raise LogicError("cuInit failed: no CUDA-capable device is detected")

    class Context(Strict):
        def push(self):
            machine.contexts += 1

        @staticmethod
        def pop():
            machine.contexts -= 1

    class Device(Strict):
        def __init__(self, number):
            self._number = number

        @staticmethod
        def count():
            return len(machine.names)

        def name(self):
            return machine.names[self._number]

        def pci_bus_id(self):
            return f"0000:{self._number:02x}:00.0"

        def compute_capability(self):
            return machine.capability

        def retain_primary_context(self):
            machine.calls.append("primary context")
            return Context()

    def in_context():
        if not machine.contexts:
            raise LogicError("no CUDA context is current")

    class DeviceAllocation(Strict):
        def __init__(self, size):
            self._size, self._address = size, 4096 * (1 + max(machine.live, default=0) // 4096)
            machine.live.add(self._address)

        def __int__(self):
            return self._address

        def free(self):
            in_context()
            if self._address not in machine.live:
                raise LogicError("freed already")
            machine.live.remove(self._address)
            machine.free_bytes += self._size

    def mem_alloc(bytes):
        in_context()
        if bytes > machine.free_bytes:
            raise MemoryError("cuMemAlloc failed: out of memory")
        machine.free_bytes -= bytes
        return DeviceAllocation(bytes)

    def memcpy_htod(dest, src):
        in_context()
        assert int(dest) in machine.live, "a buffer that was freed"
        assert np.any(src), "zeros would be timed"

    class Stream(Strict):
        handle = property(lambda self: self._handle)

        def __init__(self, flags=0):
            in_context()
            machine.streams += 1
            self._handle = 6 + machine.streams

        def synchronize(self):
            in_context()
            assert machine.captured is None, "nothing may be waited for in a capture"

    class Event(Strict):
        _at = None

        def __init__(self, flags=0):
            pass

        def record(self, stream=None):
            assert stream is not None, "events belong on the stream of the work"
            assert stream.handle == machine.worked, "the last run was on another stream"
            self._at = machine.now_ms
            return self

        def time_till(self, end):
            return end._at - self._at

    def get_version():
        return (13, 0, 0)

    def get_driver_version():
        return 13010

    module = ModuleType("pycuda.driver")
    things = (Error, MemoryError, LogicError, Context, Device, DeviceAllocation, Stream, Event)
    things += (init, mem_alloc, memcpy_htod, get_version, get_driver_version)
    vars(module).update({thing.__name__: thing for thing in things})
    return module


def runtime_module(machine: Machine) -> ModuleType:
    """The module `cuda.bindings.runtime`, what of it captures graphs."""
    members = ("Global", "ThreadLocal", "Relaxed")
    modes = enum.IntEnum(
        "cudaStreamCaptureMode", [f"cudaStreamCaptureMode{name}" for name in members], start=0
    )
    errors = enum.IntEnum("cudaError_t", ["cudaSuccess"], start=0)
    done = (errors.cudaSuccess,)

    def cudaStreamBeginCapture(stream, mode):  # noqa: N802 - spelt as in CUDA
        modes(mode)
        assert "run" in machine.calls, "what happens once would be captured"
        machine.captured = []
        return done

    def cudaStreamEndCapture(stream):  # noqa: N802 - spelt as in CUDA
        found, machine.captured = machine.captured, None
        return (*done, found)

    def cudaGraphInstantiate(graph, flags):  # noqa: N802 - spelt as in CUDA
        machine.graphs[len(machine.graphs) + 1] = graph
        return (*done, len(machine.graphs))

    def cudaGraphDestroy(graph):  # noqa: N802 - spelt as in CUDA
        return done

    def cudaGraphLaunch(graphExec, stream):  # noqa: N802, N803 - spelt as in CUDA
        machine.calls.append("replay")
        machine.worked = stream
        for run in machine.graphs[graphExec]:
            run()
        return done

    def cudaGraphExecDestroy(graphExec):  # noqa: N802, N803 - spelt as in CUDA
        machine.graphs[graphExec] = None
        return done

    module = ModuleType("cuda.bindings.runtime")
    things = (cudaStreamBeginCapture, cudaStreamEndCapture, cudaGraphInstantiate, cudaGraphDestroy)
    things += (cudaGraphLaunch, cudaGraphExecDestroy, modes, errors)
    vars(module).update({thing.__name__: thing for thing in things})
    return module
