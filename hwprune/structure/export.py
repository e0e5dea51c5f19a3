"""Export to ONNX, with names that the search space knows.

The TorchScript-based exporter is used on purpose: `docs/method.md` has the measured reasons. The batch is
exported open, so that the graph says which sizes follow it; `export_base` fixes it afterwards.
"""

from __future__ import annotations

import contextlib
import copy
import inspect
import io
import re
import warnings
from typing import TYPE_CHECKING, Any
from unittest import mock

import numpy as np
import onnx
import torch
from torch import nn
from torch.jit._trace import TracerWarning
from torch.utils import _pytree as pytree

from hwprune.errors import ModelError
from hwprune.structure import graph as graphs
from hwprune.structure import symbolics
from hwprune.structure.child import ChildError, in_child
from hwprune.structure.code_place import shorten_place
from hwprune.structure.onnx_fold import fold, names_read
from hwprune.structure.onnx_graph import all_graphs
from hwprune.structure.onnx_metadata import BATCHED, DECIDES, OPEN, note, note_places, places
from hwprune.structure.onnx_weights import WeightedGraph, keep_inputs
from hwprune.structure.prune import light_copy

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor

# What open sizes make of some operators.
_DYNAMIC = frozenset({"SplitToSequence", "SequenceAt", "If", "Loop"})
_TIMES = 3  # another batch, for finding what follows it
_INSIDE = "m"  # the model's name within its wrapper
Inputs = tuple["Tensor", ...]


def as_inputs(example: Tensor | Sequence[Tensor] | Sequence[int]) -> Inputs:
    """Example inputs as a tuple of tensors.

    Args:
        example: One tensor, several, or the shape of one, (N, C, H, W), which is then of zeros.

    Raises:
        ModelError: Something else.
    """
    if isinstance(example, torch.Tensor):
        return (example,)
    if not isinstance(example, tuple | list) or not all(
        isinstance(one, torch.Tensor | int) for one in example
    ):
        raise ModelError(
            "These are no inputs of a model.",
            got=type(example).__name__,
            allowed="a tensor, a tuple of tensors, or a shape such as (1, 3, 224, 224)",
            do="leave optional inputs out",
        )
    if all(isinstance(entry, torch.Tensor) for entry in example):
        return tuple(example)
    return (torch.zeros(tuple(int(size) for size in example)),)


def export_base(model: nn.Module, example: Tensor | Sequence[Tensor] | Sequence[int]) -> bytes:
    """Export a model as ONNX with static shapes, batch normalisation folded, weights inside.

    Initialisers keep their `state_dict` names. One input is named `input`, several as the arguments of
    `forward`; one output is named `output`, those in lists, tuples and dicts by their places and keys.

    Args:
        model: Any module; it is not modified.
        example: Its inputs, or the shape of its one input, (N, C, H, W).

    Returns:
        The serialised model.

    Raises:
        ModelError: The model cannot be exported.

    Example:
        >>> content = hwprune.export_base(model, (1, 1, 16, 16))
        >>> isinstance(content, bytes)
        True
    """
    exported = export_graph(model, as_inputs(example))
    for node in exported.model.graph.node:
        node.ClearField("doc_string")  # where the code calls it
    fold(exported)
    return exported.content()


def export_graph(model: nn.Module, inputs: Inputs, outputs: Sequence[str] | None = None) -> WeightedGraph:
    """Export a model as it is, with its weights, which share the memory of the model's own.

    Args:
        model: The model.
        inputs: Example inputs; the graph has their sizes.
        outputs: What `output_names` makes of its outputs, where that is known.

    Raises:
        ModelError: The model cannot be exported.
    """
    check_exportable(model)
    twin = _Wrapper(light_copy(model).cpu().eval())
    inputs = tuple(x.detach().cpu() for x in inputs)
    if outputs is None:
        try:
            with torch.no_grad():
                outputs = output_names(twin.m(*copy.deepcopy(inputs)))
        except (Exception, SystemExit) as error:  # the user's own forward may raise anything
            raise does_not_run(model, inputs, error) from error
    exported = _without_prefix(_export(twin, inputs, input_names(model, len(inputs)), list(outputs)))
    _set_sizes(exported.model, inputs)
    return exported


def does_not_run(model: nn.Module, inputs: Inputs, error: BaseException) -> ModelError:
    """What to raise in place of what a model's forward raises."""
    return ModelError(
        "The model does not run on the example inputs.",
        where=type(model).__name__,
        got=f"{type(error).__name__}: {error}",
        allowed=f"inputs of shape {[tuple(x.shape) for x in inputs]}",
        do="give the image size the model was made for, or fix its forward",
    )


def check_exportable(model: nn.Module) -> None:
    """Refuse what can neither be exported nor pruned, whatever its layers are.

    Raises:
        ModelError: No module of Python code, or one with weights of another kind than float32 or float16.
    """
    if not isinstance(model, nn.Module) or isinstance(model, torch.jit.ScriptModule):
        raise ModelError(
            "This is no model that can be pruned.",
            got=type(model).__name__,
            allowed="an nn.Module",
            do="give the module itself, as it was before torch.jit",
        )
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if isinstance(tensor, nn.UninitializedParameter | nn.UninitializedBuffer) or tensor.is_meta:
            raise ModelError(
                "This model has no weights yet.",
                where=name,
                do="load its weights, or run it once on an image",
            )
        if tensor.is_floating_point() and tensor.dtype not in (torch.float32, torch.float16):
            raise ModelError(
                "The weights of this model are of a format that is not analysed.",
                where=name,
                got=str(tensor.dtype).removeprefix("torch."),
                allowed="float32",
                do="call model.float(), and give images of float32",
            )


class _Wrapper(nn.Module):
    """A model whose outputs, however nested, come as a flat tuple of tensors."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.m = model

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        return tensors_of(self.m(*inputs))


def tensors_of(outputs: Any) -> tuple[Tensor, ...]:
    """All tensors of a nested output, in order."""
    return tuple(leaf for leaf in pytree.tree_leaves(outputs) if isinstance(leaf, torch.Tensor))


def output_names(outputs: Any) -> list[str]:
    """A name for each tensor of a nested output: `output`, or its keys and places, joined by dots."""
    if isinstance(outputs, torch.Tensor):
        return ["output"]
    leaves, _ = pytree.tree_flatten_with_path(outputs)
    named = [(pytree.keystr(path), leaf) for path, leaf in leaves if isinstance(leaf, torch.Tensor)]
    found = [".".join(re.findall(r"[\w-]+", text)) or "output" for text, _ in named]
    return [f"output.{name}" if name[0].isdigit() else name for name in found]


def input_names(model: nn.Module, count: int) -> list[str]:
    """A name for each input: `input` for a single one, else those of the arguments of `forward`."""
    if count == 1:
        return ["input"]
    parameters = inspect.signature(model.forward).parameters.values()
    named = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return named[:count] if len(named) >= count else [f"input{index}" for index in range(count)]


def _export(twin: _Wrapper, inputs: Inputs, names: list[str], outputs: list[str]) -> WeightedGraph:
    """Export a twin, with an open batch if that works: an operator that must know all sizes gets them."""
    for module in twin.modules():
        module._non_persistent_buffers_set.clear()  # the exporter makes nameless constants of them
    if len({*names, *outputs}) < len(names) + len(outputs):
        outputs = [f"output.{name}" for name in outputs]
    symbolics.register()
    open_batch = {name: {0: "batch"} for name, x in zip(names, inputs, strict=True) if x.ndim}
    error: Exception | None = None
    for axes in (open_batch, None):
        try:
            found, counted = _attempt(twin, inputs, names, outputs, axes)
        except ChildError as raised:
            error = raised
            continue
        if axes is None or not any(node.op_type in _DYNAMIC for node in found.model.graph.node):
            if counted or axes is None:
                other = tuple(torch.cat([x] * _TIMES) if x.ndim else x for x in inputs)
                with contextlib.suppress(Exception):  # a model made for one batch
                    _note_batch(found, inputs, _attempt(twin, other, names, outputs, axes)[0], other)
            if counted:
                note(found.model, DECIDES)
            if axes is not None:
                note(found.model, OPEN)
            return found
    raise ModelError(
        "This model cannot be exported to ONNX.",
        where=type(twin.m).__name__,
        got=str(error).splitlines()[0],
        do="replace the operation that ONNX does not know, or with which its exporter dies",
    ) from error


def _attempt(
    twin: nn.Module, inputs: Inputs, names: list[str], outputs: list[str], axes: Any
) -> tuple[WeightedGraph, bool]:
    """One export; and whether the code took a size out of the graph, as `len(x)` does.

    Raises:
        ChildError: The exporter raises what the model's forward makes it raise, or dies.
    """
    answer = in_child(lambda: _exported(twin, inputs, names, outputs, axes))
    return _weighted(onnx.load_model_from_string(answer[1:]), twin), answer[:1] == b"1"


def _exported(twin: nn.Module, inputs: Inputs, names: list[str], outputs: list[str], axes: Any) -> bytes:
    """What `_attempt` gets of its child: "1" where the code took a size out; the file without weights."""
    buffer = io.BytesIO()
    # It prints the whole graph of what it cannot export.
    quiet = mock.patch.object(torch._C, "_jit_onnx_log", return_value=None)
    # One operator for a whole layer of attention, which ONNX does not know.
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with warnings.catch_warnings(record=True) as seen, torch.no_grad(), quiet:
            warnings.simplefilter("always")
            torch.onnx.export(
                twin,
                copy.deepcopy(inputs),
                buffer,  # type: ignore[arg-type] # this exporter does write to memory
                opset_version=symbolics.OPSET,
                input_names=names,
                output_names=outputs,
                dynamic_axes=axes,
                training=torch.onnx.TrainingMode.PRESERVE,  # keeps BN apart, and so all names
                do_constant_folding=False,
                export_params=False,
                verbose=True,  # notes where the code calls each operator
                keep_initializers_as_inputs=True,  # else it merges equal weights and loses their names
                dynamo=False,
            )
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        torch.set_num_threads(threads)
    model = onnx.load_model_from_string(buffer.getvalue())
    for graph in all_graphs(model.graph):
        for node in graph.node:
            shorten_place(node)
    counted = any(issubclass(one.category, TracerWarning) for one in seen)
    return (b"1" if counted else b"0") + bytes(model.SerializeToString())


def _weighted(model: onnx.ModelProto, twin: nn.Module) -> WeightedGraph:
    """A model whose weights the exporter left out and listed as inputs, with those that are read."""
    values: dict[str, Tensor] = dict(twin.named_buffers(remove_duplicate=False))
    values |= twin.named_parameters(remove_duplicate=False)
    net = WeightedGraph.of(model)
    used = {name for node in model.graph.node for name in names_read(node)}
    used |= {entry.name for entry in model.graph.output}
    for name in [entry.name for entry in model.graph.input if entry.name in values.keys() & used]:
        net.put(name, values[name].detach().numpy())
    keep_inputs(model, lambda name: name not in values)
    return net


def _note_batch(net: WeightedGraph, inputs: Inputs, other: WeightedGraph, others: Inputs) -> None:
    """Note which constants of a graph follow the batch, by a graph of another batch.

    The exporter numbers constants differently each time; operators that are shaped by them keep their names.
    """
    mine, its = _sized(net, inputs), _sized(other, others)
    theirs = {node.name: node for node in its.nodes}
    flags: dict[str, list[int]] = {}
    for node in mine.nodes:
        twin = theirs.get(node.name)
        for place, name in enumerate(node.inputs if twin is not None else ()):
            one, another = node.value(place), twin.value(place) if twin is not None else None
            if one is not None and another is not None:
                follows = _following(one, another)
                flags |= {name: follows} if follows else {}
    note_places(net.model, BATCHED, flags)


def _sized(net: WeightedGraph, inputs: Inputs) -> graphs.Graph:
    """The graph of a copy whose inputs have the sizes of some tensors."""
    copied = net.copied().model
    _set_sizes(copied, inputs)
    return graphs.read(copied)


def _following(one: NDArray[Any], other: NDArray[Any]) -> list[int]:
    """What of a constant follows the batch, as `onnx_metadata.places` has it.

    Args:
        one: The constant.
        other: The same constant at a batch that is `_TIMES` as large.
    """
    if one.dtype.kind == "i" and one.shape == other.shape:
        return [int(place) for place in np.flatnonzero((one * _TIMES == other) & (one > 0))]
    axes = _grown(one.shape, other.shape)
    if len(axes) == 1 and (other == one.take([0], axes[0])).all():
        return [-1 - axes[0]]
    return []


def _grown(one: tuple[int, ...], other: tuple[int, ...]) -> list[int]:
    """Axes along which a tensor became longer with the batch, if no other axis changed."""
    if len(one) != len(other) or not all(b in (a, a * _TIMES) for a, b in zip(one, other, strict=True)):
        return []
    return [axis for axis, (a, b) in enumerate(zip(one, other, strict=True)) if a != b]


def _set_sizes(model: onnx.ModelProto, inputs: Inputs) -> None:
    for entry, x in zip(model.graph.input, inputs, strict=False):
        for dim, size in zip(entry.type.tensor_type.shape.dim, x.shape, strict=True):
            dim.dim_value = size


def _without_prefix(net: WeightedGraph) -> WeightedGraph:
    """The names as the model itself has them, not its wrapper: `m.conv1.weight`, `/m/conv1/Conv_output_0`."""

    def bare(name: str) -> str:
        return name.removeprefix(f"{_INSIDE}.") if name[:1] != "/" else name.replace(f"/{_INSIDE}/", "/", 1)

    model = net.model
    for tensor in model.graph.initializer:
        tensor.name = bare(tensor.name)
    for node in model.graph.node:
        node.name = bare(node.name)
        node.input[:], node.output[:] = map(bare, node.input), map(bare, node.output)
        for attribute in node.attribute:
            if node.op_type == "Transpose" and attribute.name == "perm":  # `movedim(-1, 1)` comes with a -1
                attribute.ints[:] = [axis % len(attribute.ints) for axis in attribute.ints]
    note_places(model, BATCHED, {bare(name): found for name, found in places(model, BATCHED).items()})
    return WeightedGraph(model, {bare(name): array for name, array in net.arrays.items()})
