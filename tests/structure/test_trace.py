"""Tracing: couplings, exclusions, freezing, and models that give the analysis trouble."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from oracle import assert_right
from torch import Tensor, nn

import hwprune
from hwprune.errors import HwpruneWarning, ModelError
from hwprune.structure.layers import Layer, Run
from hwprune.structure.prune import prune
from hwprune.structure.space import SearchSpace
from hwprune.structure.trace import trace

X = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def layer_of(space: SearchSpace, name: str) -> Layer:
    return next(layer for layer in space.layers if layer.name == name)


def check(model: nn.Module, space: SearchSpace, mixes: bool = False) -> None:
    assert_right(model, (torch.cat([X, X + 1]),), space, rng=np.random.default_rng(0), mixes=mixes)


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.inner = nn.Conv2d(8, 12, 3, padding=1)
        self.outer = nn.Conv2d(12, 8, 3, padding=1)
        self.head = nn.Linear(8 * 4, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = torch.relu(x + self.outer(torch.relu(self.inner(x))))
        return self.head(nn.functional.adaptive_avg_pool2d(x, 2).flatten(1))


def test_a_residual_add_couples_its_two_sides_and_flattening_repeats_channels() -> None:
    space = trace(Residual(), X)
    assert [(g.name, g.width) for g in space.groups] == [("stem", 8), ("inner", 12)]
    assert layer_of(space, "head").inputs.runs == (Run(0, 0, 8, repeat=4),)
    assert layer_of(space, "head").inputs.kept((3, 12)).tolist() == list(range(12))
    assert layer_of(space, "outer").outputs.groups == (0,)
    assert layer_of(space, "outer").inputs.groups == (1,)


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


def test_a_space_says_what_was_tried_before_it_was_returned() -> None:
    space = trace(Residual(), X)
    assert space.proof.proved
    assert space.proof.seconds > 0
    assert not SearchSpace("by hand", (1, 3, 16, 16), (), ()).proof.proved


def test_a_model_in_training_mode_stays_in_it() -> None:
    model = Residual().train()
    trace(model, X)
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())


def test_excluded_layers_keep_their_width() -> None:
    with pytest.warns(HwpruneWarning, match="inner is excluded"):
        space = trace(Residual(), X, exclude=["inn*"])
    assert [g.name for g in space.groups] == ["stem"]
    assert space.frozen["inner"] == "inner is excluded"


def test_a_pattern_that_excludes_nothing_is_told() -> None:
    with pytest.raises(ModelError, match="fits no layer") as caught:
        trace(Residual(), X, exclude=["iner"])
    assert "inner" in caught.value.allowed


class Chunked(nn.Module):
    """Both halves of the stem's channels lose equally many."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3)
        self.left, self.right = nn.Conv2d(4, 6, 1), nn.Conv2d(4, 6, 1)
        self.head = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        left, right = self.stem(x).chunk(2, 1)
        return self.head((self.left(left) * self.right(right)).mean((2, 3)))


def test_halves_are_pruned_in_step() -> None:
    model = Chunked()
    space = trace(model, X)
    assert {g.name: (g.width, g.multiple) for g in space.groups} == {"stem": (8, 2), "left": (6, 1)}
    assert layer_of(space, "stem").outputs.kept((6, 6)).tolist() == [0, 1, 2, 4, 5, 6]
    assert layer_of(space, "left").inputs.groups == layer_of(space, "right").inputs.groups == (0,)
    check(model, space)


class Normalised(nn.Module):
    def __init__(self, groups: int = 4) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 12, 3), nn.GroupNorm(groups, 12)
        self.head = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.norm(self.stem(x))).mean((2, 3)))


def test_norm_groups_lose_equally_many_channels() -> None:
    model = Normalised()
    space = trace(model, X)
    assert [(g.name, g.width, g.multiple) for g in space.groups] == [("stem", 12, 4)]
    assert layer_of(space, "stem").outputs.kept((8,)).tolist() == [0, 1, 3, 4, 6, 7, 9, 10]
    assert prune(model, space, (4,)).norm.num_groups == 4
    check(model, space, mixes=True)


class Grouped(nn.Module):
    def __init__(self, width: int = 12, groups: int = 4) -> None:
        super().__init__()
        self.stem, self.mix = nn.Conv2d(3, width, 1), nn.Conv2d(width, width, 3, groups=groups)
        self.head = nn.Linear(width, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.mix(self.stem(x)).mean((2, 3)))


def test_grouped_convolutions_lose_whole_conv_groups() -> None:
    model = Grouped()
    space = trace(model, X)
    (group,) = space.groups
    assert (group.width, group.multiple) == (12, 3)
    assert all(choice % 3 == 0 for choice in group.choices)
    pruned = prune(model, space, (6,))
    assert (pruned.mix.groups, tuple(pruned.mix.weight.shape)) == (2, (6, 3, 3, 3))


class SplitAtWidth(nn.Module):
    """Divides its channels by a number that it keeps; `code` writes the number into the code instead."""

    def __init__(self, code: bool = False) -> None:
        super().__init__()
        self.width = 0 if code else 5
        self.stem, self.inner = nn.Conv2d(3, 12, 3, padding=1), nn.Conv2d(7, 6, 1)
        self.head = nn.Linear(5 + 6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        at = self.width or 5
        left, right = x[:, :at], x[:, at:]
        return self.head(torch.cat([left, self.inner(right)], 1).mean((2, 3)))


def test_a_split_at_an_attribute_follows_when_the_attribute_is_set_along() -> None:
    model = SplitAtWidth()
    space = trace(model, X)
    (attribute,) = space.attributes
    assert (attribute.module, attribute.name, attribute.index, attribute.size.size) == ("", "width", -1, 5)
    widths = space.smallest()
    pruned = prune(model, space, widths)
    assert pruned.width == int(attribute.size.count(widths)) < model.width == 5
    check(model, space)


def test_a_split_at_a_number_in_the_code_freezes_and_says_so() -> None:
    model = SplitAtWidth(code=True)
    with pytest.warns(HwpruneWarning, match="stem"):
        space = trace(model, X)
    assert not space.attributes
    assert {g.name: g.width for g in space.groups} == {"stem": 7, "inner": 6}
    assert space.frozen["stem"].startswith("5 of 12 channels stay: Slice in ")
    assert "written in the model's code" in space.frozen["stem"]
    check(model, space)


def test_the_classifier_is_never_pruned() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))
    with warnings.catch_warnings():
        warnings.simplefilter("error", HwpruneWarning)  # that is no news
        space = trace(model, X)
    head = next(layer for layer in space.layers if layer.op == "linear")
    assert head.outputs.groups == ()
    assert head.outputs.size == 4
    assert "output" in space.frozen[head.name]


class SeveralOutputs(Residual):
    """Features are an output too, in a dict."""

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = self.stem(x)
        inner = torch.relu(self.inner(x))
        pooled = nn.functional.adaptive_avg_pool2d(self.outer(inner) + x, 2)
        return {"logits": self.head(pooled.flatten(1)), "inner": inner}


def test_no_output_of_several_is_pruned() -> None:
    model = SeveralOutputs()
    space = trace(model, X)
    assert [g.name for g in space.groups] == ["stem"]
    assert "output" in space.frozen["inner"]
    check(model, space)


def test_several_inputs_are_given_as_a_tuple() -> None:
    class Two(Residual):
        def forward(self, x: Tensor, mask: Tensor) -> Tensor:
            return super().forward(x * mask)

    model, inputs = Two(), (torch.cat([X, X + 1]), torch.rand(2, 1, 16, 16))
    space = trace(model, inputs)
    assert [(g.name, g.width) for g in space.groups] == [("stem", 8), ("inner", 12)]
    assert_right(model, inputs, space, rng=np.random.default_rng(0))


def test_a_model_that_does_not_run_says_so() -> None:
    with pytest.raises(ModelError, match="does not run") as caught:
        trace(nn.Sequential(nn.Conv2d(4, 8, 3)), X)
    assert "shape" in str(caught.value)


def test_a_model_without_outputs_says_so() -> None:
    class Silent(Residual):
        def forward(self, x: Tensor) -> None:
            super().forward(x)

    with pytest.raises(ModelError, match="returns no tensor"):
        trace(Silent(), X)


def test_a_model_that_rolls_dice_says_so() -> None:
    class Noisy(Residual):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x + torch.randn_like(x))

    with pytest.raises(ModelError, match="differ between two equal calls"):
        trace(Noisy(), X)


def test_a_model_with_nothing_to_prune_says_so() -> None:
    with pytest.raises(ModelError, match="Nothing"):
        trace(nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 4)), X)


class ConcatThenFlatten(nn.Module):
    """A concat goes into the linear layer behind a flattened 2x2 map."""

    def __init__(self) -> None:
        super().__init__()
        self.free, self.stem, self.side = nn.Conv2d(3, 16, 1), nn.Conv2d(16, 24, 3), nn.Conv2d(24, 8, 1)
        self.head = nn.Linear(32 * 4, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(torch.relu(self.free(x))))
        x = torch.cat([x, torch.relu(self.side(x))], 1)
        return self.head(nn.functional.adaptive_avg_pool2d(x, 2).flatten(1))


def test_channels_are_followed_through_a_concat_and_a_flatten() -> None:
    model = ConcatThenFlatten()
    space = trace(model, X)
    assert {g.name: g.width for g in space.groups} == {"free": 16, "stem": 24, "side": 8}
    assert layer_of(space, "head").inputs.runs == (Run(1, 0, 24, repeat=4), Run(2, 0, 8, repeat=4))
    check(model, space)


def test_prelu_with_a_weight_for_each_channel_is_pruned_with_its_channels() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.PReLU(8), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)
    )
    space = trace(model, X)
    assert [g.width for g in space.groups] == [8]
    assert tuple(prune(model, space, (3,))[1].weight.shape) == (3,)


class Paths(nn.Module):
    """Takes the way that the largest pixel asks for."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.a, self.b = (nn.Conv2d(c, 16, 3, padding=1) for c in (3, 16, 16))
        self.head = nn.Conv2d(16, 5, 1)

    def forward(self, x):
        y = self.stem(x)
        return self.head(self.a(y) if x.max() > 1 else self.b(y))


class Auxiliary(nn.Module):
    """Has a head that only training uses."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 16, 3)
        self.aux, self.head = nn.Conv2d(16, 5, 1), nn.Conv2d(16, 5, 1)

    def forward(self, x):
        y = self.a(x).relu()
        z = self.head(self.b(y).relu())
        return (z, self.aux(y)) if self.training else z


class Halved(nn.Module):
    """Splits by one of two numbers that are equal by chance."""

    def __init__(self) -> None:
        super().__init__()
        self.half = self.num_classes = 8
        self.a, self.b, self.head = nn.Conv2d(3, 16, 3), nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(16, 8, 1)

    def forward(self, x):
        one, other = self.a(x).relu().split([self.half, self.half], 1)
        return self.head(torch.cat([self.b(one), other], 1))


class Wide(nn.Module):
    """Computes something else where few channels are left."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = nn.Conv2d(3, 32, 3), nn.Conv2d(32, 16, 3), nn.Conv2d(16, 5, 1)

    def forward(self, x):
        y = self.a(x)
        return self.head(self.b(y.relu() if y.shape[1] >= 8 else y))


class Tokens(nn.Module):
    """A linear layer on a sequence: its weight is transposed in the graph."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.head = nn.Conv2d(3, 16, 3), nn.Linear(16, 5, bias=False)

    def forward(self, x):
        return self.head(self.a(x).flatten(2).transpose(1, 2))


def traced(model, size=16):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", HwpruneWarning)
        return hwprune.trace(model.eval(), torch.randn(2, 3, size, size))


def test_a_path_that_depends_on_the_data_is_refused():
    with pytest.raises(ModelError, match="path changes with the data"):
        traced(Paths())


def test_layers_that_only_training_uses_go_on_working():
    model = Auxiliary()
    space = traced(model)
    assert [group.name for group in space.groups] == ["b"]
    assert "only training uses" in space.frozen["a"]
    assert "eval mode" in space.frozen["aux"]
    hwprune.prune(model, space, space.smallest()).train()(torch.randn(2, 3, 16, 16))


def test_numbers_that_forward_does_not_read_stay():
    model = Halved()
    space = traced(model)
    pruned = hwprune.prune(model, space, space.uniform(0.5))
    assert (pruned.half, pruned.num_classes) == (4, 8)


def test_what_only_wide_networks_do_freezes():
    space = traced(Wide())
    assert [group.name for group in space.groups] == ["b"]
    assert "sliced ONNX" in space.frozen["a"]


def test_a_transposed_weight_is_followed():
    assert [(group.name, group.width) for group in traced(Tokens()).groups] == [("a", 16)]


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("resnet", "no model"),
        (torch.jit.script(nn.Conv2d(3, 8, 3)), "no model"),
        (nn.Conv2d(3, 8, 3, dtype=torch.bfloat16), "format"),
        (nn.Conv2d(3, 8, 3, device="meta"), "no weights yet"),
        (nn.LazyConv2d(8, 3), "no weights yet"),
    ],
    ids=["text", "script", "bfloat16", "meta", "lazy"],
)
def test_what_is_no_model_to_prune_is_said(model, words):
    with pytest.raises(ModelError, match=words):
        hwprune.trace(model, torch.randn(1, 3, 8, 8))


def test_another_model_than_the_traced_one_is_refused():
    space = traced(Halved())
    with pytest.raises(ModelError, match="not the model"):
        hwprune.prune(Tokens(), space, space.uniform(0.5))
    other = hwprune.export_base(Tokens(), (1, 3, 16, 16))
    with pytest.raises(ModelError, match="not the unpruned model"):
        hwprune.slice_onnx(other, space, space.uniform(0.5))
