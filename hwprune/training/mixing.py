"""What is done to whole batches while training: mixup, cutmix, random erasing, with torchvision's transforms.

They draw from torch's global generator, which the training loop seeds for each epoch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torchvision.transforms import v2

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from hwprune.training.settings import TrainSettings

    Mixing = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def mixing(settings: TrainSettings, classes: int) -> Mixing | None:
    """What the recipe does to a batch: images (N, C, H, W) and labels (N,) to images and labels.

    With mixup or cutmix these labels are shares of the classes, (N, classes), float32; of both, one is drawn
    for each batch. None where the recipe has nothing of it.
    """
    mixers = [kind(alpha=alpha, num_classes=classes) for kind, alpha in _mixers(settings) if alpha > 0]
    mix = v2.RandomChoice(mixers) if mixers else None
    erase = v2.RandomErasing(settings.erasing) if settings.erasing > 0 else None
    if mix is None and erase is None:
        return None

    def apply(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        last = images.is_contiguous(memory_format=torch.channels_last)
        layout = torch.channels_last if last else torch.contiguous_format
        if erase is not None:  # once for each image: of a batch it would erase one place
            images = torch.stack([erase(image) for image in images])
        if mix is not None:
            images, labels = mix(images, labels)
        return images.contiguous(memory_format=layout), labels

    return apply


def _mixers(settings: TrainSettings) -> tuple[tuple[type[v2.MixUp | v2.CutMix], float], ...]:
    return (v2.MixUp, settings.mixup), (v2.CutMix, settings.cutmix)


def class_weights(labels: Tensor, classes: int) -> Tensor:
    """Weights of the classes in the loss, (classes,): all images of one weigh as much as those of another.

    A class without images weighs 1; the mean over all images is 1.
    """
    counts = torch.bincount(labels.cpu(), minlength=classes).float()
    present = int((counts > 0).sum())
    return torch.where(counts > 0, len(labels) / (present * counts.clamp(min=1)), 1.0)
