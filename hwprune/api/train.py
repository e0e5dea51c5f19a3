"""`hwprune train`: train the chosen network and the unpruned one alike, and score both on test."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

from hwprune.api import judge
from hwprune.api.base import recipe, trained_base
from hwprune.api.jobs import together
from hwprune.api.lock import locked
from hwprune.api.project import Project, digest
from hwprune.config import StartName
from hwprune.errors import MismatchError, UsageError
from hwprune.progress import QUIET, Reporter
from hwprune.results import TrainResult

if TYPE_CHECKING:
    from torch import nn

    from hwprune.results import Epoch, SearchResult
    from hwprune.structure.space import SearchSpace
    from hwprune.training.history import History


@locked
def train(
    *,
    project: Path = Path("."),
    start: StartName | None = None,
    epochs: int = 0,
    point: int = 0,
    reporter: Reporter = QUIET,
) -> TrainResult:
    """Train the network that search chose, and the unpruned one; run it again to go on where it was stopped.

    Args:
        project: The project folder.
        start: scratch (the paper's protocol) or generated (PruningNet's weights); by default the project's.
        epochs: Epochs of both networks; 0 takes the project's.
        point: Number of a network of the front that was searched for, from 1; 0 keeps the chosen one.
        reporter: Told about progress.

    Returns:
        Test accuracies of both; the only place where the test images are read.

    Raises:
        ArtifactError: `hwprune search` has not been run here.
        UsageError: The front has no such point, or a number below zero.
        DataError: The project has no images.
    """
    if epochs < 0:
        raise UsageError(
            "--epochs is not a number of epochs.", got=epochs, allowed="1 or more; 0: the project's"
        )
    if point:
        opened = Project(project)
        opened.require_data()
        opened.choose(opened.point(point))
    return Trainer.of(project, start, epochs, reporter).run()


class Trainer:
    """Trains the two networks of a project.

    Args:
        project: The project, with the settings of this run.
        found: The network to train.
        reporter: Told about progress.
    """

    @classmethod
    def of(cls, folder: Path, start: StartName | None, epochs: int, reporter: Reporter) -> Trainer:
        """The trainer for the options of `train`."""
        opened = Project(folder)
        settings = opened.config.training
        settings = replace(settings, start=start or settings.start, epochs=epochs or settings.epochs)
        opened = opened.with_config(training=settings)
        opened.require_data()
        return cls(opened, opened.searched(), reporter)

    def __init__(self, project: Project, found: SearchResult, reporter: Reporter) -> None:
        self.project, self.found, self.reporter = project, found, reporter
        self.space: SearchSpace = project.searched_space()
        if tuple(gene.name for gene in self.space.genes) != (*found.groups, *found.blocks):
            raise MismatchError(
                "The search result belongs to another search space.",
                where=project.path("search.json"),
                do="run `hwprune search` again",
            )
        self.settings = recipe(project)

    def run(self) -> TrainResult:
        """Train both, score both on test, write the result."""
        from hwprune.training.evaluation import accuracy

        config, test = self.project.config, self.project.splits.test
        (base, base_history, source), (pruned, history) = self.networks()
        if base_history.epochs:
            self.project.save_network("base", base, self.space.full(), {})
        base_top1 = accuracy(base, test)
        top1 = base_top1 if self.found.base_meets_budget else accuracy(pruned, test)
        start = "base" if self.found.base_meets_budget else config.training.start
        self.project.save_network("pruned", pruned, self.found.widths, {"top1": top1, "start": start})
        result = TrainResult(
            model=config.model.name,
            widths=self.found.widths,
            base_top1=base_top1,
            top1=top1,
            base_source=source,
            start=start,
            epochs=self.settings.epochs,
            test_images=len(test),
            seed=config.seed,
            structure=self.project.structure(),
            history=cast("tuple[Epoch, ...]", tuple(history.to_payload())),
            base_history=cast("tuple[Epoch, ...]", tuple(base_history.to_payload())),
            data=config.data.source,
            test_digest=digest(self.project.dataset.classes, test.labels.tolist()),
            normalisation=self.project.normalisation.origin,
            mean=self.project.normalisation.mean,
            std=self.project.normalisation.std,
        )
        result.save(self.project.path("train.json"))
        return result

    def networks(self) -> tuple[tuple[nn.Module, History, str], tuple[nn.Module, History]]:
        """Train the unpruned network, telling whose weights it has, and the pruned one; all workers do it."""
        start = self.project.config.training.start
        with together("networks", start=start, epochs=self.settings.epochs):
            base, history, source = trained_base(self.project, self.reporter)
            pruned = (base, history) if self.found.base_meets_budget else self._pruned(base)
        return (base, history, source), pruned

    def _pruned(self, base: nn.Module) -> tuple[nn.Module, History]:
        from hwprune.structure.prune import prune

        if self.project.config.training.start == "generated":
            model = self._generated()
        else:
            model = prune(self._fresh(), self.space, self.found.widths)
        teacher = base if self.project.config.training.distill else None
        return model, self._fit(model, teacher)

    def _fresh(self) -> nn.Module:
        """The unpruned network with random weights, whatever weights the project gives."""
        return self.project.new_model(weights=False)

    def _generated(self) -> nn.Module:
        """The chosen network with the weights that PruningNet generates for it."""
        net = judge.load_pruningnet(self.project, self.space, self.found.pruningnet, self.reporter)
        return net.materialise(self.found.widths)

    def _fit(self, model: nn.Module, teacher: nn.Module | None) -> History:
        from hwprune.training.devices import compute_device
        from hwprune.training.loop import train as run

        model.to(compute_device(self.project.config.compute.device))
        config, start = self.project.config, self.project.config.training.start
        judge_file = self.found.pruningnet if start == "generated" else ""
        taught_by = self.project.given_weights() or "base" if teacher is not None else ""
        key = digest(self.settings, self.project.structure(), config.seed)
        key = digest(key, self.found.widths, start, judge_file, taught_by)
        with self.reporter.stage("Training the pruned network", "epochs") as progress:
            return run(
                model,
                self.project.dataset.train,
                self.settings,
                checkpoint=self.project.path(f"pruned-{key}.safetensors"),
                seed=config.seed,
                progress=progress,
                teacher=teacher,
                compiled=config.compute.compile,
                cuda_graph=config.compute.cuda_graph,
            )
