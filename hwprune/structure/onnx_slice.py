"""Make the ONNX of any pruned network by slicing the initialisers of the unpruned one. No torch.

The base model is exported once; after that a pruned network costs milliseconds, and the machine that
profiles it needs no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx
from onnx import numpy_helper

from hwprune.errors import ModelError
from hwprune.structure.onnx_graph import consistency, parse_model
from hwprune.structure.onnx_qdq import carried, quantised_axes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hwprune.structure.space import ChannelMap, Layer, SearchSpace, Widths


def slice_onnx(
    base_onnx: bytes, space: SearchSpace, widths: Sequence[int], *, batch: int | None = None
) -> bytes:
    """Cut the pruned network's ONNX out of the unpruned one's.

    Args:
        base_onnx: What `export_base` made of the traced model.
        space: The model's search space.
        widths: Channels to keep, one for each group.
        batch: New batch size; the base model's when None.

    Returns:
        The serialised model, weights inside.

    Raises:
        UsageError: The widths do not belong to the space.
        ModelError: The ONNX is not the base of this space.
    """
    return OnnxSlicer(base_onnx, space).slice(widths, batch=batch)


class OnnxSlicer:
    """`slice_onnx` for many networks of one space: the base model is parsed once."""

    def __init__(self, base_onnx: bytes, space: SearchSpace) -> None:
        base = parse_model(base_onnx)
        self.space = space
        axes = _initialiser_axes(space)
        with consistency():
            self.arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in base.graph.initializer}
            self.axes = {**axes, **quantised_axes(base.graph, axes, self.arrays)}
            self.carried = carried(base.graph)
        self.grouped = _grouped_layers(space)
        self.skeleton = base
        del base.graph.initializer[:]
        del base.graph.value_info[:]  # intermediate shapes, which pruning changes
        with consistency():
            self._check_names()

    def _check_names(self) -> None:
        for name, axes in self.axes.items():
            array = self.arrays.get(name)
            if array is not None and any(array.shape[axis] != channels.size for axis, channels in axes):
                raise ModelError(
                    "This ONNX is not the unpruned model of the search space.",
                    where=name,
                    got=array.shape,
                    do="export the unpruned model again",
                )

    def slice(self, widths: Sequence[int], *, batch: int | None = None) -> bytes:
        """The serialised ONNX of one pruned network; see `slice_onnx`."""
        chosen = self.space.check(widths)
        model = onnx.ModelProto()
        model.CopyFrom(self.skeleton)
        for name, array in self.arrays.items():
            for axis, channels in self.axes.get(name, ()):
                array = array.take(channels.kept(chosen), axis=axis)
            model.graph.initializer.append(numpy_helper.from_array(array, name))
        with consistency():
            self._adapt(model, chosen, batch)
        return bytes(model.SerializeToString())

    def _adapt(self, model: onnx.ModelProto, chosen: Widths, batch: int | None) -> None:
        """Give grouped convolutions and the ends of the network their new sizes."""
        for node in model.graph.node:
            if node.op_type == "Conv" and (layer := self._grouped_layer(node.input[1])) is not None:
                _set_group(node, int(layer.inputs.count(chosen)) // layer.group_inputs)
        if batch is not None:
            for value in (*model.graph.input, *model.graph.output):
                value.type.tensor_type.shape.dim[0].dim_value = batch

    def _grouped_layer(self, weight: str) -> Layer | None:
        return self.grouped.get(self.carried.get(weight, weight))


def _initialiser_axes(space: SearchSpace) -> dict[str, tuple[tuple[int, ChannelMap], ...]]:
    """Initialiser name -> prunable axes, with the biases that folding batch normalisation makes."""
    convs = (layer for layer in space.layers if layer.op == "conv" and layer.outputs.groups)
    axes: dict[str, tuple[tuple[int, ChannelMap], ...]] = {
        f"{layer.name}.bias": ((0, layer.outputs),) for layer in convs
    }
    axes.update(
        {tensor.name: tensor.axes for layer in space.layers for tensor in layer.tensors if tensor.axes}
    )
    return axes


def _grouped_layers(space: SearchSpace) -> dict[str, Layer]:
    """Weight name of each grouped convolution whose groups are pruned -> the layer."""
    return {
        f"{layer.name}.weight": layer
        for layer in space.layers
        if layer.op == "conv" and layer.conv_groups > 1 and layer.inputs.groups
    }


def _set_group(node: onnx.NodeProto, count: int) -> None:
    for attribute in node.attribute:
        if attribute.name == "group":
            attribute.i = count
