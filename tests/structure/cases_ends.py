"""Inputs and outputs of all kinds, heads, and what a network has but does not use."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from cases_base import IMAGE, Head, Net, case, cbr, conv, vector
from torch import nn


def two_stages(**parts: object) -> Net:
    return Net(c1=cbr(3, 8, stride=2), c2=cbr(8, 12, stride=2), **parts)


@case(two_stages, groups={"c1.0": 8}, prunable="c1.0", frozen="c2.0")
def the_features_are_the_output(net, x):
    return net.c2(net.c1(x))


@case(lambda: two_stages(h=conv(12, 4, 1)), groups={"c2.0": 12}, prunable="c2.0", frozen="c1.0 h")
def list_of_stages(net, x):
    a = net.c1(x)
    return [a, net.h(net.c2(a))]


@case(
    lambda: two_stages(h1=conv(8, 4, 1), h2=conv(12, 4, 1)),
    groups={"c1.0": 8, "c2.0": 12},
    prunable="c1.0 c2.0",
    frozen="h1 h2",
)
def nested_outputs(net, x):
    a = net.c1(x)
    b = net.c2(a)
    return {"maps": (net.h1(a), [net.h2(b)]), "score": net.h2(b).mean((1, 2, 3))}


@case(lambda: two_stages(h=conv(12, 4, 1)), groups={"c1.0": 8, "c2.0": 12}, prunable="c1.0 c2.0", frozen="h")
def one_output_twice(net, x):
    y = net.h(net.c2(net.c1(x)))
    return y, y.sigmoid(), y.flatten(2)


def pyramid() -> Net:
    return two_stages(l1=conv(8, 16, 1), l2=conv(12, 16, 1), s1=conv(16, 16), s2=conv(16, 16),
                      tower=cbr(16, 12), boxes=conv(12, 8), classes=conv(12, 6))  # fmt: skip


@case(pyramid, prunable="c1.0 c2.0 l1 l2 s1 s2 tower.0", frozen="boxes classes")
def pyramid_with_two_heads(net, x):
    a = net.c1(x)
    b = net.c2(a)
    top = net.l2(b)
    low = net.l1(a) + F.interpolate(top, size=a.shape[-2:], mode="nearest")
    found = []
    for level in (net.s1(low), net.s2(top)):
        y = net.tower(level)
        found.append(torch.cat([net.boxes(y), net.classes(y)], 1).flatten(2))
    return torch.cat(found, 2)


@case(lambda: two_stages(b=conv(12, 16, 1), bins=torch.arange(4.0)), prunable="c1.0 c2.0", frozen="b")
def boxes_as_distributions(net, x):
    y = net.b(net.c2(net.c1(x))).flatten(2)
    parts = y.view(len(y), 4, 4, -1).softmax(2)
    return (parts * net.bins.view(1, 1, -1, 1)).sum(2)


@case(
    lambda: two_stages(b=conv(12, 18, 1), anchors=torch.rand(1, 3, 1, 1, 2)), prunable="c1.0 c2.0", frozen="b"
)
def anchors_as_buffers(net, x):
    y = net.b(net.c2(net.c1(x)))
    n, _, h, w = y.shape
    y = y.view(n, 3, 6, h, w).permute(0, 1, 3, 4, 2)
    where, rest = y[..., :2], y[..., 2:]
    return torch.cat([where.exp() * net.anchors, rest.sigmoid()], -1).reshape(n, -1, 6)


@case(
    lambda: Net(a=cbr(3, 8), down=cbr(8, 16, stride=2), c=cbr(24, 8), h=conv(8, 2, 1)),
    groups={"a.0": 8, "down.0": 16, "c.0": 8},
    prunable="a.0 down.0 c.0",
    frozen="h",
)
def skip_by_interpolation(net, x):
    a = net.a(x)
    y = F.interpolate(net.down(a), scale_factor=2, mode="bilinear", align_corners=True)
    return net.h(net.c(torch.cat([y, a], 1)))


@case(
    lambda: Net(
        a=cbr(3, 12), b=nn.ModuleList(conv(12, 4, 1) for _ in range(3)), c=cbr(24, 8), h=conv(8, 2, 1)
    ),
    prunable="a.0 b.0 b.1 b.2 c.0",
    frozen="h",
)
def pyramid_pooling(net, x):
    y = net.a(x)
    size = y.shape[2:]
    pooled = [layer(F.adaptive_avg_pool2d(y, 2**index)) for index, layer in enumerate(net.b)]
    parts = [F.interpolate(part, size=size) for part in pooled]
    return net.h(net.c(torch.cat([y, *parts], 1)))


@case(lambda: Net(a=conv(3, 8), c=conv(8, 8), h=conv(8, 2)), prunable="c", frozen="h", may_refuse=True)
def unpooled(net, x):
    y, where = F.max_pool2d(net.a(x), 2, return_indices=True)
    return net.h(F.max_unpool2d(net.c(y), where, 2))


@case(
    lambda: Net(a=cbr(3, 8), b=cbr(1, 8), c=conv(16, 12), head=Head(12)),
    IMAGE,
    (2, 1, 16, 16),
    groups={"a.0": 8, "b.0": 8, "c": 12},
    prunable="a.0 b.0 c",
    frozen="head.fc",
)
def two_images_of_two_kinds(net, colour, depth):
    return net.head(net.c(torch.cat([net.a(colour), net.b(depth)], 1)))


@case(
    lambda: Net(a=cbr(3, 8), fc=nn.Linear(4, 6), h=nn.Linear(14, 5)),
    IMAGE,
    (2, 4),
    groups={"a.0": 8, "fc": 6},
    prunable="a.0 fc",
    frozen="h",
)
def features_and_numbers(net, x, numbers):
    return net.h(torch.cat([net.a(x).mean((2, 3)), net.fc(numbers).relu()], 1))


@case(
    lambda: two_stages(
        h=Head(12), spare=conv(8, 16), norm=nn.BatchNorm2d(16), note=vector(7), count=torch.tensor(3)
    ),
    groups={"c1.0": 8, "c2.0": 12},
    prunable="c1.0 c2.0",
    frozen="h.fc",
)
def layers_that_are_never_called(net, x):
    return net.h(net.c2(net.c1(x)))


@case(
    lambda: two_stages(
        h=Head(12), place=torch.arange(16), steps=nn.Parameter(torch.tensor([1, 2]), requires_grad=False)
    ),
    groups={"c1.0": 8, "c2.0": 12},
    prunable="c1.0 c2.0",
    frozen="h.fc",
)
def integers(net, x):
    return net.h(net.c2(net.c1(x[..., net.place]))) * net.steps.sum()


@case(lambda: two_stages(h=Head(12)), groups={"c1.0": 8, "c2.0": 12}, prunable="c1.0 c2.0", frozen="h.fc")
def classes_by_softmax(net, x):
    return net.h(net.c2(net.c1(x))).softmax(1)


@case(
    lambda: two_stages(f1=nn.Linear(12, 10), norm=nn.BatchNorm1d(10), f2=nn.Linear(10, 5)),
    groups={"c1.0": 8, "c2.0": 12, "f1": 10},
    prunable="c1.0 c2.0 f1 norm",
    frozen="f2",
)
def two_linear_layers(net, x):
    return net.f2(net.norm(net.f1(net.c2(net.c1(x)).amax((2, 3)))).relu())


@case(
    lambda: two_stages(h=conv(12, 5, 1)), groups={"c1.0": 8, "c2.0": 12}, prunable="c1.0 c2.0",
    frozen="h",
)  # fmt: skip
def fully_convolutional(net, x):
    return net.h(net.c2(net.c1(x))).mean((-2, -1))


@case(
    lambda: Net(a=cbr(3, 12), b=conv(12, 12, groups=12), c=conv(12, 8, 1), d=conv(8, 12, 1), h=Head(12)),
    groups={"a.0": 12, "c": 8},
    prunable="a.0 b c d",
    frozen="h.fc",
)
def scaled_residual_with_clamp(net, x):
    x = net.a(x)
    y = net.d(net.c(net.b(x)).clamp(0, 6))
    return net.h((x - 0.1 * y).abs().sqrt())


@case(lambda: Net(a=conv(3, 8), fc=nn.Linear(8, 8), h=nn.Linear(8, 5)), prunable="a fc", frozen="h")
def gate_of_a_vector_and_a_map(net, x):
    y = net.a(x)
    s = net.fc(y.mean((2, 3))).sigmoid()
    return net.h((y * s[..., None, None]).amax((2, 3)) + s)


@case(
    lambda: Net(fc=nn.Linear(12, 16), out=nn.Linear(16, 5)),
    (2, 12),
    prunable="fc",
    frozen="out",
    may_refuse=True,
)
def no_convolution(net, x):
    return net.out(net.fc(x).relu())


@case(lambda: Net(h=conv(3, 5)), refuses=True)
def nothing_but_a_head(net, x):
    return net.h(x)


@case(lambda: Net(a=conv(3, 8), h=conv(8, 5)), (2, 4, 16, 16), refuses=True)
def wrong_input(net, x):
    return net.h(net.a(x))


@case(lambda: Net(pool=nn.AvgPool2d(2)), refuses=True)
def no_parameters(net, x):
    return net.pool(x)


@case(lambda: Net(a=conv(3, 8), h=conv(8, 5)), refuses=True)
def outputs_that_differ_between_calls(net, x):
    y = net.a(x)
    return net.h(y + torch.rand(y.shape))


@case(lambda: Net(a=conv(3, 8), b=conv(8, 8), h=conv(8, 5)), refuses=True)
def a_path_that_depends_on_the_data(net, x):
    y = net.a(x)
    return net.h(net.b(y) if float(y.sum()) > 0 else y)


@case(
    lambda: Net(a=conv(3, 8), b=conv(8, 12), h=conv(12, 5)),
    groups={"a": 8, "b": 12},
    prunable="a b",
    frozen="h",
)
def squeezed_and_unsqueezed(net, x):
    y = net.a(x).mean((2, 3)).unsqueeze(-1).unsqueeze(-1).expand(-1, -1, 4, 4)
    return net.h(net.b(y))
