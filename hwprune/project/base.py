"""The unpruned network, trained: what others inherit from, are taught by and are compared with."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from hwprune import artifacts
from hwprune.logbook import Logbook
from hwprune.payloads import digest
from hwprune.training import workers
from hwprune.training.settings import TrainSettings

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

    from hwprune.progress import Reporter
    from hwprune.project.folder import Project
    from hwprune.training.history import History


def recipe(project: Project) -> TrainSettings:
    """The recipe of the final network and of the unpruned one, but for the rate from trained weights."""
    own = set(TrainSettings.__dataclass_fields__)
    config = project.config.training
    return TrainSettings(**{name: value for name, value in asdict(config).items() if name in own})


def training_images(project: Project) -> tuple[Any, Any]:
    """What networks are trained on, and what the best epoch is found with, if the recipe asks for it.

    Without a validation part of the user's own, sub-val is taken out of the training images for that.
    """
    if project.config.training.keep == "last":
        return project.dataset.train, None
    return project.splits.sub_train, project.splits.sub_val


def checkpoint_path(project: Project) -> Path:
    """The training state of the unpruned network; the same for every budget."""
    key = digest(recipe(project), project.structure(), project.config.seed)
    if given := project.given_weights():
        key = digest(key, given)
    return project.path(f"base-{key}.safetensors")


def fingerprint(project: Project) -> str:
    """Stands for the weights of the unpruned network; before it is trained, for how it will be."""
    if project.given and not project.given.anew:
        return project.given_weights()
    path = checkpoint_path(project)
    return artifacts.tensors_claim(path, "checksum") or path.name


def trained_base(project: Project, reporter: Reporter) -> tuple[nn.Module, History, str]:
    """The unpruned network with the weights given, or trained by the recipe of the pruned one.

    Returns:
        The network in eval mode, not to be changed, for it is made once for a project; the figures of its
        epochs, and where its weights come from.
    """
    if project.base is None:
        project.base = _trained_base(project, reporter)
    return project.base


def _trained_base(project: Project, reporter: Reporter) -> tuple[nn.Module, History, str]:
    from hwprune.training.devices import compute_device
    from hwprune.training.history import History
    from hwprune.training.loop import train

    model = project.new_model().to(compute_device(project.config.compute.device))
    given = project.given
    if given and not given.anew:
        return model.eval(), History(), given.source
    settings = recipe(project)
    if given:
        settings, _ = tuning(project, settings, model, None, checkpoint_path(project).stem, reporter)
    with reporter.stage("Training the unpruned network", "epochs") as progress:
        images, validation = training_images(project)
        history = train(
            model,
            images,
            settings,
            task=project.task,
            checkpoint=checkpoint_path(project),
            seed=project.config.seed,
            progress=progress,
            compiled=project.config.compute.compile,
            cuda_graph=project.config.compute.cuda_graph,
            validation=validation,
        )
    trained = "trained by the recipe of the pruned network"
    return model, history, f"{given.source}, {trained}" if given else trained


def tuning(
    project: Project,
    settings: TrainSettings,
    model: nn.Module,
    teacher: nn.Module | None,
    key: str,
    reporter: Reporter,
) -> tuple[TrainSettings, float]:
    """A recipe at a rate that suits trained weights: the project's, or one found by a short test, once.

    Args:
        project: The project.
        settings: The recipe.
        model: The network with its trained weights.
        teacher: What teaches it.
        key: Stands for this training, in the name of the file that keeps the rate.
        reporter: Told about progress.

    Returns:
        The recipe at that rate, and what the test cost in epochs.
    """
    from hwprune.training.rate import find_rate

    if own := project.config.training.tuning_lr:
        return replace(settings, lr=own), 0.0
    book = Logbook(project.path(f"rate-{key}.jsonl"), "learning-rate", 1, {"of": key})
    found = workers.share(book.entries[0] if book.entries else None)
    if found is None:
        (images, _), seed = training_images(project), project.config.seed
        with reporter.stage("Finding a learning rate", "rates"):
            rate, spent = find_rate(model, images, settings, task=project.task, seed=seed, teacher=teacher)
        found = {"lr": rate, "epochs": spent}
        if workers.is_main():
            book.add(found)
    cost = f"by a test that cost {found['epochs']:.1f} epochs"
    why = cost if found["epochs"] else "as usual: so short a training leaves no steps to test others"
    reporter.note(f"Learning rate {found['lr']:g}, {why}.")
    return replace(settings, lr=found["lr"]), found["epochs"]
