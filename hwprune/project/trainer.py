"""Trains the two networks of a project: the unpruned one, where no weights are given, and the chosen one."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from hwprune.errors import MismatchError
from hwprune.payloads import digest
from hwprune.project import estimators
from hwprune.project.base import fingerprint as base_fingerprint
from hwprune.project.base import recipe, trained_base, training_images, tuning
from hwprune.project.folder import Project
from hwprune.project.jobs import together
from hwprune.project.own_task import digest_of_test
from hwprune.results import TrainResult

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

    from hwprune.config import StartName
    from hwprune.progress import Reporter
    from hwprune.results import Epoch, SearchResult
    from hwprune.structure.space import SearchSpace
    from hwprune.training.history import History

_LEAST_EPOCHS = 0.1  # of the final training, whatever search and the test of rates cost


class Trainer:
    """Trains the two networks of a project.

    Args:
        project: The project, with the settings of this run.
        found: The network to train.
        epochs: Epochs of that network; 0 takes what is left of the search's, else the settings'.
        reporter: Told about progress.
        lr: Its highest learning rate; 0 takes the settings', or finds one.
        batch_size: Images of one step; 0 takes the settings'.
    """

    @classmethod
    def of(
        cls,
        folder: Path,
        start: StartName | None,
        epochs: float,
        reporter: Reporter,
        *,
        lr: float = 0,
        batch_size: int = 0,
    ) -> Trainer:
        """The trainer for the options of `train`."""
        opened = Project(folder)
        settings = opened.config.training
        opened = opened.with_config(training=replace(settings, start=start or settings.start))
        opened.require_data()
        return cls(opened, opened.searched(), epochs, reporter, lr=lr, batch_size=batch_size)

    def __init__(
        self,
        project: Project,
        found: SearchResult,
        epochs: float,
        reporter: Reporter,
        *,
        lr: float = 0,
        batch_size: int = 0,
    ) -> None:
        self.project, self.found, self.reporter = project, found, reporter
        self.space: SearchSpace = project.searched_space()
        if tuple(gene.name for gene in self.space.genes) != (*found.groups, *found.blocks):
            raise MismatchError(
                "The search result belongs to another search space.",
                where=project.path("search.json"),
                do="run `hwprune search` again",
            )
        own = recipe(project)
        # Only what is left of one budget pays for the test of rates; a number of epochs is that many.
        self.asked, self.from_budget = epochs, bool(found.epochs) and not epochs
        left = max(found.epochs_left, _LEAST_EPOCHS) if self.from_budget else own.epochs
        self.settings = replace(
            own, epochs=epochs or left, lr=lr or own.lr, batch_size=batch_size or own.batch_size
        )
        self.lr, self.batch_size = lr, batch_size
        self.start = self._start()

    def _start(self) -> StartName:
        """What the pruned network is trained from; `auto` takes the weights it was chosen with."""
        own = self.project.config.training.start
        if own != "auto":
            return own
        return "generated" if self.found.score_kind == "pruningnet" else "inherited"

    def run(self) -> TrainResult:
        """Train both, score both on test, write the result."""
        config, test = self.project.config, self.project.splits.test
        (base, base_history, source), (pruned, history) = self.networks()
        if base_history.epochs:
            self.project.save_network("base", base, self.space.full(), {})
        scores = self._scores(base, base if self.found.base_meets_budget else pruned)
        start = "base" if self.found.base_meets_budget else self.start
        self.project.save_network(
            "pruned", pruned, self.found.widths, {"top1": scores["top1"], "start": start}
        )
        result = TrainResult(
            model=config.model.name,
            widths=self.found.widths,
            **scores,
            base_source=source,
            start=start,
            epochs=self.settings.epochs,
            test_images=len(test),
            seed=config.seed,
            structure=self.project.structure(),
            history=cast("tuple[Epoch, ...]", tuple(history.to_payload())),
            base_history=cast("tuple[Epoch, ...]", tuple(base_history.to_payload())),
            data=config.data.source or config.data.task,
            test_digest=digest_of_test(self.project),
            metric=self.project.metric,
            options="".join(
                f" --{name} {value:g}"
                for name, value in (("lr", self.lr), ("batch-size", self.batch_size))
                if value
            ),
        )
        result.save(self.project.path("train.json"))
        return result

    def _scores(self, base: nn.Module, pruned: nn.Module) -> dict[str, Any]:
        """What both score on test; of classes also what they were taken for."""
        from hwprune.training.evaluation import evaluate
        from hwprune.training.predictions import confusion, predictions

        test = self.project.splits.test
        if task := self.project.task:
            base_score = evaluate(base, test, task=task)
            return {
                "base_top1": base_score,
                "top1": base_score if pruned is base else evaluate(pruned, test, task=task),
            }
        base_named = predictions(base, test)
        named = base_named if pruned is base else predictions(pruned, test)
        base_top1, top1 = (float((one == test.labels).double().mean()) for one in (base_named, named))
        mean, std, origin = self.project.normalisation
        return {
            "base_top1": base_top1,
            "top1": top1,
            "normalisation": origin,
            "mean": mean,
            "std": std,
            "classes": self.project.dataset.classes,
            "confusion": confusion(test.labels, named),
            "base_confusion": confusion(test.labels, base_named),
        }

    def networks(self) -> tuple[tuple[nn.Module, History, str], tuple[nn.Module, History]]:
        """Train the unpruned network, telling whose weights it has, and the pruned one; all workers do it."""
        own = {"lr": self.lr, "batch_size": self.batch_size}
        with together("networks", start=self.start, epochs=self.asked, **own):
            base, history, source = trained_base(self.project, self.reporter)
            pruned = (base, history) if self.found.base_meets_budget else self._pruned(base)
        return (base, history, source), pruned

    def _pruned(self, base: nn.Module) -> tuple[nn.Module, History]:
        from hwprune.training.devices import compute_device

        model = self._begun().to(compute_device(self.project.config.compute.device))
        return model, self._fit(model, None if self.project.config.training.distill == "off" else base)

    def _begun(self) -> nn.Module:
        """The chosen network as its training begins."""
        from hwprune.structure.prune import prune

        widths = self.found.widths
        if self.start == "generated":
            net = estimators.load_pruningnet(self.project, self.space, self.found.pruningnet, self.reporter)
            return net.materialise(widths)
        if self.start == "inherited":
            return estimators.inherited_net(self.project, self.space, self.reporter).materialise(widths)
        return prune(self.project.new_model(weights=False), self.space, widths)

    def _fit(self, model: nn.Module, teacher: nn.Module | None) -> History:
        from hwprune.training.loop import train as run

        config, (images, validation) = self.project.config, training_images(self.project)
        judge_file = self.found.pruningnet if self.start == "generated" else ""
        weights = base_fingerprint(self.project) if self.start == "inherited" or teacher is not None else ""
        settings = self.settings
        key = digest(settings, self.lr or config.training.tuning_lr, self.project.structure(), config.seed)
        key = digest(key, self.found.widths, self.start, judge_file, weights, teacher is not None)
        if self.start != "scratch" and not self.lr:
            settings, spent = tuning(self.project, settings, model, teacher, f"pruned-{key}", self.reporter)
            if self.from_budget:
                settings = replace(settings, epochs=max(settings.epochs - spent, _LEAST_EPOCHS))
        with self.reporter.stage("Training the pruned network", "epochs") as progress:
            return run(
                model,
                images,
                settings,
                task=self.project.task,
                checkpoint=self.project.path(f"pruned-{key}.safetensors"),
                seed=config.seed,
                progress=progress,
                teacher=teacher,
                compiled=config.compute.compile,
                cuda_graph=config.compute.cuda_graph,
                validation=validation,
            )
