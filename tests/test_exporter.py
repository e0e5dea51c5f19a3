"""Export: what torch computes, under the names of the search space."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from hwprune.errors import ModelError
from hwprune.exporter import FileNetwork, largest_difference
from hwprune.structure.export import export_base


class Blur(nn.Module):
    """A fixed filter that is no part of the state, as in anti-aliased networks."""

    def __init__(self) -> None:
        super().__init__()
        kernel = torch.tensor([1.0, 2.0, 1.0])
        filters = (kernel[:, None] * kernel[None, :] / 16).expand(8, 1, 3, 3).clone()
        self.register_buffer("filters", filters, persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.conv2d(x, self.filters, stride=2, padding=1, groups=8)


def small_net() -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), Blur()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)).eval()


def test_fixed_filters_that_are_no_part_of_the_state_are_exported_as_they_are() -> None:
    model = small_net()
    content = export_base(model, (2, 3, 16, 16))
    assert largest_difference(model, content, (2, 3, 16, 16)) < 1e-5


def test_names_are_those_of_the_state_and_norms_are_folded() -> None:
    exported = onnx.load_model_from_string(export_base(small_net(), (1, 3, 16, 16)))
    names = {tensor.name for tensor in exported.graph.initializer}
    assert {"0.weight", "0.bias", "6.weight", "6.bias"} <= names
    assert not any(node.op_type == "BatchNormalization" for node in exported.graph.node)
    assert not any(node.doc_string for node in exported.graph.node)  # such as paths of the code


def test_a_wrong_file_is_found_out() -> None:
    model, other = small_net(), small_net()
    with torch.no_grad():
        other[6].weight.mul_(1.5)
    content = export_base(other, (1, 3, 16, 16))
    difference = largest_difference(model, content, (1, 3, 16, 16))
    assert np.isfinite(difference)
    assert difference > 1e-2


def test_a_file_that_onnx_runtime_refuses_is_told():
    with pytest.raises(ModelError, match="refuses the file"):
        FileNetwork(b"no network", 1)
