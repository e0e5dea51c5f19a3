"""Networks of the kinds that public bug reports about structured pruning are about."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from cases_base import Head, Net, case, cbr, conv, up, vector
from torch import Tensor, nn


@case(
    lambda: Net(
        down=nn.Sequential(cbr(3, 12, stride=2), cbr(12, 16, stride=2)),
        up1=up(16, 12, 4, 2, 1),
        n1=nn.BatchNorm2d(12),
        up2=up(12, 8, 4, 2, 1),
        n2=nn.BatchNorm2d(8),
        final=conv(8, 5, 1),
    ),
    groups={"down.0.0": 12, "down.1.0": 16, "up1": 12, "up2": 8},
    prunable="down.0.0 down.1.0 up1 up2 n1 n2",
    frozen="final",
)
def deconv_head(net, x):
    return net.final(F.relu(net.n2(net.up2(F.relu(net.n1(net.up1(net.down(x))))))))


@case(
    lambda: Net(
        e1=cbr(3, 8),
        e2=cbr(8, 12, stride=2),
        mid=cbr(12, 16, stride=2),
        u2=up(16, 12),
        d2=cbr(24, 12),
        u1=up(12, 8),
        d1=cbr(16, 8),
        out=conv(8, 2, 1),
    ),
    groups={"e1.0": 8, "e2.0": 12, "mid.0": 16, "u2": 12, "d2.0": 12, "u1": 8, "d1.0": 8},
    prunable="e1.0 e2.0 mid.0 u2 d2.0 u1 d1.0",
    frozen="out",
)
def unet_skip(net, x):
    a = net.e1(x)
    b = net.e2(a)
    y = net.d2(torch.cat([net.u2(net.mid(b)), b], 1))
    return net.out(net.d1(torch.cat([net.u1(y), a], 1)))


@case(
    lambda: Net(fc=nn.Linear(8, 16 * 9), up1=up(16, 12), up2=up(12, 8), out=conv(8, 3)),
    (2, 8),
    prunable="up1 up2",
    frozen="out",
    may_refuse=True,
)
def latent_decoder(net, z):
    x = F.relu(net.fc(z)).view(-1, net.up1.in_channels, 3, 3)
    return torch.tanh(net.out(F.relu(net.up2(F.relu(net.up1(x))))))


@case(
    lambda: Net(
        stem=cbr(3, 8), expand=conv(8, 24), shuffle=nn.PixelShuffle(2), mid=conv(6, 8), out=conv(8, 3)
    ),
    prunable="stem.0 expand mid",
    frozen="out",
)
def pixel_shuffle(net, x):
    return net.out(F.relu(net.mid(net.shuffle(net.expand(net.stem(x))))))


class ChannelNorm(nn.Module):
    """Layer norm over the channels of a map, by hand."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight, self.bias = vector(channels), vector(channels)

    def forward(self, x: Tensor) -> Tensor:
        x = x - x.mean(1, keepdim=True)
        x = x / (x.pow(2).mean(1, keepdim=True) + 1e-2).sqrt()
        return x * self.weight.view(1, -1, 1, 1) + self.bias.view(1, -1, 1, 1)


@case(
    lambda: Net(
        stem=conv(3, 8),
        norm=ChannelNorm(8),
        grow=conv(8, 16, 1),
        dw=conv(16, 16, groups=16),
        sca=conv(8, 8, 1),
        proj=conv(8, 8, 1),
        beta=vector(1, 8, 1, 1),
        head=Head(8),
    ),
    prunable="grow dw",
    frozen="head.fc",
    mixes=True,
)
def simple_gate(net, x):
    x = net.stem(x)
    a, b = net.dw(net.grow(net.norm(x))).chunk(2, dim=1)
    y = a * b
    y = net.proj(y * net.sca(F.adaptive_avg_pool2d(y, 1)))
    return net.head(x + y * net.beta)


@case(
    lambda: Net(
        stem=cbr(3, 12),
        cv1=cbr(12, 16, 1),
        blocks=nn.ModuleList(nn.Sequential(cbr(8, 8), cbr(8, 8)) for _ in range(2)),
        cv2=cbr(32, 12, 1),
        head=Head(12),
    ),
    prunable="stem.0 cv1.0 blocks.0.0.0 blocks.0.1.0 blocks.1.0.0 cv2.0",
    frozen="head.fc",
)
def cross_stage(net, x):
    maps = list(net.cv1(net.stem(x)).chunk(2, 1))
    for block in net.blocks:
        maps.append(maps[-1] + block(maps[-1]))
    return net.head(net.cv2(torch.cat(maps, 1)))


@case(
    lambda: Net(stem=cbr(3, 8), grow=cbr(8, 32, 1), shared=cbr(8, 8), other=cbr(16, 8), head=Head(8)),
    prunable="stem.0 shared.0 other.0",
    frozen="head.fc grow.0",
)
def shared_split(net, x):
    a, b, c = torch.split(net.grow(net.stem(x)), [8, 8, 16], dim=1)
    return net.head(net.shared(a) + net.shared(b) + net.other(c))


@case(
    lambda: Net(
        stem=conv(3, 8),
        qkv=conv(8, 24, 1),
        qkv_dw=conv(24, 24, groups=24),
        proj=conv(8, 8, 1),
        grow=conv(8, 22, 1),
        dw=conv(22, 22, groups=22),
        shrink=conv(11, 8, 1),
        head=Head(8),
    ),
    (2, 3, 8, 8),
    prunable="grow dw",
    frozen="head.fc",
    mixes=True,
)
def gated_feed_forward(net, x):
    x = net.stem(x)
    n, c, h, w = x.shape
    q, k, v = (part.reshape(n, 2, c // 2, h * w) for part in net.qkv_dw(net.qkv(x)).chunk(3, 1))
    a = (F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-2, -1)).softmax(-1)
    x = x + net.proj((a @ v).reshape(n, c, h, w))
    left, right = net.dw(net.grow(x)).chunk(2, dim=1)
    return net.head(x + net.shrink(F.gelu(left) * right))


@case(
    lambda: Net(
        c1=conv(3, 16),
        n1=nn.GroupNorm(4, 16),
        c2=conv(16, 24, stride=2),
        n2=nn.GroupNorm(3, 24),
        head=Head(24),
    ),
    prunable="c1 c2 n1 n2",
    frozen="head.fc",
    mixes=True,
)
def group_norm(net, x):
    return net.head(F.relu(net.n2(net.c2(F.relu(net.n1(net.c1(x)))))))


@case(
    lambda: Net(
        c1=conv(3, 8),
        n1=nn.InstanceNorm2d(8, affine=True),
        c2=conv(8, 12),
        n2=nn.InstanceNorm2d(12),
        c3=conv(12, 16),
        n3=nn.InstanceNorm2d(16, affine=True, track_running_stats=True),
        head=Head(16),
    ),
    groups={"c1": 8, "c2": 12, "c3": 16},
    prunable="c1 c2 c3",
    frozen="head.fc",
)
def instance_norm(net, x):
    for layer, norm in ((net.c1, net.n1), (net.c2, net.n2), (net.c3, net.n3)):
        x = F.relu(norm(layer(x)))
    return net.head(x)
