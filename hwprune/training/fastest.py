"""Whether a training step is faster in bfloat16 than in float32, measured.

Instructions for bfloat16 do not decide it: depthwise convolutions gain nothing from them, and the conversions
around them cost time.
"""

from __future__ import annotations

import contextlib
import logging
import time
from typing import TYPE_CHECKING, Any

import torch

from hwprune.training import workers
from hwprune.training.precision import choose_execution, device_of, has_fast_bf16
from hwprune.training.task import call, tensors_in

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn

    from hwprune.training.precision import Execution
    from hwprune.training.settings import LayoutName, PrecisionName

_log = logging.getLogger(__name__)
_STEPS, _MOST_SECONDS = 4, 20.0  # of each, the first to warm up; two of each in any case
_CLEARLY = 0.93  # share of float32's time; a smaller gain is within the noise


def faster_precision(module: nn.Module, inputs: Any, channels_last: LayoutName) -> PrecisionName:
    """The precision in which forward and backward passes of `module` take less time: `fp32` or `bf16`.

    On a device without instructions for bfloat16, which computes it more slowly, nothing is measured.
    Weights, statistics and random generators are left as they were; of several workers the first decides.

    Args:
        module: The network.
        inputs: What it is called with for a batch as it will be trained on.
        channels_last: As in the recipe.
    """
    if not has_fast_bf16(device_of(module)):
        return "fp32"
    found = _measured(module, inputs, channels_last) if workers.is_main() else {}
    bf16 = bool(workers.share(found and found[True] < _CLEARLY * found[False]))
    if found:
        times = f"{1000 * found[False]:.3g} ms in float32, {1000 * found[True]:.3g} ms in bfloat16"
        _log.info("a step takes %s: %s is used", times, "bfloat16" if bf16 else "float32")
    return "bf16" if bf16 else "fp32"


def _measured(module: nn.Module, inputs: Any, channels_last: LayoutName) -> dict[bool, float]:
    """Seconds of a step in bfloat16 (True) and in float32, the least of several taken in turns."""
    ways = {
        bf16: choose_execution(module, inputs, "bf16" if bf16 else "fp32", channels_last)
        for bf16 in (False, True)
    }
    least = dict.fromkeys(ways, float("inf"))
    started = time.perf_counter()
    with _unchanged(module):
        for number in range(_STEPS):
            if number > 1 and time.perf_counter() - started > _MOST_SECONDS:
                break
            for bf16, execution in ways.items():
                seconds = _step(module, inputs, execution)
                least[bf16] = min(least[bf16], seconds) if number else least[bf16]
    return least


def _step(module: nn.Module, inputs: Any, execution: Execution) -> float:
    _wait(execution.device)
    started = time.perf_counter()
    with execution.autocast():
        found = tensors_in(call(module, execution.place(inputs)))
        loss = torch.stack([one.float().square().mean() for one in found if one.requires_grad]).sum()
    loss.backward()  # type: ignore[no-untyped-call]
    _wait(execution.device)
    seconds = time.perf_counter() - started
    module.zero_grad(set_to_none=True)
    return seconds


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextlib.contextmanager
def _unchanged(module: nn.Module) -> Iterator[None]:
    """Put the network's modes and statistics, and torch's generators, back at the end."""
    modes = [(part, part.training) for part in module.modules()]
    buffers = [(buffer, buffer.clone()) for buffer in module.buffers()]
    device = device_of(module)
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            module.train()
            yield
    finally:
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)
        for part, mode in modes:
            part.training = mode
