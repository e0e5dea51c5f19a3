"""`trace`: from a torch model to its `SearchSpace`, proved on the model itself.

Steps: export the model (export.py), send labels through its graph (flow.py), group them (groups.py),
describe the model's layers by them (assemble.py), and try the space on the model (proof.py). Groups that a
check refuses are frozen (tracing.py).
"""

from __future__ import annotations

import contextlib
import copy
import gc
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from hwprune.errors import HwpruneError, ModelError
from hwprune.structure import graph as graphs
from hwprune.structure.assemble import Owned, weighted
from hwprune.structure.export import (
    Inputs,
    as_inputs,
    check_exportable,
    does_not_run,
    export_graph,
    output_names,
    tensors_of,
)
from hwprune.structure.flow import analyse
from hwprune.structure.layers import FROZEN
from hwprune.structure.onnx_fold import fold
from hwprune.structure.onnx_metadata import DECIDES, noted
from hwprune.structure.proof import CHECKS, Prover
from hwprune.structure.prune import light_copy
from hwprune.structure.removable import BlockFinder
from hwprune.structure.shake import random_like, shake
from hwprune.structure.sizes import find_attributes
from hwprune.structure.tracing import Tracer, proved

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from hwprune.structure.space import SearchSpace

_MOVES = frozenset({"Transpose", "Reshape", "Unsqueeze", "Squeeze", "Flatten", "Identity"})
_NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


def trace(
    model: nn.Module,
    example_inputs: torch.Tensor | tuple[torch.Tensor, ...],
    *,
    name: str = "model",
    exclude: Sequence[str] = (),
    depth: bool = False,
) -> SearchSpace:
    """Find the channel groups of any CNN, and the blocks that may go, and prove them on it.

    What cannot be pruned safely is frozen: kept at full width, listed in `SearchSpace.frozen`, and named in
    an `HwpruneWarning` with the reason. The model's outputs are never pruned.

    Args:
        model: Any module whose forward runs on `example_inputs` in eval mode; it is not modified.
        example_inputs: One batch, (N, C, H, W), or a tuple of such inputs.
        name: The model's name, kept in the space.
        exclude: Patterns (`layer4.*`) of layers whose output channels must stay, and of blocks that must.
        depth: Whether blocks may go (removable.py).

    Returns:
        The space, with the paper's 31 ratios as each group's choices.

    Raises:
        ModelError: The model does not run on the inputs, cannot be exported, gives other outputs when it is
            called again, or has nothing to prune.

    Example:
        >>> space = hwprune.trace(model, torch.zeros(1, 1, 16, 16))
        >>> [group.name for group in space.groups]
        ['0', '3', '6']
    """
    begun = time.perf_counter()
    inputs = as_inputs(example_inputs)
    check_exportable(model)
    outputs = _check_runs(model, inputs)
    try:
        with _old_objects_apart():
            tracer, prover = _started(model, inputs, outputs, name)
            tracer.exclude(exclude)
            space = tracer.space()
            analysed = time.perf_counter()
            space = tracer.prove(prover, space)
            if depth:
                space = prover.with_blocks(tracer.with_blocks(space, exclude))
    except HwpruneError:
        raise
    except Exception as error:  # any network may hold what nobody thought of; nothing has been changed
        raise ModelError(
            "The structure of this model cannot be analysed.",
            where=name,
            got=f"{type(error).__name__}: {error}"[:300],
            do="report this with the model; until then, prune a part of it that can be traced",
        ) from error
    one_batch = {} if prover.batches else {"onnx": "onnx at one batch"}
    checks = tuple(one_batch.get(check, check) for check in (*CHECKS, *(["blocks"] if space.blocks else [])))
    return proved(space, checks, analysed - begun, time.perf_counter() - analysed)


@contextlib.contextmanager
def _old_objects_apart() -> Iterator[None]:
    """Python looks for garbage among new objects only: among those of large libraries it takes long."""
    mine = not gc.get_freeze_count()
    if mine:
        gc.freeze()
    try:
        yield
    finally:
        if mine:
            gc.unfreeze()


def _started(
    model: nn.Module, inputs: Inputs, outputs: Sequence[str], name: str
) -> tuple[_TorchTracer, Prover]:
    """The labels of a model and what tries them, with calmer weights where rounding errors grow."""
    for calm in (False, True):
        tracer = _TorchTracer(shake(model, inputs, calm=calm), inputs, outputs, name)
        flags = {"idle": bool(tracer.idle), "decides": noted(tracer.graph.model, DECIDES)}
        prover = Prover(tracer.model, inputs, tracer.base, tracer.readers(), **flags)
        try:
            prover.check_base()
            break
        except ModelError:
            if calm:
                raise
    return tracer, prover


def _check_runs(model: nn.Module, inputs: Inputs) -> list[str]:
    """Run the model twice; the names of its outputs.

    Raises:
        ModelError: It does not run, returns no tensor, or something else the second time.
    """
    try:
        twin = light_copy(model).eval()
        with torch.no_grad():
            once, again = (twin(*copy.deepcopy(inputs)) for _ in range(2))
        names, once, again = output_names(once), tensors_of(once), tensors_of(again)
    except (Exception, SystemExit) as error:  # the user's own forward may raise anything
        raise does_not_run(model, inputs, error) from error
    if not once:
        raise ModelError(
            "The model returns no tensor.",
            where=type(model).__name__,
            do="let its forward return tensors, alone or in lists, tuples and dicts",
        )
    same = [x.shape for x in once] == [x.shape for x in again]
    if not same or not all(
        torch.equal(a.nan_to_num(), b.nan_to_num()) for a, b in zip(once, again, strict=True)
    ):
        raise ModelError(
            "The model's outputs differ between two equal calls.",
            where=type(model).__name__,
            do="make its forward in eval mode depend on its inputs alone",
        )
    if not any(True for _ in model.parameters()):
        raise ModelError(
            "Nothing in this model can be pruned.",
            where=type(model).__name__,
            got="no parameters",
            do="give a model with convolutions or linear layers",
        )
    return names


class _TorchTracer(Tracer):
    """The tracer of a torch model.

    Args:
        model: A copy with shaken weights.
        inputs: Example inputs.
        outputs: Names of its outputs.
        name: The model's name.

    Attributes:
        model: The same.
        base: Its ONNX.
    """

    def __init__(self, model: nn.Module, inputs: Inputs, outputs: Sequence[str], name: str) -> None:
        self.model, self.inputs = model, random_like(inputs)
        exported = export_graph(self.model, inputs, outputs)
        self.base = exported.copied()
        fold(self.base)
        tensors: dict[str, torch.Tensor] = dict(model.named_parameters(remove_duplicate=False))
        tensors |= {n: b for n, b in model.named_buffers(remove_duplicate=False) if b.ndim > 0}
        kinds = {n: "norm" for n, m in model.named_modules() if isinstance(m, _NORMS)}
        owned = {n: _owned(n, tensor, kinds) for n, tensor in tensors.items()}
        self.aliases = _aliases(tensors)
        graph = graphs.read(exported.model, [n for n in owned if owned[n].shape])
        super().__init__(graph, owned, name, tuple(inputs[0].shape))
        self.idle = self._idle_layers()
        self._part_conv_groups()
        self.attributes, constant = find_attributes(self.model, self.groups, self.inputs)
        for labels, reason in constant:
            self.flow.freeze(labels, reason)
        if constant:
            self.settle()

    def _idle_layers(self) -> list[str]:
        """Convolutions and linear layers that no operator uses: heads for training, layers left over."""
        modules = dict(self.model.named_modules())
        used = {name for node in self.graph.nodes for name in node.inputs}
        layers: dict[str, bool] = {}
        for name, one in self.owned.items():
            if isinstance(modules.get(one.layer), nn.modules.conv._ConvNd | nn.Linear):
                read = not used.isdisjoint(self.aliases.get(name, [name]))
                layers[one.layer] = layers.get(one.layer, False) or read
        return [layer for layer, read in layers.items() if not read]

    def _part_conv_groups(self) -> None:
        """Where whole conv groups cannot go, equally many channels of each of them may."""
        stuck = []
        for one in weighted(self.flow):
            parts = one.node.conv_groups
            if one.kind == "conv" and 1 < parts < one.node.output_shapes[0][1] and one.weight:
                channels = self.groups.axis((one.weight, one.made))
                if not channels.groups:
                    stuck.append(one.node.name)
        if stuck:
            flow = analyse(self.graph, stuck)
            groups = self.find(flow)
            if sum(groups.widths) >= sum(self.groups.widths):
                self.flow, self.groups = flow, groups

    def names(self) -> list[str]:
        """The names of all modules."""
        return [name for name, _ in self.model.named_modules()]

    def space(self) -> SearchSpace:
        """The space as the labels have it, with shared tensors and attributes.

        Raises:
            ModelError: There is nothing to prune.
        """
        space = _with_aliases(super().space(), self.aliases)
        sized = (replace(one, size=self.groups.map(labels)) for one, labels in self.attributes)
        least = space.smallest()
        return replace(
            space,
            attributes=tuple(one for one in sized if int(one.size.count(least)) < one.size.size),
            frozen={**space.frozen, **{one: f"{one} takes no part in eval mode" for one in self.idle}},
        )

    def with_blocks(self, space: SearchSpace, exclude: Sequence[str]) -> SearchSpace:
        """The space with the blocks that may go, not proved yet."""
        finder = BlockFinder(self.model, self.inputs, self.groups, space, self.costs())
        blocks = finder.find(exclude)
        return replace(space, blocks=blocks, kept=finder.kept(blocks))

    def mixed(self) -> set[int]:
        """Those of any tracer, and groups that a computed weight reads or makes."""
        mixed = super().mixed()
        for one in weighted(self.flow):
            if not one.weight or self._computed(one.node.inputs[one.side]):  # its axes mean other things
                for name in (one.node.inputs[1 - one.side], one.node.outputs[0]):
                    factors = self.flow.tensor(name).factors
                    mixed |= {int(self.groups.group[label]) for f in factors for label in np.unique(f)}
        return mixed - {FROZEN}

    def _computed(self, factor: str) -> bool:
        """Whether a weight is more than a parameter whose axes were moved."""
        while factor in self.graph.makers:
            node = self.graph.makers[factor]
            if node.operator not in _MOVES:
                return True
            factor = node.inputs[0]
        return False


def _owned(name: str, tensor: torch.Tensor, kinds: Mapping[str, str]) -> Owned:
    module = name.rpartition(".")[0]
    buffer = not isinstance(tensor, nn.Parameter)
    layer = module.partition(".parametrizations.")[0]
    return Owned(tuple(tensor.shape), module, layer, buffer, kinds.get(module, "parameter"))


def _aliases(tensors: Mapping[str, torch.Tensor]) -> dict[str, list[str]]:
    """Name of each shared tensor -> all its names."""
    names: dict[int, list[str]] = {}
    for name, tensor in tensors.items():
        names.setdefault(id(tensor), []).append(name)
    return {name: shared for shared in names.values() if len(shared) > 1 for name in shared}


def _with_aliases(space: SearchSpace, aliases: Mapping[str, list[str]]) -> SearchSpace:
    """Cut tensors of several names under all of them: the graph knows one. Their parameters count once."""
    if not aliases:
        return space
    axes = {t.name: t.axes for layer in space.layers for t in layer.tensors if t.axes}
    layers = []
    for layer in space.layers:
        tensors = []
        for tensor in layer.tensors:
            shared = aliases.get(tensor.name, [tensor.name])
            known = next((axes[name] for name in shared if name in axes), tensor.axes)
            tensors.append(replace(tensor, axes=known, buffer=tensor.buffer or tensor.name != shared[0]))
        layers.append(replace(layer, tensors=tuple(tensors)))
    return replace(space, layers=tuple(layers))
