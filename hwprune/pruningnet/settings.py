"""Settings of PruningNet, as plain data (no torch)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

from hwprune.training.settings import Recipe, ScheduleName, outside

GeneratorName = Literal["fc", "residual", "shared"]
ImportanceName = Literal["l1", "bn_scale", "taylor", "fisher"]


@dataclass(frozen=True, kw_only=True)
class PruningNetSettings(Recipe):
    """How a PruningNet is trained and how candidates are scored with it.

    The paper's recipe (ImageNet): MobileNets 64 epochs, batch 512, rate 0.25 falling linearly, weight decay
    0 or 4e-5; ResNet-50 32 epochs, batch 256, rate 0.1 in steps, weight decay 1e-4; no Nesterov.

    Attributes:
        recalibration_images: Sub-train images that a candidate's batch-norm statistics are taken from.
        eval_batch_size: Images of one batch of recalibration and scoring; small batches stay in the cache.
            A GPU scores small images in larger ones.
        full_share: Share of the steps that train the unpruned network; the paper draws all widths alike, so
            that a network with all groups near full width hardly ever comes up.
    """

    schedule: ScheduleName = "onecycle"
    weight_decay: float = 1e-4
    recalibration_images: int = 1000
    eval_batch_size: int = 100
    full_share: float = 0.0

    def fingerprint(self) -> dict[str, Any]:
        """The settings that a resumed run must share with the one that was broken off."""
        return {**super().fingerprint(), "full_share": self.full_share}

    def _problems(self) -> list[str]:
        return super()._problems() + outside(
            self,
            {"recalibration_images": (2, math.inf), "eval_batch_size": (2, math.inf), "full_share": (0, 1)},
        )
