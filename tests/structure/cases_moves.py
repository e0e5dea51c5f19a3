"""Channels that are moved: concatenated, padded, flattened, split, shuffled, repeated."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from cases_base import Head, Net, case, cbr, conv, vector
from torch import nn


def pair(outputs: int = 16, reads: int = 16, size: int = 5) -> Net:
    """Two convolutions with room for an operator between them."""
    return Net(a=conv(3, outputs), b=conv(reads, size, 1))


def flat(reads: int, outputs: int = 16) -> Net:
    """A convolution and a linear layer with room for a flattening between them."""
    return Net(a=conv(3, outputs, stride=4), fc=nn.Linear(reads, 5))


@case(lambda: pair(reads=19), groups={"a": 16}, prunable="a", frozen="b")
def image_in_front(net, x):
    return net.b(torch.cat([x, net.a(x)], 1))


@case(lambda: pair(reads=19), groups={"a": 16}, prunable="a", frozen="b")
def image_behind(net, x):
    return net.b(torch.cat([net.a(x).relu(), x], 1))


@case(
    lambda: Net(a=conv(3, 8), b=conv(3, 12), c=conv(23, 5)),
    groups={"a": 8, "b": 12},
    prunable="a b",
    frozen="c",
)
def image_in_the_middle(net, x):
    return net.c(torch.cat([net.a(x), x, net.b(x)], 1))


@case(lambda: pair(reads=32), groups={"a": 16}, prunable="a", frozen="b")
def the_same_map_twice(net, x):
    y = net.a(x)
    return net.b(torch.cat([y, y.sigmoid()], 1))


@case(
    lambda: Net(c=conv(3, 16, 1), a=conv(3, 8, 1), b=conv(3, 8, 1), h=conv(16, 5, 1)),
    prunable="a b c",
    frozen="h",
)
def a_sum_over_a_concat(net, x):
    return net.h(net.c(x) + torch.cat([net.a(x), net.b(x)], 1))


@case(
    lambda: Net(a=conv(3, 8), b=conv(8, 8), c=conv(16, 8), d=conv(24, 12), head=Head(36)),
    prunable="a b c d",
    frozen="head.fc",
)
def dense_block(net, x):
    maps = [net.a(x)]
    for layer in (net.b, net.c, net.d):
        maps.append(layer(torch.cat(maps, 1).relu()))
    return net.head(torch.cat(maps, 1))


def shortcut() -> Net:
    return Net(a=cbr(3, 8), inner=cbr(8, 12, stride=2), b=conv(12, 16), h=conv(16, 5, 1))


@case(shortcut, prunable="a.0 inner.0", frozen="h")
def shortcut_padded(net, x):
    x = net.a(x)
    return net.h(net.b(net.inner(x)) + F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 4, 4)))


@case(shortcut, prunable="a.0 inner.0", frozen="h")
def shortcut_padded_behind(net, x):
    x = net.a(x)
    return net.h((net.b(net.inner(x)) + F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 0, 8))).relu())


@case(shortcut, prunable="inner.0", frozen="h")
def shortcut_with_new_zeros(net, x):
    x = net.a(x)
    short = F.avg_pool2d(x, 2)
    return net.h(net.b(net.inner(x)) + torch.cat([short, short.new_zeros(short.shape)], 1))


@case(shortcut, prunable="inner.0", frozen="h")
def shortcut_with_fixed_zeros(net, x):
    x = net.a(x)
    short = F.max_pool2d(x, 2)
    zeros = torch.zeros(len(x), 8, short.shape[2], short.shape[3])
    return net.h(net.b(net.inner(x)) + torch.cat([zeros, short], 1))


@case(shortcut, prunable="inner.0", frozen="h")
def shortcut_with_a_map_times_zero(net, x):
    x = net.a(x)
    short = x[:, :, ::2, ::2]
    return net.h(net.b(net.inner(x)) + torch.cat([short.mul(0), short], 1))


@case(pair, frozen="b")
def flipped(net, x):
    return net.b(net.a(x).flip(1))


@case(pair, frozen="b")
def rolled(net, x):
    return net.b(torch.roll(net.a(x), 3, 1))


@case(lambda: Net(a=conv(3, 16), b=conv(16, 5, 1), order=torch.randperm(16)), frozen="a b")
def in_another_order(net, x):
    return net.b(net.a(x)[:, net.order])


@case(lambda: pair(reads=4), frozen="b")
def picked_by_a_list(net, x):
    return net.b(net.a(x)[:, [0, 3, 3, 9]])


@case(lambda: Net(a=conv(3, 16), b=conv(16, 8), h=conv(8, 5)), prunable="b", frozen="h")
def rolled_by_half(net, x):
    y = net.a(x)
    return net.h(net.b(torch.roll(y, y.shape[1] // 2, 1)))


@case(lambda: flat(256), groups={"a": 16}, prunable="a", frozen="fc")
def flattened(net, x):
    return net.fc(torch.flatten(net.a(x).relu(), 1))


@case(lambda: flat(256), groups={"a": 16}, prunable="a", frozen="fc")
def flattened_channels_last(net, x):
    return net.fc(net.a(x).permute(0, 2, 3, 1).flatten(1))


@case(lambda: flat(256), groups={"a": 16}, prunable="a", frozen="fc")
def flattened_rows_first(net, x):
    return net.fc(net.a(x).permute(0, 2, 1, 3).flatten(1))


@case(lambda: flat(256), groups={"a": 16}, prunable="a", frozen="fc")
def viewed_by_size(net, x):
    y = net.a(x)
    return net.fc(y.view(y.size(0), -1))


@case(lambda: flat(256), groups={"a": 16}, prunable="a", frozen="fc")
def viewed_by_batch(net, x):
    n = x.shape[0]
    return net.fc(F.relu(net.a(x)).reshape(n, -1))


@case(lambda: Net(a=conv(3, 16), b=conv(16, 12, stride=4), fc=nn.Linear(192, 5)), prunable="a", frozen="fc b")
def viewed_by_a_number(net, x):
    return net.fc(net.b(net.a(x)).view(-1, 12 * 4 * 4))


@case(lambda: flat(64), groups={"a": 16}, prunable="a", frozen="fc")
def pooled_to_two_by_two(net, x):
    return net.fc(F.adaptive_avg_pool2d(net.a(x), 2).flatten(1))


@case(lambda: Net(a=conv(3, 8), b=conv(3, 4), fc=nn.Linear(48, 5)), prunable="a b", frozen="fc")
def flattened_concat(net, x):
    return net.fc(F.adaptive_max_pool2d(torch.cat([net.a(x), net.b(x)], 1), 2).flatten(1))


@case(lambda: Net(fc=nn.Linear(6, 64), b=conv(16, 8), h=conv(8, 5)), (2, 6), prunable="b", frozen="h fc")
def unflattened_by_numbers(net, x):
    return net.h(net.b(F.relu(net.fc(x)).unflatten(1, (16, 2, 2))))


@case(lambda: Net(fc=nn.Linear(6, 64), b=conv(16, 8), h=conv(8, 5)), (2, 6), prunable="b", frozen="h")
def unflattened_to_what_is_left(net, x):
    return net.h(net.b(F.relu(net.fc(x)).view(len(x), -1, 2, 2)))


def halves(reads: int = 8) -> Net:
    return Net(a=cbr(3, 8), grow=conv(8, 16), b=conv(reads, 12), h=conv(12, 5))


@case(halves, prunable="a.0 grow b", frozen="h")
def gate(net, x):
    left, right = net.grow(net.a(x)).chunk(2, 1)
    return net.h(net.b(left * right.sigmoid()))


@case(halves, prunable="a.0 grow b", frozen="h")
def glu(net, x):
    return net.h(net.b(F.glu(net.grow(net.a(x)), 1)))


@case(halves, prunable="a.0 b", frozen="h")
def halves_as_slices(net, x):
    y = net.grow(net.a(x))
    half = y.shape[1] // 2
    return net.h(net.b(y[:, :half] + y[:, half:].tanh()))


@case(halves, prunable="a.0 b", frozen="h")
def halves_by_split_at_the_size(net, x):
    y = net.grow(net.a(x))
    left, right = torch.split(y, y.shape[1] // 2, dim=1)
    return net.h(net.b(left * right))


@case(halves, prunable="a.0 b", frozen="h grow")
def halves_by_split_at_a_number(net, x):
    left, right = torch.split(net.grow(net.a(x)), 8, dim=1)
    return net.h(net.b(left * right))


@case(
    lambda: Net(grow=conv(3, 16), left=conv(10, 8), right=conv(6, 8), h=conv(8, 5)),
    prunable="left right",
    frozen="h grow",
)
def unequal_split(net, x):
    left, right = net.grow(x).split([10, 6], 1)
    return net.h(net.left(left) + net.right(right))


@case(lambda: Net(grow=conv(3, 16), left=conv(6, 8), h=conv(8, 5)), prunable="left", frozen="h")
def narrowed(net, x):
    return net.h(net.left(net.grow(x).narrow(1, 2, 6)))


@case(lambda: Net(grow=conv(3, 24), b=conv(8, 12), h=conv(12, 5)), prunable="grow b", frozen="h")
def three_chunks(net, x):
    q, k, v = net.grow(x).chunk(3, 1)
    return net.h(net.b(q * k.sigmoid() + v))


@case(
    lambda: Net(grow=conv(3, 16), left=conv(8, 8), mid=conv(8, 8), h=conv(24, 5)),
    prunable="grow left mid",
    frozen="h",
)
def chunks_read_apart(net, x):
    left, right = net.grow(x).chunk(2, 1)
    return net.h(torch.cat([net.left(left), net.mid(right), right], 1))


@case(
    lambda: Net(up=nn.Linear(3, 32), down=nn.Linear(16, 12), head=nn.Linear(12, 5)),
    prunable="up down",
    frozen="head",
)
def gated_linear_layers(net, x):
    value, gates = net.up(x.permute(0, 2, 3, 1)).chunk(2, -1)
    return net.head(net.down(F.silu(gates) * value).mean((1, 2)))


@case(
    lambda: Net(a=conv(3, 16), bn=nn.BatchNorm2d(16), up=nn.PixelShuffle(2), b=conv(4, 8), h=conv(8, 3)),
    prunable="a b",
    frozen="h",
)
def pixel_shuffle_behind_a_norm(net, x):
    return net.h(net.b(net.up(F.relu(net.bn(net.a(x))))))


@case(
    lambda: Net(a=conv(3, 8), down=nn.PixelUnshuffle(2), b=conv(32, 12), h=conv(12, 3)),
    prunable="a b",
    frozen="h",
)
def pixel_unshuffle(net, x):
    return net.h(net.b(net.down(net.a(x))))


@case(lambda: Net(a=conv(12, 8), h=conv(8, 3)), groups={"a": 8}, prunable="a", frozen="h")
def space_to_depth_of_the_image(net, x):
    parts = [x[..., ::2, ::2], x[..., 1::2, ::2], x[..., ::2, 1::2], x[..., 1::2, 1::2]]
    return net.h(net.a(torch.cat(parts, 1)).relu())


def shuffle(x: torch.Tensor, groups: int) -> torch.Tensor:
    n, c, h, w = x.shape
    return x.view(n, groups, c // groups, h, w).transpose(1, 2).reshape(n, c, h, w)


@case(lambda: Net(a=conv(3, 16), b=conv(16, 12), h=conv(12, 5)), prunable="b", frozen="h")
def channel_shuffle(net, x):
    return net.h(net.b(shuffle(net.a(x), 2)))


@case(
    lambda: Net(a=conv(3, 18, 1), g1=conv(18, 12, 1, groups=3), g2=conv(12, 12, groups=3), h=conv(12, 5)),
    frozen="h",
)
def shuffle_between_grouped_convolutions(net, x):
    return net.h(net.g2(shuffle(net.g1(net.a(x)).relu(), 3)))


@case(
    lambda: Net(a=cbr(3, 8), b=cbr(4, 4), h=conv(8, 5)),
    prunable="a.0 b.0",
    frozen="h",
)
def half_through_a_branch_then_shuffled(net, x):
    left, right = net.a(x).chunk(2, 1)
    return net.h(shuffle(torch.cat([left, net.b(right)], 1), 2))


@case(
    lambda: Net(a=conv(3, 12), mix=nn.ChannelShuffle(3), b=conv(12, 8), h=conv(8, 5)),
    prunable="b",
    frozen="h",
)
def shuffle_module(net, x):
    return net.h(net.b(net.mix(net.a(x))))


@case(lambda: pair(8, 16), groups={"a": 8}, prunable="a", frozen="b")
def repeated(net, x):
    return net.b(net.a(x).repeat(1, 2, 1, 1))


@case(lambda: pair(8, 24), groups={"a": 8}, prunable="a", frozen="b")
def tiled(net, x):
    return net.b(torch.tile(net.a(x), (1, 3, 1, 1)))


@case(lambda: pair(8, 16), groups={"a": 8}, prunable="a", frozen="b")
def interleaved(net, x):
    return net.b(net.a(x).repeat_interleave(2, dim=1))


@case(lambda: Net(a=conv(3, 8), b=conv(3, 8), h=conv(8, 5)), groups={"a": 8}, prunable="a b", frozen="h")
def stacked_and_added(net, x):
    return net.h(torch.stack([net.a(x), net.b(x).relu()], 1).sum(1))


@case(lambda: Net(a=conv(3, 8), b=conv(3, 8), h=conv(8, 5)), groups={"a": 8}, prunable="a b", frozen="h")
def greatest_of_branches(net, x):
    return net.h(torch.stack([net.a(x), net.b(x)]).amax(0))


@case(lambda: Net(a=conv(3, 12), b=conv(6, 8), h=conv(8, 5)), prunable="b", frozen="h")
def maxout(net, x):
    y = net.a(x)
    return net.h(net.b(y.view(len(y), -1, 2, *y.shape[2:]).amax(2)))


@case(
    lambda: Net(a=conv(3, 8), fc=nn.Linear(8, 12), h=nn.Linear(12, 5)),
    groups={"a": 8, "fc": 12},
    prunable="a fc",
)
def tokens(net, x):
    y = net.a(x).flatten(2).transpose(1, 2)
    return net.h(F.gelu(net.fc(y)).mean(1))


@case(
    lambda: Net(a=conv(3, 8), fc=nn.Linear(8, 12), b=conv(12, 8), h=conv(8, 5)),
    groups={"a": 8, "fc": 12, "b": 8},
    prunable="a fc b",
    frozen="h",
)
def linear_on_channels_last(net, x):
    y = F.relu(net.fc(net.a(x).permute(0, 2, 3, 1)))
    return net.h(net.b(y.permute(0, 3, 1, 2)))


@case(
    lambda: Net(a=conv(3, 8), b=conv(8, 12), fc=nn.Linear(4, 6), h=conv(12, 5)), prunable="a", frozen="h fc"
)
def linear_on_rows(net, x):
    return net.h(net.fc(F.adaptive_avg_pool2d(net.b(net.a(x)), 4)))


@case(
    lambda: Net(a=conv(3, 8), token=vector(1, 8, 1, 1), b=conv(8, 12), h=conv(12, 5)),
    prunable="b",
    frozen="h",
)
def an_expanded_parameter_beside_the_map(net, x):
    y = net.a(x)
    row = net.token.expand(len(y), -1, 1, y.shape[3])
    return net.h(net.b(torch.cat([row, y], 2)))


@case(lambda: Net(a=conv(3, 4), b=conv(4, 12), h=conv(12, 5)), prunable="b", frozen="h")
def unbound_and_stacked_again(net, x):
    return net.h(net.b(torch.stack(net.a(x).unbind(1)[::-1], 1)))
