"""What a recipe may have beside steps: mixed batches, stronger views, averaged weights, the best epoch."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from hwprune.data.images import Images
from hwprune.errors import UsageError
from hwprune.training.averaging import Average
from hwprune.training.best import Best
from hwprune.training.mixing import class_weights, mixing
from hwprune.training.precision import device_of
from hwprune.training.task import Classification, Task, logits_of

if TYPE_CHECKING:
    from torch import Tensor, nn

    from hwprune.training.batches import TrainImages
    from hwprune.training.checkpoint import Kept
    from hwprune.training.mixing import Mixing
    from hwprune.training.settings import TrainSettings


@dataclass(frozen=True)
class Extras:
    """What a run does beside its steps; by default nothing.

    Attributes:
        mixing: What is done to each batch on the device.
        average: The moving average of the weights.
        best: Keeps the best epoch.
        rand_augment: Strength of RandAugment on the views.
        class_weights: Of the loss, (classes,).
    """

    mixing: Mixing | None = None
    average: Average | None = None
    best: Best | None = None
    rand_augment: int = 0
    class_weights: Tensor | None = None

    @classmethod
    def of(
        cls,
        model: nn.Module,
        settings: TrainSettings,
        images: TrainImages,
        validation: TrainImages | None,
        task: Task,
    ) -> Extras:
        """What a recipe asks for.

        Args:
            model: The network.
            settings: The recipe.
            images: What is trained on.
            validation: What the best epoch is found with.
            task: What is trained for.

        Raises:
            UsageError: The best epoch is to be kept, and there is nothing to find it with; or the recipe has
                something for images of classes alone, and these are others.
        """
        keeps = settings.keep == "best"
        if keeps and validation is None:
            raise UsageError(
                "There are no images to find the best epoch with.",
                where="keep",
                got="best",
                do='give `validation` images that are not trained on, or keep = "last"',
            )
        mixes = settings.mixup > 0 or settings.cutmix > 0 or settings.erasing > 0
        for_classes = mixes or settings.rand_augment > 0 or settings.class_weights != "none"
        if for_classes and not isinstance(task, Classification):
            raise UsageError(
                "The recipe has augmentation or weights that only classification has.",
                where=type(task).__name__,
                got=_only_for_classes(settings),
                do="leave these out; augment in the data set, and weigh in the loss of the task",
            )
        weights = None
        if settings.class_weights == "balanced":
            weights = class_weights(_labels(images), _classes(model, images)).to(device_of(model))
        return cls(
            mixing=mixing(settings, _classes(model, images)) if mixes else None,
            average=Average(model, settings.ema) if settings.ema > 0 else None,
            best=Best(model, validation, task)
            if settings.keep == "best" and validation is not None
            else None,
            rand_augment=settings.rand_augment,
            class_weights=weights,
        )

    @property
    def kept(self) -> list[Kept]:
        """What a checkpoint holds of it."""
        return [one for one in (self.average, self.best) if one is not None]

    def strengthened(self, images: TrainImages) -> TrainImages:
        """The images with RandAugment on their views, where the recipe has it."""
        if not self.rand_augment or not isinstance(images, Images):
            return images
        return images.strengthened(self.rand_augment)

    def mix(self, batch: Any) -> Any:
        """A batch as it is trained on; see `training.mixing`."""
        return self.mixing(*batch) if self.mixing is not None else batch

    def after_step(self) -> None:
        """Take the weights into the average."""
        if self.average is not None:
            self.average.update()

    def look(self) -> dict[str, float]:
        """After an epoch: the score on the validation images, if any, as a figure to show."""
        if self.best is None:
            return {}
        with self.average.inside() if self.average is not None else contextlib.nullcontext():
            return {"sub_val": self.best.look()}

    def finish(self) -> None:
        """After the run: put the weights in that it gives."""
        if self.average is not None:
            self.average.put()
        if self.best is not None:
            self.best.put()


NOTHING = Extras()


def _only_for_classes(settings: TrainSettings) -> str:
    names = ("mixup", "cutmix", "rand_augment", "erasing", "class_weights")
    values = {name: getattr(settings, name) for name in names}
    return ", ".join(f"{name}={value!r}" for name, value in values.items() if value not in (0, "none"))


def _classes(model: nn.Module, images: TrainImages) -> int:
    """Outputs of a network."""
    example, _ = next(images.batches(min(2, len(images))))
    training = [part for part in model.modules() if part.training]
    try:
        with torch.inference_mode():
            return logits_of(model.eval()(example.to(device_of(model)))).shape[1]
    finally:
        for part in training:
            part.training = True


def _labels(images: TrainImages) -> Tensor:
    if isinstance(images, Images):
        return images.labels
    return torch.cat([labels for _, labels in images.batches(1024)])
