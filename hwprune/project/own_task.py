"""A task of the user's own, from `path/to/file.py:Task`: loss, metric and loaders in the place of images."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hwprune.errors import ModelError
from hwprune.payloads import digest

if TYPE_CHECKING:
    from hwprune.project.folder import Project
    from hwprune.training.batches import LoaderImages
    from hwprune.training.task import Task

_LOADERS = ("train_loader", "val_loader", "test_loader")


class OwnTask:
    """What a project reads of a task: what it reads of images otherwise (`Dataset` and `Splits`).

    Args:
        name: `path/to/file.py:Task`, a class without arguments or an object.

    Raises:
        ModelError: The file or the class is not there or fails, or lacks something; says what.
    """

    classes: tuple[str, ...] = ()

    def __init__(self, name: str) -> None:
        from hwprune.models.user_file import load_object
        from hwprune.training.task import name_of

        self.source, found = name, load_object(name)
        missing = [one for one in ("loss", *_LOADERS) if not callable(getattr(found, one, None))]
        missing += [] if hasattr(found, "metric") else ["metric"]
        if missing:
            raise ModelError(
                "The task lacks something.",
                where=name,
                got=f"no {', '.join(missing)}",
                allowed="loss(outputs, batch), metric, train_loader(), val_loader() and test_loader()",
                do="write these in the class; `hwprune.Task` explains them",
            )
        self.task: Task = found
        self.metric = name_of(found)

    @functools.cached_property
    def sub_train(self) -> LoaderImages:
        """What is trained on."""
        return self._loader("train_loader")

    @property
    def train(self) -> LoaderImages:
        """The same: nothing is split off."""
        return self.sub_train

    @functools.cached_property
    def sub_val(self) -> LoaderImages:
        """What networks are scored on."""
        return self._loader("val_loader")

    @functools.cached_property
    def test(self) -> LoaderImages:
        """What the final score is taken on."""
        return self._loader("test_loader")

    def _loader(self, name: str) -> LoaderImages:
        from hwprune.training.batches import LoaderImages

        own: Any = self.task
        return LoaderImages(getattr(own, name)(), self.task)

    @property
    def told(self) -> str:
        """What networks are scored by."""
        return f"Networks are scored by {self.metric} on about {len(self.sub_val)} images of val_loader()."

    @functools.cached_property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one image, (C, H, W).

        Raises:
            ModelError: The network takes several inputs.
        """
        import torch

        from hwprune.training.task import inputs_of

        inputs = inputs_of(self.task, self.sub_val.example)
        if not isinstance(inputs, torch.Tensor):
            raise ModelError(
                "The command line prunes networks of one input.",
                where=self.source,
                got=f"inputs that are a {type(inputs).__name__}",
                allowed="a tensor (N, C, H, W)",
                do="use hwprune from Python for this network",
            )
        return tuple(inputs.shape[1:])

    def digest(self) -> str:
        """Stands for the task: its code."""
        path, _, name = self.source.rpartition(":")
        return digest(name, Path(path).expanduser().read_bytes())


def digest_of_test(project: Project) -> str:
    """Stands for the test images: scores with another one are of others."""
    test = project.splits.test
    if project.own_task:
        return digest(project.own_task.digest(), len(test))
    return digest(project.dataset.classes, test.labels.tolist())


def digest_of_val(project: Project) -> str:
    """The same of the images that networks are scored on."""
    return digest(project.own_task.digest() if project.own_task else project.splits.sub_val.labels.tolist())


def remarks_on(project: Project) -> list[str]:
    """What to know of the images; of those of a task nothing is known."""
    from hwprune.data.remarks import remarks

    return [] if project.own_task else remarks(project.dataset)
