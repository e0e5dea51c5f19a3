"""The networks of the comparison on CIFAR-10, and the recipe by which everything of each one is trained."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from networks import resnet20_wide

from hwprune.evolution.algorithm import SearchSettings
from hwprune.models.mobilenet_v2 import mobilenet_v2_cifar
from hwprune.models.resnet_cifar import resnet56
from hwprune.pruningnet.settings import PruningNetSettings
from hwprune.training.settings import TrainSettings

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from hwprune.pruningnet.settings import GeneratorName

TABLES = Path(__file__).parent.parent / "lut" / "amd-epyc-zen5-avx512" / "cpu-1t"
BUDGETS = {"50": 0.5, "30": 0.3}  # shares of the unpruned network's latency
TRAIN_PER_CLASS, HELD_OUT_PER_CLASS = 2500, 1000
JUDGE_LENGTH = 3  # PruningNet's epochs in those of a final training; with as many it overrated some (`short`)
RATES = {"fc": 0.1, "shared": 0.1, "residual": 0.05}  # the last starts from trained weights
SCORING = "racing, on all held-out images"  # in place of 2,000 of them in full, which chose by chance
EVOLUTION = SearchSettings(
    population=24, parents=8, mutants=10, crossovers=10, generations=6, fit_children=True
)
RANKED, RANKED_BUDGET, RANKED_SEED = 20, "50", 1_000_003


@dataclass(frozen=True, kw_only=True)
class Case:
    """A network and its recipe.

    Attributes:
        name: Also that of the folder of its results.
        title: For readers.
        build: Makes the network for a number of classes.
        table: Its latency table.
        epochs: Of the base, and of every final training.
        batch_size: Of every training.
        roundings: Steps of channels to which rivals round: that of the device, and parts of it.
        macs_starts: For each budget the share of the MACs at which the search by MACs begins.
    """

    name: str
    title: str
    build: Callable[[int], nn.Module]
    table: Path
    epochs: int
    batch_size: int
    roundings: tuple[int, ...]
    macs_starts: dict[str, float]

    @property
    def recipe(self) -> TrainSettings:
        """Of networks that start from random weights."""
        return TrainSettings(epochs=self.epochs, batch_size=self.batch_size, lr=0.1, label_smoothing=0.0)

    @property
    def fine_tuning(self) -> TrainSettings:
        """Of networks that start from trained weights."""
        return replace(self.recipe, lr=0.03)

    @property
    def longer(self) -> int:
        """Epochs of the base, PruningNet and hwprune's network together."""
        return self.epochs + self.judge_epochs + self.epochs

    @property
    def judge_epochs(self) -> int:
        """Of PruningNet."""
        return JUDGE_LENGTH * self.epochs

    def judge(self, generator: GeneratorName) -> PruningNetSettings:
        """PruningNet's recipe."""
        return replace(self._judge, lr=RATES[generator])

    @property
    def _judge(self) -> PruningNetSettings:
        return PruningNetSettings(
            epochs=self.judge_epochs,
            batch_size=self.batch_size,
            lr=0.1,
            label_smoothing=0.0,
            weight_decay=5e-4,
            recalibration_images=500,
        )

    def settings(self) -> dict[str, Any]:
        """What all results of one file must share, as JSON-able data."""
        return {
            "recipe": asdict(self.recipe),
            "fine_tuning": asdict(self.fine_tuning),
            "judge": asdict(self._judge),
            "judge_rates": RATES,
            "evolution": asdict(EVOLUTION),
            "scoring": SCORING,
            "images_per_class": [TRAIN_PER_CLASS, HELD_OUT_PER_CLASS],
            "budgets": BUDGETS,
            "ranked": [RANKED, RANKED_BUDGET, RANKED_SEED],
        }


# `macs_starts`: of networks, found by MACs or by latency, whose latency was near the budget.
CASES = {
    case.name: case
    for case in (
        Case(
            name="resnet20_wide",
            title="ResNet-20 with 32, 64 and 128 channels",
            build=resnet20_wide,
            table=TABLES / "resnet20_wide_32",
            epochs=5,
            batch_size=64,
            roundings=(16, 8),
            macs_starts={"50": 0.43, "30": 0.245},
        ),
        Case(
            name="resnet56",
            title="ResNet-56",
            build=resnet56,
            table=TABLES / "resnet56_32",
            epochs=8,
            batch_size=128,
            roundings=(16, 8, 4),
            macs_starts={"50": 0.28, "30": 0.12},
        ),
        Case(
            name="mobilenet_v2_cifar",
            title="MobileNetV2 for 32x32 images",
            build=mobilenet_v2_cifar,
            table=TABLES / "mobilenet_v2_cifar_32",
            epochs=8,
            batch_size=128,
            roundings=(16, 8, 4),
            macs_starts={"50": 0.42, "30": 0.225},
        ),
    )
}
