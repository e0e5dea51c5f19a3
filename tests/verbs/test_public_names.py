"""What `hwprune` exports: each name has an example in its docstring, which runs."""

from __future__ import annotations

import doctest
import shutil
from pathlib import Path

import pytest
import torch
from squares import Task
from torch import nn

import hwprune
from hwprune.evolution import SearchSettings

FEW = SearchSettings(population=6, parents=3, mutants=2, crossovers=2, generations=1, fit_children=True)


class Place(Task):
    """The task of the tests for a network whose output is one tensor."""

    def _error(self, outputs, batch):
        return (outputs - batch["place"]).abs()


@pytest.fixture(scope="module")
def names(finished, tmp_path_factory):
    """What the examples take for granted."""
    root = tmp_path_factory.mktemp("examples")
    folder = Path(shutil.copytree(finished, root / "project"))
    (root / "fake.toml").write_text('runtime = "fake"\ndevice = "cpu"\noptions = { step = 8 }\n')
    task, target = Place(), hwprune.Target(root / "fake.toml")
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for inputs, outputs in ((1, 32), (32, 64), (64, 64)):
        layers += [nn.Conv2d(inputs, outputs, 3, 2, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
    model = nn.Sequential(*layers, nn.Flatten(), nn.Linear(256, 2)).eval()
    space = hwprune.trace(model, torch.zeros(1, 1, 16, 16))
    latency = target.profile(model, space, max_seconds=20)
    (root / "net.onnx").write_bytes(hwprune.export_base(model, (1, 1, 16, 16)))
    loader, held_out = task.train_loader(), task.val_loader()
    hwprune.fit(model, loader, task, epochs=2, lr=0.005)
    net = hwprune.prune(model, space, space.uniform(0.8))
    fake, few, root_ = str(root / "fake.toml"), FEW, root
    known = {key: value for key, value in locals().items() if key not in ("finished", "tmp_path_factory")}
    return {**known, "hwprune": hwprune, "torch": torch, "Target": hwprune.Target, "cwd": root_}


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in hwprune.__all__ if name != "__version__"])
@pytest.mark.filterwarnings("ignore::hwprune.errors.HwpruneWarning")
def test_the_example_of_a_public_name_runs(name, names, monkeypatch):
    monkeypatch.chdir(names["cwd"])
    item = getattr(hwprune, name)
    examples = doctest.DocTestParser().get_examples(item.__doc__ or "")
    assert examples, f"hwprune.{name} has no example"
    test = doctest.DocTest(examples, dict(names), name, None, 0, item.__doc__)
    told: list[str] = []
    runner = doctest.DocTestRunner(verbose=False, optionflags=doctest.ELLIPSIS)
    result = runner.run(test, out=told.append)
    assert result.failed == 0, "".join(told)
