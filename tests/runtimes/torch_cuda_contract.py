"""A stand-in for `torch.cuda` with only published names, for tests without a GPU.

A contract test, not a run: a misspelt call, or one in an impossible order, fails; whether a GPU does what is
expected of it cannot be seen here. Each name is checked against the installed torch, source:
https://docs.pytorch.org/docs/stable/cuda.html
"""

from __future__ import annotations

import contextlib
import inspect
from types import SimpleNamespace

import torch

MS_PER_RUN = 2.0


class Gpu:
    """What the pretended GPU was told, in order; its clock advances with each run."""

    def __init__(self):
        self.calls = []
        self.now_ms = 0.0
        self.stream = None
        self.capturing = False
        self.out_of_memory = False
        self.pools = []  # that each capture was given

    def ran(self, what):
        if self.out_of_memory:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nmore")
        self.calls.append(what)
        self.now_ms += 0.0 if self.capturing else MS_PER_RUN


def published(name, owner=torch.cuda):
    """The real thing's name is there."""
    if not hasattr(owner, name):
        raise AttributeError(f"torch has no {owner.__name__}.{name}")
    return name


def fake_cuda(gpu):
    """Stand-ins by name, each for the member of `torch.cuda` of that name."""

    class Stream:
        def __init__(self, device=None):
            self.device = device

        def synchronize(self):
            if gpu.capturing:
                raise RuntimeError("operation not permitted when stream is capturing")
            gpu.calls.append("synchronize")

        def wait_stream(self, stream):
            gpu.calls.append("wait_stream")

    class Event:
        def __init__(self, enable_timing=False):
            self._timing, self._at = enable_timing, None

        def record(self, stream=None):
            if stream is not gpu.stream:
                raise RuntimeError("recorded on another stream than the work")
            self._at = gpu.now_ms

        def elapsed_time(self, end):
            if not self._timing:
                raise RuntimeError("timing is off")
            return end._at - self._at

    class CUDAGraph:
        captured, given = False, None

        def pool(self):
            if not self.captured:
                raise RuntimeError("nothing was captured")
            return self.given or 1

        def replay(self):
            if not self.captured:
                raise RuntimeError("nothing was captured")
            gpu.ran("replay")

    @contextlib.contextmanager
    def graph(cuda_graph, pool=None, stream=None):
        gpu.capturing = True
        gpu.calls.append("capture")
        gpu.pools.append(pool)
        cuda_graph.given = pool
        try:
            yield
        finally:
            gpu.capturing = False
        cuda_graph.captured = True

    @contextlib.contextmanager
    def stream(stream):
        before, gpu.stream = gpu.stream, stream
        yield
        gpu.stream = before

    facts = SimpleNamespace(
        name="Pretended", major=9, minor=0, multi_processor_count=132, L2_cache_size=50 * 2**20
    )
    fakes = {
        "Stream": Stream,
        "Event": Event,
        "CUDAGraph": CUDAGraph,
        "graph": graph,
        "stream": stream,
        "device": lambda device: contextlib.nullcontext(),
        "default_stream": lambda device=None: Stream(),
        "is_available": lambda: True,
        "device_count": lambda: 1,
        "get_device_capability": lambda device=None: (9, 0),
        "get_device_name": lambda device=None: "Pretended",
        "get_arch_list": lambda: ["sm_80", "sm_90", "sm_120"],
        "get_device_properties": lambda device=None: facts,
        "empty_cache": lambda: gpu.calls.append("empty_cache"),
    }
    for name in fakes:
        published(name)
    for cls in (Stream, Event, CUDAGraph):
        for name in vars(cls):
            if not name.startswith("_") and name not in ("captured", "given"):
                published(name, getattr(torch.cuda, cls.__name__))
    known = inspect.signature(torch.cuda.graph.__init__).parameters
    for name in ("cuda_graph", "pool", "stream"):
        if name not in known:
            raise AttributeError(f"torch.cuda.graph takes no {name}")
    return fakes
