"""Make the ONNX of any pruned network by slicing the initialisers of the unpruned one. No torch.

The base model is exported once; after that a pruned network costs milliseconds, and the machine that profiles
it needs no torch. What the graph holds as constants (target shapes, sizes of parts, indices, the batch)
follows the labels of the tensors that it shapes (onnx_shapes.py). The readers of a block that is left out
read its input, and what then nobody reads goes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import helper

from hwprune.errors import ModelError, UsageError
from hwprune.structure import graph as graphs
from hwprune.structure import onnx_shapes
from hwprune.structure.compare import mixes_images
from hwprune.structure.follow import Followed
from hwprune.structure.onnx_fold import drop_dead, names_read
from hwprune.structure.onnx_format import carried
from hwprune.structure.onnx_graph import consistency, parse_model
from hwprune.structure.onnx_metadata import BATCHED, OPEN, noted, places
from hwprune.structure.onnx_weights import WeightedGraph, example_feeds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from hwprune.structure.layers import ChannelMap
    from hwprune.structure.node import Node
    from hwprune.structure.space import SearchSpace, Widths

    Array = NDArray[Any]

_NEAR = 1e-3  # of the largest output, of the same image in two batches


def slice_onnx(
    base_onnx: bytes, space: SearchSpace, widths: Sequence[int], *, batch: int | None = None
) -> bytes:
    """Cut the pruned network's ONNX out of the unpruned one's.

    Args:
        base_onnx: What `export_base` made of the traced model.
        space: The model's search space.
        widths: The network: channels to keep of each group, and the gate of each block.
        batch: New batch size; the base model's when None.

    Returns:
        The serialised model, weights inside.

    Raises:
        UsageError: The widths do not belong to the space.
        ModelError: The ONNX is not the base of this space.

    Example:
        >>> base = hwprune.export_base(model, (1, 1, 16, 16))
        >>> small = hwprune.slice_onnx(base, space, space.uniform(0.5))
        >>> len(small) < len(base)
        True
    """
    return OnnxSlicer(base_onnx, space).slice(widths, batch=batch)


class OnnxSlicer:
    """`slice_onnx` for many networks of one space: the base model is read and analysed once.

    Args:
        base_onnx: The unpruned network.
        space: Its search space.

    Raises:
        ModelError: The ONNX is not the base of this space.
    """

    def __init__(self, base_onnx: bytes | WeightedGraph, space: SearchSpace) -> None:
        with consistency():
            net = WeightedGraph.of(parse_model(base_onnx)) if isinstance(base_onnx, bytes) else base_onnx
        base = self.skeleton = net.copied().model
        self.space = space
        with consistency():
            self.graph = graphs.read(base)
            self.followed = Followed(self.graph, space)
            _check_whole(self.followed)
            self.arrays = dict(net.arrays)
            held = [node for node in base.graph.node if node.op_type == "Constant"]
            self.arrays |= {node.output[0]: self.graph.constants[node.output[0]] for node in held}
            self.cuts = {name: found for name in self.arrays if (found := self._cuts(name))}
        self._batches: set[int] = set()  # that were seen to fit
        self.batch = next((shape[0] for name in self.graph.inputs if (shape := self.graph.shapes[name])), 1)
        self.batched = places(base, BATCHED)
        self.carried = carried(base.graph)
        self.nodes = {node.outputs[0]: node for node in self.graph.nodes}
        del base.graph.initializer[:]
        del base.graph.value_info[:]  # intermediate shapes, which pruning changes
        for node in held:
            base.graph.node.remove(node)

    def _cuts(self, name: str) -> list[tuple[int, ChannelMap]]:
        axes = range(self.arrays[name].ndim)
        return [(axis, channels) for axis in axes if (channels := self.followed.axis(name, axis)) is not None]

    def slice(self, widths: Sequence[int], *, batch: int | None = None) -> bytes:
        """The serialised ONNX of one pruned network; see `slice_onnx`."""
        return self.sliced(widths, batch=batch).content()

    def sliced(self, widths: Sequence[int], *, batch: int | None = None) -> WeightedGraph:
        """One pruned network; see `slice_onnx`."""
        chosen = self.space.check(widths)
        if batch is not None and batch < 1:
            raise UsageError("A batch has at least one image.", got=batch, allowed="1 or more")
        model = onnx.ModelProto()
        model.CopyFrom(self.skeleton)
        arrays = self._cut(chosen, self.batch if batch is None else batch)
        with consistency():
            keeps = self.followed.keeps(chosen)
            left_out = self._leave_out(model.graph, chosen)
            for proto in model.graph.node:
                node = self.nodes.get(next(filter(None, proto.output), ""))
                if node is not None and proto.op_type != "Identity":  # which a missing block may become
                    self._adapt(proto, node, keeps, arrays, batch or self.batch)
            used = {name for proto in model.graph.node for name in names_read(proto)} | set(
                self.graph.outputs
            )
            net = WeightedGraph(model, {})
            for name, array in arrays.items():
                if name in used or (name in self.arrays and array.dtype != np.int64 and not left_out):
                    net.put(name, array)
            if batch is not None:
                self._set_batch(model, batch)
                self._check_batch(net, chosen, batch)
        return net

    def _leave_out(self, graph: onnx.GraphProto, widths: Widths) -> bool:
        """Let the readers of the blocks that are left out read what the blocks read; drop the rest."""
        # Of blocks that end at one tensor, the outer one counts: it comes last.
        gone = sorted(self.space.left_out(widths), key=lambda block: len(block.layers))
        inputs = {block.output: block.input for block in gone}
        for name in inputs:
            while inputs[name] in inputs:
                inputs[name] = inputs[inputs[name]]
        parts = {name for name, other in inputs.items() if not other}  # of concatenations
        parts |= {copy for copy, name in self.carried.items() if name in parts}
        for proto in graph.node if inputs else ():
            if proto.op_type == "Concat":
                proto.input[:] = [name for name in proto.input if name not in parts]
            proto.input[:] = [inputs.get(name) or name for name in proto.input]
        for name in inputs.keys() & set(self.graph.outputs):
            for proto in graph.node:
                proto.output[:] = [f"{one}/left out" if one == name else one for one in proto.output]
            graph.node.append(helper.make_node("Identity", [inputs[name]], [name]))
        if inputs:
            drop_dead(graph)
        return bool(inputs)

    def _cut(self, widths: Widths, batch: int) -> dict[str, Array]:
        """The weights and constants of a pruned network."""
        arrays = dict(self.arrays)
        if batch != self.batch:
            for name, found in self.batched.items():
                for axis in (-1 - place for place in found if place < 0):  # one equal part for each image
                    size = arrays[name].shape[axis] * batch // self.batch
                    arrays[name] = np.repeat(arrays[name].take([0], axis), size, axis)
        for name, cuts in self.cuts.items():
            for axis, channels in cuts:
                arrays[name] = _taken(arrays[name], channels.kept(widths), axis)
        return arrays

    def _check_batch(self, net: WeightedGraph, widths: Widths, batch: int) -> None:
        """Refuse a batch that the graph does not take, once for each.

        Raises:
            ModelError: The graph holds its batch as a number.
        """
        if batch == self.batch or batch in self._batches:
            return
        model, free = net.model, net.copied().model
        for entry in free.graph.output:
            entry.type.tensor_type.ClearField("shape")
        try:
            inferred = onnx.shape_inference.infer_shapes(free, strict_mode=True, data_prop=True)
            wrong = [
                entry.name
                for entry, told in zip(inferred.graph.output, model.graph.output, strict=True)
                if [dim.dim_value or -1 for dim in entry.type.tensor_type.shape.dim][:1]
                not in ([], [-1], [told.type.tensor_type.shape.dim[0].dim_value])
            ]
            folds = not noted(model, OPEN) and _folds_batch(inferred.graph, batch)
        except onnx.shape_inference.InferenceError as error:
            wrong, folds = [str(error)[:200]], False
        why = "its graph holds the batch as a number"
        if not wrong and folds and not self._keeps_images_apart(net, widths, batch):
            wrong = ["an image gives something else beside others"]
            why = "it mixes images, as a Reshape that folds the batch into channels does"
        if wrong:
            raise ModelError(
                f"This network does not take another batch: {why}.",
                got=f"batch {batch}: {wrong[0]}",
                allowed=f"batch {self.batch}",
                do="export it with an open batch, or at the batch that is asked for",
            )
        self._batches.add(batch)

    def _keeps_images_apart(self, net: WeightedGraph, widths: Widths, batch: int) -> bool:
        """Whether the images that two batches share give the same in both, by ONNX Runtime."""
        alone, sizes = self.sliced(widths), (self.batch, batch)
        feeds = example_feeds((net if batch > self.batch else alone).model)
        try:
            runs = [
                one.run({name: x[:size] if x.ndim else x for name, x in feeds.items()}, threads=1)
                for one, size in zip((alone, net), sizes, strict=True)
            ]
        except Exception:  # runtimes raise errors of their own
            return False
        return not mixes_images(runs, sizes, _NEAR)

    def _set_batch(self, model: onnx.ModelProto, batch: int) -> None:
        for value in (*model.graph.input, *model.graph.output):
            dims = value.type.tensor_type.shape.dim
            if dims and (value.name in self.graph.inputs or dims[0].dim_value == self.batch):
                dims[0].dim_value = batch

    def _adapt(
        self, proto: Any, node: Node, keeps: NDArray[np.bool_], arrays: dict[str, Array], batch: int
    ) -> None:
        """Give a grouped convolution, or the constants that shape an operator's outputs, their new values."""
        if node.operator.startswith("Conv") and node.conv_groups > 1:
            tensor = node.outputs[0] if node.operator == "ConvTranspose" else node.inputs[0]
            channels = self.followed.sizes(tensor, keeps)[1]  # of all groups, over those of one
            _set_group(proto, channels // self.followed.sizes(node.inputs[1], keeps)[1])
        place = onnx_shapes.SHAPED.get(node.operator)
        if place is None or node.value(place) is None:
            return
        value = onnx_shapes.value(self.followed, node, place, keeps)
        flags = sorted(one for one in self.batched.get(node.inputs[place], ()) if one >= 0)
        if batch != self.batch and flags:
            value = value.copy()
            value[flags] = value[flags] * batch // self.batch
        moved = not np.array_equal(value, np.asarray(node.value(place)))
        if moved:
            _replace(proto, place, value, arrays)
        if node.operator == "Slice":
            sizes = self.followed.sizes(node.outputs[0], keeps)
            if moved or sizes != node.output_shapes[0]:
                _replace(proto, 2, onnx_shapes.ends(node, value, sizes), arrays)


def _taken(array: Array, kept: NDArray[np.int64], axis: int) -> Array:
    """Some positions of an axis; neighbours are not copied."""
    if len(kept) and kept[-1] - kept[0] + 1 == len(kept):  # positions ascend
        return array[(*(slice(None),) * axis, slice(kept[0], kept[-1] + 1))]
    return array.take(kept, axis)


def _check_whole(followed: Followed) -> None:
    """Refuse a graph in which some group has no weight, or some block no place: it is that of another model.

    Raises:
        ModelError: It is.
    """
    named = (followed.axis(name, axis) for name, axis in list(followed.flow.axes))
    found = {group for channels in named if channels is not None for group in channels.groups}
    made = ["", *followed.graph.inputs, *(name for node in followed.graph.nodes for name in node.outputs)]
    place = {name: index for index, name in enumerate(made)}
    missing = [one.name for index, one in enumerate(followed.space.groups) if index not in found]
    missing += [
        one.name
        for one in followed.space.blocks
        if not place.get(one.input, len(made)) < place.get(one.output, -1)
    ]
    if missing:
        raise ModelError(
            "This ONNX is not the unpruned model of the search space.",
            where=missing[0],
            got="no weight of this channel group, or not this block",
            do="export the unpruned model again",
        )


def _replace(proto: Any, place: int, value: Array, arrays: dict[str, Array]) -> None:
    """Let an operator read a constant of its own."""
    name = f"{proto.output[0]}/{place}"
    proto.input[place] = name
    arrays[name] = value


def _set_group(node: Any, count: int) -> None:
    for attribute in node.attribute:
        if attribute.name == "group":
            attribute.i = count


def _folds_batch(graph: onnx.GraphProto, batch: int) -> bool:
    """Whether a Reshape moves the images of a batch into another dimension."""
    first = {
        value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim][:1]
        for value in (*graph.input, *graph.value_info, *graph.output)
    }
    return any(
        first.get(node.input[0]) == [batch] and first.get(node.output[0]) not in ([batch], None)
        for node in graph.node
        if node.op_type == "Reshape"
    )
