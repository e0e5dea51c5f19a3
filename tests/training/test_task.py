"""Tasks of the user's own: batches and outputs of any structure, metrics of images and of sets."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from hwprune.errors import DataError, MismatchError, ModelError, UsageError
from hwprune.training import workers
from hwprune.training.batches import LoaderImages
from hwprune.training.distill import Distilled, distance
from hwprune.training.evaluation import evaluate
from hwprune.training.loop import train
from hwprune.training.settings import TrainSettings
from hwprune.training.task import Classification, images_in, inputs_of

SETTINGS = TrainSettings(
    optimiser="adamw", lr=0.01, weight_decay=0.05, epochs=3, precision="fp32", batch_size=64
)


class Brightness(torch.utils.data.Dataset):
    """Images with their mean brightness in two halves: dicts with lists inside."""

    def __init__(self, count: int = 96) -> None:
        self.images = torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(0))

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, row: int):
        image = self.images[row] * (1 + row % 5) / 5
        return {
            "name": f"image {row}",
            "image": image,
            "halves": [image[..., :4].mean(), image[..., 4:].mean()],
        }


class Halves(nn.Module):
    """Its outputs are a dict."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.norm, self.fc = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Linear(8, 2)

    def forward(self, image):
        return {"halves": self.fc(torch.relu(self.norm(self.conv(image))).mean((2, 3)))}


class Regression:
    """The metric of each image is the negative error."""

    name = "negative error"

    def loss(self, outputs, batch):
        return (outputs["halves"] - torch.stack(batch["halves"], 1)).square().mean()

    def metric(self, outputs, batch):
        return -(outputs["halves"] - torch.stack(batch["halves"], 1)).abs().mean(1)


class Explained:
    """A metric of a whole set: the share of the variance that is explained."""

    def reset(self):
        self.seen = []

    def update(self, outputs, batch):
        self.seen.append((outputs["halves"], torch.stack(batch["halves"], 1)))

    def compute(self):
        got, wanted = (torch.cat(part) for part in zip(*self.seen, strict=True))
        return 1 - (got - wanted).var() / wanted.var()


class OverASet(Regression):
    def __init__(self):
        self.metric = Explained()


def loader(shuffle=True, **options):
    return DataLoader(Brightness(), batch_size=32, shuffle=shuffle, **options)


def whole():
    return next(iter(DataLoader(Brightness(), 96)))


def test_a_network_learns_a_task_of_dicts():
    net, before = Halves(), evaluate(Halves(), loader(False), task=Regression())
    history = train(net, loader(), replace(SETTINGS, epochs=20), task=Regression())
    after = evaluate(net, loader(False), task=Regression())
    assert after > before / 4  # a quarter of the error is left
    assert history.epochs[-1].loss < 0.1 * history.epochs[0].loss
    assert -0.2 < history.epochs[-1].top1 < 0
    assert not net.training
    with torch.no_grad():
        figures = Regression().metric(net(whole()["image"]), whole())
    assert after == pytest.approx(float(figures.mean()), abs=1e-5)


def test_a_metric_over_a_set_has_no_figure_while_training():
    history = train(net := Halves(), loader(), SETTINGS, task=OverASet())
    assert history.epochs[-1].top1 is None
    explained = Explained()
    explained.reset()
    with torch.no_grad():
        explained.update(net(whole()["image"]), whole())
    score = evaluate(net, loader(False), task=OverASet())
    assert score == pytest.approx(float(explained.compute()), abs=1e-4)
    assert evaluate(net, loader(False), task=OverASet()) == score  # nothing is left of the last time


def test_a_resumed_run_takes_the_loaders_order_up_again(tmp_path):
    def stop(done, total, /, **figures):
        if done == 2:
            raise KeyboardInterrupt

    unbroken, resumed, path = Halves(), Halves(), tmp_path / "run.safetensors"
    train(unbroken, loader(), SETTINGS, task=Regression())
    with pytest.raises(KeyboardInterrupt):
        train(Halves(), loader(), SETTINGS, task=Regression(), checkpoint=path, progress=stop)
    torch.rand(7)  # the global generator is elsewhere
    train(resumed, loader(), SETTINGS, task=Regression(), checkpoint=path)
    assert torch.equal(unbroken.fc.weight, resumed.fc.weight)


def test_the_best_epoch_is_kept_though_scores_are_negative():
    settings = replace(SETTINGS, keep="best", epochs=4)
    seen = []
    net = Halves()
    train(
        net,
        loader(),
        settings,
        task=Regression(),
        validation=loader(False),
        progress=lambda done, total, /, **figures: seen.append(figures.get("sub_val", -1.0)),
    )
    assert max(seen) < 0


def test_a_last_batch_that_is_smaller_counts_by_its_images():
    class One(Regression):
        def metric(self, outputs, batch):
            return torch.ones(len(batch["image"]))

    history = train(Halves(), loader(), replace(SETTINGS, epochs=1), task=One())
    assert len(whole()["image"]) % 64, "else this shows nothing"
    assert history.epochs[0].top1 == 1.0


def test_a_checkpoint_of_another_task_is_refused(tmp_path):
    class Other(Regression):
        name = "another one"

    kept, once = tmp_path / "c.safetensors", replace(SETTINGS, epochs=1)
    train(Halves(), loader(), once, task=Regression(), checkpoint=kept)
    with pytest.raises(MismatchError):
        train(Halves(), loader(), once, task=Other(), checkpoint=kept)
    with pytest.raises(MismatchError):
        train(Halves(), loader(), once, task=Regression(), checkpoint=kept, teacher=Halves())


def test_a_teacher_of_dicts_teaches():
    teacher, student = Halves(), Halves()
    nn.init.normal_(student.fc.weight)
    before = copy.deepcopy(student).eval()
    train(teacher, loader(), replace(SETTINGS, epochs=10), task=Regression())
    only = replace(SETTINGS, distill_weight=1.0, epochs=20)
    train(student, loader(), only, task=Regression(), teacher=teacher)
    with torch.no_grad():
        apart = [
            (net(whole()["image"])["halves"] - teacher(whole()["image"])["halves"])
            for net in (before, student)
        ]
    assert apart[1].abs().mean() < apart[0].abs().mean() / 2


def test_dense_class_scores_are_taught_by_soft_targets_and_others_by_differences():
    torch.manual_seed(0)
    scores, wanted = torch.randn(2, 5, 4, 4), torch.randn(2, 5, 4, 4)
    labels = torch.zeros(2, 4, 4, dtype=torch.int64)
    soft = (wanted / 2).softmax(1)
    expected = 4 * (soft * (soft.log() - (scores / 2).log_softmax(1))).sum(1).mean()
    torch.testing.assert_close(distance([scores], (wanted,), (None, labels), 2.0), expected)
    differences = (scores - wanted).square().mean() / wanted.var(correction=0)
    torch.testing.assert_close(distance(scores, wanted, (None, labels.float())), differences)
    with pytest.raises(ModelError, match="another form"):
        distance(scores, wanted[:, :2], None)


def test_a_task_may_say_itself_how_it_is_taught():
    class Own(Regression):
        def distill(self, outputs, teacher_outputs, batch):
            return torch.tensor(7.0)

    batch = next(iter(loader(False)))
    net = Halves().eval()
    task = Distilled(Own(), net, TrainSettings(distill_weight=0.25))
    outputs = net(batch["image"])
    torch.testing.assert_close(task.loss(outputs, batch), 0.75 * Own().loss(outputs, batch) + 0.25 * 7)
    assert task.metric(outputs, batch).shape == (32,)


@pytest.mark.parametrize(
    ("batch", "expected"),
    [
        (torch.ones(2, 3), 2),
        ((torch.ones(3, 3), 1), 3),
        ([torch.ones(4, 3)], 4),
        ({"target": torch.ones(1), "image": torch.ones(5, 3)}, 5),
        ({"left": torch.ones(6, 3), "right": 1}, 6),
        (([torch.ones(3, 2, 2)] * 7, 1), 7),
    ],
)
def test_images_are_found_in_batches_of_any_structure(batch, expected):
    assert images_in(inputs_of(Classification(), batch)) == expected


def test_inputs_may_be_several_and_have_names():
    class Two(nn.Module):
        def forward(self, image, scale):
            return image.mean((1, 2, 3))[:, None] * scale

    class Own:
        def __init__(self, inputs):
            self.inputs = inputs

        def loss(self, outputs, batch):
            return outputs.mean()

        def metric(self, outputs, batch):
            return outputs[:, 0]

    images = [{"a": torch.ones(2, 3, 4, 4), "b": torch.full((2, 1), 3.0)}]
    for inputs in (lambda b: (b["a"], b["b"]), lambda b: {"image": b["a"], "scale": b["b"]}):
        assert evaluate(Two(), images, task=Own(inputs)) == 3


class Wrong(Regression):
    def __init__(self, loss=None, metric=None):
        if loss is not None:
            self.loss = lambda outputs, batch: loss
        if metric is not None:
            self.metric = metric if hasattr(metric, "update") else lambda outputs, batch: metric


class Dict(Explained):
    def compute(self):
        return {"map": 0.5, "map_50": 0.7}


class Nothing(Explained):
    def compute(self):
        return float("nan")


@pytest.mark.parametrize(
    ("task", "words"),
    [
        (Wrong(loss=torch.ones(32)), ["loss", "tensor (32,)", "scalar"]),
        (Wrong(loss=1.0), ["loss", "float", "scalar"]),
        (Wrong(metric=torch.ones(3)), ["metric", "tensor (3,)", "(32,)"]),
        (Wrong(metric=0.5), ["metric", "float", "compute()"]),
    ],
)
def test_what_a_task_gives_wrongly_is_told(task, words):
    with pytest.raises(ModelError) as error:
        train(Halves(), loader(), SETTINGS, task=task)
    assert all(word in str(error.value) for word in words)


@pytest.mark.parametrize(("metric", "words"), [(Dict(), ["map, map_50"]), (Nothing(), ["finite", "nan"])])
def test_a_metric_of_a_set_comes_to_one_finite_number(metric, words):
    with pytest.raises(ModelError) as error:
        evaluate(Halves(), loader(False), task=Wrong(metric=metric))
    assert all(word in str(error.value) for word in words)


def test_a_loss_that_is_not_finite_at_once_is_no_divergence():
    class Infinite(Regression):
        def loss(self, outputs, batch):
            return super().loss(outputs, batch) / 0

    with pytest.raises(ModelError, match="not a finite number") as error:
        train(Halves(), loader(), SETTINGS, task=Infinite())
    assert "learning rate" not in str(error.value)


def test_loaders_that_give_nothing_are_refused():
    with pytest.raises(DataError, match="empty"):
        train(Halves(), DataLoader(Brightness(8), batch_size=16, drop_last=True), SETTINGS, task=Regression())
    with pytest.raises(DataError, match="no length") as error:
        train(Halves(), (batch for batch in loader()), SETTINGS, task=Regression())
    assert "DataLoader" in str(error.value)
    with pytest.raises(DataError, match="cannot be told"):
        train(Halves(), [3, 4], SETTINGS, task=Regression())


def test_augmentation_of_classes_is_refused_for_other_tasks():
    with pytest.raises(UsageError, match=r"mixup=0\.2"):
        train(Halves(), loader(), replace(SETTINGS, mixup=0.2), task=Regression())


@pytest.mark.parametrize(("task", "words"), [(Regression, "Regression()"), (SETTINGS, "TrainSettings")])
def test_what_is_no_task_is_told(task, words):
    with pytest.raises(UsageError, match="no task") as error:
        train(Halves(), loader(), SETTINGS, task=task)
    assert words in str(error.value)


def test_a_loader_is_not_shared_out_among_workers(monkeypatch):
    monkeypatch.setattr(workers, "world", lambda: 2)
    with pytest.raises(UsageError, match="not shared out"):
        train(Halves(), loader(), SETTINGS, task=Regression())


def test_what_is_not_training_sees_a_loader_in_one_order():
    images = LoaderImages(loader(), Regression())
    first, second = ([batch["name"] for batch in images.batches()] for _ in range(2))
    assert first == second
    assert len(images) == 96
    assert len(images.some(40)) == 2
