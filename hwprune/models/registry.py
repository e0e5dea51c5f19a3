"""Build a network by name: a built-in one, torchvision's, timm's, or a function in the user's file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hwprune.errors import ModelError, UsageError, nearest
from hwprune.models import external, mobilenet_v1, mobilenet_v2, resnet_cifar, user_file, vgg

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn


@dataclass(frozen=True, slots=True)
class _Builtin:
    factory: Callable[[int], nn.Module]
    image_size: int


_BUILTIN = {
    "resnet20": _Builtin(resnet_cifar.resnet20, 32),
    "resnet56": _Builtin(resnet_cifar.resnet56, 32),
    "resnet110": _Builtin(resnet_cifar.resnet110, 32),
    "vgg16_bn": _Builtin(vgg.vgg16_bn, 224),
    "vgg16_bn_cifar": _Builtin(vgg.vgg16_bn_cifar, 32),
    "mobilenet_v1": _Builtin(mobilenet_v1.mobilenet_v1, 224),
    "mobilenet_v1_cifar": _Builtin(mobilenet_v1.mobilenet_v1_cifar, 32),
    "mobilenet_v2": _Builtin(mobilenet_v2.mobilenet_v2, 224),
    "mobilenet_v2_cifar": _Builtin(mobilenet_v2.mobilenet_v2_cifar, 32),
}
# These networks have only a 32x32 form; the suffix that tells the forms of the others apart is accepted.
_ALIASES = {f"{name}_cifar": name for name in ("resnet20", "resnet56", "resnet110")}

_FORMS = "torchvision:NAME, timm:NAME or path/to/file.py:FUNCTION"
_DEFAULT_IMAGE_SIZE = 224


def known_models() -> tuple[str, ...]:
    """Names of the built-in networks, then the forms that name all others."""
    return (*_BUILTIN, "torchvision:NAME", "timm:NAME", "path/to/file.py:FUNCTION")


def build(name: str, *, num_classes: int = 1000, image_size: int | None = None) -> nn.Module:
    """Build a network with random weights; seed torch first to get the same ones again.

    Nothing is downloaded. The forward pass takes images (N, 3, S, S) and returns logits (N, num_classes).

    Args:
        name: A built-in name (`known_models`), `torchvision:NAME`, `timm:NAME`, or
            `path/to/file.py:FUNCTION`: that file is *executed*, so name only code you trust.
        num_classes: Outputs of the classifier. A user's function gets it if it accepts it.
        image_size: Side of the images in pixels, given to a user's function that accepts it; all other
            networks take any size that survives their strides.

    Raises:
        ModelError: Unknown name (the nearest ones are told), a package that is not installed, or a user's
            function that is missing, fails or returns something else than a module.
        UsageError: `num_classes` is below 1.
    """
    if num_classes < 1:
        raise UsageError(
            "A network needs at least one class.", where="num_classes", got=num_classes, allowed="1 or more"
        )
    if user_file.is_user_file(name):
        return user_file.build(name, num_classes=num_classes, image_size=image_size)
    source, separator, inner = name.partition(":")
    if separator and source in external.SOURCES:
        return external.SOURCES[source].build(inner, num_classes)
    return _builtin(name).factory(num_classes)


def default_image_size(name: str) -> int:
    """Side in pixels of the square images that the network was designed for.

    A user's function tells none, so 224 is assumed.

    Raises:
        ModelError: Unknown name, or a package that is not installed.
    """
    if user_file.is_user_file(name):
        return _DEFAULT_IMAGE_SIZE
    source, separator, inner = name.partition(":")
    if separator and source in external.SOURCES:
        return external.SOURCES[source].image_size(inner)
    return _builtin(name).image_size


def _builtin(name: str) -> _Builtin:
    found = _BUILTIN.get(_ALIASES.get(name, name))
    if found is not None:
        return found
    source, separator, _ = name.partition(":")
    if separator:
        raise ModelError(
            "Models do not come from there.",
            where=name,
            got=source,
            allowed=nearest(source, external.SOURCES) + "; or path/to/file.py:FUNCTION",
        )
    in_torchvision = bool(name) and name in external.torchvision_names()
    raise ModelError(
        "There is no built-in model of that name.",
        where="model",
        got=repr(name),
        allowed=nearest(name, (*_BUILTIN, *_ALIASES)),
        do=f"write torchvision:{name}" if in_torchvision else f"other models are named {_FORMS}",
    )
