"""Where bfloat16 and channels-last are used.

Without gradients both follow from the device. For training, `training.fastest` measures what to ask for.
"""

from __future__ import annotations

import contextlib
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.utils import _pytree as pytree

from hwprune.errors import DeviceError
from hwprune.training.task import call, first_of

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from torch import nn

    from hwprune.training.settings import LayoutName, PrecisionName

_log = logging.getLogger(__name__)
_OVERRUN_INPUTS = 8


@dataclass(frozen=True, kw_only=True)
class Execution:
    """How batches are run through a network.

    Attributes:
        device: Where the network lies.
        bf16: Whether convolutions and linear layers compute in bfloat16 (autocast; weights stay float32).
        channels_last: Whether images are stored channels last.
    """

    device: torch.device
    bf16: bool = False
    channels_last: bool = False

    def autocast(self) -> AbstractContextManager[object]:
        """The context to compute in."""
        if self.bf16:
            return torch.autocast(self.device.type, torch.bfloat16)
        return contextlib.nullcontext()

    def place(self, batch: Any) -> Any:
        """A batch of any structure on the device, what is (N, C, H, W) in the layout.

        What is no tensor, dict, list or tuple stays as it is, unless it has a method `to(device)`.
        """
        return pytree.tree_map(self._placed, batch)

    def _placed(self, leaf: Any) -> Any:
        if not isinstance(leaf, torch.Tensor):
            return leaf.to(self.device) if hasattr(leaf, "to") else leaf
        if self.channels_last and leaf.ndim == 4:
            return leaf.to(self.device, memory_format=torch.channels_last, non_blocking=True)
        return leaf.to(self.device, non_blocking=True)


def device_of(module: nn.Module) -> torch.device:
    """Where the first parameter of `module` lies; the CPU if it has none."""
    return next((parameter.device for parameter in module.parameters()), torch.device("cpu"))


def choose_execution(
    module: nn.Module,
    example: Any,
    precision: PrecisionName,
    channels_last: LayoutName,
    *,
    gradients: bool = True,
) -> Execution:
    """Decide how to run `module`.

    Args:
        module: The network. On a GPU its weights are laid out channels last too where images are, or each
            convolution would turn them round; on a CPU oneDNN brings them to a layout of its own.
        example: What it is called with, such as (N, C, H, W); two images of it try the layout.
        precision: `auto` takes bfloat16 where the device has instructions for it.
        channels_last: `auto` turns it on unless the model cannot take it (a `view` after a convolution).
        gradients: Whether any will be computed.

    Raises:
        DeviceError: `bf16` was asked for and the device has no such instructions at all.
    """
    device = device_of(module)
    bf16 = precision == "bf16" or (precision == "auto" and has_fast_bf16(device))
    if precision == "bf16" and device.type == "cpu" and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        raise DeviceError(
            "This CPU cannot compute in bfloat16.",
            got="precision=bf16",
            allowed="a CPU with AVX-512",
            do="use precision=auto or precision=fp32",
        )
    last = Execution(device=device, bf16=bf16, channels_last=True)
    use_last = channels_last == "on" or (
        channels_last == "auto" and _takes(module, last, first_of(example, 2))
    )
    if use_last and gradients and not bf16 and device.type == "cpu" and _overruns(module):
        _log.info("channels-last is off: oneDNN would write past the end of a gradient")
        use_last = False
    execution = last if use_last else Execution(device=device, bf16=bf16)
    lay_out(module, execution)
    return execution


def lay_out(module: nn.Module, execution: Execution) -> None:
    """Store weights of convolutions as a GPU wants them; other tensors, some of five dimensions, stay."""
    if not execution.channels_last or execution.device.type != "cuda":
        return
    for part in module.modules():
        if isinstance(part, torch.nn.Conv2d | torch.nn.ConvTranspose2d):
            part.weight.data = part.weight.data.contiguous(memory_format=torch.channels_last)


def _overruns(module: nn.Module) -> bool:
    """Whether oneDNN would write past the end of a weight's gradient, which crashes at any time later.

    So does version 3.12 (torch 2.14) without AVX-512, in float32 and channels last, for 1x1 convolutions with
    a stride and fewer than 8 input channels: always on one thread, and a run on two hung there as well.
    Layers whose width changes may come down to that.
    """
    return any(map(_may_overrun, module.modules()))


def _may_overrun(part: Any) -> bool:
    if getattr(part, "kernel_size", None) != (1, 1):
        return False
    return max(part.stride) > 1 and getattr(part, "in_channels", 0) < _OVERRUN_INPUTS


def has_fast_bf16(device: torch.device) -> bool:
    """Whether `device` multiplies bfloat16 natively (AVX512_BF16, AMX, or such a GPU).

    Plain AVX-512 counts as support for oneDNN, but there bfloat16 is emulated and slower than float32.
    """
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type != "cpu" or not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return False
    probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(bool(getattr(torch.cpu, probe, bool)()) for probe in probes)


def _takes(module: nn.Module, execution: Execution, inputs: Any) -> bool:
    """Whether the network runs on channels-last images; tried in eval mode, so no statistics change."""
    training = [part for part in module.modules() if part.training]
    try:
        module.eval()
        with torch.inference_mode(), execution.autocast():
            call(module, execution.place(inputs))
    except RuntimeError as error:
        _log.info("channels-last is off, the model does not take it: %s", error)
        return False
    finally:
        for part in training:
            part.training = True
    return True
