"""`hwprune init`: write the settings of a project."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hwprune.config import FILE_NAME, Config, DataConfig, ModelConfig, TargetConfig, save_config
from hwprune.errors import UsageError
from hwprune.progress import QUIET, Reporter
from hwprune.project.folder import Project, is_onnx
from hwprune.project.lock import locked
from hwprune.project.network import check_settings, traced
from hwprune.project.own_task import remarks_on

if TYPE_CHECKING:
    from hwprune.models.normalisation import Normalisation

_EXAMPLE = "digits"
_DIGITS = 2000  # data sets with fewer training images keep the embedded example's recipe
_FEW = 1000
_ENOUGH = 10_000  # training images that are steps enough in large batches; with fewer ...
_FINE: dict[str, Any] = {"batch_size": 32}  # ... trained weights are tuned in small ones
_ADAMW_LR = 0.001


@dataclass(frozen=True, kw_only=True)
class InitResult:
    """What `init` wrote.

    Attributes:
        path: The configuration file.
        model: Name of the model.
        classes: Number of classes of the data, or of the model without data.
        image_size: Side of the images in pixels.
        train_images: Training images, before sub-val is split off.
        groups: Channel groups that can be pruned.
        blocks: Blocks that may go.
        normalisation: Whose figures the images are normalised by; "" without images.
        mean: Of red, green and blue, subtracted from pixels in 0..1.
        std: What is then divided by.
    """

    path: str
    model: str
    classes: int
    image_size: int
    train_images: int
    groups: int = 0
    blocks: int = 0
    normalisation: str = ""
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()


@locked
def init(
    *,
    project: Path = Path("."),
    model: str = "resnet20",
    data: str = _EXAMPLE,
    task: str = "",
    weights: str = "",
    image_size: int = 0,
    device: str = "cpu",
    profile: str = "",
    force: bool = False,
    reporter: Reporter = QUIET,
) -> InitResult:
    """Write hwprune.toml: model, data, target, and a recipe that suits the amount of data.

    Args:
        project: The project folder.
        model: resnet20, mobilenet_v2_cifar, torchvision:NAME, timm:NAME, path/to/file.py:factory,
            or an ONNX file (latency only).
        data: digits, cifar10:ROOT, imagefolder:ROOT, parquet:DIR, or "" for latency only.
        task: A task of your own in place of images of classes: path/to/file.py:Task, a class with loss,
            metric, train_loader(), val_loader() and test_loader().
        weights: Weights of the unpruned network: FILE.safetensors, FILE.pt, torchvision:NAME, timm:NAME;
            "" trains it, unless the model's own function loads weights.
        image_size: Side of the images in pixels; 0 takes the data's own.
        device: cpu or cuda:0.
        profile: A target profile, such as cpu-1t or cpu; "" takes the device's default.
        force: Replace an existing hwprune.toml.
        reporter: Told about progress.

    Example:
        >>> hwprune.init(project=folder / "new", model="resnet20", data="digits").classes
        10
    """
    path = project / FILE_NAME
    if path.exists() and not force:
        raise UsageError(
            "This folder is a project already.", where=path, do="use another --project, or add --force"
        )
    if (is_onnx(model) or task) and data == _EXAMPLE:
        data = ""  # an ONNX file is not trained; a task has loaders
    config = Config(
        model=ModelConfig(name=model, weights=weights),
        data=DataConfig(source=data, task=task, image_size=image_size),
        target=TargetConfig(device=device, profile=profile),
    )
    opened = Project(project, config)
    opened.target()
    check_settings(opened)
    reporter.note(f"Tracing {model}.")
    space = traced(opened)
    for note in opened.given.notes if opened.given else ():
        reporter.note(f"Weights: {note}.")
    images = len(opened.dataset.train) if data or task else 0
    if data or task:
        config = _recipe(_normalised(config, opened), images, tuned=opened.given is not None)
        config = _of_task(config) if task else config
        for note in (_assumed(opened, config), *remarks_on(opened), opened.splits.told):
            reporter.note(note)
    save_config(path, config)
    return InitResult(
        path=str(path),
        model=model,
        classes=opened.num_classes,
        image_size=opened.image_size,
        train_images=images,
        groups=len(space.groups),
        blocks=len(space.blocks),
        **(_told(opened.normalisation) if data else {}),
    )


def _assumed(opened: Project, config: Config) -> str:
    """Where the unpruned network's weights come from: every pruned network begins with them."""
    given, epochs = opened.given, f"{config.training.epochs:g} epochs"
    if given is None:
        return f"No weights are given: the unpruned network is trained first, {epochs}."
    if given.anew:
        return f"The unpruned network begins with {given.source}, and is trained to these classes, {epochs}."
    return f"The unpruned network is trained already: {given.source}. Pruned ones begin with its weights."


def _told(normalisation: Normalisation) -> dict[str, Any]:
    return {
        "normalisation": normalisation.origin,
        "mean": normalisation.mean,
        "std": normalisation.std,
    }


def _normalised(config: Config, opened: Project) -> Config:
    """The settings with the normalisation that the trained weights expect, if they do."""
    if opened.own_task or not opened.expects_normalisation:
        return config
    mean, std, _ = opened.normalisation
    return replace(config, data=replace(config.data, mean=mean, std=std))


def _of_task(config: Config) -> Config:
    """The settings with an optimiser that suits any loss."""
    own: dict[str, Any] = {"optimiser": "adamw", "lr": _ADAMW_LR, "weight_decay": 0.05}
    return replace(
        config,
        pruningnet=replace(config.pruningnet, **own),
        training=replace(config.training, **own),
    )


def _recipe(config: Config, images: int, *, tuned: bool = False) -> Config:
    """Settings that suit the amount of data."""
    if images > _DIGITS:  # CIFAR-10's size and more: the paper's evolution, and fewer passes
        return replace(
            config,
            pruningnet=replace(config.pruningnet, epochs=12, recalibration_images=500),
            search=replace(
                config.search, population=50, parents=10, mutants=25, crossovers=25, generations=14
            ),
            training=replace(config.training, epochs=12, **_FINE if tuned and images < _ENOUGH else {}),
        )
    if images > _FEW:
        return config
    steps = max(1, images // 32)  # few images: small batches and more passes, for enough steps
    return replace(
        config,
        pruningnet=replace(config.pruningnet, batch_size=32, lr=0.05, epochs=min(200, 24 + 300 // steps)),
        training=replace(config.training, batch_size=32, lr=0.05, epochs=min(200, 16 + 200 // steps)),
    )
