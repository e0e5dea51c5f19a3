"""Layers that take their tensors from generators, at widths that can be set.

They stand in for a model's own layers, under the same names, so the model's `forward` runs unchanged.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn
from torch.nn import functional

from hwprune.pruningnet.crop import Crop
from hwprune.pruningnet.generators import CroppedWeight, WeightGenerator
from hwprune.structure.layers import ChannelMap
from hwprune.structure.prune import set_channels

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from hwprune.pruningnet.generators import Axes
    from hwprune.structure.space import Layer, Widths


class PrunableModule(nn.Module):
    """A layer whose tensors are made anew for each widths.

    Args:
        module: The layer it stands in for.
        layer: What the search space says about it.
        generators: Generators of single parameters, by local name; all others are plainly cropped.
        shared: Generators of the parameters met so far, by identity: a tied weight has one generator.
    """

    def __init__(
        self,
        module: nn.Module,
        layer: Layer,
        generators: Mapping[str, WeightGenerator],
        shared: dict[int, WeightGenerator],
    ) -> None:
        super().__init__()
        self.layer = layer
        self.widths: Widths = ()
        axes: dict[str, Axes] = {tensor.name.rpartition(".")[2]: tensor.axes for tensor in layer.tensors}
        own = {name: p for name, p in module._parameters.items() if p is not None}
        self.parameter_names = tuple(own)
        # The prefix keeps a parameter called "keys" or "values" from colliding with the dictionary's methods.
        self.make = nn.ModuleDict()
        for name, full in own.items():
            if id(full) not in shared:
                plain = CroppedWeight(full, axes.get(name, ()), requires_grad=full.requires_grad)
                shared[id(full)] = generators.get(name) or plain
            self.make[f"make_{name}"] = shared[id(full)]
        self.buffer_crops = {
            name: Crop(axes.get(name, ())) for name, b in module._buffers.items() if b is not None
        }
        for name in self.buffer_crops:
            lasting = name not in module._non_persistent_buffers_set
            self.register_buffer(name, module._buffers[name], persistent=lasting)

    def set_widths(self, widths: Widths) -> None:
        """Choose the widths of the next forward passes."""
        self.widths = widths

    def parameter(self, name: str) -> Tensor:
        """A parameter at the present widths."""
        return cast("WeightGenerator", self.make[f"make_{name}"]).weight(self.widths)

    def optional(self, name: str) -> Tensor | None:
        """A parameter or buffer at the present widths, or None if the layer has none of that name."""
        if name in self.buffer_crops:
            return self.buffer_crops[name](self.get_buffer(name), self.widths)
        return self.parameter(name) if name in self.parameter_names else None

    def tensors(self) -> dict[str, Tensor]:
        """All parameters and buffers at the present widths, by local name."""
        found = {name: self.optional(name) for name in (*self.parameter_names, *self.buffer_crops)}
        return {name: tensor for name, tensor in found.items() if tensor is not None}


class PrunableConv2d(PrunableModule):
    """Stands in for `nn.Conv2d`, also depthwise and grouped: groups go, each keeps its channels."""

    def __init__(self, module: nn.Conv2d, layer: Layer, *made: Any) -> None:
        super().__init__(module, layer, *made)
        self.stride, self.padding, self.dilation = module.stride, module.padding, module.dilation
        self.grouped = module.groups > 1
        self.groups, self.kernel_size = module.groups, module.kernel_size
        weight = next(tensor for tensor in layer.tensors if tensor.name.endswith("weight"))
        self.taken = dict(weight.axes).get(1) or ChannelMap.frozen(weight.shape[1])

    def set_widths(self, widths: Widths) -> None:
        """Choose the widths of the next forward passes."""
        super().set_widths(widths)
        if self.grouped:
            taken = max(1, int(self.taken.count(widths)))  # none of a layer that is left out
            self.groups = int(self.layer.inputs.count(widths)) // taken

    def forward(self, x: Tensor) -> Tensor:
        """Convolve: (N, C_in, H, W) -> (N, C_out, H', W')."""
        weight, bias = self.parameter("weight"), self.optional("bias")
        return functional.conv2d(x, weight, bias, self.stride, self.padding, self.dilation, self.groups)


class PrunableLinear(PrunableModule):
    """Stands in for `nn.Linear`."""

    def forward(self, x: Tensor) -> Tensor:
        """Multiply: (..., in) -> (..., out)."""
        return functional.linear(x, self.parameter("weight"), self.optional("bias"))


class PrunableBatchNorm2d(PrunableModule):
    """Stands in for `nn.BatchNorm2d`.

    Training uses the statistics of the batch and keeps none: those of other widths would be of no use.
    Evaluation uses the base network's, cropped; a candidate is recalibrated after it was materialised.

    The paper keeps one batch norm for each of the 31 widths of a position, without scale and shift. Their
    running statistics are overwritten by the recalibration of every candidate, and they hold nothing else,
    so a single one serves as well. Here it also has the scale and shift of the base network, cropped (the
    authors found that they make no obvious difference).
    """

    def __init__(self, module: nn.BatchNorm2d, layer: Layer, *made: Any) -> None:
        super().__init__(module, layer, *made)
        self.eps = module.eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalise each channel: (N, C, H, W) -> (N, C, H, W)."""
        mean = None if self.training else self.optional("running_mean")
        variance = None if self.training else self.optional("running_var")
        return functional.batch_norm(
            x, mean, variance, self.optional("weight"), self.optional("bias"), mean is None, 0.0, self.eps
        )


class PrunableOther(PrunableModule):
    """Stands in for any other layer (PReLU, LayerNorm, other convolutions, parametrisations, parameters).

    The layer itself runs, with its tensors replaced for the time of the call.
    """

    def __init__(self, module: nn.Module, layer: Layer, *made: Any) -> None:
        super().__init__(module, layer, *made)
        for name in self.parameter_names:
            del module._parameters[name]
        for name in self.buffer_crops:
            del module._buffers[name]
        self.inner = module

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the layer itself does."""
        tensors, layer = self.tensors(), self.layer
        try:
            self.inner.__dict__.update(tensors)
            inputs, outputs = layer.inputs.count(self.widths), layer.outputs.count(self.widths)
            set_channels(self.inner, int(inputs), int(outputs))
            return self.inner(*args, **kwargs)
        finally:
            for name in tensors:
                self.inner.__dict__.pop(name, None)


class _ReLU6(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, inplace: bool) -> Tensor:
        if inplace:
            ctx.mark_dirty(x)
        result = x.clamp_(0.0, 6.0) if inplace else x.clamp(0.0, 6.0)
        ctx.save_for_backward(result)
        return result

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, None]:
        (result,) = ctx.saved_tensors
        return torch.ops.aten.hardtanh_backward(grads[0], result, 0.0, 6.0), None


class FrugalReLU6(nn.Module):
    """Stands in for `nn.ReLU6`, and keeps its output for the backward pass in place of its input.

    The next convolution keeps that output anyway, so a third of MobileNetV2's activations need no memory.
    """

    def __init__(self, inplace: bool) -> None:
        super().__init__()
        self.inplace = inplace

    def forward(self, x: Tensor) -> Tensor:
        """Cut off below 0 and above 6: any shape -> the same."""
        return cast("Tensor", _ReLU6.apply(x, self.inplace))


def prunable(
    module: nn.Module,
    layer: Layer,
    generators: Mapping[str, WeightGenerator],
    shared: dict[int, WeightGenerator],
) -> PrunableModule:
    """The stand-in for `module`: a direct one for the three common classes, else the general one."""
    if type(module) is nn.Conv2d and module.padding_mode == "zeros":
        return PrunableConv2d(module, layer, generators, shared)
    if type(module) is nn.Linear:
        return PrunableLinear(module, layer, generators, shared)
    if type(module) is nn.BatchNorm2d:
        return PrunableBatchNorm2d(module, layer, generators, shared)
    return PrunableOther(module, layer, generators, shared)
