"""Read torch's profiler: how long the kernels of each operator take on the device.

The network runs operator by operator, for inside a CUDA graph kernels could not be told apart; each operator
is wrapped in a `record_function` of its own. Its time is that of its kernels on the device, so how they were
started does not count. On a CPU, where there are no kernels, it is the operator's own time.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.profiler import ProfilerActivity, record_function

from hwprune.errors import DeviceError
from hwprune.runtimes.base import KernelTime
from hwprune.runtimes.torch_cuda import WARM_UP_RUNS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from hwprune.runtimes.torch_graph import TorchGraph

_LABEL = "hwprune/"
_LEAST_US = 0.1
# Kernels that cuDNN puts around its own only to change a layout.
_REORDER = re.compile(r"nchwTo|nhwcTo|tensorTransform|convertTensor", re.IGNORECASE)


def profiled(graph: TorchGraph, runs: int) -> list[KernelTime]:
    """Run a network under the profiler.

    Returns:
        One entry per operator that has kernels, in execution order, and one for its changes of layout.
    """
    on_gpu = graph.device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    for _ in range(WARM_UP_RUNS):
        graph(graph.example)
    with torch.profiler.profile(activities=activities) as watch:
        for _ in range(runs):
            graph(graph.example, lambda number: record_function(f"{_LABEL}{number}"))
        if on_gpu:
            torch.cuda.synchronize(graph.device)
    return kernel_times(graph, watch.events() or (), on_gpu=on_gpu)


def kernel_times(graph: TorchGraph, events: Iterable[Any], *, on_gpu: bool) -> list[KernelTime]:
    """Kernels of the profiled runs.

    Args:
        graph: What was run.
        events: The profiler's `FunctionEvent`s.
        on_gpu: Whether kernels ran on a GPU, so that the time on the host does not count.

    Raises:
        DeviceError: The profiler saw no kernel at all on a GPU.
    """
    made: dict[int, list[float]] = {}
    moved: dict[int, list[float]] = {}
    for event in events:
        # A GPU's side of a `record_function` has the same name; only the host's has children.
        if not event.name.startswith(_LABEL) or event.device_type.name != "CPU":
            continue
        number = int(event.name.removeprefix(_LABEL))
        kernels = list(_kernels(event)) if on_gpu else [("", event.cpu_time_total)]
        if not kernels:  # an operator that has none, or a run whose records were lost
            continue
        reorders = [us for name, us in kernels if _REORDER.search(name)]
        moved.setdefault(number, []).append(sum(reorders))
        made.setdefault(number, []).append(sum(us for _, us in kernels) - sum(reorders))
    if on_gpu and not made:
        raise DeviceError(
            "torch's profiler saw no kernels on the GPU: CUPTI, which records them, did not start.",
            do="let users profile (https://developer.nvidia.com/ERR_NVGPUCTRPERM; in a container: docker run "
            "--cap-add=SYS_ADMIN), end other profilers, or use another runtime with --profile",
        )
    found = []
    for number, node in enumerate(graph.nodes):
        for reorder, times in ((True, moved.get(number, [])), (False, made.get(number, []))):
            if times and np.median(times) > _LEAST_US:
                low, middle, high = np.percentile(times, (25, 50, 75)).tolist()
                spread = (high - low) / 2
                found.append(KernelTime(node.output, node.op, reorder, middle, spread, len(times)))
    return found


def _kernels(event: Any) -> Iterator[tuple[str, float]]:
    """Name and microseconds of every kernel that an event, or one inside it, started."""
    for kernel in event.kernels:
        yield kernel.name, float(kernel.duration)
    for child in event.cpu_children:
        yield from _kernels(child)
