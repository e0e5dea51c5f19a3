"""The published side of `pruningnet_speed.py`: MetaPruning's own code, read from a folder."""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def _imported(folder: Path, name: str) -> Any:
    """A module of the published code, which imports its neighbours by bare names."""
    for known in ("mobilenet_v2", "model_for_FLOPs", "cal_FLOPs"):
        sys.modules.pop(known, None)
    sys.path.insert(0, str(folder))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(folder))


class Published:
    """The published PruningNet of MobileNetV2, trained as its `train.py` does.

    Args:
        reference: Folder of the published code.
        bf16: Whether it computes in bfloat16, channels last, which is not how it was published.
    """

    def __init__(self, reference: Path, bf16: bool = False) -> None:
        module = _imported(reference / "mobilenetv2" / "training", "mobilenet_v2")
        torch.manual_seed(0)
        self.net: nn.Module = module.MobileNetV2().train()
        self.bf16 = bf16
        self.optimiser = torch.optim.SGD(self.net.parameters(), 0.25, momentum=0.9)

    def step(self, images: torch.Tensor, labels: torch.Tensor, choice: tuple[list[int], list[int]]) -> None:
        """One training step."""
        stages, middles = choice
        if self.bf16:
            images = images.contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
            outputs = self.net(images, middles, stages)
        loss = functional.cross_entropy(outputs.float(), labels, label_smoothing=0.1)
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()

    @staticmethod
    def counter(reference: Path) -> Callable[[tuple[list[int], list[int]]], float]:
        """Its count of a network's operations (M): builds the network and runs it."""
        folder = reference / "mobilenetv2" / "searching"
        nets, counting = _imported(folder, "model_for_FLOPs"), _imported(folder, "cal_FLOPs")
        # For the rest of this process: there is no GPU here that anything could be moved to.
        nn.Module.cuda = torch.Tensor.cuda = lambda self, *args: self  # type: ignore[assignment, method-assign]

        def count(choice: tuple[list[int], list[int]]) -> float:
            stages, middles = choice
            # There the number of a middle belongs to the block after it.
            return float(counting.print_model_parm_flops(nets.MobileNetV2(stages, middles[1:])))

        return count
