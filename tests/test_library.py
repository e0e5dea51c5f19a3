"""The library on plain data: no project folder anywhere."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

import hwprune
from hwprune.errors import BudgetError, MismatchError, MissingArtifactError, ModelError, UsageError
from hwprune.evolution import SearchSettings
from hwprune.latency.device import Device

if TYPE_CHECKING:
    from pathlib import Path

    from hwprune.searching.latency_model import LatencyModel
    from hwprune.structure.space import SearchSpace, Widths

QUICK = SearchSettings(population=6, parents=3, mutants=2, crossovers=2, generations=2, fit_children=True)


class TwoHeads(nn.Module):
    """A network whose outputs are no class scores: a map, and a dict with a number."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 32, 3, 2, 1), nn.BatchNorm2d(32), nn.ReLU())
        self.body = nn.Sequential(
            *(nn.Sequential(nn.Conv2d(32, 32, 3, 1, 1), nn.BatchNorm2d(32), nn.ReLU()) for _ in range(4))
        )
        self.map, self.count = nn.Conv2d(32, 2, 1), nn.Linear(32, 1)

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        features = self.body(self.stem(images))
        return {"map": self.map(features), "count": self.count(features.mean((2, 3)))}


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(0)
    return TwoHeads().eval()


@pytest.fixture(scope="module")
def space(model: nn.Module) -> SearchSpace:
    return hwprune.trace(model, torch.zeros(1, 3, 64, 64), name="two heads")


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("table")


@pytest.fixture(scope="module")
def target(kept: Path) -> hwprune.Target:
    (kept / "fake.toml").write_text('runtime = "fake"\ndevice = "cpu"\noptions = { step = 8 }\n')
    return hwprune.Target(kept / "fake.toml")


@pytest.fixture(scope="module")
def latency(model: nn.Module, space: SearchSpace, kept: Path, target: hwprune.Target) -> LatencyModel:
    return target.profile(model, space, max_seconds=60, max_error=0.1, folder=kept)


def macs(space: SearchSpace):
    def score(network: Widths) -> float:
        return float(space.macs(network))

    return score


@pytest.mark.slow
def test_from_a_module_to_a_measured_file(model, space, tmp_path):
    target = hwprune.Target("cpu-1t")
    latency = target.profile(model, space, max_seconds=10, max_error=0.2)
    found = hwprune.search(space, macs(space), limits=latency.limit("60%"), settings=QUICK)
    assert found.latency.measured is not None
    assert found.latency.high_use <= 1
    pruned = found.network(model)
    path = hwprune.export(pruned, (1, 3, 64, 64), tmp_path / "pruned.onnx")
    base = hwprune.export(model, (1, 3, 64, 64), tmp_path / "base.onnx")
    result = target.measure(path, against=base, max_seconds=4)
    assert result.ratio < 0.75  # 60 %, and what a busy machine adds
    session = onnxruntime.InferenceSession(path)
    assert [one.name for one in session.get_outputs()] == ["map", "count"]


def test_a_scorer_gives_the_network_that_it_scored(space, latency, model):
    class Count:
        """The number in the second output."""

        name = "closeness"

        def loss(self, outputs, batch):
            return nn.functional.mse_loss(outputs["count"][:, 0], batch[1])

        def metric(self, outputs, batch):
            return -(outputs["count"][:, 0] - batch[1]).abs()

    draw = torch.Generator().manual_seed(0)
    batches = [(torch.randn(8, 3, 64, 64, generator=draw), torch.randn(8, generator=draw)) for _ in range(3)]
    score = hwprune.Scorer(hwprune.Inherited(model, space, batches), Count(), batches)
    found = hwprune.search(space, score, limits=latency.limit("60%"), settings=QUICK, confirm=False)
    assert found.score == pytest.approx(
        hwprune.evaluate(found.network(score), batches, task=Count()), abs=1e-4
    )
    assert found.result.score_kind == "own"


def test_a_search_that_was_stopped_goes_on(space, latency, tmp_path):
    scored: list[Widths] = []

    def score(network: Widths) -> float:
        if len(scored) == 8:
            raise KeyboardInterrupt
        scored.append(network)
        return float(space.macs(network))

    options = {"limits": latency.limit("50%"), "settings": QUICK, "state": tmp_path, "confirm": False}
    with pytest.raises(KeyboardInterrupt):
        hwprune.search(space, score, **options)
    whole = hwprune.search(space, macs(space), limits=latency.limit("50%"), settings=QUICK, confirm=False)
    seen: list[Widths] = []

    def rest(network: Widths) -> float:
        seen.append(network)
        return float(space.macs(network))

    found = hwprune.search(space, rest, **options)
    assert found.widths == whole.widths
    assert len(set(seen) & set(scored)) <= 1, "but for the answer nothing is scored again"


def test_a_search_under_a_share_goes_on_in_another_process(model, space, kept, target, tmp_path):
    """Another process profiles in the same folder, and must come to the same unit."""
    first, second = (
        target.profile(model, space, max_seconds=60, max_error=0.1, folder=kept) for _ in range(2)
    )
    assert first.base_ms == second.base_ms == hwprune.LatencyModel.load(kept).base_ms
    seen: list[Widths] = []

    def score(network: Widths) -> float:
        seen.append(network)
        return float(space.macs(network))

    found = hwprune.search(space, score, limits=first.limit("60%"), settings=QUICK, state=tmp_path)
    seen.clear()
    again = hwprune.search(space, score, limits=second.limit("60%"), settings=QUICK, state=tmp_path)
    assert again.result == found.result
    assert not seen


def test_a_search_in_milliseconds_leaves_the_model_as_it_was(space, latency, monkeypatch):
    before = latency.base_ms
    base = latency.device.base()
    slower = dataclasses.replace(base, ms=1.5 * before)
    monkeypatch.setattr(Device, "base", lambda self, *_: slower)
    hwprune.search(space, macs(space), limits=latency.limit(f"{1.4 * before}ms"), settings=QUICK)
    assert latency.device.base_ms == before


def test_the_unpruned_network_has_its_own_score(space, latency):
    found = hwprune.search(space, lambda net: 0.5, limits=latency.limit("100%"), confirm=False)
    assert found.widths == space.full()
    assert found.score == 0.5


def test_a_second_range_is_refused(space, latency):
    other = dataclasses.replace(latency, name="other")
    with pytest.raises(UsageError, match="one range"):
        hwprune.search(space, macs(space), limits=[latency.limit("60%"), other.limit("30%:60%")])


def test_options_of_the_verb_are_refused_with_a_model(model, space, tmp_path):
    with pytest.raises(UsageError, match="no options of export"):
        hwprune.export(model, (1, 3, 64, 64), tmp_path / "m.onnx", int8=True)
    with pytest.raises(UsageError, match="a space and a score"):
        hwprune.search(space, limits=[])


def test_what_is_measured_keeps_the_limit(space, latency, target):
    found = hwprune.search(
        space, macs(space), limits=latency.limit("60%"), settings=QUICK, confirm=target, seed=1
    )
    assert found.latency.measured is not None
    assert found.latency.high_use <= 1


def test_a_stopped_profile_goes_on(model, space, latency, kept, target):
    again = target.profile(model, space, max_seconds=60, max_error=0.1, folder=kept)
    assert again.table == latency.table


def test_a_range_gives_a_front(space, latency):
    found = hwprune.search(
        space, macs(space), limits=latency.limit("50%:90%", points=3), settings=QUICK, confirm=False
    )
    assert isinstance(found, list)
    assert 1 <= len(found) <= 3
    values = [one.latency.value for one in found]
    assert values == sorted(values)


def test_a_further_limit_binds_too(space, latency):
    found = hwprune.search(
        space, macs(space), limits=[latency.limit("90%")], macs="30%", settings=QUICK, confirm=False
    )
    assert space.macs(found.widths) <= 0.3 * space.macs(space.full())


def test_a_saved_model_predicts_the_same_without_its_device(space, latency, kept, target):
    loaded = hwprune.LatencyModel.load(kept)
    nets = np.array([latency.space.full(), latency.space.uniform(0.5), latency.space.smallest()])
    assert np.allclose(loaded.predict(nets), latency.predict(nets))
    assert loaded.device is None
    found = hwprune.search(space, macs(space), limits=loaded.limit("70%"), settings=QUICK)
    assert found.latency.measured is None
    with pytest.raises(MismatchError, match="has not that device at hand"):
        hwprune.search(space, macs(space), limits=loaded.limit("70%"), confirm=target, settings=QUICK)


def test_bad_input_is_told(space, latency, target, tmp_path):
    with pytest.raises(UsageError, match="needs a limit"):
        hwprune.search(space, macs(space), limits=[])
    with pytest.raises(UsageError, match="needs a limit"):
        hwprune.search(space, macs(space), limits="60%")
    with pytest.raises(UsageError, match="latency"):
        latency.limit("soon")
    for points in (-3, 1):
        with pytest.raises(UsageError, match="number of points"):
            latency.limit("30%:80%", points=points)
    with pytest.raises(UsageError, match="need a range"):
        latency.limit("60%", points=3)
    (tmp_path / "text.onnx").write_text("no network")
    with pytest.raises(ModelError):
        target.measure(tmp_path / "text.onnx")
    with pytest.raises(UsageError, match="same device"):
        hwprune.search(space, macs(space), limits=[latency.limit("60%"), latency.limit("50%")])
    with pytest.raises(BudgetError):
        hwprune.search(space, macs(space), limits=latency.limit("0.1%"), settings=QUICK, confirm=False)
    with pytest.raises(MissingArtifactError):
        target.measure(tmp_path / "nothing.onnx")
    with pytest.raises(UsageError, match="no such target profile"):
        hwprune.Target("cpu-one-thread")
    other = hwprune.trace(nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3)), torch.zeros(1, 3, 9, 9))
    with pytest.raises(MismatchError, match="another search space"):
        hwprune.search(other, macs(other), limits=latency.limit("60%"))
