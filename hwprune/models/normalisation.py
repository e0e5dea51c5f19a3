"""The normalisation of images that trained weights were made with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from hwprune.models import external
from hwprune.models.user_file import is_user_file

if TYPE_CHECKING:
    from torch import nn

Channels = tuple[float, float, float]


class Normalisation(NamedTuple):
    """What is done to pixels in 0..1: (pixel - mean) / std, for each channel.

    Attributes:
        mean: Of red, green, blue.
        std: Likewise.
        origin: Whose figures they are, in words.
    """

    mean: Channels
    std: Channels
    origin: str


IMAGENET = Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "ImageNet's")


def expected_normalisation(
    name: str, weights: str = "", *, pretrained: bool = False, model: nn.Module | None = None
) -> Normalisation | None:
    """The normalisation that a network's trained weights expect, as far as it is known.

    Args:
        name: The model's name, as for `models.registry.build`.
        weights: Where its weights come from, as for `models.weights.load_weights`; "" for nowhere.
        pretrained: Whether the model's own function returns trained weights.
        model: The network, where it is built: timm's tell their normalisation themselves.

    Returns:
        timm's or torchvision's where the weights, or the network that a file of weights is for, are theirs;
        ImageNet's, or what a network of timm tells, where the user's function loads weights. None where
        nothing is known: no trained weights, or a file of weights for a network of another origin.
    """
    if not (weights or pretrained):
        return None
    for text in (weights, name):
        source, _, inner = text.partition(":")
        if source in external.SOURCES:
            mean, std = external.SOURCES[source].normalisation(inner)
            return Normalisation(mean, std, f"{source}'s for {inner}")
    own: Any = getattr(model, "pretrained_cfg", None)
    if isinstance(own, dict) and {"mean", "std"} <= own.keys():
        return Normalisation(_three(own["mean"]), _three(own["std"]), "timm's for this network")
    return IMAGENET if pretrained and is_user_file(name) else None


def _three(values: Any) -> Channels:
    red, green, blue = (float(value) for value in values)
    return red, green, blue
