"""Training a PruningNet and scoring candidates with it, on real digits."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

from hwprune.errors import ConfigError, DataError
from hwprune.pruningnet.evaluate import Evaluator
from hwprune.pruningnet.fit import fit
from hwprune.pruningnet.net import PruningNet
from hwprune.pruningnet.settings import PruningNetSettings
from hwprune.training.evaluation import evaluate

SETTINGS = PruningNetSettings(
    epochs=10, batch_size=32, lr=0.1, recalibration_images=300, eval_batch_size=100, precision="fp32"
)


@pytest.fixture(scope="module", params=["fc", "shared"])
def trained(request, splits):
    """A briefly trained PruningNet and what the training reported."""
    model, space = request.getfixturevalue("learner")
    net = PruningNet(model, space, request.param)
    history = fit(net, splits.sub_train, None, SETTINGS)
    return net, history


def test_it_learns_and_ends_at_full_width(trained):
    net, history = trained
    assert len(history.epochs) == SETTINGS.epochs
    assert history.epochs[-1].loss < history.epochs[0].loss - 0.5
    assert net.widths == net.space.full()
    assert not net.training


def test_recalibration_makes_the_accuracy(trained, splits):
    net, _ = trained
    score = Evaluator(net, splits.sub_train, splits.sub_val, SETTINGS)
    for widths in (net.space.full(), net.space.uniform(0.5)):
        without = evaluate(net.materialise(widths), splits.sub_val)
        assert score(widths) > 0.85
        assert score(widths) > without + 0.3


def test_wider_networks_score_better(trained, splits):
    net, _ = trained
    score = Evaluator(net, splits.sub_train, splits.sub_val, SETTINGS)
    assert score(net.space.full()) > score(net.space.smallest()) + 0.1


def test_scores_do_not_depend_on_the_order_of_candidates(trained, splits):
    net, _ = trained
    score = Evaluator(net, splits.sub_train, splits.sub_val, SETTINGS)
    rng = np.random.default_rng(0)
    candidates = [net.space.sample(rng) for _ in range(4)]
    first = [score(widths) for widths in candidates]
    assert [score(widths) for widths in reversed(candidates)] == first[::-1]
    assert [Evaluator(net, splits.sub_train, splits.sub_val, SETTINGS)(w) for w in candidates] == first


def test_score_is_the_accuracy_of_the_recalibrated_network(trained, splits):
    net, _ = trained
    score = Evaluator(net, splits.sub_train, splits.sub_val, SETTINGS)
    widths = net.space.uniform(0.6)
    assert score(widths) == evaluate(score.network(widths), splits.sub_val)


def test_scoring_changes_nothing_in_the_net(trained, splits):
    net, _ = trained
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    Evaluator(net, splits.sub_train, splits.sub_val, SETTINGS)(net.space.uniform(0.5))
    assert net.widths == net.space.full()
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())


def test_bf16_scores_nearly_the_same(trained, splits):
    if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        pytest.skip("this CPU has no bfloat16 at all")
    net, _ = trained
    half = PruningNetSettings(recalibration_images=300, eval_batch_size=100, precision="bf16")
    exact = Evaluator(net, splits.sub_train, splits.sub_val, SETTINGS)
    rough = Evaluator(net, splits.sub_train, splits.sub_val, half)
    widths = net.space.full()
    assert rough(widths) == pytest.approx(exact(widths), abs=0.03)


def test_resumed_fit_equals_an_unbroken_one(learner, splits, tmp_path):
    model, space = learner
    settings = PruningNetSettings(epochs=3, batch_size=128, precision="fp32")
    unbroken, broken, resumed = (PruningNet(model, space) for _ in range(3))
    fit(unbroken, splits.sub_train, None, settings, seed=7)

    def interrupt(done: int, total: int, /, **figures: float) -> None:
        if done == 2:
            raise KeyboardInterrupt

    path = tmp_path / "checkpoint.safetensors"
    with pytest.raises(KeyboardInterrupt):
        fit(broken, splits.sub_train, None, settings, seed=7, checkpoint=path, progress=interrupt)
    fit(resumed, splits.sub_train, None, settings, seed=7, checkpoint=path)
    ours, theirs = unbroken.state_dict(), resumed.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_widths_are_drawn_anew_in_each_step_from_the_choices(learner, splits, monkeypatch):
    model, space = learner
    space = space.with_choices(ratios=(0.25, 0.5, 1.0))
    drawn = []
    original = PruningNet.set_widths
    net = PruningNet(model, space, "shared")
    monkeypatch.setattr(
        PruningNet, "set_widths", lambda self, w: (drawn.append(tuple(w)), original(self, w))[1]
    )
    fit(net, splits.sub_train, None, PruningNetSettings(epochs=2, batch_size=64, precision="fp32"))
    steps = 2 * (len(splits.sub_train) // 64)
    assert len(drawn) == steps + 1  # and the full width at the end
    assert len(set(drawn[:-1])) > 10  # of 27 that exist
    for index, group in enumerate(space.groups):
        assert {widths[index] for widths in drawn[:-1]} == set(group.choices)


def test_networks_to_draw_from_can_be_given(learner, splits, monkeypatch):
    model, space = learner
    some = (space.uniform(0.3), space.uniform(0.6))
    drawn = []
    original = PruningNet.set_widths
    net = PruningNet(model, space, "shared")
    monkeypatch.setattr(
        PruningNet, "set_widths", lambda self, w: (drawn.append(tuple(w)), original(self, w))[1]
    )
    settings = PruningNetSettings(epochs=1, batch_size=64, precision="fp32")
    fit(net, splits.sub_train, None, settings, networks=some)
    assert set(drawn[:-1]) == set(some)


def test_recalibration_reads_no_more_images_than_asked(learner, splits):
    model, space = learner
    settings = PruningNetSettings(recalibration_images=130, eval_batch_size=50)
    score = Evaluator(PruningNet(model, space), splits.sub_train, splits.sub_val, settings)
    sizes = [len(labels) for _, labels in score._recalibration]
    assert sum(sizes) == 130
    assert max(sizes) <= 50
    assert max(sizes) - min(sizes) <= 2
    # A draw from all of sub-train, not its beginning.
    assert len(set(torch.cat([labels for _, labels in score._recalibration]).tolist())) == 10


def test_an_empty_split_is_named(learner, splits):
    model, space = learner
    with pytest.raises(DataError, match="split of the images is empty"):
        Evaluator(PruningNet(model, space), splits.sub_train, splits.sub_val.subset([]), SETTINGS)


def test_settings_are_checked_and_load_no_torch():
    with pytest.raises(ConfigError) as error:
        PruningNetSettings(epochs=0, recalibration_images=0)
    assert "epochs=0" in str(error.value)
    assert "recalibration_images=0" in str(error.value)
    code = "import sys, hwprune.pruningnet.settings; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_evaluation_settings_do_not_invalidate_a_checkpoint():
    first = PruningNetSettings(recalibration_images=100).fingerprint()
    assert first == PruningNetSettings(recalibration_images=200).fingerprint()
    assert first != PruningNetSettings(lr=0.2).fingerprint()


def test_images_that_are_not_kept_give_the_same_score(trained, splits, monkeypatch):
    net, _ = trained
    widths = net.space.uniform(0.6)
    kept = Evaluator(net, splits.sub_train, splits.sub_val, SETTINGS)(widths)
    monkeypatch.setattr("hwprune.pruningnet.evaluate._KEPT_BYTES", 0)
    streamed = Evaluator(net, splits.sub_train, splits.sub_val, SETTINGS)
    assert not isinstance(streamed._parts[0], list)
    assert streamed(widths) == kept
    assert streamed(widths) == kept  # the images can be gone through again


@pytest.mark.parametrize(("share", "expected"), [(0.0, 0), (1.0, 8)])
def test_a_share_of_the_steps_trains_the_unpruned_network(learner, splits, monkeypatch, share, expected):
    model, space = learner
    net = PruningNet(model, space, "shared")
    seen = []
    monkeypatch.setattr(PruningNet, "set_widths", _remembering(seen, PruningNet.set_widths))
    settings = PruningNetSettings(epochs=1, batch_size=64, full_share=share)
    fit(net, splits.sub_train.subset(range(512)), None, settings)
    drawn = seen[:-1]  # at the end it is set to full width anyhow
    assert len(drawn) == 8
    assert sum(widths == space.full() for widths in drawn) == expected


def _remembering(seen, plain):
    def set_widths(self, widths):
        seen.append(tuple(widths))
        plain(self, widths)

    return set_widths
