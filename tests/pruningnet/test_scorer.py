"""`Inherited`, `Scorer` and `fit` on a task of the user's own, without a project."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from hwprune.errors import DataError, MismatchError, ModelError, UsageError
from hwprune.evolution import Constraint, Problem, SearchSettings, search
from hwprune.evolution.problem import RacingScore
from hwprune.pruningnet.fit import fit
from hwprune.pruningnet.inherited import Inherited
from hwprune.pruningnet.net import PruningNet
from hwprune.pruningnet.scorer import Scorer
from hwprune.pruningnet.settings import PruningNetSettings
from hwprune.structure.trace import trace
from hwprune.training.evaluation import evaluate
from hwprune.training.settings import TrainSettings


def images(count: int, seed: int) -> TensorDataset:
    """Noise with a bright square, and where it is, of 0 to 1."""
    rng = np.random.default_rng(seed)
    pixels, places = rng.normal(0, 0.3, (count, 1, 16, 16)), rng.integers(2, 14, (count, 2))
    for image, (down, right) in zip(pixels, places, strict=True):
        image[0, down - 2 : down + 2, right - 2 : right + 2] += 2
    return TensorDataset(*(torch.tensor(part, dtype=torch.float32) for part in (pixels, places / 16)))


SETTINGS = SearchSettings(population=12, parents=4, mutants=5, crossovers=5, generations=3)


class Place:
    """Where the square is; the metric of each image is what is left of 1 after the error."""

    name = "closeness"

    def loss(self, outputs, batch):
        return (outputs - batch[1]).square().mean()

    def metric(self, outputs, batch):
        return 1 - (outputs - batch[1]).abs().mean(1)


class Whole(Place):
    """The same over a set."""

    def __init__(self):
        self.metric = self

    def reset(self):
        self.seen = []

    def update(self, outputs, batch):
        self.seen.append(Place().metric(outputs, batch))

    def compute(self):
        return torch.cat(self.seen).mean()


@pytest.fixture(scope="module")
def loaders():
    train = DataLoader(images(512, 0), 32, shuffle=True)
    return train, DataLoader(images(160, 1), 16)


@pytest.fixture(scope="module")
def trained(loaders):
    """A network that finds the square, and its space; not to be changed."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for inputs, outputs in ((1, 12), (12, 16), (16, 24)):
        layers += [nn.Conv2d(inputs, outputs, 3, 2, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
    model = nn.Sequential(*layers, nn.Flatten(), nn.Linear(96, 2))
    space = trace(model.eval(), torch.zeros(1, 1, 16, 16))
    history = fit(model, loaders[0], Place(), epochs=8, lr=0.01)
    assert history.epochs[-1].top1 > 0.95
    return model, space


@pytest.fixture(scope="module")
def score(trained, loaders):
    return Scorer(Inherited(*trained, loaders[0]), Place(), loaders[1], training=loaders[0])


def test_the_unpruned_network_has_its_own_score(trained, loaders, score):
    model, space = trained
    assert score(space.full()) == pytest.approx(evaluate(model, loaders[1], task=Place()), abs=0.01)
    assert score(space.full()) > score(space.uniform(0.5)) > score(space.smallest())


def test_scores_do_not_depend_on_order_and_are_remembered(trained, loaders, score):
    space = trained[1]
    networks = [space.sample(np.random.default_rng(seed)) for seed in range(4)]
    first = [score(net) for net in networks]
    seen = score.images
    assert [score(net) for net in reversed(networks)] == first[::-1]
    assert score.images == seen
    again = Scorer(Inherited(*trained, loaders[0]), Place(), loaders[1], training=loaders[0])
    assert [again(net) for net in networks] == first


def test_weak_networks_are_judged_on_a_part(trained, loaders, score):
    space = trained[1]
    assert isinstance(score, RacingScore)
    fresh = Scorer(score.judge.net, Place(), loaders[1], training=loaders[0])
    incumbent = fresh(space.full())
    seen = fresh.images
    (weak,) = fresh.race([space.smallest()], space.full())
    assert weak < incumbent
    assert 32 <= fresh.images - seen < 160
    whole = Scorer(score.judge.net, Place(), loaders[1], training=loaders[0], race=False)
    list(whole.race([space.full(), space.smallest()], space.full()))
    assert whole.images == 320


def test_a_metric_over_a_set_is_not_raced_and_has_no_error(trained, loaders, score):
    space = trained[1]
    whole = Scorer(score.judge.net, Whole(), loaders[1], training=loaders[0])
    (found,) = whole.race([space.uniform(0.5)], space.full())
    assert found == pytest.approx(score(space.uniform(0.5)), abs=1e-6)
    assert whole.error(space.full()) == 0
    figures = score.figures(space.full(), 160)
    assert score.error(space.full()) == pytest.approx(figures.std() / np.sqrt(160))


def test_a_loader_that_is_not_kept_gives_the_same_score(trained, loaders, score, monkeypatch):
    space = trained[1]
    monkeypatch.setattr("hwprune.pruningnet.evaluate._KEPT_BYTES", 0)
    streamed = Scorer(score.judge.net, Place(), loaders[1], training=loaders[0])
    assert streamed.judge.stops == (160,)
    assert streamed(space.uniform(0.5)) == pytest.approx(score(space.uniform(0.5)), abs=1e-6)


def test_a_search_raises_it_and_training_goes_on_from_there(trained, loaders, score):
    model, space = trained
    limit = Constraint(name="macs", predict=space.macs, limit=0.5 * space.macs(space.full()), unit="MACs")
    problem = Problem(space=space, constraints=(limit,), accuracy=score)
    found = search(problem, SETTINGS, seed=0).best.widths
    assert score(found) >= max(
        score(space.uniform(r)) for r in (0.4, 0.5, 0.6) if space.macs(space.uniform(r)) < limit.limit
    )
    pruned = score.network(found)
    before = evaluate(pruned, loaders[1], task=Place())
    assert before == pytest.approx(score(found), abs=1e-5)
    fit(pruned, loaders[0], Place(), epochs=3, lr=0.003, teacher=model)
    assert evaluate(pruned, loaders[1], task=Place()) > before


def test_channels_are_sorted_by_what_the_task_loses(trained, loaders):
    model, space = trained
    before = copy.deepcopy(model.state_dict())
    sorted_by = {}
    for name in ("l1", "fisher"):
        weights = Inherited(model, space, loaders[0], importance=name, task=Place())
        sorted_by[name] = weights.model[0].weight
        full = evaluate(weights.materialise(space.full()), loaders[1], task=Place())
        assert full == pytest.approx(evaluate(model, loaders[1], task=Place()), abs=1e-4)
    assert not torch.equal(sorted_by["l1"], sorted_by["fisher"])
    norms = sorted_by["l1"].abs().sum((1, 2, 3))
    assert not torch.equal(norms, model[0].weight.abs().sum((1, 2, 3)))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_pruningnet_learns_a_task(trained, loaders, score):
    model, space = trained
    net = PruningNet(score.judge.net.model, space, "residual")
    before = Scorer(net, Place(), loaders[1], training=loaders[0])(space.uniform(0.4))
    history = fit(net, loaders[0], Place(), epochs=4, teacher=model)
    assert history.epochs[-1].loss < history.epochs[0].loss
    learnt = Scorer(net, Place(), loaders[1], training=loaders[0])
    assert learnt(space.uniform(0.4)) > before


def test_what_cannot_be_scored_is_told(trained, loaders, score):
    weights, space = score.judge.net, trained[1]
    with pytest.raises(DataError, match="empty"):
        Scorer(weights, Place())
    with pytest.raises(UsageError, match="no task"):
        Scorer(weights, loaders[1], loaders[1])

    class Lost(Place):
        def metric(self, outputs, batch):
            return super().metric(outputs, batch) / 0 * 0

    with pytest.raises(ModelError, match="finite"):
        Scorer(weights, Lost(), loaders[1])(space.full())


def test_a_recipe_of_the_other_kind_is_refused(trained, loaders):
    model, space = trained
    with pytest.raises(UsageError, match="not a recipe"):
        fit(copy.deepcopy(model), loaders[0], Place(), PruningNetSettings(epochs=1))
    net = PruningNet(model, space, generator="residual")
    with pytest.raises(UsageError, match="not a recipe"):
        fit(net, loaders[0], Place(), TrainSettings(epochs=1))
    with pytest.raises(UsageError, match="no best epoch"):
        fit(net, loaders[0], Place(), epochs=1, validation=loaders[1])


def test_a_checkpoint_of_other_networks_is_refused(trained, loaders, tmp_path):
    model, space = trained
    kept = str(tmp_path / "net.safetensors")

    def fitted(drawn: list) -> None:
        net = PruningNet(model, space, generator="residual")
        fit(net, loaders[0], Place(), epochs=1, checkpoint=kept, networks=drawn)

    networks = [space.full(), space.uniform(0.5)]
    fitted(networks)
    fitted(networks)  # which is done already
    with pytest.raises(MismatchError):
        fitted([])


def test_a_score_says_what_it_is(trained, loaders, score):
    model, space = trained
    assert score.fingerprint() == Scorer(score.judge.net, Place(), loaders[1]).fingerprint()
    other = Scorer(
        Inherited(model, space, loaders[0], importance="taylor", task=Place()), Place(), loaders[1]
    )
    assert other.fingerprint() != score.fingerprint()
    with pytest.raises(UsageError, match="make no networks"):
        Scorer(model, Place(), loaders[1])
