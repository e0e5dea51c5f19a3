"""`hwprune.toml`: the settings of a project, checked at birth, every problem reported at once. No torch."""

from __future__ import annotations

import inspect
import json
import math
import re
import sys
import tomllib
import typing
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from hwprune import artifacts
from hwprune.errors import ConfigError, HwpruneError, nearest
from hwprune.evolution.algorithm import SearchSettings
from hwprune.pruningnet.settings import GeneratorName, ImportanceName, PruningNetSettings
from hwprune.training.settings import ComputeSettings, TrainSettings, outside

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

FILE_NAME = "hwprune.toml"
ScoreName = Literal["auto", "inherited", "pruningnet", "macs"]
StartName = Literal["auto", "inherited", "generated", "scratch"]
DistillName = Literal["auto", "on", "off"]
RecipeName = Literal["tuned", "paper"]
_REPLACED = {
    "data.sub_val_per_class": "data.sub_val, the images of all classes; 0 takes as many as suit",
    "model.blocks": "model.tied, the same list",
}
_MAX_BYTES = 2**20
_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The network to prune.

    Attributes:
        name: `resnet20`, `torchvision:resnet50`, `timm:NAME`, `path/to/file.py:factory`, ...
        weights: Weights of the unpruned network: FILE.safetensors, FILE.pt, torchvision:NAME or timm:NAME; ""
            trains it, unless the model's own function loads weights.
        exclude: Patterns of layers whose output channels must stay, such as `layer4.*`.
        tied: Patterns of modules, such as `layer?.*`, whose inner layers get one width and whose weights are
            generated for all its widths, as MetaPruning's blocks.
        depth: Whether blocks may go as a whole, not channels alone.
    """

    name: str = "resnet20"
    weights: str = ""
    exclude: tuple[str, ...] = ()
    tied: tuple[str, ...] = ()
    depth: bool = True


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """The images.

    Attributes:
        source: `digits`, `cifar10:ROOT`, `imagefolder:ROOT`, `parquet:DIR`; "" has none (latency only).
        task: A task of your own in place of classification, `path/to/file.py:Task`, with `source` "": loss,
            metric and loaders.
        image_size: Side of the images in pixels; 0 takes the data's own, or the model's without data.
        mean: What is subtracted from red, green and blue of pixels in 0..1; [] takes what trained weights
            expect, else the images' own mean, above 64 pixels ImageNet's.
        std: What is then divided by, three numbers too; [] likewise.
        sub_val: Images to score candidates on, in all: of your validation part, else kept from training; 0
            takes 2,500, at most a fifth of the training images.
    """

    source: str = "digits"
    task: str = ""
    image_size: int = 0
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    sub_val: int = 0

    def __post_init__(self) -> None:
        _require(self, {"image_size": (0, 10_000), "sub_val": (0, math.inf)})
        if self.task and self.source:
            raise ConfigError(
                "Images are given twice.",
                got=f"source={self.source!r} and task={self.task!r}",
                do='set source = "": the task has loaders of its own',
            )
        if problems := _channel_problems(self.mean, self.std):
            raise ConfigError("The normalisation is not possible.", got="; ".join(problems))

    @property
    def given(self) -> bool:
        """Whether there is anything to train on."""
        return bool(self.source or self.task)


@dataclass(frozen=True, kw_only=True)
class TargetConfig:
    """Where the network must be fast.

    Attributes:
        device: `cpu` or `cuda:0`.
        profile: A target profile (`cpu-1t`, `cpu`, or a TOML file); "" takes the device's default.
    """

    device: str = "cpu"
    profile: str = ""


@dataclass(frozen=True, kw_only=True)
class ProfilingConfig:
    """How long the latency table may take to build.

    Attributes:
        max_seconds: Device time to spend: a quarter or so for the device's steps, the unpruned network and
            its neighbours, the rest for the networks of the table.
        max_error: Mean error, as a fraction, at which profiling may stop earlier.
        channel_multiple: Step between the widths to choose from; 0 finds the device's, 1 has the paper's 31.
    """

    max_seconds: float = 80.0
    max_error: float = 0.03
    channel_multiple: int = 0

    def __post_init__(self) -> None:
        bounds = {"max_seconds": (1.0, math.inf), "max_error": (1e-4, 1.0), "channel_multiple": (0, 1024)}
        _require(self, bounds)


@dataclass(frozen=True, kw_only=True)
class PruningNetConfig(PruningNetSettings):
    """Weights of the networks that are scored: inherited, or a PruningNet's where these do not do.

    Attributes:
        generator: `residual` starts from the trained network, its channels sorted by importance, and
            generates gains for them; `fc` is the paper's; `shared` crops shared weights, generating nothing.
        hidden: Width of the generator's hidden layer; `residual` takes a quarter of it.
        hidden_outside: The same of layers in no tied module; 0 takes `hidden`.
        recompute: Whether training keeps less in memory and computes the inside of each block twice.
        repair: Whether inherited weights that stay take over, by least squares, what the removed ones did.
        importance: What inherited weights and `residual` sort channels by: `l1`, `bn_scale`, `taylor` or
            `fisher`.
        epochs: Passes over the images, if a PruningNet is trained; `search --epochs` decides in their place.
    """

    generator: GeneratorName = "residual"
    hidden: int = 32
    hidden_outside: int = 0
    recompute: bool = False
    importance: ImportanceName = "l1"
    repair: bool = True
    epochs: int = 24
    lr: float = 0.05
    recalibration_images: int = 400

    def _problems(self) -> list[str]:
        return super()._problems() + outside(self, {"hidden": (1, 4096), "hidden_outside": (0, 4096)})


@dataclass(frozen=True, kw_only=True)
class SearchConfig(SearchSettings):
    """The evolution; a small one by default, the paper's 50 networks a generation for larger data.

    Attributes:
        score: `inherited` (metric of the trained network, cut, with its batch normalisation recalibrated),
            `pruningnet` (with the weights it generates), or `macs` (prefers larger networks, needs no
            images); `auto` takes `inherited` where that tells networks apart, else `pruningnet`, and `macs`
            without images.
        race: Whether networks that will not be among the parents are scored on a part of sub-val only.
    """

    score: ScoreName = "auto"
    race: bool = True
    population: int = 24
    parents: int = 8
    mutants: int = 10
    crossovers: int = 10
    generations: int = 6
    fit_children: bool = True


@dataclass(frozen=True, kw_only=True)
class TrainConfig(TrainSettings):
    """The recipe of the final network, and of the unpruned one when no weights are given.

    Attributes:
        start: `inherited` (weights of the trained unpruned network), `generated` (PruningNet's), or `scratch`
            (random, as in the paper); `auto` takes those that the network was chosen with.
        distill: Whether the unpruned network teaches the pruned one; `auto` does.
        epochs: Passes over the images, of the unpruned network too; the last one may be a part of one.
        lr: Highest learning rate from random weights.
        tuning_lr: Highest learning rate from trained weights; 0 finds it by a short test.
    """

    start: StartName = "auto"
    distill: DistillName = "auto"
    epochs: int = 16
    tuning_lr: float = 0.0

    def _problems(self) -> list[str]:
        return super()._problems() + outside(self, {"tuning_lr": (0, 1e3)})


@dataclass(frozen=True, kw_only=True)
class Config:
    """All settings of a project; the defaults are the embedded example's, done in minutes on two cores.

    Attributes:
        recipe: `tuned` is what is set below; `paper` is MetaPruning's protocol in its place: widths alone,
            scored by an `fc` PruningNet, training from scratch without a teacher.
        seed: Seed of everything random.
        model: The network.
        data: The images.
        target: The device.
        compute: Where networks are trained and scored.
        profiling: The latency table.
        pruningnet: Weights of the networks that are scored.
        search: The evolution.
        training: The final recipe.
    """

    recipe: RecipeName = "tuned"
    seed: int = 0
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    target: TargetConfig = field(default_factory=TargetConfig)
    compute: ComputeSettings = field(default_factory=ComputeSettings)
    profiling: ProfilingConfig = field(default_factory=ProfilingConfig)
    pruningnet: PruningNetConfig = field(default_factory=PruningNetConfig)
    search: SearchConfig = field(default_factory=SearchConfig)
    training: TrainConfig = field(default_factory=TrainConfig)

    def __post_init__(self) -> None:
        _require(self, {"seed": (0, 2**31)})
        if self.pruningnet.recompute and not self.model.tied:
            raise ConfigError(
                "A setting needs another one.",
                got="[pruningnet] recompute = true without tied under [model]: nothing to recompute",
                do='name modules, for example tied = ["layer?.*"], or set recompute = false',
            )


def _channel_problems(mean: tuple[float, ...], std: tuple[float, ...]) -> list[str]:
    """What is wrong with the normalisation of images."""
    allowed = "(allowed: three numbers, of red, green and blue, or [])"
    both = (("mean", mean), ("std", std))
    problems = [f"{name}={list(values)} {allowed}" for name, values in both if len(values) not in (0, 3)]
    if bool(mean) != bool(std):
        problems.append("mean and std: one is set without the other")
    if any(value <= 0 for value in std):
        problems.append(f"std={list(std)} (allowed: numbers above 0)")
    if any(not 0 <= value <= 1 for value in mean):
        problems.append(f"mean={list(mean)} (allowed: 0 to 1, the scale of the pixels)")
    return problems


def resolved(config: Config) -> Config:
    """The settings that `recipe` stands for: with `paper` all that it decides, else what was set."""
    if config.recipe == "tuned":
        return config
    return replace(
        config,
        model=replace(config.model, depth=False),
        pruningnet=replace(config.pruningnet, generator="fc"),
        search=replace(config.search, score="pruningnet"),
        training=replace(config.training, start="scratch", distill="off"),
    )


def _require(settings: object, bounds: dict[str, tuple[float, float]]) -> None:
    if problems := outside(settings, bounds):
        raise ConfigError("A setting is out of range.", got="; ".join(problems))


def load_config(path: Path) -> Config:
    """Read `hwprune.toml`.

    Raises:
        MissingArtifactError: There is no such file.
        ConfigError: Not TOML, unknown keys, wrong types or impossible values; lists all of them.
    """
    try:
        content = tomllib.loads(artifacts.read_bytes(path, "hwprune init", _MAX_BYTES).decode())
    except (ValueError, RecursionError) as error:  # numbers of a thousand digits are no TOMLDecodeError
        raise ConfigError(
            "The configuration is not a TOML file.", where=path, got=error, do="mend that line"
        ) from error
    problems: list[str] = []
    config = _build(Config, content, "", problems)
    if config is None or problems:
        raise ConfigError(
            "The configuration has problems.",
            where=path,
            got="\n           ".join(problems),
            do="mend these lines; `hwprune init` in an empty folder writes a file with every key explained",
        )
    return config


def save_config(path: Path, config: Config) -> None:
    """Write every setting with its explanation as a comment."""
    own = _explain(Config)
    lines = ["# Settings of an hwprune project."]
    for entry in fields(config):
        section = getattr(config, entry.name)
        if not is_dataclass(section):
            lines.append(f"{entry.name} = {_toml(section)}  # {own[entry.name]}")
        else:
            notes = _explain(type(section))
            lines += ["", f"[{entry.name}]"]
            for item in fields(section):
                lines.append(f"{item.name} = {_toml(getattr(section, item.name))}  # {notes[item.name]}")
    artifacts.write_bytes(path, ("\n".join(lines) + "\n").encode())


def _build(cls: type[_T], table: Mapping[str, Any], where: str, problems: list[str]) -> _T | None:
    """Make a settings object of a TOML table, adding what is wrong to `problems`."""
    hints = typing.get_type_hints(cls)
    values: dict[str, Any] = {}
    before = len(problems)
    for key, value in table.items():
        label = f"{where}{key}"
        if label in _REPLACED:
            problems.append(f"{label} is no setting any more: write {_REPLACED[label]}")
        elif key not in hints:
            problems.append(f"{label} is not a setting; {nearest(key, hints)}")
        elif isinstance(hints[key], type) and hasattr(hints[key], "__dataclass_fields__"):
            if isinstance(value, dict):
                values[key] = _build(hints[key], value, f"{label}.", problems)
            else:
                problems.append(f"{label} = {value!r}; allowed: a table [{label}]")
        else:
            values[key] = _convert(hints[key], value, label, problems)
    if len(problems) > before:
        return None
    try:
        return cls(**values)
    except HwpruneError as error:
        section = f"[{where.rstrip('.')}] " if where else ""
        problems.append(f"{section}{error.got or error.what}")
    return None


def _convert(hint: Any, value: Any, label: str, problems: list[str]) -> Any:
    """Check one value against its type; whole numbers are good floats, lists are good tuples."""
    if typing.get_origin(hint) is Literal:
        allowed, fits = ", ".join(map(repr, typing.get_args(hint))), value in typing.get_args(hint)
    elif hint == tuple[str, ...]:
        allowed, fits = "a list of texts", isinstance(value, list) and all(isinstance(v, str) for v in value)
        value = tuple(value) if fits else value
    elif hint == tuple[float, ...]:
        allowed, fits = "a list of finite numbers", isinstance(value, list) and all(map(_is_number, value))
        value = tuple(map(float, value)) if fits else value
    elif hint is float:
        allowed, fits = "a finite number", _is_number(value)
        value = float(value) if fits else value
    else:
        allowed = {int: "a whole number", bool: "true or false", str: "a text"}[hint]
        fits = type(value) is hint
    if not fits:
        problems.append(f"{label} = {value!r}; allowed: {allowed}")
    return value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)  # a JSON text is a TOML text
    if isinstance(value, tuple):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    return repr(value)


def _explain(cls: type) -> dict[str, str]:
    """Attribute -> first sentence of its explanation, from the docstrings of a class and its parents."""
    notes: dict[str, str] = {}
    for parent in reversed(cls.__mro__):
        text = inspect.cleandoc(parent.__doc__ or "").partition("Attributes:\n")[2]
        for name, words in re.findall(r"^ {4}(\w+): ((?:.|\n {8})+)", text, flags=re.M):
            notes[name] = re.split(r"\.\s+(?=[A-Z])", re.sub(r"\s+", " ", words))[0]
    return notes
