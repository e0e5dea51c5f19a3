"""Which worker does what, when torchrun starts several.

Worker 0 runs the verb. The others take part in the jobs that it calls all workers to, and sleep in between:
so whatever measures, writes or prints needs to know nothing of workers, and no other worker computes while a
latency is measured. To share out further work, add a function to `_JOBS`, which the others run, and put what
worker 0 does at that time inside `together`.
"""

from __future__ import annotations

import contextlib
import sys
import warnings
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from hwprune.errors import HwpruneError, HwpruneWarning
from hwprune.progress import QUIET
from hwprune.training import workers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_T = TypeVar("_T")
_kept: dict[str, Any] = {}  # what a worker made in one job and needs in the next
_under_way = False  # whether the others are at a job


def run(verb: Callable[[], _T], folder: Path) -> _T | None:
    """Run a verb on worker 0, with the help of the others; those get None.

    Args:
        verb: What worker 0 does.
        folder: The project folder.

    Raises:
        WorkerError: Another worker is gone.
    """
    if not workers.is_main():
        _help(folder)
        return None
    try:
        result = verb()
    except HwpruneError:
        if not _under_way:  # else they are not listening, and notice when this worker is gone
            workers.share({"job": "give_up"})
        raise
    workers.share(None)
    return result


@contextlib.contextmanager
def together(job: str, **details: Any) -> Iterator[None]:
    """Do a job with all workers: worker 0 calls the others to it, who then come by here themselves.

    Args:
        job: Its name in `_JOBS`.
        details: JSON-able; what the others need to know.
    """
    global _under_way
    if workers.is_main():
        workers.share({"job": job, **details})
    _under_way = True
    yield
    _under_way = False


def _help(folder: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", HwpruneWarning)  # worker 0 gives the same ones
        while (details := workers.share()) is not None:
            _JOBS[details.pop("job")](folder, **details)


def _pruningnet(folder: Path, space: dict[str, Any], networks: list[list[int]], epochs: int) -> None:
    from hwprune.project.estimators import accuracy_score, train_pruningnet
    from hwprune.project.folder import Project
    from hwprune.structure import space_file
    from hwprune.structure.space import SearchSpace

    project = Project(folder)
    project = project.with_config(pruningnet=replace(project.config.pruningnet, epochs=epochs))
    own, drawn = SearchSpace(**space_file.from_payload(space)), [(*net,) for net in networks]
    net, _ = train_pruningnet(project, own, QUIET, drawn)
    _kept["score"] = accuracy_score(project, net, "pruningnet", drawn)


def _inherited(folder: Path, space: dict[str, Any]) -> None:
    from hwprune.project import estimators
    from hwprune.project.folder import Project
    from hwprune.structure import space_file
    from hwprune.structure.space import SearchSpace

    own = SearchSpace(**space_file.from_payload(space))
    _kept["score"], _ = estimators.make(Project(folder), own, "inherited", QUIET)


def _scores(
    folder: Path, networks: list[list[int]], incumbent: list[int] | None, known: dict[str, list[Any]]
) -> None:
    _kept["score"].share([tuple(net) for net in networks], tuple(incumbent) if incumbent else None, known)


def _networks(folder: Path, start: Any, epochs: float, **own: Any) -> None:
    from hwprune.project.trainer import Trainer

    Trainer.of(folder, start, epochs, QUIET, **own).networks()


def _give_up(folder: Path) -> None:
    """Worker 0 cannot go on, and says why."""
    sys.exit(1)


_JOBS: dict[str, Callable[..., None]] = {
    "pruningnet": _pruningnet,
    "inherited": _inherited,
    "scores": _scores,
    "networks": _networks,
    "give_up": _give_up,
}
