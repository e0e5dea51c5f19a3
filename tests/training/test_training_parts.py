"""Settings, schedules, optimiser, losses and precision."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.nn import functional

from hwprune.errors import ConfigError
from hwprune.training import precision
from hwprune.training.distill import Distilled
from hwprune.training.history import EpochFigures, History
from hwprune.training.optimiser import Optimiser
from hwprune.training.precision import Execution, choose_execution, has_fast_bf16, lay_out
from hwprune.training.schedule import learning_rate
from hwprune.training.settings import Recipe, TrainSettings
from hwprune.training.task import Classification

STEPS = 100


def rates(**options) -> list[float]:
    recipe = Recipe(epochs=4, lr=1.0, **options)
    return [learning_rate(recipe, step, STEPS) for step in range(4 * STEPS)]


def test_settings_name_every_problem_at_once():
    with pytest.raises(ConfigError) as error:
        TrainSettings(epochs=0, lr=-1, schedule="sine", distill_weight=2)
    for name in ("epochs=0", "lr=-1", "schedule='sine'", "distill_weight=2"):
        assert name in str(error.value)


def test_nesterov_needs_momentum():
    with pytest.raises(ConfigError, match="not possible") as error:
        Recipe(momentum=0.0)
    assert "nesterov" in str(error.value)
    assert Recipe(momentum=0.0, nesterov=False).momentum == 0


def test_settings_load_no_torch():
    code = (
        "import sys, hwprune.training.settings, hwprune.training.history; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_linear_falls_evenly():
    assert rates(schedule="linear") == pytest.approx([1 - step / 400 for step in range(400)])


def test_cosine_is_half_way_in_the_middle():
    values = rates(schedule="cosine")
    assert values[0] == 1
    assert values[200] == pytest.approx(0.5)
    assert values[-1] < 1e-3


def test_step_divides_by_ten_at_each_quarter():
    values = rates(schedule="step")
    assert [values[step] for step in (0, 99, 100, 200, 399)] == pytest.approx([1, 1, 0.1, 0.01, 0.001])


def test_onecycle_rises_then_falls():
    values = rates(schedule="onecycle")
    peak = values.index(max(values))
    assert peak == pytest.approx(120, abs=1)
    assert values[peak] == pytest.approx(1, abs=0.01)
    assert values[: peak + 1] == sorted(values[: peak + 1])
    assert values[peak:] == sorted(values[peak:], reverse=True)
    assert values[-1] < 1e-6


def test_warmup_comes_before_the_fall():
    values = rates(schedule="linear", warmup_epochs=1.0)
    assert values[0] == pytest.approx(0.01)
    assert values[99] == values[100] == 1
    assert values[101] < 1


def test_weight_decay_reaches_vectors_only_if_asked():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.fill_(1)
    for decay_all in (True, False):
        recipe = Recipe(lr=0.1, weight_decay=0.5, decay_all=decay_all, momentum=0, nesterov=False)
        before = [p.detach().clone() for p in net.parameters()]
        Optimiser(net, recipe).step(sum(0 * p.sum() for p in net.parameters()), lr=0.1)
        moved = [not torch.equal(p, b) for p, b in zip(net.parameters(), before, strict=True)]
        assert moved == ([True] * 4 if decay_all else [True, False, False, False])


def test_frozen_parameters_are_not_optimised():
    net = nn.Linear(3, 4)
    net.bias.requires_grad_(False)
    before = net.bias.clone()
    optimiser = Optimiser(net, Recipe())
    optimiser.step(net(torch.ones(2, 3)).sum(), lr=0.1)
    assert torch.equal(net.bias, before)
    assert optimiser.state(net.weight).keys() == {"momentum_buffer"}
    assert optimiser.state(net.bias) == {}


def test_a_gradient_that_was_left_there_takes_no_part():
    net = nn.Linear(2, 1)
    net.weight.grad = torch.full_like(net.weight, 100.0)
    before = net.weight.detach().clone()
    Optimiser(net, Recipe(weight_decay=0)).step(0 * net(torch.ones(1, 2)).sum(), lr=1.0)
    assert torch.equal(net.weight, before)


def steps_of(large, monkeypatch):
    """A small network after three steps, and its optimiser."""
    monkeypatch.setattr("hwprune.training.optimiser._LARGE", 1 if large else 10**9)
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 5))
    optimiser = Optimiser(net, Recipe(weight_decay=0.01, decay_all=False))
    for step in range(3):
        optimiser.step(net(torch.randn(6, 3, 4, 4)).square().sum(), lr=0.01 * (step + 1))
    return net, optimiser


def test_stepping_inside_backward_takes_the_same_steps(monkeypatch):
    (plain, first), (frugal, second) = steps_of(False, monkeypatch), steps_of(True, monkeypatch)
    assert second.in_backward
    assert not first.in_backward
    for one, other in zip(plain.parameters(), frugal.parameters(), strict=True):
        assert torch.equal(one, other)
        assert torch.equal(first.state(one)["momentum_buffer"], second.state(other)["momentum_buffer"])


def test_no_gradient_is_kept_and_a_closed_optimiser_takes_no_step(monkeypatch):
    net, optimiser = steps_of(True, monkeypatch)
    assert all(parameter.grad is None for parameter in net.parameters())
    optimiser.close()
    before = [parameter.detach().clone() for parameter in net.parameters()]
    net(torch.randn(6, 3, 4, 4)).sum().backward()
    assert all(torch.equal(p, b) for p, b in zip(net.parameters(), before, strict=True))


def test_label_smoothing_is_the_textbook_formula():
    torch.manual_seed(0)
    outputs, labels = torch.randn(5, 4), torch.tensor([0, 1, 2, 3, 0])
    target = functional.one_hot(labels, 4) * 0.9 + 0.1 / 4
    expected = -(target * outputs.log_softmax(1)).sum(1).mean()
    task = Classification.of(Recipe(label_smoothing=0.1))
    torch.testing.assert_close(task.loss(outputs, (torch.zeros(5, 1), labels)), expected)


def test_distillation_is_the_textbook_formula():
    torch.manual_seed(0)
    teacher = nn.Linear(6, 4)
    images, outputs, labels = torch.randn(5, 6), torch.randn(5, 4), torch.tensor([0, 1, 2, 3, 0])
    settings = TrainSettings(distill_weight=0.3, distill_temperature=2.0, label_smoothing=0.0)
    wanted = (teacher(images) / 2).softmax(1)
    divergence = (wanted * (wanted.log() - (outputs / 2).log_softmax(1))).sum(1).mean()
    expected = 0.7 * functional.cross_entropy(outputs, labels) + 0.3 * 4 * divergence
    task = Distilled(Classification.of(settings), teacher, settings)
    torch.testing.assert_close(task.loss(outputs, (images, labels)), expected)


def test_distillation_does_not_train_the_teacher():
    teacher, outputs = nn.Linear(6, 4), torch.randn(5, 4, requires_grad=True)
    task = Distilled(Classification(), teacher, TrainSettings())
    task.loss(outputs, (torch.randn(5, 6), torch.zeros(5, dtype=torch.int64))).backward()
    assert outputs.grad is not None
    assert teacher.weight.grad is None


def test_history_survives_json():
    history = History((EpochFigures(epoch=1, loss=2.0, top1=0.1, lr=0.5, seconds=1.5),))
    assert History.from_payload(history.to_payload()) == history


def test_channels_last_is_given_up_for_models_that_cannot_take_it():
    class Viewing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm, self.fc = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4 * 36, 10)

        def forward(self, x):
            x = self.norm(self.conv(x))
            return self.fc(x.view(len(x), -1))

    net = Viewing().train()
    images = torch.randn(2, 3, 8, 8)
    execution = choose_execution(net, images, "fp32", "auto")
    assert not execution.channels_last
    assert net.training
    assert torch.equal(net.norm.running_mean, torch.zeros(4))
    assert choose_execution(nn.Conv2d(3, 4, 3), images, "fp32", "auto").channels_last
    assert choose_execution(nn.Conv2d(3, 4, 3), images, "fp32", "off").channels_last is False


@pytest.mark.parametrize(
    ("layer", "last"),
    [
        (nn.Conv2d(7, 8, 1, stride=2), False),
        (nn.Conv2d(8, 8, 1, stride=2), True),
        (nn.Conv2d(7, 8, 1), True),
        (nn.Conv2d(7, 8, 3, stride=2), True),
    ],
)
def test_channels_last_is_given_up_where_onednn_writes_past_the_end(layer, last):
    images = torch.randn(2, layer.in_channels, 8, 8)
    for wish in ("auto", "on"):
        assert choose_execution(layer, images, "fp32", wish).channels_last is last
        assert choose_execution(layer, images, "fp32", wish, gradients=False).channels_last


def test_auto_precision_follows_the_device():
    cpu = torch.device("cpu")
    execution = choose_execution(nn.Conv2d(3, 4, 3), torch.randn(2, 3, 8, 8), "auto", "off")
    assert execution.bf16 == has_fast_bf16(cpu)
    assert not choose_execution(nn.Conv2d(3, 4, 3), torch.randn(2, 3, 8, 8), "fp32", "off").bf16


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_weights_are_laid_out_as_images_are_on_a_gpu_only(monkeypatch, device):
    monkeypatch.setattr(precision, "device_of", lambda module: torch.device(device))
    net = nn.Conv2d(3, 8, 3)
    before = net.weight
    assert choose_execution(net, torch.randn(2, 3, 8, 8), "fp32", "on").channels_last
    assert net.weight is before
    assert net.weight.is_contiguous(memory_format=torch.channels_last) == (device == "cuda")
    choose_execution(nn.Conv3d(3, 8, 3), torch.randn(2, 3, 8, 8), "fp32", "on")  # other layers are left
    choose_execution(other := nn.Conv2d(3, 8, 3), torch.randn(2, 3, 8, 8), "fp32", "off")
    assert other.weight.is_contiguous()


def test_placing_changes_the_layout_and_not_the_values():
    images = torch.randn(2, 3, 8, 8)
    placed = Execution(device=torch.device("cpu"), channels_last=True).place(images)
    assert placed.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(placed, images)
    assert math.prod(placed.shape) == images.numel()


@pytest.mark.parametrize(
    ("device", "last", "turned"), [("cuda", True, True), ("cuda", False, False), ("cpu", True, False)]
)
def test_weights_are_laid_out_for_a_gpu_whose_images_are_channels_last(device, last, turned):
    net = nn.Sequential(nn.Conv2d(8, 16, 3), nn.Conv3d(1, 1, 3))
    before = net[0].weight.detach().clone()
    lay_out(net, Execution(device=torch.device(device), channels_last=last))
    assert net[0].weight.is_contiguous(memory_format=torch.channels_last) == turned
    assert torch.equal(net[0].weight, before)
