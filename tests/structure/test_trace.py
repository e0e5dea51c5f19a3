"""Tracing: couplings, exclusions, freezing, and models that give the analysis trouble."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch
from torch import nn

from hwprune.errors import HwpruneWarning, ModelError
from hwprune.structure.deadline import DeadlineExceeded, deadline
from hwprune.structure.layers import FROZEN
from hwprune.structure.prune import prune
from hwprune.structure.trace import encode_runs, trace
from hwprune.structure.trial import broken_groups

X = torch.randn(1, 3, 16, 16)


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.inner = nn.Conv2d(8, 12, 3, padding=1)
        self.outer = nn.Conv2d(12, 8, 3, padding=1)
        self.head = nn.Linear(8 * 4, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        x = torch.relu(x + self.outer(torch.relu(self.inner(x))))
        return self.head(nn.functional.adaptive_avg_pool2d(x, 2).flatten(1))


def test_a_residual_add_couples_its_two_sides_and_flattening_repeats_channels() -> None:
    space = trace(Residual(), X)
    assert [(g.name, g.width) for g in space.groups] == [("stem", 8), ("inner", 12)]
    head = next(layer for layer in space.layers if layer.name == "head")
    assert [(run.group, run.length, run.repeat) for run in head.inputs.runs] == [(0, 8, 4)]
    assert head.inputs.kept((3, 12)).tolist() == list(range(12))
    outer = next(layer for layer in space.layers if layer.name == "outer")
    assert outer.outputs.groups == (0,)
    assert outer.inputs.groups == (1,)


def test_pruning_keeps_the_leading_channels_and_leaves_the_model_alone() -> None:
    model = Residual()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    pruned = prune(model, trace(model, X), (3, 5))
    assert torch.equal(pruned.inner.weight, before["inner.weight"][:5, :3])
    assert (pruned.inner.in_channels, pruned.inner.out_channels, pruned.head.in_features) == (3, 5, 12)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_removing_channels_equals_silencing_them() -> None:
    model = Residual().eval()
    pruned = prune(model, trace(model, X), (8, 5))
    with torch.no_grad():
        model.outer.weight[:, 5:] = 0
        assert torch.allclose(pruned(X), model(X), atol=1e-6)


def test_excluded_layers_keep_their_width() -> None:
    with pytest.warns(HwpruneWarning, match="inner is excluded"):
        space = trace(Residual(), X, exclude=["inn*"])
    assert [g.name for g in space.groups] == ["stem"]
    assert space.frozen["inner"] == "inner is excluded"


class Chunked(nn.Module):
    """Splits its channels in halves: pruning the leading ones would move the border."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3)
        self.left, self.right = nn.Conv2d(4, 6, 1), nn.Conv2d(4, 6, 1)
        self.head = nn.Linear(6, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        left, right = self.stem(x).chunk(2, 1)
        return self.head((self.left(left) * self.right(right)).mean((2, 3)))


def test_a_group_that_breaks_the_model_is_frozen_and_the_rest_is_pruned() -> None:
    with pytest.warns(HwpruneWarning, match="stem"):
        space = trace(Chunked(), X)
    assert "left" in [g.name for g in space.groups]
    assert "stem" in space.frozen
    widths = space.smallest()
    assert prune(Chunked(), space, widths)(X).shape == (1, 5)


class Grouped(nn.Module):
    def __init__(self, width: int = 12, groups: int = 4) -> None:
        super().__init__()
        self.stem, self.mix = nn.Conv2d(3, width, 1), nn.Conv2d(width, width, 3, groups=groups)
        self.head = nn.Linear(width, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.mix(self.stem(x)).mean((2, 3)))


def test_grouped_convolutions_lose_whole_conv_groups() -> None:
    model = Grouped()
    space = trace(model, X)
    (group,) = space.groups
    assert (group.width, group.multiple) == (12, 3)
    assert all(choice % 3 == 0 for choice in group.choices)
    pruned = prune(model, space, (6,))
    assert (pruned.mix.groups, tuple(pruned.mix.weight.shape)) == (2, (6, 3, 3, 3))


def test_the_classifier_is_never_pruned() -> None:
    space = trace(
        nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)), X
    )
    head = next(layer for layer in space.layers if layer.op == "linear")
    assert head.outputs.groups == ()
    assert head.outputs.size == 4


def test_a_model_that_does_not_run_says_so() -> None:
    with pytest.raises(ModelError, match="does not run") as caught:
        trace(nn.Sequential(nn.Conv2d(4, 8, 3)), X)
    assert "shape" in str(caught.value)


def test_a_model_with_nothing_to_prune_says_so() -> None:
    with pytest.raises(ModelError, match="Nothing"):
        trace(nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 4)), X)


def test_analysis_stops_at_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    def explode(*_: object, **__: object) -> None:
        while True:
            pass

    monkeypatch.setattr("torch_pruning.DependencyGraph.get_pruning_group", explode)
    with pytest.raises(ModelError, match="Nothing") as caught:
        trace(Residual(), X, max_seconds=4.0)
    assert "did not end within" in str(caught.value)


def test_trials_stop_at_their_limit_and_freeze_what_was_not_tried() -> None:
    space = trace(Residual(), X)
    found = broken_groups(Residual(), space, (X,), stop=time.thread_time() - 1.0)
    assert sorted(found) == list(range(len(space.groups)))
    assert set(found.values()) == {"there was no time left to try it"}


def _work_for_ever() -> None:
    with deadline(0.05):
        while True:
            pass


def test_deadline_interrupts_and_leaves_no_trace() -> None:
    with pytest.raises(DeadlineExceeded):
        _work_for_ever()
    with deadline(0.5):
        pass
    time.sleep(0.7)  # a late exception would arrive here


@pytest.mark.skipif(
    not hasattr(time, "pthread_getcpuclockid"), reason="this system keeps no clock of a thread"
)
def test_time_that_other_programs_had_does_not_count() -> None:
    with deadline(0.2):
        time.sleep(0.6)
    with pytest.raises(DeadlineExceeded):
        _work_for_ever()


@pytest.mark.parametrize(
    ("group_of", "root_of"),
    [
        ([0, 0, 0], [0, 1, 2]),
        ([0, 0, 1, 1, 1, 1], [4, 5, 0, 0, 1, 1]),
        ([FROZEN, FROZEN, 0, 0, FROZEN], [0, 0, 2, 1, 0]),
        ([0, 0, 0, 0, 0], [0, 0, 1, 1, 2]),
    ],
)
def test_runs_describe_any_mapping(group_of: list[int], root_of: list[int]) -> None:
    channels = encode_runs(np.array(group_of), np.array(root_of))
    assert channels.size == len(group_of)
    for first in range(1, 7):
        for second in range(1, 4):
            widths = (first, second)
            expected = [
                i
                for i, (group, root) in enumerate(zip(group_of, root_of, strict=True))
                if group == FROZEN or root < widths[group]
            ]
            assert channels.kept(widths).tolist() == expected
            assert int(channels.count(widths)) == len(expected)


class ConcatThenFlatten(nn.Module):
    """Torch-Pruning does not follow a concat into the linear layer behind a flattened 2x2 map."""

    def __init__(self) -> None:
        super().__init__()
        self.free, self.stem, self.side = nn.Conv2d(3, 16, 1), nn.Conv2d(16, 24, 3), nn.Conv2d(24, 8, 1)
        self.head = nn.Linear(32 * 4, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.stem(torch.relu(self.free(x))))
        x = torch.cat([x, torch.relu(self.side(x))], 1)
        return self.head(nn.functional.adaptive_avg_pool2d(x, 2).flatten(1))


def test_channels_that_cannot_be_followed_are_frozen() -> None:
    with pytest.warns(HwpruneWarning, match="stem: its channels cannot be followed"):
        space = trace(ConcatThenFlatten(), X)
    assert [g.name for g in space.groups] == ["free"]
    assert prune(ConcatThenFlatten(), space, space.smallest())(X).shape == (1, 10)


def test_prelu_with_a_weight_for_each_channel_is_pruned_with_its_channels() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.PReLU(8), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)
    )
    space = trace(model, X)
    assert [g.width for g in space.groups] == [8]
    assert tuple(prune(model, space, (3,))[1].weight.shape) == (3,)
