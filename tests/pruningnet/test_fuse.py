"""Folding of batch normalisation: the same outputs, and only where it is allowed."""

from __future__ import annotations

import copy

import torch
from torch import nn

from hwprune.pruningnet.fuse import conv_norm_pairs, fold

IMAGES = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def test_folding_keeps_the_outputs(model):
    pairs = conv_norm_pairs(model)
    assert ("stem", "norm") in pairs
    assert ("block2.conv2", "block2.bn2") in pairs
    folded = copy.deepcopy(model)
    fold(folded, pairs)
    assert not [m for m in folded.modules() if isinstance(m, nn.BatchNorm2d)]
    torch.testing.assert_close(folded(IMAGES), model(IMAGES), rtol=1e-4, atol=1e-5)


class Conv(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)


def test_a_convolution_that_something_else_reads_is_not_folded():
    class Twice(Conv):
        def forward(self, x):
            x = self.conv(x)
            return self.norm(x) + x

    assert conv_norm_pairs(Twice()) == ()


def test_a_layer_that_is_used_twice_is_not_folded():
    class Again(Conv):
        def forward(self, x):
            return self.conv(self.norm(self.conv(x)))

    assert conv_norm_pairs(Again()) == ()


def test_a_model_that_cannot_be_traced_is_left_unfolded():
    class Branching(Conv):
        def forward(self, x):
            return self.norm(self.conv(x)) if x.sum() > 0 else x

    assert conv_norm_pairs(Branching()) == ()


def test_subclasses_are_not_folded():
    class Doubling(nn.Conv2d):
        def forward(self, x):
            return super().forward(x) * 2

    assert conv_norm_pairs(nn.Sequential(Doubling(3, 3, 1), nn.BatchNorm2d(3))) == ()
