"""Settings of a training run, as plain data (no torch)."""

from __future__ import annotations

import math
import re
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from hwprune.errors import ConfigError

ScheduleName = Literal["cosine", "linear", "step", "onecycle"]
PrecisionName = Literal["auto", "fp32", "bf16"]
LayoutName = Literal["auto", "on", "off"]
OptimiserName = Literal["sgd", "adamw"]
ClassWeightsName = Literal["none", "balanced"]
KeepName = Literal["last", "best"]

_CHOICES: dict[str, tuple[str, ...]] = {
    "schedule": ("cosine", "linear", "step", "onecycle"),
    "precision": ("auto", "fp32", "bf16"),
    "channels_last": ("auto", "on", "off"),
    "optimiser": ("sgd", "adamw"),
    "class_weights": ("none", "balanced"),
    "keep": ("last", "best"),
}
_ADAM_RATE = 0.05  # rates above are SGD's


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What every training run has: an optimiser, its schedule, and cross-entropy.

    Attributes:
        epochs: Passes over the images; the last one may be a part of one.
        batch_size: Images of one step.
        optimiser: `sgd`, or `adamw` (Loshchilov and Hutter 2019), with lr about 0.001 and weight_decay 0.05.
        lr: Highest learning rate.
        momentum: Momentum of SGD; of AdamW's mean of the gradients.
        nesterov: Whether SGD's momentum is Nesterov's.
        weight_decay: L2 penalty; of AdamW the decay of the weights themselves.
        decay_all: Whether it also pulls on biases and normalisation.
        clip_norm: Norm that the gradients of all parameters together are cut down to; 0 leaves them.
        label_smoothing: Share of the target spread over all classes.
        schedule: How the learning rate falls; see `training.schedule`.
        warmup_epochs: Epochs over which the rate first rises from 0 (`onecycle` has its own rise).
        precision: `bf16` computes convolutions in bfloat16; `auto` does where that is faster, as measured at
            the start.
        channels_last: Memory layout of the images; `auto` turns it on where the model allows it.
    """

    epochs: float = 12
    batch_size: int = 128
    optimiser: OptimiserName = "sgd"
    lr: float = 0.1
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 5e-4
    decay_all: bool = True
    clip_norm: float = 0.0
    label_smoothing: float = 0.1
    schedule: ScheduleName = "onecycle"
    warmup_epochs: float = 0.0
    precision: PrecisionName = "auto"
    channels_last: LayoutName = "auto"

    def __post_init__(self) -> None:
        problems = self._problems()
        if problems:
            raise ConfigError(
                "These training settings are not possible.",
                where=type(self).__name__,
                got="; ".join(problems),
                do="correct them and run again",
            )

    def _problems(self) -> list[str]:
        """Everything that is wrong, so that it can be mended at once."""
        bounds = {
            "epochs": (1e-3, math.inf),
            "batch_size": (2, math.inf),
            "lr": (1e-12, 1e3),
            "momentum": (0, 0.9999),
            "weight_decay": (0, 1),
            "clip_norm": (0, math.inf),
            "label_smoothing": (0, 0.9999),
            "warmup_epochs": (0, self.epochs),
        }
        problems = outside(self, bounds)
        for name, allowed in _CHOICES.items():
            if getattr(self, name, allowed[0]) not in allowed:
                problems.append(f"{name}={getattr(self, name)!r} (allowed: {', '.join(allowed)})")
        if self.optimiser == "adamw" and self.lr > _ADAM_RATE:
            problems.append(f"lr={self.lr!r} is a rate for SGD (allowed with adamw: up to {_ADAM_RATE:g})")
        if self.optimiser == "sgd" and self.nesterov and self.momentum == 0:
            problems.append("nesterov=True needs momentum > 0")
        return problems

    def fingerprint(self) -> dict[str, Any]:
        """The settings that a resumed run must share with the one that was broken off."""
        names = {f.name for f in fields(Recipe)}
        return {name: value for name, value in asdict(self).items() if name in names}


@dataclass(frozen=True, kw_only=True)
class ComputeSettings:
    """Where networks are trained and scored; where they are measured is another matter.

    Attributes:
        device: `cpu`, `cuda` or `cuda:N`; `auto` takes a GPU where there is one.
        compile: Whether the final training goes through torch.compile; it takes a minute to begin.
        cuda_graph: Whether one GPU records the step of the final training and replays it, where it is not
            compiled; for networks of less than 2^25 parameters that compute the same in each step.
    """

    device: str = "auto"
    compile: bool = False
    cuda_graph: bool = False

    def __post_init__(self) -> None:
        if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", self.device):
            raise ConfigError(
                "A setting is out of range.",
                got=f"device={self.device!r} (allowed: auto, cpu, cuda, cuda:0, cuda:1 ...)",
            )


@dataclass(frozen=True, kw_only=True)
class TrainSettings(Recipe):
    """Settings of the training of one ordinary network.

    Attributes:
        distill_weight: Share of the loss that asks for the teacher's outputs; used only with a teacher.
        distill_temperature: Softening of both outputs in that part (Hinton et al. 2015, section 2).
        ema: Decay of a moving average of the weights, for instance 0.999, then the result; 0 has none.
        mixup: Alpha of mixup (Zhang et al. 2018), for instance 0.2; 0 does without.
        cutmix: Alpha of CutMix (Yun et al. 2019), for instance 1; with mixup too, each batch has one of them.
        rand_augment: Strength of RandAugment (Cubuk et al. 2020), 1 to 30, usually 9; 0 does without.
        erasing: Share of the images in which a random part is erased (Zhong et al. 2020).
        class_weights: `balanced` lets rare classes weigh as much in the loss as frequent ones.
        keep: `best` ends with the epoch that was best on sub-val, which then is not trained on; else `last`.
    """

    distill_weight: float = 0.5
    distill_temperature: float = 4.0
    ema: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    rand_augment: int = 0
    erasing: float = 0.0
    class_weights: ClassWeightsName = "none"
    keep: KeepName = "last"

    def _problems(self) -> list[str]:
        bounds: dict[str, tuple[float, float]] = {
            "distill_weight": (0, 1),
            "distill_temperature": (0.1, 100),
            "ema": (0, 0.999999),
            "mixup": (0, 100),
            "cutmix": (0, 100),
            "rand_augment": (0, 30),
            "erasing": (0, 1),
        }
        return super()._problems() + outside(self, bounds)

    def fingerprint(self) -> dict[str, Any]:
        """The settings that a resumed run must share with the one that was broken off."""
        return asdict(self)


def outside(settings: object, bounds: dict[str, tuple[float, float]]) -> list[str]:
    """A line for each attribute of `settings` that is not a number within its bounds."""
    lines = []
    for name, (low, high) in bounds.items():
        value = getattr(settings, name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            lines.append(f"{name}={value!r} (allowed: {low:g} to {high:g})")
    return lines
