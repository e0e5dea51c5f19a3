"""`hwprune.search` on plain data: a space, a score, limits; no project folder."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hwprune.errors import MismatchError, UsageError
from hwprune.evolution.algorithm import SearchSettings
from hwprune.latency.fingerprint import space_fingerprint
from hwprune.progress import QUIET, Reporter
from hwprune.searching.front import front_of
from hwprune.searching.latency_model import LatencyLimit, LatencyModel
from hwprune.searching.limits import Budget, check_together, common_space, counted
from hwprune.searching.scoring import OneScore
from hwprune.searching.searcher import Searcher
from hwprune.units import parse_count

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

    from hwprune.evolution.problem import AccuracyScore
    from hwprune.results import Figure, SearchResult
    from hwprune.searching.target import Target
    from hwprune.structure.space import SearchSpace, Widths

SETTINGS = SearchSettings(
    population=24, parents=8, mutants=10, crossovers=10, generations=6, fit_children=True
)


@dataclass(frozen=True, eq=False)
class Found:
    """A network that a search found, with what was measured of it.

    Attributes:
        result: All figures, as plain data.
        space: The space that it is a network of.
    """

    result: SearchResult
    space: SearchSpace

    @property
    def widths(self) -> Widths:
        """The network: a width for each group, then a gate for each block."""
        return self.result.widths

    @property
    def score(self) -> float:
        """What the score gave it."""
        return self.result.score

    @property
    def latency(self) -> Figure:
        """Its latency on the first device, measured where the device was at hand."""
        return self.result.latency

    def network(self, weights: Any) -> nn.Module:
        """The network as an ordinary dense module.

        Args:
            weights: Where its weights come from: the `Scorer`, whose network it is as it was scored; a
                `PruningNet` or `Inherited` weights; or the model itself, of which the leading channels of
                each group are kept.
        """
        from hwprune.pruningnet.scorer import Scorer
        from hwprune.structure.prune import prune

        if isinstance(weights, Scorer):
            return weights.network(self.widths)
        if hasattr(weights, "materialise"):
            network: nn.Module = weights.materialise(self.widths)
            return network

        return prune(weights, self.space, self.widths)


def search(
    space: SearchSpace,
    score: AccuracyScore,
    *,
    limits: LatencyLimit | Sequence[LatencyLimit],
    macs: str = "",
    params: str = "",
    confirm: bool | Target = True,
    settings: SearchSettings | None = None,
    seed: int = 0,
    state: Path | str | None = None,
    reporter: Reporter = QUIET,
) -> Found | list[Found]:
    """Find the network of the best score within all limits, measured on the devices that are at hand.

    Networks that are predicted within the limits evolve; the leaders of each generation are measured and
    correct the predictions; the answer is measured twice and keeps every limit with its error.

    Args:
        space: The search space; networks are drawn from the choices that suit the devices of `limits`.
        score: Network -> number, higher is better: a `Scorer`, or any callable of the network's tuple.
        limits: From `LatencyModel.limit`, one for each device; the first may be a range.
        macs: A further limit on multiply-accumulates, such as `300M` or `60%`.
        params: A further limit on parameters, such as `2M`.
        confirm: Whether to measure where a device is at hand; a `Target` asks for that one.
        settings: Of the evolution; by default 24 networks in each of 6 generations.
        seed: Of the evolution.
        state: Folder where a search is kept that may be stopped: the same call goes on there. Take another
            folder for another score that does not say what it is (`Scorer` does).
        reporter: Told about progress.

    Returns:
        What was found; for a range the front of what was found, the fastest first.

    Raises:
        BudgetError: No network keeps the limits; tells the fastest network's figure.
        UsageError: No limit, or one that cannot be understood.
        MismatchError: A latency model is of another space, or `confirm` names a device that is not at hand.

    Example:
        >>> import torch, torchvision, hwprune
        >>> model = torchvision.models.resnet18(num_classes=10).eval()
        >>> space = hwprune.trace(model, torch.zeros(1, 3, 64, 64), name="resnet18")
        >>> latency = hwprune.Target("cpu-1t").profile(model, space, max_seconds=10)
        >>> found = hwprune.search(space, lambda net: float(space.macs(net)), limits=latency.limit("60%"))
        >>> found.latency.value < found.latency.base
        True
    """
    wanted: list[Any] = list(limits) if isinstance(limits, list | tuple) else [limits]
    if not wanted or not all(isinstance(one, LatencyLimit) for one in wanted):
        raise UsageError(
            "A search needs a limit, of a latency model.",
            where="limits",
            got=repr(limits),
            do='give limits=latency.limit("60%")',
        )
    if any(len(one.quantities) > 1 for one in wanted[1:]):
        raise UsageError("A front needs one range of latencies, on the first device.", where="limits")
    models = [_checked(one.model, space, confirm) for one in wanted]
    check_together(models)
    own = common_space([model.space for model in models])
    budgets = [
        *(Budget.of_latency(model, one.quantities[0]) for model, one in zip(models, wanted, strict=True)),
        *counted(
            own,
            parse_count(macs, "macs") if macs else None,
            parse_count(params, "params") if params else None,
        ),
    ]
    about = {"model": own.model, "structure": space_fingerprint(own), "images": False, "epochs": 0.0}
    facts = {**about, "metric": str(getattr(score, "name", "score"))}
    with tempfile.TemporaryDirectory() as passing:
        folder = Path(state or passing)
        scoring, evolution = OneScore(own, score), settings or SETTINGS
        searcher = Searcher(scoring, budgets, evolution, seed, folder, facts, reporter)
        points = wanted[0].quantities
        if len(points) > 1:
            return [Found(one, own) for one in front_of(searcher, points)]
        found = searcher.run()
        return Found(searcher.judged(found) if found.base_meets_budget else found, own)


def _checked(model: LatencyModel, space: SearchSpace, confirm: bool | Target) -> LatencyModel:
    """A latency model of this space, with its device or without."""
    if space_fingerprint(model.space) != space_fingerprint(space):
        raise MismatchError(
            "The latency model is of another search space.",
            where=model.name,
            got=model.space.model,
            allowed=space.model,
            do="profile this model, or trace it as it was traced then",
        )
    if confirm is False:
        return replace(model, device=None)
    if confirm is not True and (model.device is None or model.profile != confirm.conditions):
        raise MismatchError(
            "Answers cannot be measured there: the latency model has not that device at hand.",
            where=confirm.name,
            got=model.name,
            do="profile on it (Target.profile), or search by predictions alone: confirm=False",
        )
    return model
