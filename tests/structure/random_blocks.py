"""Blocks that random networks are drawn from. Each takes a map of `c` channels and `s` x `s` positions."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from cases_base import Net, conv, vector
from cases_more_reports import FrozenNorm
from cases_reports import ChannelNorm
from torch import Tensor, nn
from torch.nn.utils import parametrizations

Pick = Callable[..., object]
Maker = Callable[[Pick, int, int], nn.Module]
BLOCKS: dict[str, tuple[Callable[[int, int], bool], Maker]] = {}
MOST = 36  # channels


def block(when: Callable[[int, int], bool] = lambda c, s: True) -> Callable[[Maker], Maker]:
    """Enter a block that maps of `c` channels and size `s` can go through when `when(c, s)`."""

    def enter(make: Maker) -> Maker:
        BLOCKS[make.__name__] = (when, make)
        return make

    return enter


def net(forward: Callable[..., Tensor], **parts: object) -> Net:
    made = Net(**parts)
    made.body = forward
    return made


def divisors(c: int, most: int = 6) -> list[int]:
    return [g for g in range(2, most + 1) if c % g == 0]


def even(c: int, s: int) -> bool:
    return s % 2 == 0


def small(c: int, s: int) -> bool:
    return s <= 8


def narrow(c: int, s: int) -> bool:
    return 2 * c <= MOST


def norm(pick: Pick, c: int, s: int) -> nn.Module:
    makers = [
        lambda: nn.BatchNorm2d(c),
        lambda: nn.BatchNorm2d(c, affine=False),
        lambda: FrozenNorm(c),
        lambda: ChannelNorm(c),
        lambda: nn.GroupNorm(pick(1, c, *divisors(c)), c, eps=1e-2, affine=pick(True, False)),
        lambda: nn.Sequential(Permuted(0, 2, 3, 1), nn.LayerNorm(c, eps=1e-2), Permuted(0, 3, 1, 2)),
    ]
    if s > 1:
        makers.append(lambda: nn.InstanceNorm2d(c, eps=1e-2, affine=pick(True, False)))
    return pick(*makers)()


class Permuted(nn.Module):
    """Axes in another order."""

    def __init__(self, *axes: int) -> None:
        super().__init__()
        self.axes = axes

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(self.axes)


def activation(pick: Pick, c: int) -> nn.Module:
    makers = [nn.ReLU, nn.ReLU6, nn.Hardswish, nn.GELU, nn.SiLU, nn.Mish, nn.PReLU, nn.Sigmoid, nn.LeakyReLU]
    makers += [lambda: nn.PReLU(c), lambda: nn.ReLU(inplace=True), nn.Softplus, nn.Tanh]
    return pick(*makers)()


@block()
def convolution(pick, c, s):
    stride = pick(1, 2) if s % 2 == 0 else 1
    kernel, dilation = pick((1, 1), (3, 1), (3, 2), (5, 1))
    mode = pick("zeros", "zeros", "circular") if s > 4 else "zeros"
    padding = dilation * (kernel // 2)
    made = nn.Conv2d(c, pick(8, 12, 16), kernel, stride, padding, dilation, 1, pick(True, False), mode)
    return parametrizations.weight_norm(made) if pick(*[False] * 7, True) else made


@block()
def convolution_norm_activation(pick, c, s):
    width = pick(8, 12, 16)
    return nn.Sequential(conv(c, width, pick(1, 3)), norm(pick, width, s), activation(pick, width))


@block(lambda c, s: bool(divisors(c)))
def grouped(pick, c, s):
    groups = pick(*divisors(c))
    return conv(c, groups * pick(1, 2, 3, c // groups), pick(1, 3), groups=groups)


@block(narrow)
def depthwise(pick, c, s):
    return conv(c, c * pick(1, 1, 2), pick(3, 5), groups=c, bias=pick(True, False))


@block(small)
def transposed(pick, c, s):
    kernel, padding, more = pick((2, 0, 0), (4, 1, 0), (3, 1, 1))
    groups = pick(1, 1, c, *divisors(c, 4))
    width = pick(8, 12) if groups == 1 else c
    return nn.ConvTranspose2d(c, width, kernel, 2, padding, more, groups)


@block()
def normed(pick, c, s):
    return norm(pick, c, s)


@block()
def activated(pick, c, s):
    return activation(pick, c)


@block()
def scaled(pick, c, s):
    shape = pick((c, 1, 1), (1, c, 1, 1), (1,), ())
    scale = vector(*shape)
    return net(lambda n, x: x * n.scale, scale=scale if pick(True, False) else scale.data)


@block(lambda c, s: c % 2 == 0)
def gate(pick, c, s):
    if pick(True, False):
        return nn.GLU(1)

    def forward(n, x):
        left, right = x.chunk(2, 1)
        return left * n.act(right)

    return net(forward, act=activation(pick, c // 2))


@block(lambda c, s: c % 3 == 0)
def three_parts(pick, c, s):
    def forward(n, x):
        a, b, d = x.chunk(3, 1)
        return torch.cat([n.layer(a), b + d.sigmoid()], 1)

    return net(forward, layer=conv(c // 3, pick(4, 6)))


@block(lambda c, s: c % 2 == 0)
def one_half_through_a_layer(pick, c, s):
    literal, order = pick(True, False), pick(1, -1)

    def forward(n, x):
        parts = x.split(c // 2, 1) if literal else (x[:, : x.shape[1] // 2], x[:, x.shape[1] // 2 :])
        return torch.cat([n.layer(parts[0]), parts[1]][::order], 1)

    return net(forward, layer=conv(c // 2, pick(c // 2, 6), pick(1, 3)))


@block(lambda c, s: c % 4 == 0 and s <= 8)
def pixel_shuffle(pick, c, s):
    return nn.PixelShuffle(2)


@block(lambda c, s: 4 * c <= MOST and s % 2 == 0)
def pixel_unshuffle(pick, c, s):
    return nn.PixelUnshuffle(2)


@block(lambda c, s: bool(divisors(c)))
def shuffle(pick, c, s):
    groups = pick(*divisors(c))

    def forward(n, x):
        b, channels, h, w = x.shape
        return x.reshape(b, groups, channels // groups, h, w).transpose(1, 2).reshape(b, -1, h, w)

    return net(forward)


@block()
def squeeze(pick, c, s):
    width, linear = pick(4, 6), pick(True, False)

    def forward(n, x):
        b, channels = x.shape[:2]
        pooled = x.mean((2, 3), keepdim=not linear)
        gates = n.two(F.relu(n.one(pooled))).sigmoid()
        return x * (gates.view(b, channels, 1, 1) if linear else gates)

    if linear:
        return net(forward, one=nn.Linear(c, width), two=nn.Linear(width, c))
    return net(forward, one=conv(c, width, 1), two=conv(width, c, 1))


@block(even)
def pool(pick, c, s):
    return pick(nn.MaxPool2d(2), nn.AvgPool2d(2), nn.AvgPool2d(3, 2, 1), nn.MaxPool2d(3, 2, 1))


@block(small)
def upsample(pick, c, s):
    mode = pick("nearest", "bilinear")
    return nn.Upsample(
        scale_factor=2, mode=mode, align_corners=None if mode == "nearest" else pick(True, False)
    )


@block(lambda c, s: s > 2)
def padded(pick, c, s):
    pad = pick(nn.ZeroPad2d(1), nn.ReflectionPad2d(1), nn.ReplicationPad2d(1), nn.ConstantPad2d(1, 0.5))
    return nn.Sequential(pad, conv(c, pick(8, 12), 3, padding=0))


@block(lambda c, s: s % 2 == 0 and c <= 16)
def padded_shortcut(pick, c, s):
    before, behind = pick((4, 4), (0, 8), (8, 0))

    def forward(n, x):
        return n.layer(x) + F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, before, behind))

    return net(forward, layer=conv(c, c + 8, 3, 2))


@block()
def branches(pick, c, s):
    width = pick(8, 12)
    return net(lambda n, x: n.a(x).relu() + n.b(x), a=conv(c, width), b=conv(c, width, 1))


@block()
def a_concat_beside_a_layer(pick, c, s):
    def forward(n, x):
        return n.both(x) + torch.cat([n.a(x), n.b(x)], 1)

    return net(forward, both=conv(c, 14, 1), a=conv(c, 8, 1), b=conv(c, 6))


@block()
def called_twice(pick, c, s):
    return net(lambda n, x: n.layer(n.layer(x).relu()) + x, layer=conv(c, c))


@block()
def moved(pick, c, s):
    shift = pick(1, 3)
    return net(pick(lambda n, x: x.flip(1), lambda n, x: x.roll(shift, 1)))


@block(narrow)
def repeated(pick, c, s):
    return net(pick(lambda n, x: x.repeat(1, 2, 1, 1), lambda n, x: x.repeat_interleave(2, 1)))


@block()
def tokens(pick, c, s):
    width = pick(8, 12)

    def forward(n, x):
        y = n.two(F.gelu(n.one(x.flatten(2).transpose(1, 2))))
        return y.transpose(1, 2).reshape(len(x), -1, s, s)

    return net(forward, one=nn.Linear(c, width), two=nn.Linear(width, pick(c, 8)))


@block()
def spatial_gate(pick, c, s):
    def forward(n, x):
        summary = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)
        return x * n.layer(summary).sigmoid()

    made = net(forward, layer=conv(2, 1, 3))
    made.mixes = True
    return made


@block()
def functional(pick, c, s):
    width = pick(8, 12)
    weight = nn.Parameter(torch.randn(width, c, 1, 1))
    if pick(True, False):
        return net(lambda n, x: F.conv2d(x, n.weight), weight=weight)
    return net(lambda n, x: F.conv2d(x, n.weight * n.scale), weight=weight, scale=vector(width, 1, 1, 1))


@block()
def dropout(pick, c, s):
    return pick(nn.Dropout(0.2), nn.Dropout2d(0.2))


def mixes(model: nn.Module) -> bool:
    """Whether channels are normalised or compared with one another."""
    return any(
        getattr(module, "mixes", False)
        or isinstance(module, nn.LayerNorm | ChannelNorm)
        or type(module).__name__ == "_WeightNorm"
        or (isinstance(module, nn.GroupNorm) and module.num_groups < module.num_channels)
        for module in model.modules()
    )
