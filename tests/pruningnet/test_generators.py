"""Weight generators against direct, slow references."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torchvision
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from hwprune.errors import UsageError
from hwprune.pruningnet.crop import Crop
from hwprune.pruningnet.generators import CroppedWeight, FcWeight, ResidualWeight
from hwprune.pruningnet.net import PruningNet
from hwprune.structure.layers import ChannelMap, Run
from hwprune.structure.trace import trace

WIDE, NARROW = 24, 12
OUT = ChannelMap((Run(0, 0, WIDE),))
IN = ChannelMap((Run(1, 0, NARROW),))
CONCAT = ChannelMap((Run(1, 0, NARROW), Run(-1, 0, 2), Run(0, 0, WIDE)))  # kept channels with gaps


def make(shape=(WIDE, NARROW, 3, 3), axes=((0, OUT), (1, IN)), hidden=32) -> FcWeight:
    torch.manual_seed(0)
    return FcWeight(shape, axes, ((0, WIDE), (1, NARROW)), hidden)


def papers_weight(generator: FcWeight, widths: tuple[int, int]) -> torch.Tensor:
    """MetaPruning's block as published, before its crop: generate all, reshape."""
    encoding = torch.tensor([widths[0] / WIDE, widths[1] / NARROW])
    hidden = functional.relu(functional.linear(encoding, generator.first.weight, generator.first.bias))
    rows = generator.rows.reshape(-1, generator.rows.shape[-1])
    return functional.linear(hidden, rows, generator.row_bias.reshape(-1)).view(generator.row_bias.shape)


@pytest.mark.parametrize("widths", [(24, 12), (7, 12), (24, 1), (2, 5)])
def test_cropping_first_equals_the_papers_formula(widths):
    generator = make()
    expected = papers_weight(generator, widths)[: widths[0], : widths[1]]
    got = generator.weight(widths)
    assert got.shape == (widths[0], widths[1], 3, 3)
    torch.testing.assert_close(got, expected)


@pytest.mark.parametrize(
    ("shape", "axes"),
    [
        ((WIDE, NARROW, 3, 3), ((0, OUT), (1, IN))),
        ((WIDE, 1, 3, 3), ((0, OUT),)),
        ((WIDE, CONCAT.size, 1, 1), ((0, OUT), (1, CONCAT))),
        ((WIDE, NARROW, 5), ((0, OUT), (1, IN))),
    ],
    ids=["conv", "depthwise", "concat", "conv1d"],
)
def test_gradients_equal_the_papers_formula(shape, axes):
    first, second = make(shape, axes), make(shape, axes)
    widths = (7, 5)
    kept = [channels.kept(widths) for _, channels in axes]
    expected = papers_weight(second, widths)[kept[0]]
    expected = expected[:, kept[1]] if len(kept) > 1 else expected
    target = torch.randn(expected.shape)
    (first.weight(widths) * target).sum().backward()
    (expected * target).sum().backward()
    for ours, theirs in zip(first.parameters(), second.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)


class Allocations(TorchDispatchMode):
    """Elements of every block of memory that operations make while it is on, views not counted."""

    def __init__(self) -> None:
        super().__init__()
        self.made: dict[int, torch.UntypedStorage] = {}
        self.sizes: list[int] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        before = {one.untyped_storage().data_ptr() for one in args if isinstance(one, torch.Tensor)}
        for tensor in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(tensor, torch.Tensor) and tensor.untyped_storage().data_ptr() not in before:
                storage = tensor.untyped_storage()
                if storage.data_ptr() not in self.made:
                    self.made[storage.data_ptr()] = storage  # held, so that no address comes twice
                    self.sizes.append(storage.nbytes() // tensor.element_size())
        return result


def test_generating_copies_no_rows_and_makes_one_gradient_of_them():
    generator, widths = make(), (7, 5)
    weight = 7 * 5 * 3 * 3
    with Allocations() as forward:
        made = generator.weight(widths)
    assert max(forward.sizes) == max(weight, generator.rows.shape[-1])
    with Allocations() as backward:
        made.backward(torch.ones_like(made))
    large = [size for size in backward.sizes if size >= weight * generator.rows.shape[-1]]
    assert large == [generator.rows.numel()]


def test_gradients_reach_the_kept_rows_alone():
    generator = make()
    generator.weight((7, 5)).sum().backward()
    for grad in (generator.rows.grad, generator.row_bias.grad):
        kept = torch.zeros(WIDE, NARROW, dtype=torch.bool)
        kept[:7, :5] = True
        touched = grad.flatten(2).abs().amax(2) > 0
        assert torch.equal(touched, kept)
    assert generator.first.weight.grad.abs().max() > 0


def test_depthwise_and_concat_weights():
    depthwise = make((WIDE, 1, 3, 3), ((0, OUT),))
    assert depthwise.weight((9, 4)).shape == (9, 1, 3, 3)
    concat = make((WIDE, CONCAT.size, 1, 1), ((0, OUT), (1, CONCAT)))
    kept = torch.from_numpy(CONCAT.kept((9, 4)))
    full = torch.matmul(concat.rows, torch.relu(concat.first(concat.encoding((9, 4))))) + concat.row_bias
    torch.testing.assert_close(concat.weight((9, 4)), full[:9][:, kept])


def test_weights_depend_on_the_encoding():
    generator = make()
    wide, narrow = generator.weight((24, 12))[:7, :5], generator.weight((7, 5))
    assert (wide - narrow).abs().mean() > 0.01 * wide.abs().mean()


@pytest.mark.parametrize("hidden", [16, 32, 64])
def test_initial_weights_have_the_scale_of_he(hidden):
    fan_in = 64 * 9
    torch.manual_seed(1)
    wide, deep = ChannelMap((Run(0, 0, 64),)), ChannelMap((Run(1, 0, 64),))
    generator = FcWeight((64, 64, 3, 3), ((0, wide), (1, deep)), ((0, 64), (1, 64)), hidden)
    he = (2 / fan_in) ** 0.5
    assert generator.weight((64, 64)).std().item() == pytest.approx(he, rel=0.05)
    for widths in ((6, 6), (64, 6), (6, 64), (32, 32)):
        assert 0.6 * he < generator.weight(widths).std().item() < 1.3 * he


def test_generation_stays_in_float32_under_autocast():
    generator = make()
    expected = generator.weight((7, 5))
    with torch.autocast("cpu", torch.bfloat16):
        got = generator.weight((7, 5))
    assert got.dtype == torch.float32
    assert torch.equal(got, expected)


def test_cropped_weight_is_the_leading_block():
    full = torch.randn(WIDE, NARROW, 3, 3)
    generator = CroppedWeight(full, ((0, OUT), (1, IN)))
    assert torch.equal(generator.weight((7, 5)), full[:7, :5])
    assert generator.weight((24, 12)).data_ptr() == generator.full.data_ptr()  # cropping copies nothing


def test_crop_equals_numpy_indexing():
    rng = np.random.default_rng(0)
    tensor = torch.randn(WIDE, CONCAT.size, 2)
    crop = Crop(((0, OUT), (1, CONCAT)))
    for _ in range(20):
        widths = (int(rng.integers(1, WIDE + 1)), int(rng.integers(1, NARROW + 1)))
        expected = tensor.numpy()[np.ix_(OUT.kept(widths), CONCAT.kept(widths), range(2))]
        assert np.array_equal(crop(tensor, widths).numpy(), expected)


def test_unknown_generator_is_refused(model, space):
    with pytest.raises(UsageError, match="no such weight generator") as error:
        PruningNet(model, space, "shard")
    assert "shared" in str(error.value)


def test_a_residual_network_starts_as_the_trained_one_cropped(model, space):
    net, plain = PruningNet(model, space, "residual"), PruningNet(model, space, "shared")
    x = torch.randn(2, 3, 16, 16)
    for widths in (space.full(), space.uniform(0.5), space.smallest()):
        net.set_widths(widths)
        plain.set_widths(widths)
        with torch.no_grad():
            torch.testing.assert_close(net.eval()(x), plain.eval()(x))


def test_residual_gains_rescale_the_channels_that_are_kept():
    torch.manual_seed(0)
    full = torch.randn(WIDE, NARROW, 3, 3)
    generator = ResidualWeight(full, ((0, OUT), (1, IN)), ((0, WIDE), (1, NARROW)), 8)
    for gain in generator.gains:
        torch.nn.init.normal_(gain.weight)
        torch.nn.init.normal_(gain.bias)
    widths = (7, 5)
    hidden = torch.relu(generator.first(torch.tensor([7 / WIDE, 5 / NARROW])))
    u, v = (1 + gain(hidden) for gain in generator.gains)
    expected = full[:7, :5] * u[:7, None, None, None] * v[None, :5, None, None]
    torch.testing.assert_close(generator.weight(widths), expected)
    assert not torch.equal(generator.weight((24, 12))[:7, :5], generator.weight(widths))


def test_every_part_of_a_residual_generator_learns(model, space):
    net = PruningNet(model, space, "residual").train()
    x, labels = torch.randn(8, 3, 16, 16), torch.arange(8)
    optimiser = torch.optim.SGD(net.parameters(), lr=0.1)
    for _ in range(2):  # the gains start at zero, so what is before them learns from the second step on
        optimiser.zero_grad()
        functional.cross_entropy(net(x), labels).backward()
        optimiser.step()
    idle = [n for n, p in net.named_parameters() if p.requires_grad and not bool(p.grad.abs().any())]
    assert idle == []


def test_the_residual_generator_of_resnet50_needs_little_more_than_the_network():
    model = torchvision.models.resnet50()
    space = trace(model, torch.zeros(1, 3, 64, 64))
    own = sum(p.numel() for p in model.parameters())
    made = sum(p.numel() for p in PruningNet(model, space, "residual").parameters())
    assert own < made <= 1.3 * own
