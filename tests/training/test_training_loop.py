"""The training loop: it learns, resumes exactly, and says what went wrong."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from hwprune.errors import ArtifactError, DataError, MismatchError, ModelError
from hwprune.training import loop, precision
from hwprune.training.evaluation import evaluate
from hwprune.training.loop import train
from hwprune.training.precision import Execution
from hwprune.training.schedule import learning_rate
from hwprune.training.settings import TrainSettings

SETTINGS = TrainSettings(epochs=4, batch_size=64, lr=0.05, precision="fp32", weight_decay=1e-4)


def same_weights(first: nn.Module, second: nn.Module) -> bool:
    ours, theirs = first.state_dict(), second.state_dict()
    return all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_learns_real_digits(digits, make_net):
    net = make_net()
    before = evaluate(net, digits.test)
    history = train(net, digits.train, SETTINGS)
    assert before < 0.3
    assert evaluate(net, digits.test) > 0.8
    assert [epoch.epoch for epoch in history.epochs] == [1, 2, 3, 4]
    assert history.epochs[-1].loss < history.epochs[0].loss
    assert history.epochs[-1].top1 > history.epochs[0].top1
    assert not net.training


def test_bf16_learns_too(digits, make_net):
    if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        pytest.skip("this CPU has no bfloat16 at all")
    net = make_net()
    settings = TrainSettings(epochs=4, batch_size=64, lr=0.05, precision="bf16")
    train(net, digits.train, settings)
    assert evaluate(net, digits.test) > 0.8
    assert all(p.dtype == torch.float32 for p in net.parameters())


def test_same_seed_same_weights_other_seed_other_weights(digits, make_net):
    settings = TrainSettings(epochs=1, batch_size=64, precision="fp32")
    nets = [make_net() for _ in range(3)]
    for net, seed in zip(nets, (1, 1, 2), strict=True):
        torch.rand(7)  # the caller's own generator must not matter
        train(net, digits.train, settings, seed=seed)
    assert same_weights(nets[0], nets[1])
    assert not same_weights(nets[0], nets[2])


def test_leaves_the_callers_generator_alone(digits, make_net):
    net = make_net()
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    train(net, digits.train, TrainSettings(epochs=1, precision="fp32"))
    assert torch.equal(torch.rand(4), expected)


@pytest.mark.parametrize("broken_after", [1, 3])
def test_resumed_run_equals_an_unbroken_one(digits, make_net, tmp_path, broken_after):
    unbroken = make_net()
    whole = train(unbroken, digits.train, SETTINGS, seed=5)

    def interrupt(done: int, total: int, /, **figures: float) -> None:
        if done == broken_after:
            raise KeyboardInterrupt

    path = tmp_path / "run" / "checkpoint.safetensors"
    with pytest.raises(KeyboardInterrupt):
        train(make_net(), digits.train, SETTINGS, seed=5, checkpoint=path, progress=interrupt)
    resumed = make_net()
    reported = []
    history = train(
        resumed,
        digits.train,
        SETTINGS,
        seed=5,
        checkpoint=path,
        progress=lambda done, total, /, **figures: reported.append((done, total)),
    )
    assert int(reported[0][0]) == broken_after < reported[0][0]  # where it goes on
    finished = [one for one in reported if one[0] == int(one[0])]
    assert finished == [(epoch, 4) for epoch in range(broken_after + 1, 5)]
    assert same_weights(unbroken, resumed)
    assert [e.loss for e in history.epochs] == [e.loss for e in whole.epochs]


def test_resumes_where_weights_lie_as_on_a_gpu(digits, make_net, tmp_path, monkeypatch):
    """Channels last: there a step refuses a momentum that lies otherwise, here it mixes the two up."""

    def lay_out(module: nn.Module, execution: Execution) -> None:
        for part in module.modules():
            if isinstance(part, nn.Conv2d):
                part.weight.data = part.weight.data.contiguous(memory_format=torch.channels_last)

    def interrupt(done: int, total: int, /, **figures: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(precision, "lay_out", lay_out)
    settings, path = replace(SETTINGS, epochs=2), tmp_path / "run.safetensors"
    unbroken, resumed = make_net(), make_net()
    train(unbroken, digits.train, settings)
    with pytest.raises(KeyboardInterrupt):
        train(make_net(), digits.train, settings, checkpoint=path, progress=interrupt)
    train(resumed, digits.train, settings, checkpoint=path)
    assert not resumed.features[0].weight.is_contiguous()
    assert same_weights(unbroken, resumed)


def test_interrupt_inside_an_epoch_keeps_the_last_checkpoint(digits, make_net, tmp_path):
    class Interrupted(nn.Module):
        """Raises in the second epoch."""

        def __init__(self) -> None:
            super().__init__()
            self.inner, self.calls = make_net(), 0

        def forward(self, x):
            self.calls += self.training
            if self.calls == 30:
                raise KeyboardInterrupt
            return self.inner(x)

    path = tmp_path / "checkpoint.safetensors"
    with pytest.raises(KeyboardInterrupt):
        train(Interrupted(), digits.train, SETTINGS, checkpoint=path)
    again = Interrupted()
    again.calls = 31
    history = train(again, digits.train, SETTINGS, checkpoint=path)
    assert len(history.epochs) == SETTINGS.epochs
    assert again.calls == 31 + 3 * (len(digits.train) // 64)


def test_finished_run_is_not_repeated(digits, make_net, tmp_path):
    path = tmp_path / "checkpoint.safetensors"
    first, second = make_net(), make_net()
    history = train(first, digits.train, SETTINGS, checkpoint=path)
    content = path.read_bytes()
    assert train(second, digits.train, SETTINGS, checkpoint=path) == history
    assert path.read_bytes() == content
    assert same_weights(first, second)


def test_checkpoint_of_another_recipe_is_refused(digits, make_net, tmp_path):
    path = tmp_path / "checkpoint.safetensors"
    short = TrainSettings(epochs=1, precision="fp32")
    train(make_net(), digits.train, short, checkpoint=path)
    net = make_net()
    before = copy.deepcopy(net)
    with pytest.raises(MismatchError, match="another training run") as error:
        train(net, digits.train, TrainSettings(epochs=1, lr=0.2, precision="fp32"), checkpoint=path)
    assert "lr=0.1" in str(error.value)
    assert "lr=0.2" in str(error.value)
    with pytest.raises(MismatchError):
        train(net, digits.train, short, checkpoint=path, seed=1)
    assert same_weights(net, before)


def test_checkpoint_of_another_network_is_refused(digits, make_net, tmp_path):
    path = tmp_path / "checkpoint.safetensors"
    settings = TrainSettings(epochs=1, precision="fp32")
    train(make_net(), digits.train, settings, checkpoint=path)
    wider = make_net()
    wider.fc = nn.Linear(256, 12)
    with pytest.raises(MismatchError, match="another training run") as error:
        train(wider, digits.train, settings, checkpoint=path)
    assert "fc.bias: (10,)" in str(error.value)
    assert "fc.bias: (12,)" in str(error.value)


def test_truncated_checkpoint_is_refused(digits, make_net, tmp_path):
    path = tmp_path / "checkpoint.safetensors"
    train(make_net(), digits.train, TrainSettings(epochs=1, precision="fp32"), checkpoint=path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ArtifactError, match="damaged"):
        train(make_net(), digits.train, TrainSettings(epochs=1, precision="fp32"), checkpoint=path)


def test_divergence_names_the_epoch_and_the_rate(digits, make_net, tmp_path):
    path = tmp_path / "checkpoint.safetensors"
    settings = TrainSettings(epochs=2, lr=1000.0, schedule="cosine", nesterov=False, precision="fp32")
    net = make_net()
    net.features = nn.Sequential(nn.Conv2d(3, 16, 3), nn.AdaptiveAvgPool2d(4))
    with pytest.raises(ModelError, match="diverged") as error:
        train(net, digits.train, settings, checkpoint=path)
    assert "epoch 1 of 2" in str(error.value)
    assert "lr=1000" in str(error.value)
    assert "lower learning rate" in str(error.value)
    assert not path.exists()


def test_no_images_is_a_data_error(digits, make_net):
    with pytest.raises(DataError, match="no images"):
        train(make_net(), digits.train.subset([]), SETTINGS)
    with pytest.raises(DataError, match="no images"):
        evaluate(make_net(), digits.train.subset([]))


def test_fewer_images_than_a_batch_still_train(digits, make_net):
    net = make_net()
    before = copy.deepcopy(net)
    train(net, digits.train.subset(range(10)), TrainSettings(epochs=1, batch_size=64, precision="fp32"))
    assert not same_weights(net, before)


def test_teacher_is_followed(digits, make_net):
    teacher = make_net()
    train(teacher, digits.train, SETTINGS)
    student = make_net()
    only_teacher = TrainSettings(epochs=4, batch_size=64, lr=0.05, distill_weight=1.0, precision="fp32")
    images = copy.copy(digits.train)
    images.labels = torch.zeros_like(images.labels)  # only the teacher can have taught the student
    train(student, images, only_teacher, teacher=teacher)
    assert evaluate(student, digits.test) > 0.7
    assert not teacher.training


def test_models_with_auxiliary_outputs_train(digits, make_net):
    class Auxiliary(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.main = make_net()

        def forward(self, x):
            scores = self.main(x)
            return (scores, scores * 0) if self.training else scores

    net = Auxiliary()
    train(net, digits.train, SETTINGS)
    assert evaluate(net, digits.test) > 0.8


def test_a_model_that_returns_no_class_scores_is_named(digits):
    with pytest.raises(ModelError, match="class scores"):
        train(nn.Conv2d(3, 4, 3), digits.train, SETTINGS)


@pytest.mark.parametrize("precision", ["fp32", "auto"])
def test_float32_accuracy_is_not_computed_in_tensorfloat32(digits, precision):
    seen = []

    class Watch(nn.Module):
        def forward(self, images):
            seen.append((torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32))
            return images.flatten(1)[:, :10]

    before = (torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32)
    evaluate(Watch(), digits.test.subset(range(8)), precision=precision)
    assert set(seen) == {(False, False) if precision == "fp32" else before}
    assert (torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32) == before


def test_accuracy_counts_and_restores_the_mode(digits):
    class Labels(nn.Module):
        """Always says class 3; says nothing right while training."""

        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1))

        def forward(self, x):
            scores = torch.zeros(len(x), 10)
            scores[:, 4 if self.training else 3] = 1
            return scores

    net = Labels().train()
    expected = (digits.test.labels == 3).double().mean().item()
    assert evaluate(net, digits.test, 100) == pytest.approx(expected)
    assert net.training


def test_the_last_epoch_may_be_a_part_of_one(digits, make_net, tmp_path):
    half = replace(SETTINGS, epochs=1.5)
    steps = len(digits.train) // half.batch_size
    whole, path = make_net(), tmp_path / "checkpoint.safetensors"
    history = train(whole, digits.train, half, seed=5)
    assert len(history.epochs) == 2
    assert history.epochs[-1].lr == learning_rate(half, round(1.5 * steps) - 1, steps)

    def interrupt(done: int, total: int, /, **figures: float) -> None:
        if done == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(make_net(), digits.train, half, seed=5, checkpoint=path, progress=interrupt)
    resumed = make_net()
    train(resumed, digits.train, half, seed=5, checkpoint=path)
    assert same_weights(whole, resumed)


def test_statistics_follow_the_final_weights(digits, make_net):
    """With a small momentum the running statistics lag behind by the whole training."""
    net = make_net()
    for part in net.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.momentum = 0.001
    train(net, digits.train, replace(SETTINGS, epochs=2), seed=0)
    first = net.features[0](digits.train.tensor())
    assert torch.allclose(net.features[1].running_mean, first.mean((0, 2, 3)), atol=0.02)
    assert net.features[1].momentum == 0.001


def test_progress_is_told_inside_long_epochs(digits, make_net, monkeypatch):
    monkeypatch.setattr(loop, "_TELL_EVERY_S", 0.0)
    told = []
    settings = replace(SETTINGS, epochs=2)
    train(
        make_net(),
        digits.train,
        settings,
        progress=lambda done, total, /, **figures: told.append((done, total, sorted(figures))),
    )
    steps = len(digits.train) // settings.batch_size
    assert [done for done, _, _ in told] == pytest.approx([step / steps for step in range(1, 2 * steps + 1)])
    assert {total for _, total, _ in told} == {2}
    assert [figures for _, _, figures in told[:2]] == [[], ["loss"]]  # the first only says where it begins
    assert told[-1] == (2, 2, ["loss", "lr", "top-1"])
