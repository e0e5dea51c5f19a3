"""What a training run reports, as plain data (no torch)."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, kw_only=True)
class EpochFigures:
    """Figures of one epoch over the training images.

    Attributes:
        epoch: Number of the epoch, from 1.
        loss: Mean training loss.
        top1: Mean of the task's metric on the (augmented) training images while training, of classification
            top-1 accuracy; None of a metric over a set.
        lr: Learning rate of the last step.
        seconds: Wall-clock time.
    """

    epoch: int
    loss: float
    top1: float | None
    lr: float
    seconds: float


@dataclass(frozen=True)
class History:
    """The epochs of a run, in order, also those of earlier, broken-off parts of it."""

    epochs: tuple[EpochFigures, ...] = ()

    def to_payload(self) -> list[dict[str, Any]]:
        """The history as JSON-able data."""
        return [asdict(epoch) for epoch in self.epochs]

    @classmethod
    def from_payload(cls, payload: list[Mapping[str, Any]]) -> History:
        """The history that `to_payload` described."""
        return cls(tuple(EpochFigures(**epoch) for epoch in payload))
