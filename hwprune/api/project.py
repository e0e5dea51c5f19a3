"""A project folder: its settings, and where each stage keeps its files."""

from __future__ import annotations

import functools
import hashlib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hwprune import artifacts
from hwprune.config import FILE_NAME, Config, load_config
from hwprune.errors import DataError, MismatchError, UsageError

if TYPE_CHECKING:
    import torch
    from torch import nn

    from hwprune.data.datasets import Dataset
    from hwprune.data.splits import Splits
    from hwprune.runtimes.base import TargetProfile
    from hwprune.structure.space import SearchSpace, Widths

WORK = "hwprune-work"
BASE_KIND, NETWORK_SCHEMA = "network", 1
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
        self.config = config

    def path(self, *parts: str) -> Path:
        """A file of the work folder."""
        return self.folder / WORK / Path(*parts)

    def with_config(self, **sections: Any) -> Project:
        """The same folder with other settings for this run."""
        return Project(self.folder, replace(self.config, **sections))

    def require_data(self) -> None:
        """Raise a `DataError` when the project has no images."""
        if not self.config.data.source:
            raise DataError(
                "This project has no images.",
                where=self.config_path,
                do='set `source` under [data], for example "imagefolder:ROOT"',
            )

    @functools.cached_property
    def dataset(self) -> Dataset:
        """The images, opened once."""
        from hwprune.data.datasets import open_data

        self.require_data()
        size = self.config.data.image_size or None
        return open_data(self.config.data.source, image_size=size, seed=self.config.seed)

    @functools.cached_property
    def splits(self) -> Splits:
        """Sub-train, sub-val and test; the same in every stage."""
        from hwprune.data.splits import split

        return split(self.dataset, per_class=self.config.data.sub_val_per_class, seed=self.config.seed)

    @property
    def num_classes(self) -> int:
        """Outputs of the classifier."""
        return len(self.dataset.classes) if self.config.data.source else NO_DATA_CLASSES

    @property
    def image_size(self) -> int:
        """Side of the input images in pixels."""
        from hwprune.models.registry import default_image_size

        if self.config.data.image_size:
            return self.config.data.image_size
        return (
            self.dataset.image_size if self.config.data.source else default_image_size(self.config.model.name)
        )

    def new_model(self) -> nn.Module:
        """The unpruned network: with the given weights, else with the project's random ones."""
        import torch

        from hwprune.models.registry import build
        from hwprune.models.weights import load_weights

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.config.seed)
            model = build(self.config.model.name, num_classes=self.num_classes, image_size=self.image_size)
        if self.config.model.weights:
            load_weights(model, self.config.model.weights)
        return model

    def target(self, device: str = "", profile: str = "") -> TargetProfile:
        """The target profile: the options given, else the project's."""
        from hwprune.runtimes.profiles import default_profile, load_profile

        name = profile or ("" if device else self.config.target.profile)
        device = device or ("" if name else self.config.target.device)
        target = load_profile(name) if name else default_profile(device)
        if device and target.device != device:
            raise UsageError(
                "The profile is for another device.", where=name, got=device, allowed=target.device
            )
        return target

    def table_folder(self, target: TargetProfile) -> Path:
        """Where the latency table of a target lies."""
        return self.path("latency", target.name)

    def space(self) -> SearchSpace:
        """The search space that `hwprune profile` wrote.

        Raises:
            MissingArtifactError: `hwprune profile` has not been run.
            MismatchError: The project's model or image size has changed since.
        """
        from hwprune.structure.space import SearchSpace

        space = SearchSpace.load(self.path("space.json"))
        if space.model != self.config.model.name:
            raise MismatchError(
                "The search space is of another model than the project's.",
                where=self.path("space.json"),
                got=space.model,
                allowed=self.config.model.name,
                do="run `hwprune profile` again, or use another folder",
            )
        return space

    def base_onnx(self) -> bytes:
        """The unpruned network's ONNX, with random weights, as it was profiled."""
        return artifacts.read_bytes(self.path("base.onnx"), "hwprune profile")

    def save_network(self, name: str, model: nn.Module, widths: Widths, info: dict[str, Any]) -> Path:
        """Keep a trained network of the space as safetensors."""
        path = self.path(f"{name}.safetensors")
        content = {"model": self.config.model.name, "widths": list(widths), **info}
        artifacts.write_tensors(path, BASE_KIND, NETWORK_SCHEMA, model.state_dict(), content)
        return path

    def load_network(self, name: str, made_by: str) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """Read what `save_network` kept: tensors and info."""
        return artifacts.read_tensors(self.path(f"{name}.safetensors"), BASE_KIND, NETWORK_SCHEMA, made_by)


def digest(*parts: object) -> str:
    """A short name for a set of settings, to tell whether a file was made with them."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]
