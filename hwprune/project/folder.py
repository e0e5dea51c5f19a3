"""A project folder: its settings, and where each stage keeps its files."""

from __future__ import annotations

import functools
import shlex
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from hwprune import artifacts
from hwprune.config import FILE_NAME, Config, load_config, resolved
from hwprune.errors import DataError, MismatchError, MissingArtifactError, UsageError
from hwprune.payloads import digest
from hwprune.results import FrontResult, ProfileResult, SearchResult

if TYPE_CHECKING:
    import torch
    from torch import nn

    from hwprune.data.datasets import Dataset
    from hwprune.data.splits import Splits
    from hwprune.models.normalisation import Channels, Normalisation
    from hwprune.models.weights import GivenWeights
    from hwprune.project.own_task import OwnTask
    from hwprune.runtimes.base import TargetProfile
    from hwprune.structure.space import SearchSpace, Widths
    from hwprune.training.history import History
    from hwprune.training.task import Task

WORK = "hwprune-work"
BASE_KIND, NETWORK_SCHEMA = "network", 2
NO_DATA_CLASSES = 1000


class Project:
    """A folder with `hwprune.toml` (or without: the embedded example) and a work folder.

    Args:
        folder: The project folder; it need not exist yet.
        config: Settings to use in place of the folder's.
    """

    def __init__(self, folder: Path | str = ".", config: Config | None = None) -> None:
        self.folder = Path(folder)
        self.config_path = self.folder / FILE_NAME
        if config is None:
            config = load_config(self.config_path) if self.config_path.exists() else Config()
        self.config = resolved(config)
        self.base: tuple[nn.Module, History, str] | None = None  # what `project.base.trained_base` made

    def path(self, *parts: str) -> Path:
        """A file of the work folder."""
        return self.folder / WORK / Path(*parts)

    def with_config(self, **sections: Any) -> Project:
        """The same folder with other settings for this run."""
        return Project(self.folder, replace(self.config, **sections))

    def require_data(self) -> None:
        """Raise a `DataError` when the project has no images."""
        if not self.config.data.given:
            raise DataError(
                "This project has no images.",
                where=self.config_path,
                do='set `source` under [data], for example "imagefolder:ROOT", or `task`',
            )

    @functools.cached_property
    def own_task(self) -> OwnTask | None:
        """The user's own task and its loaders, where the project has one."""
        from hwprune.project.own_task import OwnTask

        return OwnTask(self.config.data.task) if self.config.data.task else None

    @property
    def task(self) -> Task | None:
        """What networks are trained for; None for classification, whose loss follows from the recipe."""
        return self.own_task.task if self.own_task else None

    @property
    def metric(self) -> str:
        """What the score of networks is called."""
        return self.own_task.metric if self.own_task else "top-1"

    @functools.cached_property
    def _opened(self) -> Dataset:
        """The images, opened once, with the normalisation that suits them alone."""
        from hwprune.data.datasets import open_data

        self.require_data()
        size = self.config.data.image_size or None
        return open_data(self.config.data.source, image_size=size, seed=self.config.seed)

    @functools.cached_property
    def dataset(self) -> Dataset:
        """The images, normalised as `normalisation` says; those of a task as its loaders give them."""
        if self.own_task:
            return cast("Dataset", self.own_task)  # it has what stages read of one
        mean, std, _ = self.normalisation
        return self._opened.normalised(mean, std)

    @functools.cached_property
    def normalisation(self) -> Normalisation:
        """What is done to pixels: as set, else what trained weights expect, else what suits the images."""
        from hwprune.models.normalisation import IMAGENET, Normalisation

        data = self.config.data
        if data.mean:
            return Normalisation(cast("Channels", data.mean), cast("Channels", data.std), "the settings'")
        if self._expected_normalisation is not None:
            return self._expected_normalisation
        if not data.source:
            return IMAGENET
        mean, std = self._opened.mean, self._opened.std
        usual = (mean, std) == IMAGENET[:2]
        return Normalisation(mean, std, IMAGENET.origin if usual else "the training images' own")

    @functools.cached_property
    def _expected_normalisation(self) -> Normalisation | None:
        from hwprune.models.normalisation import expected_normalisation

        given, model = self._loaded_by_function, self.config.model
        built = self.new_model() if given else None
        return expected_normalisation(model.name, model.weights, pretrained=given is not None, model=built)

    @property
    def expects_normalisation(self) -> bool:
        """Whether the normalisation follows from the trained weights, not from the images."""
        return not self.config.data.mean and self._expected_normalisation is not None

    @functools.cached_property
    def splits(self) -> Splits:
        """Sub-train, sub-val and test; the same in every stage."""
        from hwprune.data.splits import split

        if self.own_task:
            return cast("Splits", self.own_task)
        return split(self.dataset, images=self.config.data.sub_val, seed=self.config.seed)

    @property
    def num_classes(self) -> int:
        """Outputs of the classifier."""
        return len(self._opened.classes) if self.config.data.source else NO_DATA_CLASSES

    @property
    def image_size(self) -> int:
        """Side of the input images in pixels."""
        from hwprune.models.registry import default_image_size

        if is_onnx(self.config.model.name):
            return self._onnx_size()

        if self.config.data.image_size:
            return self.config.data.image_size
        if self.own_task:
            return self.own_task.input_shape[-1]
        return (
            self._opened.image_size if self.config.data.source else default_image_size(self.config.model.name)
        )

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one image that the network is called with, (C, H, W)."""
        if self.own_task:
            return self.own_task.input_shape
        return (3, self.image_size, self.image_size)

    def _onnx_size(self) -> int:
        """The last size of the file's first input: the side of an image, where it reads one."""
        from hwprune.structure.graph import read
        from hwprune.structure.onnx_graph import parse_model
        from hwprune.structure.trace_onnx import read_onnx

        graph = read(parse_model(read_onnx(self.config.model.name)))
        return graph.shapes[graph.inputs[0]][-1] if graph.inputs and graph.shapes[graph.inputs[0]] else 1

    def new_model(self, *, weights: bool = True) -> nn.Module:
        """The unpruned network, with the weights that the user or its own function gives, if any.

        Args:
            weights: False gives random ones in any case.
        """
        import torch

        from hwprune.models.registry import build
        from hwprune.models.start import reset_parameters, warn_of_kept
        from hwprune.models.weights import load_weights

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.config.seed)
            model = build(self.config.model.name, num_classes=self.num_classes, image_size=self.image_size)
        if weights and self.config.model.weights:
            load_weights(model, self.config.model.weights)
        elif not weights and self._loaded_by_function is not None:
            warn_of_kept(reset_parameters(model, self.config.seed))
        return model

    @functools.cached_property
    def given(self) -> GivenWeights | None:
        """The trained weights of the unpruned network: the project's, or those that its function loads."""
        from hwprune.models.weights import load_weights

        if self.config.model.weights:
            return load_weights(self.new_model(weights=False), self.config.model.weights)
        return self._loaded_by_function

    @functools.cached_property
    def _loaded_by_function(self) -> GivenWeights | None:
        from hwprune.models.registry import build
        from hwprune.models.start import trained_by
        from hwprune.models.user_file import is_user_file

        name = self.config.model.name
        if not is_user_file(name):
            return None
        make = functools.partial(build, name, num_classes=self.num_classes, image_size=self.image_size)
        return trained_by(make, name)

    def target(self, device: str = "", profile: str = "") -> TargetProfile:
        """The target profile: the options given, else the project's, else the device's default.

        Raises:
            UsageError: There is no such profile, or it is for another device than asked for.
            DeviceError: The device is unknown or has no runtime here.
        """
        return self.choice(device, profile)[0]

    def choice(self, device: str = "", profile: str = "") -> tuple[TargetProfile, str]:
        """The target profile as `target` gives it, and, where hwprune chose it for a GPU, which and why.

        Raises:
            UsageError: As `target`.
            DeviceError: As `target`.
        """
        from hwprune.runtimes.profiles import default_choice, for_gpu, load_profile

        own = self.config.target
        if not (profile or own.profile):
            return default_choice(device or own.device)
        target = load_profile(profile or own.profile)
        wanted = device or own.device
        if target.device != "cpu" and wanted.startswith("cuda"):
            target = for_gpu(target, wanted)  # the same conditions on another GPU
        if not device or target.device in (device, f"{device}:0"):
            return target, ""
        if profile:
            raise UsageError(
                "The profile is for another device.", where=profile, got=device, allowed=target.device
            )
        return default_choice(device)

    def table_folder(self, profile: str) -> Path:
        """Where everything about one target profile lies: latency table, search space, unpruned ONNX."""
        return self.path("latency", profile)

    def structure(self) -> str:
        """Stands for the model, with the code of a user's own file, and for its images.

        What was measured, searched or trained belongs to it; other settings may change.
        """
        model, data = self.config.model, self.config.data
        kind, _, root = data.source.partition(":")
        images = (kind, str(Path(root).expanduser().resolve()) if root else "")
        if self.own_task:
            images = ("task", self.own_task.digest())
        path, _, function = model.name.rpartition(":")
        file = Path(path).expanduser()
        more = [*([model.tied] if model.tied else []), *(["depth"] if model.depth else [])]
        normalised = [(data.mean, data.std)] if data.mean else []
        rest = (model.exclude, *more, images, data.image_size, *normalised)
        whole = Path(model.name).expanduser()
        if is_onnx(model.name) and whole.is_file():
            return digest(whole.read_bytes(), *rest)
        if file.suffix != ".py" or not file.is_file():
            return digest(model.name, *rest)
        return digest(function, file.read_bytes(), *rest)

    def given_weights(self) -> str:
        """Stands for the trained weights that the project or its model's function gives, if any."""
        source = self.config.model.weights
        file = Path(source).expanduser()
        if source:
            return artifacts.sha256(file.read_bytes()) if file.is_file() else source
        return self._loaded_by_function.digest if self._loaded_by_function else ""

    def searched(self) -> SearchResult:
        """What `hwprune search` found.

        Raises:
            MissingArtifactError: It has not been run.
            MismatchError: The project's model or images have changed since.
        """
        path = self.path("search.json")
        result = SearchResult.load(path)
        self._check_own(result.structure, path, "The search result is", "`hwprune search` again")
        return result

    def _check_own(self, structure: str, path: Path, what: str, again: str) -> None:
        """Refuse what was made for another model, or for other images, than the project's now."""
        if structure != self.structure():
            raise MismatchError(
                f"{what} of another model, or of other images, than the project's.",
                where=path,
                allowed=f"{self.config.model.name} as {self.config_path} describes it",
                do=f"run {again}, or put the settings back",
            )

    def searched_space(self) -> SearchSpace:
        """The search space of what `searched` gives."""
        from hwprune.structure.space import SearchSpace

        return SearchSpace.load(self.path("search-space.json"))

    def point(self, number: int) -> SearchResult:
        """A network of the front that `hwprune search` found.

        Args:
            number: Its number, from 1, the fastest.

        Raises:
            MissingArtifactError: No front was searched for.
            UsageError: It has no such point.
            MismatchError: The project's model or images have changed since.
        """
        path = self.path("front.json")
        front = FrontResult.load(path)
        self._check_own(front.structure, path, "The front is", f"`{front.made_by}` again")
        if not 1 <= number <= len(front.points):
            raise UsageError("The front has no such point.", got=number, allowed=f"1 to {len(front.points)}")
        return front.points[number - 1]

    def choose(self, result: SearchResult, space: SearchSpace | None = None) -> None:
        """Make a network the one that later verbs are about; `space` is its space, where that may be new."""
        if space is not None:
            space.save(self.path("search-space.json"))
        result.save(self.path("search.json"))

    def profiled(self, profile: str) -> ProfileResult:
        """What `hwprune profile` found for a target profile.

        Raises:
            MissingArtifactError: `hwprune profile` has not been run for it.
            MismatchError: The project's model or images have changed since.
        """
        path = self.table_folder(profile) / "profile.json"
        if not path.exists():
            own = profile == self.target().name
            raise MissingArtifactError(
                "This device has not been profiled here.",
                where=path,
                do=f"run `hwprune profile{'' if own else f' --profile {shlex.quote(profile)}'}` first",
            )
        result = ProfileResult.load(path)
        self._check_own(result.structure, path, "The latency table is", "`hwprune profile` in another folder")
        return result

    def space(self, profile: str) -> SearchSpace:
        """The search space that `hwprune profile` wrote, with choices that suit the device."""
        from hwprune.structure.space import SearchSpace

        self.profiled(profile)
        return SearchSpace.load(self.table_folder(profile) / "space.json")

    def base_onnx(self, profile: str) -> bytes:
        """The unpruned network's ONNX, with random weights, as it was profiled."""
        path = self.table_folder(profile) / "base.onnx"
        content = artifacts.read_bytes(path, "hwprune profile")
        if artifacts.sha256(content) != self.profiled(profile).base_digest:
            raise artifacts.broken(path, "not the file that was profiled", "hwprune profile")
        return content

    def save_network(self, name: str, model: nn.Module, widths: Widths, info: dict[str, Any]) -> Path:
        """Keep a trained network of the space as safetensors."""
        path = self.path(f"{name}.safetensors")
        names = {"model": self.config.model.name, "structure": self.structure()}
        content = {**names, "widths": list(widths), **info}
        artifacts.write_tensors(path, BASE_KIND, NETWORK_SCHEMA, model.state_dict(), content)
        return path

    def load_network(self, name: str, made_by: str) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """Read what `save_network` kept: tensors and info.

        Raises:
            MissingArtifactError: It has not been made; names the command.
            MismatchError: The project's model or images have changed since.
        """
        path = self.path(f"{name}.safetensors")
        tensors, info = artifacts.read_tensors(path, BASE_KIND, NETWORK_SCHEMA, made_by)
        self._check_own(info.get("structure", ""), path, "The trained network is", f"`{made_by}` again")
        return tensors, info


def is_onnx(name: str) -> bool:
    """Whether the name of a model is an ONNX file."""
    return name.lower().endswith(".onnx")
