"""The tasks of `equal_epochs.py`: networks with trained weights, their images, their recipes."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import networks
import pandas as pd
from filelock import FileLock
from safetensors.torch import load_file, save

from hwprune import artifacts
from hwprune.config import load_config, save_config
from hwprune.data.datasets import open_data
from hwprune.project.folder import Project
from hwprune.training.evaluation import evaluate
from hwprune.training.loop import train
from hwprune.training.settings import TrainSettings
from hwprune.verbs.init import init
from hwprune.verbs.profile import profile

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from hwprune.data.datasets import Dataset
    from hwprune.data.images import Images

HERE = Path(__file__).parent
RUN = HERE.parent / "runs" / "equal_epochs"
DATA = HERE.parent.parent / "shared" / "data"
BUDGETS = ("50%", "30%")
IMAGES = 10_000  # of CIFAR-10's training images: fewer than all, for time
_SPLIT_SEED = 0


@dataclass(frozen=True, kw_only=True)
class Task:
    """A network, its trained weights, and images.

    Attributes:
        name: Of the task.
        model: As the user names it: without weights, which come from the base.
        pretrained: Makes the network with weights that were learnt elsewhere.
        data: `cifar10` or `clothing`.
        image_size: Side of the images.
        epochs: Budgets of training, E.
        adapt: How the base is fitted to the images first; everybody starts from it and is taught by it.
        tuning: The recipe of everybody's training after that; its rates are `rates`.
        rates: What each rival is trained at; the better one counts.
    """

    name: str
    model: str
    pretrained: Callable[[], nn.Module]
    data: str
    image_size: int
    epochs: tuple[int, ...]
    adapt: TrainSettings
    tuning: TrainSettings
    rates: tuple[float, float] = (0.06, 0.02)

    @property
    def folder(self) -> Path:
        """Where everything about it is kept; not committed."""
        return RUN / self.name

    @functools.cached_property
    def source(self) -> str:
        """The images, as hwprune names them; of CIFAR-10 the same part for everybody."""
        if self.data == "clothing":
            return f"parquet:{DATA / 'clothing'}"
        folder = RUN / f"cifar10-{IMAGES}"
        with FileLock(f"{folder}.lock"):
            if not (folder / "test.parquet").exists():
                folder.mkdir(parents=True, exist_ok=True)
                whole = pd.read_parquet(DATA / "cifar10" / "train.parquet")
                some = whole.groupby("label").sample(IMAGES // 10, random_state=_SPLIT_SEED)
                some.sort_index().to_parquet(folder / "train.parquet")
                artifacts.write_bytes(
                    folder / "test.parquet", (DATA / "cifar10" / "test.parquet").read_bytes()
                )
        return f"parquet:{folder}"

    @functools.cached_property
    def dataset(self) -> Dataset:
        """The images, normalised by ImageNet's figures, with which all these weights were trained."""
        images = open_data(self.source, image_size=self.image_size, seed=0)
        return images.normalised((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))

    @functools.cached_property
    def base(self) -> nn.Module:
        """The unpruned network, adapted to the images; of CIFAR-10 to all 50,000."""
        model = self.pretrained()
        self.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(self.folder / "base.lock"):
            if not self.weights.exists():
                kept = self.folder / "base-training.safetensors"
                train(model, self._adapting, self.adapt, checkpoint=kept, seed=0)
                artifacts.write_bytes(self.weights, _state(model))
            model.load_state_dict(load_file(self.weights))
        return model.eval()

    @property
    def _adapting(self) -> Images:
        """What the base is adapted on: of CIFAR-10 all training images."""
        if self.data != "cifar10":
            return self.dataset.train
        whole = open_data(f"parquet:{DATA / 'cifar10'}", seed=0)
        return whole.normalised((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)).train

    @property
    def weights(self) -> Path:
        """The base's weights, as a user gives them."""
        return self.folder / "base.safetensors"

    def project(self, seed: int, *, defaults: bool = False) -> Project:
        """Hwprune's project for one seed: `init` with the base's weights.

        Args:
            seed: Of everything random.
            defaults: Whether `init`'s recipe stays; otherwise it is the task's, as everybody's.
        """
        folder = self.folder / (f"defaults{seed}" if defaults else f"seed{seed}")
        if not (folder / "hwprune.toml").exists():
            init(
                project=folder,
                model=f"{HERE / 'networks.py'}:{self.model}",
                data=self.source,
                weights=str(self.weights),
                image_size=self.image_size,
                profile="cpu-1t",
            )
            config = load_config(folder / "hwprune.toml")
            names = ("batch_size", "label_smoothing", "weight_decay", "precision", "distill_weight")
            same = {name: getattr(self.tuning, name) for name in names}
            training = config.training if defaults else replace(config.training, **same)
            data = replace(config.data, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
            save_config(folder / "hwprune.toml", replace(config, seed=seed, data=data, training=training))
        return Project(folder)

    def tables(self, seconds: float) -> None:
        """Profile once, for all seeds; let nothing else run."""
        folder = self.folder / "seed0"
        self.project(0)
        if not (folder / "hwprune-work" / "latency").exists():
            profile(project=folder, max_time=f"{seconds:g}s")

    def top1(self, model: nn.Module) -> float:
        """On the test images."""
        return round(evaluate(model, self.dataset.test), 4)


def _state(model: nn.Module) -> bytes:
    return save({name: value.contiguous() for name, value in model.state_dict().items()})


_CIFAR = TrainSettings(
    epochs=6, batch_size=128, lr=0.03, label_smoothing=0.0, distill_weight=0.7, precision="fp32"
)
_CLOTHING = replace(_CIFAR, epochs=4, batch_size=32, weight_decay=1e-4)
_RESNET20 = Task(
    name="resnet20",
    model="resnet20_padded",
    pretrained=networks.pretrained_resnet20,
    data="cifar10",
    image_size=32,
    epochs=(6, 20),
    adapt=replace(_CIFAR, epochs=2, lr=0.02, weight_decay=5e-4),
    tuning=_CIFAR,
)
_RESNET56 = replace(
    _RESNET20, name="resnet56", model="resnet56_padded", pretrained=networks.pretrained_resnet56
)
_LITE0 = Task(
    name="efficientnet_lite0",
    model="lite0",
    pretrained=lambda: networks.pretrained_lite0(10),
    data="clothing",
    image_size=128,
    epochs=(4, 10),
    adapt=replace(_CLOTHING, epochs=6, lr=0.01),
    tuning=_CLOTHING,
)
TASKS = {one.name: one for one in (_RESNET20, _RESNET56, _LITE0)}
