"""Layers whose weights are grouped, transposed, computed, shared, normalised or the user's own."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from cases_base import Head, Net, case, cbr, conv, up, vector
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize
from torchvision.ops import DeformConv2d


def chain(*layers: nn.Module) -> Net:
    """Layers one behind the other, named l0, l1 and so on."""
    return Net(**{f"l{index}": layer for index, layer in enumerate(layers)})


def through(net: Net, x: Tensor) -> Tensor:
    """The layers of a chain with a ReLU between them."""
    layers = list(net.children())
    for layer in layers[:-1]:
        x = F.relu(layer(x))
    return layers[-1](x)


@case(
    lambda: chain(conv(3, 8), nn.ConvTranspose2d(8, 12, 3, 2, 1, output_padding=1), conv(12, 5)),
    groups={"l0": 8, "l1": 12},
    prunable="l0 l1",
    frozen="l2",
)
def transposed_with_output_padding(net, x):
    return through(net, x)


@case(
    lambda: chain(conv(3, 8), nn.ConvTranspose2d(8, 12, 2, 2, groups=4), conv(12, 8), conv(8, 5)),
    prunable="l2",
    frozen="l3",
)
def transposed_in_groups(net, x):
    return through(net, x)


@case(
    lambda: chain(conv(3, 8), nn.ConvTranspose2d(8, 8, 4, 2, 1, groups=8, bias=False), conv(8, 5)),
    prunable="l0 l1",
    frozen="l2",
)
def transposed_depthwise(net, x):
    return through(net, x)


@case(lambda: chain(conv(3, 8), up(8, 5)), groups={"l0": 8}, prunable="l0", frozen="l1")
def transposed_at_the_end(net, x):
    return through(net, x)


@case(
    lambda: chain(nn.Conv3d(2, 8, 3, padding=1), nn.BatchNorm3d(8), nn.Conv3d(8, 12, 3), nn.Conv3d(12, 4, 1)),
    (2, 2, 4, 8, 8),
    groups={"l0": 8, "l2": 12},
    prunable="l0 l1 l2",
    frozen="l3",
)
def three_dimensions(net, x):
    return through(net, x)


@case(
    lambda: chain(
        nn.Conv1d(4, 8, 3), nn.BatchNorm1d(8), nn.ConvTranspose1d(8, 12, 2, 2), nn.Conv1d(12, 4, 1)
    ),
    (2, 4, 16),
    groups={"l0": 8, "l2": 12},
    prunable="l0 l1 l2",
    frozen="l3",
)
def one_dimension_up(net, x):
    return through(net, x)


@case(
    lambda: chain(conv(3, 8, dilation=2, padding=2), conv(8, 12, (1, 3), padding=(0, 1)), conv(12, 5, 1)),
    groups={"l0": 8, "l1": 12},
    prunable="l0 l1",
    frozen="l2",
)
def dilated_and_oblong(net, x):
    return through(net, x)


@case(
    lambda: chain(
        conv(3, 8), conv(8, 12, padding_mode="circular"), conv(12, 8, padding_mode="reflect"), Head(8)
    ),
    groups={"l0": 8, "l1": 12, "l2": 8},
    prunable="l0 l1 l2",
    frozen="l3.fc",
)
def padding_modes(net, x):
    return through(net, x)


@case(
    lambda: chain(conv(3, 8, padding="same"), conv(8, 12, padding="valid"), conv(12, 5, 1)),
    groups={"l0": 8, "l1": 12},
    prunable="l0 l1",
    frozen="l2",
)
def padding_by_name(net, x):
    return through(net, x)


@case(lambda: chain(conv(3, 8), conv(8, 24, groups=4), conv(24, 12), Head(12)), prunable="l2", frozen="l3.fc")
def grouped_with_more_outputs(net, x):
    return through(net, x)


@case(lambda: chain(conv(3, 24), conv(24, 8, groups=4), conv(8, 12), Head(12)), prunable="l2", frozen="l3.fc")
def grouped_with_fewer_outputs(net, x):
    return through(net, x)


@case(
    lambda: chain(cbr(3, 12), conv(12, 12, groups=3), nn.BatchNorm2d(12), conv(12, 12, groups=6), Head(12)),
    frozen="l4.fc",
)
def two_groupings_in_a_row(net, x):
    return through(net, x)


@case(
    lambda: Net(a=conv(3, 8), b=conv(3, 8), g=conv(16, 16, groups=4), c=conv(16, 8), head=Head(8)),
    prunable="c",
    frozen="head.fc",
)
def grouped_behind_a_concat(net, x):
    return net.head(net.c(net.g(torch.cat([net.a(x), net.b(x)], 1)).relu()))


@case(
    lambda: Net(a=conv(3, 8), g=conv(8, 8, groups=2), b=conv(8, 8), head=Head(8)),
    prunable="b",
    frozen="head.fc",
)
def residual_around_groups(net, x):
    x = net.a(x)
    x = x + net.g(x.relu())
    return net.head(net.b(x))


@case(lambda: chain(conv(3, 8), conv(8, 24, groups=8), conv(24, 12), Head(12)), prunable="l2", frozen="l3.fc")
def three_outputs_for_each_channel(net, x):
    return through(net, x)


@case(lambda: chain(conv(3, 12, groups=3), conv(12, 8), Head(8)), prunable="l1", frozen="l2.fc")
def depthwise_on_the_image(net, x):
    return through(net, x)


@case(
    lambda: chain(conv(3, 8), conv(8, 8, groups=8), conv(8, 8, 1), conv(8, 8, groups=8), Head(8)),
    groups={"l0": 8, "l2": 8},
    prunable="l0 l1 l2 l3",
    frozen="l4.fc",
)
def separable(net, x):
    return through(net, x)


BLUR = torch.tensor([1.0, 2.0, 1.0])[:, None] * torch.tensor([1.0, 2.0, 1.0]) / 16


@case(
    lambda: Net(a=conv(3, 8), blur=BLUR.repeat(8, 1, 1, 1), b=conv(8, 12), head=Head(12)),
    prunable="a b",
    frozen="head.fc",
)
def blur_by_a_buffer(net, x):
    y = net.a(x)
    return net.head(
        net.b(F.conv2d(F.pad(y, (1, 1, 1, 1), mode="reflect"), net.blur, stride=2, groups=y.shape[1]))
    )


@case(
    lambda: Net(a=conv(3, 8), blur=BLUR[None, None], b=conv(8, 12), head=Head(12)),
    prunable="b",
    frozen="head.fc",
)
def blur_expanded_in_forward(net, x):
    y = net.a(x)
    return net.head(net.b(F.conv2d(y, net.blur.expand(y.shape[1], -1, -1, -1), padding=1, groups=y.shape[1])))


@case(
    lambda: chain(*(nn.utils.weight_norm(conv(*size)) for size in ((3, 8), (8, 12))), conv(12, 8), Head(8)),
    frozen="l3.fc",
    mixes=True,
    may_refuse=True,
)
def weight_norm_of_old(net, x):
    return through(net, x)


@case(
    lambda: chain(parametrizations.weight_norm(conv(3, 8), dim=None), conv(8, 12), conv(12, 8), Head(8)),
    prunable="l1 l2",
    frozen="l3.fc",
    mixes=True,
)
def weight_norm_over_all(net, x):
    return through(net, x)


@case(
    lambda: chain(parametrizations.spectral_norm(conv(3, 8)), conv(8, 12), conv(12, 8), Head(8)),
    prunable="l1 l2",
    frozen="l3.fc",
    mixes=True,
)
def spectral_norm(net, x):
    return through(net, x)


class Magnitude(nn.Module):
    """Weights without signs."""

    def forward(self, weight: Tensor) -> Tensor:
        return weight.abs()


def parametrised(layer: nn.Module) -> nn.Module:
    parametrize.register_parametrization(layer, "weight", Magnitude())
    return layer


@case(
    lambda: chain(conv(3, 8), parametrised(conv(8, 12)), conv(12, 8), Head(8)), prunable="l2", frozen="l3.fc"
)
def own_parametrisation(net, x):
    return through(net, x)


@case(
    lambda: Net(a=conv(3, 8), w=nn.Parameter(torch.randn(12, 8, 3, 3)), b=conv(12, 8), head=Head(8)),
    prunable="b",
    frozen="head.fc",
)
def functional_convolution(net, x):
    return net.head(net.b(F.conv2d(net.a(x), net.w, padding=1).relu()))


@case(
    lambda: Net(
        a=conv(3, 8),
        w=nn.Parameter(torch.randn(12, 8, 3, 3)),
        scale=vector(12, 1, 1, 1),
        b=conv(12, 8),
        head=Head(8),
    ),
    prunable="b",
    frozen="head.fc",
)
def weight_that_is_a_product(net, x):
    return net.head(net.b(F.conv2d(net.a(x), net.w * net.scale, padding=1).relu()))


@case(
    lambda: Net(
        a=conv(3, 8), w=conv(8, 12), mask=(torch.rand(12, 8, 3, 3) > 0.5).float(), b=conv(12, 8), head=Head(8)
    ),
    prunable="b",
    frozen="head.fc",
)
def weight_times_a_mask(net, x):
    return net.head(net.b(F.conv2d(net.a(x), net.w.weight * net.mask, net.w.bias, padding=1)))


@case(lambda: Net(a=conv(3, 8), w=nn.Parameter(torch.randn(8, 12)), b=nn.Linear(12, 5)), frozen="b")
def matrix_on_the_right(net, x):
    return net.b(net.a(x).mean((2, 3)) @ net.w)


@case(
    lambda: Net(a=conv(3, 8, stride=2), w=nn.Parameter(torch.randn(6, 8)), b=nn.Linear(64, 5)),
    frozen="b",
)
def matrix_on_the_left(net, x):
    return net.b(net.w @ net.a(x).flatten(2))


@case(
    lambda: Net(a=conv(3, 8), w=nn.Parameter(torch.randn(12, 8)), b=conv(12, 8), head=Head(8)),
    prunable="b",
    frozen="head.fc",
)
def einsum(net, x):
    return net.head(net.b(torch.einsum("nchw,oc->nohw", net.a(x), net.w)))


@case(
    lambda: Net(a=conv(3, 8), twice=conv(8, 8), b=conv(8, 12), head=Head(12)),
    groups={"a": 8, "b": 12},
    prunable="a twice b",
    frozen="head.fc",
)
def called_twice(net, x):
    return net.head(net.b(net.twice(net.twice(net.a(x)).relu()).relu()))


@case(
    lambda: Net(
        a=conv(3, 8), b=conv(3, 8, stride=2), shared=conv(8, 12), n1=nn.BatchNorm2d(12), c=conv(12, 5)
    ),
    groups={"a": 8, "shared": 12},
    prunable="a b shared",
    frozen="c",
)
def one_layer_for_two_sizes(net, x):
    return [net.c(net.n1(net.shared(y)).relu()) for y in (net.a(x), net.b(x))]


def tied() -> Net:
    net = Net(a=conv(3, 8), one=conv(8, 8), two=conv(8, 8), c=conv(8, 12), head=Head(12))
    net.two.weight = net.one.weight
    return net


@case(tied, prunable="c", frozen="head.fc")
def one_parameter_in_two_layers(net, x):
    return net.head(net.c(net.two(net.one(net.a(x)).relu()).relu()))


@case(
    lambda: Net(a=conv(3, 8), code=nn.Linear(8, 6, bias=False), shift=vector(8), b=nn.Linear(8, 5)),
    frozen="b",
    mixes=True,
)
def decoder_with_the_encoders_weight(net, x):
    y = net.a(x).mean((2, 3))
    return net.b(F.linear(net.code(y).relu(), net.code.weight.t(), net.shift))


@case(lambda: Net(a=conv(3, 8), b=conv(8, 8), shift=vector(5), words=nn.Embedding(5, 8)), prunable="a")
def head_tied_to_an_embedding(net, x):
    return F.linear(net.b(net.a(x)).mean((2, 3)), net.words.weight, net.shift)


@case(
    lambda: Net(
        a=conv(3, 8), one=nn.Linear(8, 6), two=nn.Linear(8, 6), mix=nn.Bilinear(6, 6, 8), head=nn.Linear(8, 5)
    ),
    frozen="head",
    mixes=True,
    uncounted=True,
    may_refuse=True,
)
def bilinear(net, x):
    y = net.a(x).mean((2, 3))
    return net.head(net.mix(net.one(y), net.two(y)))


@case(
    lambda: Net(
        a=conv(3, 8), where=conv(8, 18), bent=DeformConv2d(8, 12, 3, padding=1), b=conv(12, 8), head=Head(8)
    ),
    frozen="where head.fc",
    uncounted=True,
    may_refuse=True,
)
def deformable(net, x):
    """The offsets are two numbers for each of nine taps, whatever the widths."""
    y = net.a(x)
    return net.head(net.b(net.bent(y, net.where(y).tanh()).relu()))
