"""A trained network that is cut to any widths, its remaining weights repaired by least squares.

What a layer loses with the channels that it no longer reads is partly told by those that stay: their share of
it, by the second moments of the layer's inputs on training images, is added to the weights of the remaining
ones. One pass and one solve for each layer; the idea is that of ThiNet (Luo et al., ICCV 2017) and of He et
al. (ICCV 2017), with moments that are taken once, of the unpruned network, for all networks of the space.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from hwprune.pruningnet.importance import importance as scored
from hwprune.structure.prune import prune
from hwprune.structure.rank import sort_channels
from hwprune.training.batches import seeded
from hwprune.training.precision import Execution, device_of
from hwprune.training.task import CLASSIFICATION, Task, call, images_in, inputs_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from torch import Tensor

    from hwprune.pruningnet.settings import ImportanceName
    from hwprune.structure.layers import Layer
    from hwprune.structure.space import SearchSpace

_DAMPING = 0.01  # of the mean variance of the channels that stay
_POSITIONS = 64  # of each image, about: neighbours say the same
_MOST = 2048  # channels: the solve grows with their cube
_IMAGES = 512  # that importance and repair look at, at most


class Inherited(nn.Module):
    """The networks of a space with the weights of the trained unpruned one: no training at all.

    Example:
        >>> weights = hwprune.Inherited(model, space, loader)
        >>> half = weights.materialise(space.uniform(0.5))

    Args:
        model: The trained model; it is not modified.
        space: What `trace` returned for it.
        batches: Batches of training images, of which the first 512 images or so make repairs; without any,
            weights are only cut.
        importance: What the channels of each group are sorted by, the most important first; None where they
            are sorted already.
        task: Says what of a batch are images, and what the loss is that `taylor` and `fisher` go by.

    Attributes:
        space: As given.
        model: The trained model, its channels sorted.
    """

    def __init__(
        self,
        model: nn.Module,
        space: SearchSpace,
        batches: Iterable[Any] = (),
        *,
        importance: ImportanceName | None = "l1",
        task: Task = CLASSIFICATION,
    ) -> None:
        super().__init__()
        some = list(_some(batches, task))
        if importance is not None:
            model = sort_channels(model, space, scored(importance, model, space, some, task))
        self.model, self.space = model.eval(), space
        self._moments = _moments(self.model, [one for one in space.layers if _mixes(one)], some, task)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The unpruned network's own forward."""
        return self.model(*args, **kwargs)

    @torch.no_grad()
    def materialise(self, widths: Sequence[int]) -> nn.Module:
        """Make the network of `widths` in eval mode; otherwise as `PruningNet.materialise`."""
        chosen = self.space.check(widths)
        dense = prune(self.model, self.space, chosen)
        layers = dict(dense.named_modules())
        repaired: set[int] = set()
        for layer in self.space.layers:
            module = layers.get(layer.name)
            known = self._moments.get(layer.name)
            if module is None or known is None or id(module) in repaired:
                continue
            repaired.add(id(module))
            _repair(module, self.model.get_submodule(layer.name), layer, known, chosen)
        return dense.eval()


class _Moments:
    """Mean (C,) and covariance (C, C) of the channels that a layer reads, gathered by a hook."""

    def __init__(self) -> None:
        self.count = 0
        self.sum: Tensor | None = None
        self.products: Tensor | None = None

    def __call__(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        rows = _rows(inputs[0].detach(), isinstance(module, nn.Linear))
        if self.sum is None or self.products is None:
            self.sum, self.products = rows.sum(0), rows.T @ rows
        else:
            self.sum += rows.sum(0)
            self.products += rows.T @ rows
        self.count += len(rows)

    @property
    def mean(self) -> Tensor:
        if self.sum is None:
            raise RuntimeError("nothing was gathered")
        return self.sum / self.count

    @property
    def covariance(self) -> Tensor:
        if self.products is None:
            raise RuntimeError("nothing was gathered")
        return self.products / self.count - torch.outer(self.mean, self.mean)


def _rows(value: Tensor, last: bool) -> Tensor:
    """Channels of an input at some of its positions: (N, C, ...) or, channels last, (..., C) -> (rows, C)."""
    if last:
        return value.flatten(0, -2).float()
    step = max(1, round((value[0, 0].numel() / _POSITIONS) ** (1 / max(value.ndim - 2, 1))))
    for axis in range(2, value.ndim):
        value = value.index_select(
            axis, torch.arange(step // 2, value.shape[axis], step, device=value.device)
        )
    return value.flatten(2).transpose(1, 2).flatten(0, 1).float()


def _mixes(layer: Layer) -> bool:
    """Whether a layer adds up channels that can be pruned."""
    return layer.op in ("conv", "linear") and bool(layer.inputs.groups) and layer.inputs.size <= _MOST


def _some(batches: Iterable[Any], task: Task) -> Iterator[Any]:
    """The first batches, until they have images enough."""
    seen = 0
    for batch in seeded(batches):
        yield batch
        seen += images_in(inputs_of(task, batch))
        if seen >= _IMAGES:
            break


def _moments(
    model: nn.Module, layers: Sequence[Layer], batches: Sequence[Any], task: Task
) -> dict[str, _Moments]:
    """Moments of the inputs of those layers that mix all channels that they read."""
    found: dict[str, _Moments] = {}
    hooks = []
    for layer in layers:
        module = model.get_submodule(layer.name)
        mixes = isinstance(module, nn.Linear) or (
            isinstance(module, nn.modules.conv._ConvNd) and module.groups == 1 and not module.transposed
        )
        if mixes and "weight" in module._parameters:
            found[layer.name] = _Moments()
            hooks.append(module.register_forward_pre_hook(found[layer.name]))
    try:
        with torch.no_grad():
            for batch in map(Execution(device=device_of(model)).place, batches if found else ()):
                call(model, inputs_of(task, batch))
    finally:
        for hook in hooks:
            hook.remove()
    return {name: one for name, one in found.items() if one.count}


def _repair(
    module: nn.Module, whole: nn.Module, layer: Layer, known: _Moments, widths: Sequence[int]
) -> None:
    """Let the channels that a layer still reads stand in for those that it lost."""
    keeps = torch.from_numpy(layer.inputs.keeps(widths))
    if bool(keeps.all()) or not bool(keeps.any()):
        return
    covariance = known.covariance
    own = covariance[keeps][:, keeps]
    damped = own + _DAMPING * own.diagonal().mean().clamp(min=1e-8) * torch.eye(len(own), device=own.device)
    share = torch.linalg.solve(damped, covariance[keeps][:, ~keeps])  # (kept, lost)
    rows = torch.from_numpy(layer.outputs.kept(widths))
    weight = whole.get_parameter("weight")[rows]
    lost = weight[:, ~keeps]  # (out, lost, ...)
    module.get_parameter("weight").add_(torch.einsum("ol...,kl->ok...", lost, share))
    if getattr(module, "bias", None) is not None:
        rest = known.mean[~keeps] - share.T @ known.mean[keeps]
        module.get_parameter("bias").add_(torch.einsum("ol...,l->o", lost, rest))
