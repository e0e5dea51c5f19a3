"""`PruningNet`: any traced model, with its layers' weights made for the widths that are set."""

from __future__ import annotations

import copy
import functools
import types
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from hwprune import artifacts
from hwprune.errors import MismatchError, UsageError
from hwprune.models.start import reset_parameters
from hwprune.pruningnet.generators import check_generator, make_generator
from hwprune.pruningnet.modules import FrugalReLU6, PrunableModule, prunable
from hwprune.structure.prune import Instead, prune, set_size
from hwprune.structure.tied import seen_groups, tied_modules
from hwprune.training.precision import device_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from torch import Tensor

    from hwprune.pruningnet.generators import WeightGenerator
    from hwprune.pruningnet.settings import GeneratorName
    from hwprune.structure.space import Layer, SearchSpace

_KIND, _SCHEMA = "pruningnet", 1


class PruningNet(nn.Module):
    """A network with a weight generator in each layer that has channels to prune.

    Made from a copy of the model by putting stand-ins in the place of its layers, under the same names; the
    model's own `forward` runs unchanged. Generators make the weights of convolutions; biases,
    normalisation, linear layers and bare parameters are cropped parameters (as the classifier is in the
    paper: generating a VGG's would take billions of rows).

    Args:
        model: The traced model; it is not modified. With `shared` and `residual` its weights are the start:
            for `residual` it should be trained and its channels sorted (`structure.rank`). `fc` starts from
            nothing, as in the paper, and so re-initialises the layers around its generators too.
        space: What `trace` returned for it.
        generator: `fc` (the paper's), `residual` (trained weights with generated gains) or `shared` (cropped
            weights, nothing generated).
        hidden: Width of the hidden layer of `fc`, of which `residual` takes a quarter; the paper uses 32, and
            64 in MobileNetV2.
        seed: Fixes the initial weights of the generators.
        tied: Patterns of modules (`structure.tied`): the encoding of a layer in one holds all widths of it.
            That of any other layer holds those that it writes and reads itself.
        hidden_outside: Width of the hidden layer for layers in no tied module; 0 takes `hidden`.
        recompute: Whether training keeps only the input of each tied module and computes its inside again in
            the backward pass (Chen et al. 2016): less memory for a third more time. The steps are the same.

    Raises:
        UsageError: No such generator, or nothing to recompute.
        ModelError: A pattern of tied modules fits no layer.

    Example:
        >>> net = hwprune.PruningNet(model, space, "residual")
        >>> net.set_widths(space.uniform(0.5))  # of the next forward passes
        >>> dense = net.materialise(space.uniform(0.5))
    """

    def __init__(
        self,
        model: nn.Module,
        space: SearchSpace,
        generator: GeneratorName = "fc",
        hidden: int = 32,
        seed: int = 0,
        *,
        tied: Sequence[str] = (),
        hidden_outside: int = 0,
        recompute: bool = False,
    ) -> None:
        super().__init__()
        check_generator(generator)
        if recompute and not tied:
            raise UsageError(
                "Without tied modules there is nothing to compute again.",
                where="recompute",
                do="name the modules (`tied` under [model]), or leave recompute off",
            )
        self.space, self.generator, self.hidden = space, generator, hidden
        self._tied = tied_modules(space, tied)
        self._seen = seen_groups(space, self._tied)
        self._hidden_outside = hidden_outside or hidden
        # In a tuple, so that it is no part of this module: only its structure is used, by `materialise`.
        self._base = (copy.deepcopy(model),)
        self.widths = space.full()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.model = self._convert(copy.deepcopy(model))
        for name in set(self._tied.values()) if recompute else ():
            _at_will(self._owners[name]).__dict__["recomputed"] = True
        # In tuples, as above.
        self._blocks = tuple((_at_will(self._owners[block.name]), Instead(block)) for block in space.blocks)
        self.set_widths(self.widths)

    def _convert(self, model: nn.Module) -> nn.Module:
        """Put stand-ins into `model`; remembers for each module name who has its tensors now."""
        if self.generator == "fc":
            reset_parameters(model)
        modules = dict(model.named_modules(remove_duplicate=False))
        self._shared: dict[int, WeightGenerator] = {}
        # In tuples, so that they are no parts of this module beside the places that they have in the model.
        self._sized = tuple((one, (modules[one.module],)) for one in self.space.attributes)
        stand_ins: dict[int, nn.Module] = {id(module): module for module in modules.values()}
        for layer in self.space.layers:
            module = modules[layer.name]
            # a module under two names has one stand-in
            if stand_ins[id(module)] is module and any(tensor.axes for tensor in layer.tensors):
                stand_ins[id(module)] = self._stand_in(module, layer)
        self._owners = {name: stand_ins[id(module)] for name, module in modules.items()}
        for name, module in modules.items():
            parent, _, leaf = name.rpartition(".")
            if name and self._owners[name] is not module:
                setattr(modules[parent], leaf, self._owners[name])
            elif name and type(module) is nn.ReLU6:
                setattr(modules[parent], leaf, FrugalReLU6(module.inplace))
        return self._owners[""]

    def _stand_in(self, module: nn.Module, layer: Layer) -> PrunableModule:
        generators: dict[str, WeightGenerator] = {}
        axes = {tensor.name.rpartition(".")[2]: tensor.axes for tensor in layer.tensors}
        weight = module._parameters.get("weight")
        if layer.op in ("conv", "deconv") and weight is not None and axes.get("weight"):
            seen = tuple((group, self.space.groups[group].width) for group in self._seen[layer.name])
            hidden = self.hidden if layer.name in self._tied else self._hidden_outside
            generators["weight"] = make_generator(self.generator, weight, axes["weight"], seen, hidden)
        return prunable(module, layer, generators, self._shared)

    def set_widths(self, widths: Sequence[int]) -> None:
        """Choose the widths of the next forward passes.

        Raises:
            UsageError: They do not belong to the space.
        """
        self.widths = self.space.check(widths)
        for module in self.modules():
            if isinstance(module, PrunableModule):
                module.set_widths(self.widths)
        for attribute, (module,) in self._sized:
            set_size(module, attribute, int(attribute.size.count(self.widths)))
        for (block, instead), gate in zip(self._blocks, self.widths[len(self.space.groups) :], strict=True):
            block.__dict__["left_out"] = None if gate else instead

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The model's own forward at the present widths: (N, C, H, W) -> (N, classes)."""
        return self.model(*args, **kwargs)

    @torch.no_grad()
    def materialise(self, widths: Sequence[int]) -> nn.Module:
        """Make the network of `widths`: a dense, ordinary module with the weights generated for it.

        Its batch-norm statistics are of no use before `training.evaluation.recalibrate`.

        Returns:
            A new module of the base model's class, on this network's device, in this network's mode.

        Raises:
            UsageError: The widths do not belong to the space.
        """
        before = self.widths
        self.set_widths(widths)
        dense = prune(self._base[0], self.space, self.widths).to(device_of(self))
        dense.load_state_dict(self._state(dense))
        self.set_widths(before)
        return dense.train(self.training)

    def _state(self, dense: nn.Module) -> dict[str, Tensor]:
        """What to load into `dense`, by its names."""
        made: dict[int, dict[str, Tensor]] = {}
        state = {}
        for name in dense.state_dict():
            owner_name, _, leaf = name.rpartition(".")
            owner = self._owners[owner_name]
            if isinstance(owner, PrunableModule):
                state[name] = made.setdefault(id(owner), owner.tensors())[leaf]
            else:
                state[name] = getattr(owner, leaf)
        return state

    def save(self, path: Path) -> None:
        """Write the trained weights.

        Raises:
            StorageError: Full disk, no permission.
        """
        artifacts.write_tensors(path, _KIND, _SCHEMA, self.state_dict(), self._identity())

    def load(self, path: Path, made_by: str = "") -> None:
        """Read weights that `save` wrote.

        Args:
            path: The file.
            made_by: The command that makes it, for messages.

        Raises:
            MismatchError: They are of another model, space or generator.
            ArtifactError: Missing or damaged.
        """
        tensors, identity = artifacts.read_tensors(path, _KIND, _SCHEMA, made_by)
        own = {name: tuple(tensor.shape) for name, tensor in self.state_dict().items()}
        if identity != self._identity() or own != {n: tuple(t.shape) for n, t in tensors.items()}:
            raise MismatchError(
                "The weights are of a PruningNet for another model, space or generator.",
                where=path,
                got=identity,
                allowed=self._identity(),
                do=f"make it again with `{made_by}`" if made_by else "train the PruningNet again",
            )
        self.load_state_dict(tensors)

    def _identity(self) -> dict[str, Any]:
        groups = [[group.name, group.width] for group in self.space.groups]
        seen = [[layer, *groups] for layer, groups in self._seen.items() if layer in self._tied]
        left_out = {"gates": [block.name for block in self.space.blocks]} if self.space.blocks else {}
        own = {"generator": self.generator, "hidden": self.hidden, "groups": groups, "blocks": seen}
        return own | left_out


def _at_will(block: nn.Module) -> nn.Module:
    """Let a block's forward pass depend on whether it is left out, or recomputed."""
    block.forward = types.MethodType(_forward, block)
    return block


def _forward(block: nn.Module, *args: Any, **kwargs: Any) -> Any:
    """The forward pass of `block`; where it is recomputed, only its inputs are kept for the backward pass."""
    if instead := block.__dict__.get("left_out"):
        return instead(*args, **kwargs)
    inside = functools.partial(type(block).forward, block)
    if not (block.__dict__.get("recomputed") and block.training and torch.is_grad_enabled()):
        return inside(*args, **kwargs)
    return checkpoint(inside, *args, use_reentrant=False, **kwargs)
