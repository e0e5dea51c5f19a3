"""An ONNX model made ready for analysis: every shape known, every constant computed. No torch.

What a model computes from shapes (`x.view(n, c, -1)` becomes a dozen operators) is computed three times: as
it is, with another batch, and with other sizes of all other axes. This tells which numbers are constants of
the model's code, and which follow the batch or the channels.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from hwprune.errors import ModelError
from hwprune.structure import onnx_metadata
from hwprune.structure.resolve import Resolver

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from hwprune.structure.node import Node

    Array = NDArray[Any]
    Flags = dict[str, NDArray[np.bool_]]

_OTHER_BATCH, _OTHER_SIZE = 3, 5  # factors by which sizes are changed to see what follows them


@dataclass
class Graph:
    """A model's operators in order, and what is known of its tensors.

    Attributes:
        model: The model itself.
        nodes: Operators that work on feature maps or weights; what only computes constants is left out.
        shapes: Tensor -> shape.
        weights: Initialisers that may be cut: name -> shape.
        constants: Constants and what is computed of them: name -> value.
        following: Constants that follow the sizes of channels -> which of their numbers do.
        batched: Constants that follow the batch -> which of their numbers do.
        inputs: Names of the inputs.
        outputs: Names of the outputs.
    """

    model: onnx.ModelProto
    nodes: list[Node]
    shapes: dict[str, tuple[int, ...]]
    weights: dict[str, tuple[int, ...]]
    constants: dict[str, Array]
    following: Flags
    batched: Flags
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    @functools.cached_property
    def makers(self) -> dict[str, Node]:
        """Tensor -> the operator that makes it."""
        return {name: node for node in self.nodes for name in node.outputs}


def read(model: onnx.ModelProto, cuttable: Iterable[str] | None = None) -> Graph:
    """Find all shapes and constants of a model.

    Args:
        model: Its inputs have fixed sizes, but for the batch; where that is open, it is set to 1 in place.
        cuttable: Initialisers that may be cut; all of floating point where None.

    Raises:
        ModelError: A size of an input is open, or the model is not valid.
    """
    may = None if cuttable is None else list(cuttable)
    batch = _fix_batch(model)
    here = Resolver(model, may)
    here.resolve()
    following = _noted(onnx_metadata.places(model, onnx_metadata.FOLLOWING), here.constants)
    following |= _differing(here, Resolver(model, may, scale=_OTHER_SIZE, shapes=here.shapes))
    batched = _batched(here, may, batch)
    nodes = [node for node in here.nodes if not all(name in here.constants for name in node.outputs)]
    known = onnx_metadata.noted(model, onnx_metadata.OPEN)
    for node in nodes:
        node.open = known
        node.values = {name: here.constants[name] for name in node.inputs if name in here.constants}
        node.following = {name: following[name] for name in node.inputs if name in following}
    _find_parts(nodes, here.shapes)
    inputs = tuple(entry.name for entry in model.graph.input if entry.name not in here.known)
    outputs = tuple(entry.name for entry in model.graph.output)
    return Graph(
        *(model, nodes, here.shapes, here.weights, here.constants),
        *(following, batched, inputs, outputs),
    )


def _fix_batch(model: onnx.ModelProto) -> int:
    """Give an open batch the size 1; returns the batch of the first input."""
    weights = {tensor.name for tensor in model.graph.initializer}
    first = 0
    for entry in model.graph.input:
        if entry.name in weights:
            continue
        for axis, dim in enumerate(entry.type.tensor_type.shape.dim):
            if axis == 0 and not dim.dim_value:
                dim.dim_value = 1
            if dim.dim_value < 1:
                raise ModelError(
                    "An input of this model has no fixed size.",
                    where=entry.name,
                    got=f"axis {axis} is {dim.dim_param or 'open'}",
                    do="export it with fixed sizes; only the batch may be open",
                )
        first = first or entry.type.tensor_type.shape.dim[0].dim_value
    return first or 1


def _batched(here: Resolver, cuttable: Sequence[str] | None, batch: int) -> Flags:
    """Constants that follow the batch, as noted or as another batch shows -> where."""
    found = _noted(onnx_metadata.places(here.model, onnx_metadata.BATCHED), here.constants)
    inputs = here.model.graph.input
    sizes = [dim.dim_value for entry in inputs for dim in entry.type.tensor_type.shape.dim[:1]]
    if (here.computed or found) and batch in sizes:
        other = Resolver(_with_batch(here.model, batch * _OTHER_BATCH), cuttable)
        for name, flags in found.items():
            other.constants[name] = np.where(flags, here.constants[name] * _OTHER_BATCH, here.constants[name])
        found |= _differing(here, other)
    return found


def _noted(noted: Mapping[str, list[int]], constants: Mapping[str, Array]) -> Flags:
    """Constants of which the metadata says that they follow something -> where."""
    found = {}
    for name, places in noted.items():
        if name in constants and min(places) >= 0:
            flags = np.zeros(constants[name].size, dtype=bool)
            flags[places] = True
            found[name] = flags.reshape(constants[name].shape)
    return found


def _with_batch(model: onnx.ModelProto, batch: int) -> onnx.ModelProto:
    other = onnx.ModelProto()
    other.CopyFrom(model)
    known = {tensor.name for tensor in model.graph.initializer}
    for entry in other.graph.input:
        if entry.name not in known and entry.type.tensor_type.shape.dim:
            entry.type.tensor_type.shape.dim[0].dim_value = batch
    for entry in other.graph.output:
        entry.type.tensor_type.ClearField("shape")
    return other


def _differing(one: Resolver, other: Resolver) -> Flags:
    """Constants whose values differ between two ways of computing them -> where."""
    try:
        other.resolve()
    except ModelError:
        return {}
    found = {}
    for name in {*one.computed, *other.computed}:
        mine, its = one.constants.get(name), other.constants.get(name)
        if mine is None or its is None or mine.shape != its.shape:
            continue
        differs = np.asarray(mine != its)
        if differs.any():
            found[name] = differs
    return found


def _find_parts(nodes: Sequence[Node], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Tell slices of one tensor that together are the whole of an axis of each other."""
    found: dict[tuple[str, int], list[tuple[Node, slice]]] = {}
    for node in nodes:
        if node.operator == "Slice":
            for axis, part in (node.slices() or {}).items():
                found.setdefault((node.inputs[0], axis), []).append((node, part))
    for (tensor, axis), cuts in found.items():
        size = shapes[tensor][axis]
        ordered = sorted({(r.start, r.stop, r.step) for r in (range(size)[part] for _, part in cuts)})
        whole = [index for start, stop, step in ordered for index in range(start, stop, step)]
        if len(ordered) > 1 and whole == list(range(size)):
            for node, _ in cuts:
                node.parts[axis] = [slice(*bounds) for bounds in ordered]
