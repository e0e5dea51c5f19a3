"""Networks from torchvision and timm, built without their pretrained weights; and these weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from hwprune.errors import ModelError, nearest

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import ModuleType

    from torch import Tensor, nn


_AUXILIARY = ("aux1.", "aux2.", "AuxLogits.")  # classifiers that help training only; never built here
_Channels = tuple[float, float, float]


class Source(Protocol):
    """A package that builds networks by name."""

    def build(self, name: str, num_classes: int) -> nn.Module:
        """A network with random weights whose forward pass returns one tensor (N, num_classes)."""

    def image_size(self, name: str) -> int:
        """Side in pixels of the images that the network was designed for."""

    def normalisation(self, name: str) -> tuple[_Channels, _Channels]:
        """Mean and deviation of each channel that its trained weights expect."""

    def weights(self, name: str) -> Mapping[str, Tensor]:
        """Its trained weights, downloaded where they are not yet in the package's cache."""


# With auxiliary classifiers these return a tuple while training. Their own initialisation takes seconds and
# BatchNorm after every convolution makes its scale irrelevant.
_TORCHVISION_OPTIONS: dict[str, dict[str, Any]] = {
    name: {"aux_logits": False, "init_weights": False} for name in ("googlenet", "inception_v3")
}


class _Torchvision:
    def build(self, name: str, num_classes: int) -> nn.Module:
        """Build one of torchvision's classification networks."""
        import torchvision

        check_torchvision_name(name)
        options = _TORCHVISION_OPTIONS.get(name, {})
        try:
            network: nn.Module = torchvision.models.get_model(
                name, weights=None, num_classes=num_classes, **options
            )
        except (TypeError, ValueError, RuntimeError) as error:
            raise ModelError(
                "torchvision cannot build that network.", where=f"torchvision:{name}", got=error
            ) from error
        return network

    def image_size(self, name: str) -> int:
        """The crop that torchvision's first ImageNet weights of that network were evaluated on."""
        import torchvision

        check_torchvision_name(name)
        weights = torchvision.models.get_model_weights(name)
        first = weights["IMAGENET1K_V1"] if "IMAGENET1K_V1" in weights.__members__ else weights.DEFAULT
        return int(first.transforms.keywords["crop_size"])

    def normalisation(self, name: str) -> tuple[_Channels, _Channels]:
        """That of torchvision's best weights of that network."""
        transforms: Any = _torchvision_weights(name).transforms()
        return tuple(transforms.mean), tuple(transforms.std)

    def weights(self, name: str) -> Mapping[str, Tensor]:
        """The best weights of that network, or those of that name, without auxiliary classifiers."""
        found = _torchvision_weights(name)
        try:
            state: Mapping[str, Tensor] = found.get_state_dict(progress=False, check_hash=True)
        except (OSError, RuntimeError) as error:  # URLError and timeouts are OSErrors; a wrong hash is not
            raise ModelError(
                "torchvision's weights could not be downloaded.",
                where=found.url,
                got=error,
                do="check the network, or download that file elsewhere and give it as FILE.pth",
            ) from error
        return {key: value for key, value in state.items() if not key.startswith(_AUXILIARY)}


class _Timm:
    def build(self, name: str, num_classes: int) -> nn.Module:
        """Build one of timm's networks."""
        timm = _import_timm()
        _check_timm_name(timm, name)
        try:
            network: nn.Module = timm.create_model(name, pretrained=False, num_classes=num_classes)
        except (TypeError, ValueError, RuntimeError) as error:
            raise ModelError("timm cannot build that network.", where=f"timm:{name}", got=error) from error
        return network

    def image_size(self, name: str) -> int:
        """The input size in timm's default configuration of that network."""
        timm = _import_timm()
        _check_timm_name(timm, name)
        config = timm.get_pretrained_cfg(name)
        return int(config.input_size[-1]) if config is not None else 224

    def normalisation(self, name: str) -> tuple[_Channels, _Channels]:
        """That in timm's default configuration of that network; ImageNet's where it has none."""
        timm = _import_timm()
        _check_timm_name(timm, name)
        config = timm.get_pretrained_cfg(name)
        if config is None:
            return timm.data.IMAGENET_DEFAULT_MEAN, timm.data.IMAGENET_DEFAULT_STD
        return tuple(config.mean), tuple(config.std)

    def weights(self, name: str) -> Mapping[str, Tensor]:
        """Those that timm's configuration of that network names."""
        timm = _import_timm()
        _check_timm_name(timm, name)
        config = timm.get_pretrained_cfg(name)
        if config is None or not config.has_weights:
            raise ModelError(
                "timm has no trained weights for that network.",
                where=f"timm:{name}",
                do="timm.list_models(pretrained=True) names those that have",
            )
        try:
            network: nn.Module = timm.create_model(name, pretrained=True)
        except Exception as error:  # each of its ways to download has errors of its own
            raise ModelError(
                "timm's weights could not be downloaded.",
                where=config.hf_hub_id or config.url or f"timm:{name}",
                got=(str(error).strip() or type(error).__name__).splitlines()[0],
                do="check the network, or download that file elsewhere and give it as FILE.safetensors",
            ) from error
        return network.state_dict()


SOURCES: dict[str, Source] = {"torchvision": _Torchvision(), "timm": _Timm()}


def _torchvision_weights(name: str) -> Any:
    """Weights of torchvision by a network's name (the best ones), or by their own, `ENUM.MEMBER`."""
    import torchvision

    if "." not in name:
        check_torchvision_name(name)
        return torchvision.models.get_model_weights(name).DEFAULT
    try:
        return torchvision.models.get_weight(name)
    except (ValueError, KeyError) as error:
        raise ModelError(
            "torchvision has no weights of that name.",
            where="weights",
            got=repr(name),
            allowed="a network such as resnet50, or weights such as ResNet50_Weights.IMAGENET1K_V2",
        ) from error


def check_torchvision_name(name: str) -> None:
    """Check that torchvision has such a classification network.

    Raises:
        ModelError: It has none; names spelt like it are told.
    """
    _check_name("torchvision", name, torchvision_names())


def torchvision_names() -> tuple[str, ...]:
    """Names of torchvision's classification networks."""
    import torchvision

    return tuple(torchvision.models.list_models(module=torchvision.models))


def _import_timm() -> ModuleType:
    try:
        import timm
    except ImportError as error:
        raise ModelError(
            "The package timm is not installed.", where="timm:NAME", do="pip install 'hwprune[timm]'"
        ) from error
    return timm


def _check_timm_name(timm: ModuleType, name: str) -> None:
    if not timm.is_model(name):
        _check_name("timm", name, tuple(timm.list_models()))


def _check_name(source: str, name: str, known: tuple[str, ...]) -> None:
    if name in known:
        return
    near = nearest(name, known)
    # With nothing near, the list of all names would fill the screen.
    allowed = near if near.startswith("did you mean") else f"one of the {len(known)} names {source} lists"
    raise ModelError(f"{source} has no network of that name.", where="model", got=repr(name), allowed=allowed)
