"""What recipes may have beside SGD: right formulas, and a resumed run that equals an unbroken one."""

from __future__ import annotations

import copy
import itertools
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional

from hwprune.errors import ConfigError, UsageError
from hwprune.training.averaging import Average
from hwprune.training.evaluation import evaluate
from hwprune.training.loop import train
from hwprune.training.mixing import class_weights, mixing
from hwprune.training.optimiser import Optimiser
from hwprune.training.settings import Recipe, TrainSettings
from hwprune.training.task import Classification

EVERYTHING = TrainSettings(
    epochs=4,
    batch_size=64,
    lr=0.05,
    precision="fp32",
    clip_norm=1.0,
    ema=0.99,
    mixup=0.2,
    cutmix=1.0,
    rand_augment=9,
    erasing=0.25,
    class_weights="balanced",
    keep="best",
)
ADAM = replace(EVERYTHING, optimiser="adamw", lr=0.003, weight_decay=0.05)


def same_weights(first: nn.Module, second: nn.Module) -> bool:
    ours, theirs = first.state_dict(), second.state_dict()
    return all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.fixture(scope="module")
def parts(digits):
    """Images to train on, to find the best epoch with."""
    return digits.train.subset(range(1100)), digits.train.subset(range(1100, 1438))


@pytest.mark.parametrize("settings", [EVERYTHING, ADAM], ids=["sgd", "adamw"])
@pytest.mark.parametrize("broken_after", [1, 3])
def test_resumed_run_equals_an_unbroken_one(parts, make_net, tmp_path, settings, broken_after):
    unbroken, resumed = make_net(), make_net()
    scores = []
    train(
        unbroken,
        parts[0],
        settings,
        validation=parts[1],
        progress=lambda *_, **figures: scores.extend([figures["sub_val"]] if "sub_val" in figures else []),
    )

    def interrupt(done: int, total: int, /, **figures: float) -> None:
        if done == broken_after:
            raise KeyboardInterrupt

    path = tmp_path / "run.safetensors"
    with pytest.raises(KeyboardInterrupt):
        train(make_net(), parts[0], settings, validation=parts[1], checkpoint=path, progress=interrupt)
    train(resumed, parts[0], settings, validation=parts[1], checkpoint=path)
    assert same_weights(unbroken, resumed)
    again = make_net()
    train(again, parts[0], settings, validation=parts[1], checkpoint=path)
    assert same_weights(unbroken, again)
    assert max(scores) > 0.5
    assert evaluate(unbroken, parts[1]) == pytest.approx(max(scores), abs=0.05), "its statistics are new"


def test_every_part_of_a_recipe_changes_the_training(parts, make_net):
    plain = TrainSettings(epochs=1, batch_size=64, lr=0.01, precision="fp32")
    changes = [
        *({"mixup": 0.2}, {"cutmix": 1.0}, {"rand_augment": 9}, {"erasing": 0.5}, {"ema": 0.9}),
        *({"clip_norm": 0.1}, {"optimiser": "adamw"}, {"class_weights": "balanced"}),
    ]
    uneven = parts[0].subset(torch.nonzero((parts[0].labels > 2) | (torch.arange(1100) < 300)).flatten())
    nets = []
    for change in ({}, *changes):
        nets.append(make_net())
        train(nets[-1], uneven, replace(plain, **change))
    for one, other in itertools.pairwise(nets):
        assert not torch.equal(one.fc.weight, other.fc.weight)
        assert not torch.equal(nets[0].fc.weight, other.fc.weight)


def test_adamw_takes_the_steps_of_torchs():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 3), nn.LayerNorm(3))
    twin = copy.deepcopy(net)
    recipe = Recipe(optimiser="adamw", lr=0.01, weight_decay=0.1, decay_all=False)
    ours = Optimiser(net, recipe)
    groups = [
        {"params": [twin[0].weight]},
        {"params": [twin[0].bias, *twin[1].parameters()], "weight_decay": 0},
    ]
    theirs = torch.optim.AdamW(groups, lr=0.01, betas=(0.9, 0.999), weight_decay=0.1)
    for _ in range(3):
        images = torch.randn(5, 4)
        ours.step(net(images).square().sum(), lr=0.01)
        theirs.zero_grad()
        twin(images).square().sum().backward()
        theirs.step()
    for one, other in zip(net.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("large", [False, True])
def test_gradients_are_cut_down_to_the_norm(monkeypatch, large):
    monkeypatch.setattr("hwprune.training.optimiser._LARGE", 1 if large else 10**9)
    net = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    before = [parameter.detach().clone() for parameter in net.parameters()]
    recipe = Recipe(clip_norm=0.5, momentum=0, nesterov=False, weight_decay=0)
    Optimiser(net, recipe).step(1000 * net(torch.ones(2, 3)).square().sum(), lr=1.0)
    moved = torch.cat([(p - b).flatten() for p, b in zip(net.parameters(), before, strict=True)])
    assert moved.norm().item() == pytest.approx(0.5, rel=1e-3)


def test_the_average_is_the_textbook_formula_after_its_beginning():
    net = nn.BatchNorm1d(2)
    average = Average(net, 0.9)
    expected = net.weight.detach().clone()
    with torch.no_grad():
        for step in range(200):
            net.weight.add_(torch.tensor([1.0, -1.0]))
            net.running_mean.add_(1)
            if step == 0:
                expected = net.weight.clone()  # taken when it is first needed
            decay = min(0.9, (1 + step) / (10 + step))
            expected = decay * expected + (1 - decay) * net.weight
            average.update()
    last = net.weight.clone()
    with average.inside():
        torch.testing.assert_close(net.weight.detach(), expected)
        assert net.running_mean[0] < 195
    assert torch.equal(net.weight, last)
    average.put()
    torch.testing.assert_close(net.weight.detach(), expected)


@pytest.mark.parametrize("options", [{"mixup": 0.4}, {"cutmix": 1.0}, {"mixup": 0.4, "cutmix": 1.0}])
def test_mixed_labels_are_the_shares_of_the_mixed_images(options):
    apply = mixing(TrainSettings(**options), 5)
    labels = torch.arange(5)
    images = torch.eye(5)[:, :, None, None].expand(5, 5, 10, 10).contiguous()  # channel k is image k
    torch.manual_seed(0)
    mixed, shares = apply(images, labels)
    torch.testing.assert_close(shares.sum(1), torch.ones(5))
    torch.testing.assert_close(mixed.mean((2, 3)), shares, atol=1e-5, rtol=0)
    assert 0 < shares.max() < 1
    torch.manual_seed(0)
    again = apply(images, labels)
    assert torch.equal(again[0], mixed)
    assert torch.equal(again[1], shares)


def test_each_image_is_erased_in_a_place_of_its_own():
    apply = mixing(TrainSettings(erasing=1.0), 5)
    images = torch.ones(8, 3, 32, 32).to(memory_format=torch.channels_last)
    erased, labels = apply(images, torch.arange(8))
    assert torch.equal(labels, torch.arange(8))
    assert erased.is_contiguous(memory_format=torch.channels_last)
    holes = {image.numpy().tobytes() for image in (erased[:, 0] == 0)}
    assert len(holes) > 6
    assert mixing(TrainSettings(), 5) is None


def test_the_teacher_sees_the_images_that_the_network_sees(parts, make_net):
    class Seeing(nn.Module):
        def __init__(self, student: bool) -> None:
            super().__init__()
            self.inner, self.seen, self.student = make_net(), [], student

        def forward(self, images):
            if self.training == self.student:
                self.seen.append(images.detach().clone())
            return self.inner(images)

    net, teacher = Seeing(student=True), Seeing(student=False)
    settings = TrainSettings(epochs=1, batch_size=64, mixup=0.4, cutmix=1.0, precision="fp32")
    train(net, parts[0], settings, teacher=teacher)
    assert len(teacher.seen) == 1100 // 64
    assert all(torch.equal(one, other) for one, other in zip(net.seen, teacher.seen, strict=True))


def test_balanced_classes_weigh_alike():
    labels = torch.tensor([0] * 6 + [1] * 2 + [3] * 4)
    weights = class_weights(labels, 4)
    counts = torch.bincount(labels, minlength=4)
    assert (weights * counts)[[0, 1, 3]].tolist() == pytest.approx([4, 4, 4])
    assert weights[2] == 1
    outputs = torch.randn(12, 4)
    loss = Classification(class_weights=weights).loss(outputs, (torch.zeros(12, 1), labels))
    torch.testing.assert_close(loss, functional.cross_entropy(outputs, labels, weights))


def test_the_best_epoch_needs_images_to_find_it_with(parts, make_net):
    with pytest.raises(UsageError, match="find the best epoch"):
        train(make_net(), parts[0], EVERYTHING)


def test_a_rate_for_sgd_is_refused_with_adamw():
    with pytest.raises(ConfigError, match=r"lr=0\.1 is a rate for SGD"):
        Recipe(optimiser="adamw")
    for wrong in ({"ema": 1.0}, {"rand_augment": 31}, {"keep": "first"}, {"class_weights": "rare"}):
        with pytest.raises(ConfigError, match="not possible"):
            TrainSettings(**wrong)
