"""What has a value for each channel, and what compares channels: norms, scales, activations, attention."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from cases_base import Head, Net, case, cbr, conv, vector
from torch import Tensor, nn


def between(**parts: object) -> Net:
    """Two convolutions and a classifier, with room for `parts` behind the first convolution."""
    return Net(a=conv(3, 12), **parts, b=conv(12, 8), head=Head(8))


def behind(net: Net, x: Tensor) -> Tensor:
    return net.head(net.b(x).relu())


def norm_case(name: str, norm: object, free: bool = True, **flags: bool) -> None:
    """A case with `norm()` between two convolutions."""

    def forward(net: Net, x: Tensor) -> Tensor:
        return behind(net, F.leaky_relu(net.norm(net.a(x)), 0.2))

    forward.__name__ = name
    names = "a b" if free else "b"
    case(lambda: between(norm=norm()), prunable=names, frozen="head.fc", **flags)(forward)


norm_case("group_norm_of_one", lambda: nn.GroupNorm(1, 12), mixes=True)
norm_case("group_norm_of_all", lambda: nn.GroupNorm(12, 12))
norm_case("group_norm_without_scale", lambda: nn.GroupNorm(3, 12, affine=False), mixes=True)
norm_case("instance_norm_plain", lambda: nn.InstanceNorm2d(12))
norm_case("instance_norm_scaled", lambda: nn.InstanceNorm2d(12, affine=True))
norm_case("instance_norm_tracked", lambda: nn.InstanceNorm2d(12, track_running_stats=True))
norm_case("batch_norm_without_scale", lambda: nn.BatchNorm2d(12, affine=False))
norm_case(
    "batch_norm_of_the_batch", lambda: nn.BatchNorm2d(12, track_running_stats=False), False, may_refuse=True
)
norm_case("layer_norm_on_channels_and_space", lambda: nn.LayerNorm([12, 16, 16]), False, mixes=True)
norm_case("layer_norm_on_space", lambda: nn.LayerNorm([16, 16]), mixes=False)
norm_case("local_response_norm", lambda: nn.LocalResponseNorm(3), False, mixes=True, may_refuse=True)
norm_case("prelu_of_one", lambda: nn.PReLU())
norm_case("prelu_of_all", lambda: nn.PReLU(12))
norm_case("dropout", lambda: nn.Dropout(0.3))
norm_case("dropout_of_channels", lambda: nn.Dropout2d(0.3))
for _name, _layer in {
    "hardswish": nn.Hardswish(),
    "hardsigmoid": nn.Hardsigmoid(),
    "gelu": nn.GELU(),
    "gelu_by_tanh": nn.GELU("tanh"),
    "mish": nn.Mish(),
    "silu_in_place": nn.SiLU(inplace=True),
    "relu6": nn.ReLU6(),
    "leaky": nn.LeakyReLU(0.1, inplace=True),
    "elu": nn.ELU(),
    "softplus": nn.Softplus(),
    "softsign": nn.Softsign(),
    "log_sigmoid": nn.LogSigmoid(),
    "zero_padding": nn.ZeroPad2d((1, 0, 0, 1)),
    "reflection_padding": nn.ReflectionPad2d(2),
    "replication_padding": nn.ReplicationPad2d(1),
    "constant_padding": nn.ConstantPad2d(1, 0.5),
    "average_pool": nn.AvgPool2d(3, 2, 1, count_include_pad=False),
    "max_pool_with_ceil": nn.MaxPool2d(3, 2, ceil_mode=True),
    "power_mean_pool": nn.LPPool2d(2, 2),
    "bilinear_upsampling": nn.UpsamplingBilinear2d(scale_factor=2),
    "nearest_upsampling": nn.Upsample(scale_factor=2),
    "bicubic_upsampling": nn.Upsample(scale_factor=2, mode="bicubic"),
}.items():
    norm_case(_name, lambda layer=_layer: layer)


@case(
    lambda: between(n1=nn.GroupNorm(2, 12), n2=nn.GroupNorm(3, 12)),
    prunable="b",
    frozen="head.fc",
    mixes=True,
)
def two_group_norms_in_a_row(net, x):
    return behind(net, net.n2(net.n1(net.a(x)).relu()))


@case(
    lambda: Net(a=conv(3, 8), c=conv(3, 4), norm=nn.GroupNorm(3, 12), b=conv(12, 8), head=Head(8)),
    prunable="b",
    frozen="head.fc",
    mixes=True,
)
def group_norm_on_a_concat(net, x):
    return behind(net, net.norm(torch.cat([net.a(x), net.c(x)], 1)))


@case(
    lambda: Net(a=conv(3, 8), c=conv(3, 4), norm=nn.BatchNorm2d(12), b=conv(12, 8), head=Head(8)),
    groups={"a": 8, "c": 4, "b": 8},
    prunable="a c b norm",
    frozen="head.fc",
)
def batch_norm_on_a_concat(net, x):
    return behind(net, net.norm(torch.cat([net.a(x), net.c(x)], 1)).relu())


@case(lambda: between(norm=nn.LayerNorm(12)), prunable="a b", frozen="head.fc", mixes=True)
def layer_norm_channels_last(net, x):
    return behind(net, net.norm(net.a(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2))


@case(lambda: between(norm=nn.RMSNorm(12, eps=1e-3)), prunable="b", frozen="head.fc", mixes=True)
def rms_norm(net, x):
    return behind(net, net.norm(net.a(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2))


@case(lambda: between(weight=vector(12)), prunable="b", frozen="head.fc", mixes=True)
def rms_norm_by_hand(net, x):
    y = net.a(x)
    y = y * torch.rsqrt(y.pow(2).mean(1, keepdim=True) + 1e-3)
    return behind(net, y * net.weight[:, None, None])


@case(
    lambda: between(dw=conv(12, 12, 7, groups=12), norm=nn.LayerNorm(12), f1=nn.Linear(12, 16),
                    f2=nn.Linear(16, 12), scale=vector(12)),
    groups={"a": 12, "f1": 16, "b": 8},
    prunable="a dw f1 f2 b",
    frozen="head.fc",
    mixes=True,
)  # fmt: skip
def block_of_a_convnext(net, x):
    x = net.a(x)
    y = net.f2(F.gelu(net.f1(net.norm(net.dw(x).permute(0, 2, 3, 1)))))
    return behind(net, x + (net.scale * y).permute(0, 3, 1, 2))


def per_channel(name: str, shape: tuple[int, ...], buffer: bool = False) -> None:
    def forward(net: Net, x: Tensor) -> Tensor:
        y = net.a(x)
        if len(shape) == 1:
            return behind(net, (y.permute(0, 2, 3, 1) * net.scale).permute(0, 3, 1, 2))
        return behind(net, y * net.scale)

    forward.__name__ = name
    scale = (lambda: vector(*shape).data) if buffer else (lambda: vector(*shape))
    case(lambda: between(scale=scale()), prunable="a b", frozen="head.fc")(forward)


per_channel("scale_of_three_axes", (12, 1, 1))
per_channel("scale_of_four_axes", (1, 12, 1, 1))
per_channel("scale_of_one_axis", (12,))
per_channel("buffer_of_three_axes", (12, 1, 1), buffer=True)
per_channel("buffer_of_four_axes", (1, 12, 1, 1), buffer=True)
per_channel("buffer_of_one_axis", (12,), buffer=True)


@case(lambda: between(scale=vector(12)), prunable="b", frozen="head.fc", may_refuse=True)
def axes_moved_by_negative_numbers(net, x):
    """Torch's exporter writes a file for this that no runtime loads."""
    return behind(net, (net.a(x).movedim(1, -1) * net.scale).movedim(-1, 1))


@case(lambda: between(table=nn.Parameter(torch.rand(12, 16, 16))), prunable="b", frozen="head.fc")
def position_embedding(net, x):
    return behind(net, net.a(x) + net.table)


@case(lambda: between(scale=vector()), groups={"a": 12, "b": 8}, prunable="a b", frozen="head.fc")
def scalar_without_axes(net, x):
    return behind(net, net.a(x) * net.scale)


@case(lambda: between(scale=vector(1)), groups={"a": 12, "b": 8}, prunable="a b", frozen="head.fc")
def scalar_of_one_element(net, x):
    return behind(net, net.scale * net.a(x) + 1)


@case(lambda: between(p=vector(1, 12, 1, 1), q=vector(1, 12, 1, 1)), prunable="a b", frozen="head.fc")
def learned_activation(net, x):
    y = net.a(x)
    return behind(net, net.p * y + net.q * y.relu())


@case(lambda: between(mean=torch.rand(3, 1, 1)), groups={"a": 12, "b": 8}, prunable="a b", frozen="head.fc")
def normalised_image(net, x):
    return behind(net, net.a((x - net.mean) / 0.25))


@case(
    lambda: between(fc1=nn.Linear(12, 6), fc2=nn.Linear(6, 12)),
    groups={"a": 12, "fc1": 6, "b": 8},
    prunable="a fc1 fc2 b",
    frozen="head.fc",
)
def squeeze_by_linear(net, x):
    y = net.a(x)
    b, c, _, _ = y.size()
    s = F.adaptive_avg_pool2d(y, 1).view(b, c)
    return behind(net, y * net.fc2(net.fc1(s).relu()).sigmoid().view(b, c, 1, 1))


@case(
    lambda: between(fc1=conv(12, 6, 1), fc2=conv(6, 12, 1)),
    groups={"a": 12, "fc1": 6, "b": 8},
    prunable="a fc1 fc2 b",
    frozen="head.fc",
)
def squeeze_by_convolution(net, x):
    y = net.a(x)
    return behind(net, y * F.hardsigmoid(net.fc2(F.silu(net.fc1(y.mean((2, 3), keepdim=True))))))


@case(
    lambda: between(mix=nn.Conv1d(1, 1, 3, padding=1, bias=False)),
    prunable="b",
    frozen="head.fc a mix",
    mixes=True,
)
def convolution_over_channels(net, x):
    y = net.a(x)
    s = F.adaptive_avg_pool2d(y, 1).squeeze(-1).transpose(1, 2)
    return behind(net, y * net.mix(s).transpose(1, 2).unsqueeze(-1).sigmoid())


@case(lambda: between(spatial=conv(2, 1, 7)), prunable="b", frozen="head.fc spatial", mixes=True)
def spatial_gate(net, x):
    y = net.a(x)
    both = torch.cat([y.amax(1, keepdim=True), y.mean(1, keepdim=True)], 1)
    return behind(net, y * net.spatial(both).sigmoid())


@case(
    lambda: between(mask=conv(12, 1, 1), fc=conv(12, 12, 1)), prunable="b", frozen="head.fc mask", mixes=True
)
def global_context(net, x):
    y = net.a(x)
    weights = net.mask(y).flatten(2).softmax(-1)
    context = (y.flatten(2) @ weights.transpose(1, 2)).unsqueeze(-1)
    return behind(net, y + net.fc(context))


@case(
    lambda: between(q=conv(12, 6, 1), k=conv(12, 6, 1), v=conv(12, 12, 1)),
    prunable="b",
    frozen="head.fc",
    mixes=True,
)
def non_local(net, x):
    y = net.a(x)
    q, k, v = (layer(y).flatten(2) for layer in (net.q, net.k, net.v))
    weights = (q.transpose(1, 2) @ k).softmax(-1)
    return behind(net, y + (v @ weights.transpose(1, 2)).view_as(y))


@case(
    lambda: Net(a=conv(3, 8, 4, 4, padding=0), b=conv(8, 12), head=nn.Linear(12, 5),
                mix=nn.MultiheadAttention(12, 3, batch_first=True)),
    prunable="a",
    frozen="head",
    mixes=True,
)  # fmt: skip
def multihead_attention(net, x):
    y = net.b(net.a(x).relu()).flatten(2).transpose(1, 2)
    return net.head((y + net.mix(y, y, y)[0]).mean(1))


@case(
    lambda: Net(a=conv(3, 8, 4, 4, padding=0), layer=nn.TransformerEncoderLayer(8, 2, 16, batch_first=True),
                head=nn.Linear(8, 5)),
    frozen="head",
    mixes=True,
    may_refuse=True,
)  # fmt: skip
def transformer_layer(net, x):
    return net.head(net.layer(net.a(x).flatten(2).transpose(1, 2)).mean(1))


@case(
    lambda: Net(a=conv(3, 8), b=conv(8, 6), rnn=nn.GRU(6, 7, batch_first=True), head=nn.Linear(7, 5)),
    prunable="a",
    frozen="head",
    uncounted=True,
)
def gru_over_rows(net, x):
    y = net.b(net.a(x).relu()).mean(3).transpose(1, 2)
    return net.head(net.rnn(y)[0][:, -1])


@case(between, prunable="b", frozen="head.fc", mixes=True)
def mean_over_channels(net, x):
    y = net.a(x)
    return behind(net, y - y.mean(1, keepdim=True))


@case(lambda: Net(a=conv(3, 12), b=conv(1, 8), head=Head(8)), prunable="b", frozen="head.fc", mixes=True)
def sum_over_channels(net, x):
    return behind(net, net.a(x).sum(1, keepdim=True))


@case(between, prunable="b", frozen="head.fc", mixes=True)
def softmax_over_channels(net, x):
    return behind(net, net.a(x).softmax(1))


@case(between, prunable="b", frozen="head.fc a", mixes=True)
def cumulative_sum_over_channels(net, x):
    return behind(net, net.a(x).cumsum(1))


@case(between, prunable="b", frozen="head.fc", mixes=True)
def channels_of_length_one(net, x):
    return behind(net, F.normalize(net.a(x), dim=1))


@case(
    lambda: Net(a=conv(3, 12), c=conv(3, 12), b=conv(1, 8), head=Head(8)),
    prunable="b",
    frozen="head.fc",
    mixes=True,
)
def cosine_of_two_maps(net, x):
    return behind(net, F.cosine_similarity(net.a(x), net.c(x), dim=1).unsqueeze(1))


@case(
    lambda: Net(a=conv(3, 12), s=conv(3, 1), b=conv(12, 8), head=Head(8)),
    groups={"a": 12, "b": 8},
    prunable="a b",
    frozen="head.fc s",
)
def one_map_for_all_channels(net, x):
    return behind(net, torch.where(net.s(x) > 0, net.a(x), 0.5))


@case(lambda: between(mask=torch.rand(12, 1, 1) > 0.3), prunable="b", frozen="head.fc")
def masked_by_a_constant(net, x):
    return behind(net, net.a(x).masked_fill(~net.mask, 0.25))


@case(lambda: Net(a=cbr(3, 12), c=conv(12, 12), b=conv(12, 8), head=Head(8)), groups={"a.0": 12, "b": 8},
      prunable="a.0 c b", frozen="head.fc")  # fmt: skip
def in_place_sum(net, x):
    y = net.a(x)
    z = net.c(y)
    z += y
    return behind(net, z.relu_().mul_(0.5))


@case(lambda: between(), prunable="a b", frozen="head.fc", groups={"a": 12, "b": 8}, mixes=True)
def deviation_of_norm_groups(net, x):
    y = net.a(x)
    n, c, h, w = y.shape
    parts = y.reshape(n, 3, c // 3, h, w)
    deviation = (parts.var(dim=(2, 3, 4), unbiased=False, keepdim=True) + 1e-3).sqrt()
    return behind(net, y / deviation.expand(parts.shape).reshape(n, c, h, w))


@case(
    lambda: Net(a=conv(3, 32), g=conv(16, 16, groups=4), b=conv(32, 8), head=Head(8)),
    prunable="a g b",
    groups={"a": 32, "b": 8},
)
def conv_groups_in_one_half(net, x):
    one, other = net.a(x).chunk(2, 1)
    return behind(net, torch.cat([net.g(one), other], 1))
