"""How much each channel of a group matters to a trained network.

Scores are added up over all layers that the group touches, each layer's scaled to a mean of 1, as DepGraph
does (Fang et al., CVPR 2023, section 3.3). Torch-Pruning's classes for this work on its own groups, which a
search space does not keep; here the maps of the space say which slices belong to a channel.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from hwprune.errors import DataError
from hwprune.training.precision import Execution, device_of
from hwprune.training.task import CLASSIFICATION, Task, call, inputs_of, loss_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from torch import Tensor, nn

    from hwprune.pruningnet.settings import ImportanceName
    from hwprune.structure.layers import ChannelMap, Layer
    from hwprune.structure.space import SearchSpace

_WEIGHTED = ("conv", "deconv", "linear")


def importance(
    name: ImportanceName,
    model: nn.Module,
    space: SearchSpace,
    batches: Iterable[Any] = (),
    task: Task = CLASSIFICATION,
) -> list[Tensor]:
    """Score the channels of each group.

    Args:
        name: `l1` (sum of absolute weights), `bn_scale` (absolute scale of batch normalisation; `l1` where a
            group has none), `taylor` (absolute product of weight and gradient: the first-order change of the
            loss when the channel goes) or `fisher` (the square of that product's sum over a channel, by
            batch: its second-order change where the network is trained; Theis et al. 2018).
        model: The trained model.
        space: Its search space.
        batches: Training images and labels, for `taylor` and `fisher`; small ones tell more.
        task: Whose loss it is.

    Returns:
        For each group (width,).

    Raises:
        DataError: `taylor` or `fisher` without images.
    """
    tensors = {key: tensor.detach() for key, tensor in model.named_parameters()}
    if name == "fisher":
        squares: list[Tensor] = []
        for gradients in _gradients(model, batches, task):
            products = {key: tensors[key] * gradient for key, gradient in gradients.items()}
            found = [local.square() for _, local in _by_channel(space, products, _WEIGHTED)]
            squares = [a + b for a, b in zip(squares, found, strict=True)] if squares else found
        axes = [channels for channels, _ in _by_channel(space, tensors, _WEIGHTED)]
        return _total(space, zip(axes, squares, strict=True))
    if name == "taylor":
        sums = {key: torch.zeros_like(tensor) for key, tensor in tensors.items()}
        for gradients in _gradients(model, batches, task):
            for key, gradient in gradients.items():
                sums[key] += gradient
        values = {key: (tensor * sums[key]).abs() for key, tensor in tensors.items()}
    else:
        values = {key: tensor.abs() for key, tensor in tensors.items()}
    weights = _total(space, _by_channel(space, values, _WEIGHTED))
    if name != "bn_scale":
        return weights
    scales = _total(space, _by_channel(space, values, ("norm",)))
    return [scale if bool(scale.any()) else weight for scale, weight in zip(scales, weights, strict=True)]


def _by_channel(
    space: SearchSpace, values: dict[str, Tensor], ops: tuple[str, ...]
) -> list[tuple[ChannelMap, Tensor]]:
    """Values of the weights of some kinds of layers, added up by channel: (local channels,) of each axis."""
    return [
        (channels, value.float().transpose(0, axis).flatten(1).sum(1).cpu())
        for layer in space.layers
        if layer.op in ops and (value := _weight(layer, values)) is not None
        for axis, channels in dict(_axes(layer)).items()
    ]


def _total(space: SearchSpace, found: Iterable[tuple[ChannelMap, Tensor]]) -> list[Tensor]:
    """What the axes of all layers say of each group's channels: (width,)."""
    scores = [torch.zeros(group.width) for group in space.groups]
    for channels, local in found:
        _add(scores, channels, local)
    return scores


def _weight(layer: Layer, values: dict[str, Tensor]) -> Tensor | None:
    value = values.get(f"{layer.name}.weight" if layer.name else "weight")
    return value.unsqueeze(1) if value is not None and value.ndim == 1 else value


def _axes(layer: Layer) -> tuple[tuple[int, ChannelMap], ...]:
    return next((t.axes for t in layer.tensors if t.name.rpartition(".")[2] == "weight"), ())


def _add(scores: list[Tensor], channels: ChannelMap, local: Tensor) -> None:
    """Add the scores of a dimension's local channels to those of the groups that it follows."""
    scaled = local / local.mean().clamp(min=1e-12)
    for group in channels.groups:
        places = np.flatnonzero(channels.group_of == group)
        scores[group].index_add_(
            0, torch.from_numpy(channels.channel_of[places]), scaled[torch.from_numpy(places)]
        )


def _gradients(
    model: nn.Module, batches: Iterable[Any], task: Task = CLASSIFICATION
) -> Iterator[dict[str, Tensor]]:
    """Gradient of the mean loss of each batch, in eval mode; the model's own gradients are not touched.

    Raises:
        DataError: There are no batches.
    """
    training, count = model.training, 0
    names, parameters = zip(*model.named_parameters(), strict=True)
    model.eval()
    for batch in map(Execution(device=device_of(model)).place, batches):
        loss = loss_of(task, call(model, inputs_of(task, batch)), batch)
        found = torch.autograd.grad(loss, parameters, allow_unused=True)
        count += 1
        yield {
            name: torch.zeros_like(parameter) if gradient is None else gradient
            for name, parameter, gradient in zip(names, parameters, found, strict=True)
        }
    model.train(training)
    if not count:
        raise DataError("This importance needs training images.", allowed="l1 and bn_scale need none")
