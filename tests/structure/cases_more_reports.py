"""More networks of the kinds that public bug reports are about: norms, inputs, outputs, attention."""

from __future__ import annotations

from collections import OrderedDict

import torch
import torch.nn.functional as F
from cases_base import IMAGE, Head, Net, case, cbr, conv, vector
from torch import Tensor, nn


class FrozenNorm(nn.Module):
    """Batch norm made of four buffers, as detection backbones have it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        for name in ("weight", "bias", "running_mean", "running_var"):
            self.register_buffer(name, torch.rand(channels) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        scale = self.weight * (self.running_var + 1e-5).rsqrt()
        shift = self.bias - self.running_mean * scale
        return x * scale.reshape(1, -1, 1, 1) + shift.reshape(1, -1, 1, 1)


@case(
    lambda: Net(
        c1=conv(3, 8, bias=False),
        n1=FrozenNorm(8),
        c2=conv(8, 12, bias=False),
        n2=FrozenNorm(12),
        c3=conv(12, 8, bias=False),
        n3=FrozenNorm(8),
        head=Head(8),
    ),
    groups={"c1": 8, "c2": 12},
    prunable="c1 c2 c3",
    frozen="head.fc",
)
def frozen_norm(net, x):
    x = F.relu(net.n1(net.c1(x)))
    return net.head(F.relu(x + net.n3(net.c3(F.relu(net.n2(net.c2(x)))))))


@case(
    lambda: Net(
        fine=cbr(3, 8),
        coarse=cbr(8, 12, stride=2),
        l3=conv(8, 16, 1),
        l4=conv(12, 16, 1),
        w=vector(2),
        trunk=cbr(16, 8),
        head=Head(8),
    ),
    prunable="fine.0 coarse.0 l3 l4 trunk.0",
    frozen="head.fc",
)
def weighted_fusion(net, x):
    a = net.fine(x)
    b = F.interpolate(net.l4(net.coarse(a)), scale_factor=2.0)
    w = F.relu(net.w) + 0.1
    w = w / (w.sum() + 1e-4)
    return net.head(net.trunk(w[0] * net.l3(a) + w[1] * b))


@case(
    lambda: Net(
        c1=conv(3, 8),
        n1=nn.BatchNorm2d(8),
        a1=nn.PReLU(8),
        c2=conv(8, 12),
        a2=nn.PReLU(),
        dw=conv(12, 12, groups=12),
        a3=nn.PReLU(12),
        head=Head(12),
    ),
    groups={"c1": 8, "c2": 12},
    prunable="c1 c2 dw a1 a3",
    frozen="head.fc",
)
def prelu(net, x):
    x = net.a1(net.n1(net.c1(x)))
    return net.head(net.a3(net.dw(net.a2(net.c2(x)))))


@case(
    lambda: Net(
        c1=nn.utils.parametrizations.weight_norm(conv(3, 8)),
        c2=nn.utils.parametrizations.weight_norm(conv(8, 12)),
        c3=conv(12, 16),
        head=Head(16),
    ),
    prunable="c3",
    frozen="head.fc",
    mixes=True,
)
def weight_norm(net, x):
    return net.head(F.relu(net.c3(F.relu(net.c2(F.relu(net.c1(x)))))))


class StandardisedConv(nn.Conv2d):
    """Weights standardised over the inputs of a filter, in every forward."""

    def forward(self, x: Tensor) -> Tensor:
        w = self.weight.flatten(1)
        w = (w - w.mean(1, keepdim=True)) / (w.std(1, keepdim=True) + 1e-5)
        return F.conv2d(x, w.view_as(self.weight), self.bias, self.stride, self.padding)


@case(
    lambda: Net(
        c1=StandardisedConv(3, 8, 3, padding=1),
        n1=nn.BatchNorm2d(8),
        c2=StandardisedConv(8, 12, 3, padding=1),
        n2=nn.BatchNorm2d(12),
        c3=conv(12, 8),
        head=Head(8),
    ),
    prunable="c2 c3",
    frozen="head.fc",
    mixes=True,
)
def standardised_conv(net, x):
    x = F.relu(net.n2(net.c2(F.relu(net.n1(net.c1(x))))))
    return net.head(net.c3(x))


@case(
    lambda: Net(
        stem=cbr(3, 8),
        dw=conv(8, 16, groups=8, bias=False),
        norm=nn.BatchNorm2d(16),
        pw=cbr(16, 12, 1),
        head=Head(12),
    ),
    prunable="pw.0",
    frozen="head.fc",
)
def depth_multiplier(net, x):
    return net.head(net.pw(F.relu(net.norm(net.dw(net.stem(x))))))


@case(
    lambda: Net(c1=nn.Conv1d(1, 12, 3, padding=1), c2=nn.Conv1d(12, 8, 3, padding=1), fc=nn.Linear(64, 2)),
    (2, 1, 8),
    groups={"c1": 12, "c2": 8},
    prunable="c1 c2",
    frozen="fc",
)
def one_dimensional(net, x):
    return net.fc(F.relu(net.c2(F.relu(net.c1(x)))).flatten(1))


@case(
    lambda: Net(
        stem=cbr(3, 16),
        mlp=nn.Sequential(nn.Linear(16, 4), nn.ReLU(), nn.Linear(4, 16)),
        spatial=conv(2, 1, 7, bias=False),
        last=cbr(16, 12),
        head=Head(12),
    ),
    prunable="last.0 mlp.0",
    frozen="head.fc spatial",
    mixes=True,
)
def channel_then_spatial(net, x):
    x = net.stem(x)
    gate = net.mlp(F.adaptive_avg_pool2d(x, 1).flatten(1)) + net.mlp(F.adaptive_max_pool2d(x, 1).flatten(1))
    x = x * torch.sigmoid(gate)[:, :, None, None].expand_as(x)
    summary = torch.cat([x.max(1, keepdim=True)[0], x.mean(1, keepdim=True)], 1)
    return net.head(net.last(x * torch.sigmoid(net.spatial(summary))))


@case(
    lambda: Net(
        grow=cbr(3, 16, 1),
        dw=cbr(16, 16, 3, 2, 16),
        project=cbr(16, 12, 1),
        fc1=nn.Linear(16, 6),
        fc2=nn.Linear(6, 16),
        head=Head(12),
    ),
    groups={"grow.0": 16, "project.0": 12, "fc1": 6},
    prunable="grow.0 dw.0 project.0 fc1 fc2",
    frozen="head.fc",
)
def squeeze_view(net, x):
    x = net.dw(net.grow(x))
    b, c = x.shape[:2]
    gate = F.hardsigmoid(net.fc2(F.relu(net.fc1(x.mean((2, 3)))))).view(b, c, 1, 1)
    return net.head(net.project(x * gate))


@case(
    lambda: Net(
        stem=cbr(3, 8),
        a=cbr(8, 16, stride=2),
        b=conv(16, 16, bias=False),
        norm=nn.BatchNorm2d(16),
        head=Head(16),
    ),
    prunable="a.0",
    frozen="head.fc",
)
def padded_shortcut(net, x):
    x = net.stem(x)
    short = F.avg_pool2d(x, 1, 2)
    short = torch.cat((short, short * 0), 1)
    return net.head(F.relu(short + net.norm(net.b(net.a(x)))))


@case(
    lambda: Net(
        encoder=nn.Sequential(cbr(3, 8), cbr(8, 16, stride=2)),
        decoder=nn.Sequential(cbr(32, 12), conv(12, 1, 1)),
    ),
    IMAGE,
    IMAGE,
    groups={"encoder.0.0": 8, "encoder.1.0": 16, "decoder.0.0": 12},
    prunable="encoder.0.0 encoder.1.0 decoder.0.0",
    frozen="decoder.1",
)
def siamese(net, before, after):
    a, b = net.encoder(before), net.encoder(after)
    return net.decoder(torch.cat([(a - b).abs(), b], 1))


@case(
    lambda: Net(stem=cbr(3, 8), last=cbr(8, 16), film=nn.Linear(8, 16), head=Head(16)),
    IMAGE,
    (2, 8),
    prunable="stem.0 last.0 film",
    frozen="head.fc",
)
def image_and_vector(net, picture, numbers):
    return net.head(net.last(net.stem(picture)) * (1 + net.film(numbers)[:, :, None, None]))


@case(
    lambda: Net(
        low=cbr(3, 8, stride=2),
        high=cbr(8, 16, stride=2),
        main=nn.Sequential(cbr(16, 12), conv(12, 4, 1)),
        aux=conv(8, 4, 1),
    ),
    groups={"low.0": 8, "high.0": 16, "main.0.0": 12},
    prunable="low.0 high.0 main.0.0",
    frozen="main.1 aux",
)
def dict_of_outputs(net, x):
    low = net.low(x)
    maps = {"out": net.main(net.high(low)), "aux": net.aux(low)}
    size = x.shape[-2:]
    sized = {k: F.interpolate(v, size=size, mode="bilinear", align_corners=False) for k, v in maps.items()}
    return OrderedDict(sized)


@case(
    lambda: Net(
        stem=nn.Sequential(cbr(3, 8), cbr(8, 16)),
        norm=nn.BatchNorm1d(16),
        mapper=nn.Linear(16, 5, bias=False),
    ),
    prunable="stem.0.0",
    frozen="mapper",
    mixes=True,
)
def uncalled_linear(net, x):
    f = F.normalize(net.norm(net.stem(x).mean((2, 3))), dim=1)
    return 16.0 * (f @ F.normalize(net.mapper.weight.t(), dim=0))


@case(
    lambda: Net(
        stem=nn.Sequential(cbr(3, 8), cbr(8, 12, stride=2)),
        pool=nn.AdaptiveAvgPool2d((1, None)),
        rnn=nn.LSTM(12, 10, bidirectional=True),
        fc=nn.Linear(20, 5),
    ),
    prunable="stem.0.0",
    frozen="rnn fc",
    uncounted=True,
)
def conv_then_lstm(net, x):
    steps = net.pool(net.stem(x)).squeeze(2).permute(2, 0, 1)
    return net.fc(net.rnn(steps)[0])
