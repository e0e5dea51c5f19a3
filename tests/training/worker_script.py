"""What the tests of several workers run in each of them: `worker_script.py together|verb FOLDER`."""

from __future__ import annotations

import os
import signal
import sys
import types
from pathlib import Path
from unittest import mock

import torch
from safetensors.torch import save_file
from torch import nn

from hwprune.cli.main import main
from hwprune.data.datasets import open_data
from hwprune.progress import QUIET
from hwprune.project import jobs
from hwprune.pruningnet.fit import fit
from hwprune.pruningnet.net import PruningNet
from hwprune.pruningnet.settings import PruningNetSettings
from hwprune.structure.trace import trace
from hwprune.training import workers
from hwprune.training.loop import train
from hwprune.training.settings import TrainSettings

EPOCHS, KILLED_IN = 4, 3
# 63 images: the workers' parts of a batch differ in size
PLAIN = TrainSettings(epochs=2, batch_size=63, lr=0.05, precision="fp32", channels_last="off")
USUAL = TrainSettings(epochs=EPOCHS, batch_size=64, lr=0.05, precision="fp32")
FIT = PruningNetSettings(epochs=1, batch_size=64, lr=0.05, precision="fp32", channels_last="off")


class Net(nn.Module):
    """A small network; with `usual` it has batch norm, dropout, and an output that no loss sees."""

    def __init__(self, usual: bool) -> None:
        super().__init__()
        norms = [nn.BatchNorm2d(8), nn.BatchNorm2d(16)] if usual else [nn.Identity(), nn.Identity()]
        self.first = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), norms[0], nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(8, 16, 3, 2, 1), norms[1], nn.ReLU())
        self.dropout = nn.Dropout(0.1 if usual else 0.0)
        self.fc = nn.Linear(256, 10)
        self.aside = nn.Linear(256, 10) if usual else None

    def forward(self, x):
        x = self.dropout(self.second(self.first(x)).flatten(1))
        return (self.fc(x), self.aside(x)) if self.training and self.aside is not None else self.fc(x)


def make(usual: bool) -> Net:
    """The same untrained network every time."""
    torch.manual_seed(0)
    return Net(usual)


def images():
    return open_data("digits", image_size=16)


def plain():
    """A network whose training does not depend on how a batch is divided."""
    net = make(False)
    history = train(net, images().train.subset(range(630)), PLAIN, seed=3)
    return net, history, []


def usual(checkpoint: Path | None = None):
    net = make(True)
    return net, train(net, images().train, USUAL, seed=3, checkpoint=checkpoint), []


def pruningnet(least_large: int = 10**9):
    """A PruningNet without batch norm, and the widths that its training drew."""
    model = make(False)
    net = PruningNet(model, trace(model, torch.zeros(1, 3, 16, 16)), "fc", hidden=4)
    drawn, choose = [], net.set_widths
    noted = mock.patch.object(net, "set_widths", lambda widths: (drawn.append(list(widths)), choose(widths)))
    with noted, mock.patch("hwprune.training.optimiser._LARGE", least_large):
        history = fit(net, images().train.subset(range(640)), None, FIT, seed=3)
    return net, history, drawn


def pruningnet_in_backward():
    return pruningnet(least_large=1)


RUNS = {run.__name__: run for run in (plain, usual, pruningnet, pruningnet_in_backward)}


def together(folder: Path) -> None:
    """Train everything, and leave weights and figures of this worker."""
    with workers.group():
        kept = {"rank": torch.tensor(workers.rank()), "threads": torch.tensor(torch.get_num_threads())}
        whole = workers.gather([item / 3 for item in workers.mine(range(7))], 7)
        kept["gathered"] = torch.tensor(whole, dtype=torch.float64)
        kept["shared"] = torch.tensor(workers.share({"text": "µ", "n": [workers.rank(), 5]})["n"])
        for name, run in RUNS.items():
            net, history, drawn = run()
            kept |= {f"{name}/{key}": tensor.contiguous() for key, tensor in net.state_dict().items()}
            kept[f"{name}.loss"] = torch.tensor([epoch.loss for epoch in history.epochs])
            kept[f"{name}.top1"] = torch.tensor([epoch.top1 for epoch in history.epochs])
            kept[f"{name}.drawn"] = torch.tensor(drawn)
        save_file(kept, folder / f"worker{workers.rank()}.safetensors")


class Deadly:
    """The training images; in the epoch given, worker 1 is killed."""

    def __init__(self) -> None:
        self.images, self.calls = images().train, 0

    def __len__(self) -> int:
        return len(self.images)

    def batches(self, *args, **options):
        self.calls += 1  # the first call is for an example
        if self.calls == 1 + KILLED_IN and workers.rank() == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return self.images.batches(*args, **options)


def training(folder: Path, reporter=QUIET):
    """A job of all workers, as verbs have them."""
    with jobs.together("training"), reporter.stage("Training", "epochs") as progress:
        path = folder / "checkpoint.safetensors"
        return train(make(True), Deadly(), USUAL, seed=3, checkpoint=path, progress=progress)


def verb(folder: Path) -> int:
    """The command line, with a verb that only trains in the place of a real one."""

    def report(*, project: Path = Path("."), reporter=QUIET):
        """Train."""
        return training(project, reporter)

    report.__annotations__ = {"project": Path}
    module = types.ModuleType("hwprune.verbs.report")
    module.report = report
    known = mock.patch.dict(jobs._JOBS, {"training": training})
    with known, mock.patch.dict(sys.modules, {"hwprune.verbs.report": module}):
        return main(["report", "--project", str(folder), "--json"])


if __name__ == "__main__":
    sys.exit({"together": together, "verb": verb}[sys.argv[1]](Path(sys.argv[2])))
