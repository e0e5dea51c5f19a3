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

_CHOICES: dict[str, tuple[str, ...]] = {
    "schedule": ("cosine", "linear", "step", "onecycle"),
    "precision": ("auto", "fp32", "bf16"),
    "channels_last": ("auto", "on", "off"),
}


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What every training run has: SGD with momentum on cross-entropy.

    Attributes:
        epochs: Passes over the images; the last one may be a part of one.
        batch_size: Images of one step.
        lr: Highest learning rate.
        momentum: Momentum of SGD.
        nesterov: Whether the momentum is Nesterov's.
        weight_decay: L2 penalty.
        decay_all: Whether it also pulls on biases and normalisation.
        label_smoothing: Share of the target spread over all classes.
        schedule: How the learning rate falls; see `training.schedule`.
        warmup_epochs: Epochs over which the rate first rises from 0 (`onecycle` has its own rise).
        precision: `bf16` computes convolutions in bfloat16; `auto` where the device has instructions for it.
        channels_last: Memory layout of the images; `auto` turns it on where the model allows it.
    """

    epochs: float = 12
    batch_size: int = 128
    lr: float = 0.1
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 5e-4
    decay_all: bool = True
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
            "label_smoothing": (0, 0.9999),
            "warmup_epochs": (0, self.epochs),
        }
        problems = outside(self, bounds)
        for name, allowed in _CHOICES.items():
            if getattr(self, name) not in allowed:
                problems.append(f"{name}={getattr(self, name)!r} (allowed: {', '.join(allowed)})")
        if self.nesterov and self.momentum == 0:
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
    """

    distill_weight: float = 0.5
    distill_temperature: float = 4.0

    def _problems(self) -> list[str]:
        bounds: dict[str, tuple[float, float]] = {"distill_weight": (0, 1), "distill_temperature": (0.1, 100)}
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
