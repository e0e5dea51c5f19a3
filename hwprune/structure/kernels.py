"""What a runtime executes for each network of a space: one `KernelSpec` per kernel, for any widths.

The operators that the runtime was observed to execute together (`fusion.py`) make one *slot*. A slot follows
the channel groups, so its channel counts are known for every network without building one.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from hwprune.errors import ModelError
from hwprune.structure.follow import Followed
from hwprune.structure.fusion import Fusion, expected_fusion
from hwprune.structure.onnx_graph import (
    ACTIVATIONS,
    BINARY,
    WEIGHTED,
    layers_by_tensor,
    read_graph,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import ArrayLike, NDArray

    from hwprune.structure.layers import ChannelMap
    from hwprune.structure.onnx_graph import GraphNode, NetGraph
    from hwprune.structure.space import SearchSpace

_OP_NAMES = {
    "Conv": "conv",
    "ConvTranspose": "deconv",
    "Gemm": "linear",
    "MatMul": "linear",
    "GlobalAveragePool": "globalpool",
    "GlobalMaxPool": "globalpool",
    "AveragePool": "avgpool",
    "BatchNormalization": "norm",
}


@dataclass(frozen=True, slots=True)
class KernelSpec:
    """What decides how long a kernel takes: the key of a latency table.

    Attributes:
        op: `conv`, `dwconv`, `groupconv`, `linear`, `maxpool`, `add`, `concat` ...; `conv+add` when a
            residual addition is fused; `reorder/A>B` for a change of memory layout between A and B.
        in_channels: Channels read (for a reorder: read by the kernel that made the tensor).
        out_channels: Channels made.
        kernel_h: Kernel height.
        kernel_w: Kernel width.
        stride: Stride.
        groups: Convolution groups.
        height: Height of the output.
        width: Width of the output.
        batch: Images in one run.
        activation: Fused activation, "" when none.
        precision: Number format.
    """

    op: str
    in_channels: int
    out_channels: int
    kernel_h: int = 1
    kernel_w: int = 1
    stride: int = 1
    groups: int = 1
    height: int = 1
    width: int = 1
    batch: int = 1
    activation: str = ""
    precision: str = "fp32"

    @property
    def family(self) -> str:
        """Kernels that share one regressor: the operation without what is fused to it or lies around it."""
        return self.op.split("/")[0].split("+")[0]


@dataclass(frozen=True, slots=True)
class KernelSlot:
    """The place of one kernel in the network: a `KernelSpec` whose channels follow the groups.

    Attributes:
        tensor: The last tensor that the kernel makes.
        layer: The layer that owns its weights, "" when it has none.
        full: The kernel in the unpruned network.
        inputs: Map of the channels it reads.
        outputs: Map of the channels it makes.
        group_inputs: Input channels of one convolution group, 0 when the convolution is dense.
        fixed_groups: Number of convolution groups where they lose channels instead of going as a whole.
        gates: Entries of a network that are the gates of the blocks around the kernel.
    """

    tensor: str
    layer: str
    full: KernelSpec
    inputs: ChannelMap
    outputs: ChannelMap
    group_inputs: int = 0
    fixed_groups: int = 0
    gates: tuple[int, ...] = ()

    @property
    def kind(self) -> KernelSpec:
        """The part of the spec that no width changes; slots of one kind share all their specs."""
        return replace(
            self.full, in_channels=0, out_channels=0, groups=self.fixed_groups or self.group_inputs
        )

    def present(self, networks: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which networks execute the kernel, (N, genes) -> (N,): those that have all blocks around it."""
        return np.asarray((networks[:, list(self.gates)] > 0).all(axis=1))

    def spec(self, inputs: int, outputs: int) -> KernelSpec:
        """The kernel at given channel counts."""
        full = self.full
        groups = self.fixed_groups or (inputs // self.group_inputs if self.group_inputs else 1)
        # Not by `replace`, which takes twice as long: a search begins with thousands of them.
        return KernelSpec(
            *(full.op, int(inputs), int(outputs), full.kernel_h, full.kernel_w, full.stride, int(groups)),
            *(full.height, full.width, full.batch, full.activation, full.precision),
        )


@dataclass(frozen=True)
class NetworkKernels:
    """All kernels of a network of the space.

    Attributes:
        slots: One per kernel, in execution order; reorders follow at the end.
        kernel_of: Tensor -> index of the slot that makes it (also tensors inside a fused kernel).
        reorder_of: Tensor -> index of the slot that changes its layout.
    """

    slots: tuple[KernelSlot, ...]
    kernel_of: Mapping[str, int] = field(repr=False)
    reorder_of: Mapping[str, int] = field(repr=False)

    def channels(self, widths: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Input and output channels of every slot: networks (N, genes) -> two arrays (N, slots)."""
        table = np.atleast_2d(np.asarray(widths, dtype=np.int64))
        count = functools.cache(lambda channels: channels.count(table))
        shape = (len(table), len(self.slots))
        inputs, outputs = np.empty(shape, dtype=np.int64), np.empty(shape, dtype=np.int64)
        for index, slot in enumerate(self.slots):
            inputs[:, index], outputs[:, index] = count(slot.inputs), count(slot.outputs)
        return inputs, outputs

    def specs(self, widths: Sequence[int]) -> list[KernelSpec]:
        """The kernels of one network, in the order of the slots."""
        inputs, outputs = self.channels(widths)
        return [
            slot.spec(reads, makes)
            for slot, reads, makes in zip(self.slots, inputs[0], outputs[0], strict=True)
        ]


def derive_kernels(
    base_onnx: bytes | NetGraph,
    space: SearchSpace,
    fusion: Fusion | None = None,
    *,
    batch: int | None = None,
    precision: str = "fp32",
) -> NetworkKernels:
    """Find all kernels of the networks of a space.

    Args:
        base_onnx: The unpruned network, or its graph when it was read already.
        space: Its search space.
        fusion: What the runtime was observed to execute together; a guess when None.
        batch: Images in one run; the base network's when None.
        precision: Number format, for the specs.

    Raises:
        ModelError: Not an ONNX model.
    """
    graph = read_graph(base_onnx) if isinstance(base_onnx, bytes) else base_onnx
    return _Deriver(graph, space, fusion or expected_fusion(graph), batch, precision).kernels()


class _Deriver:
    """The steps of `derive_kernels`, which share its arguments."""

    def __init__(
        self, graph: NetGraph, space: SearchSpace, fusion: Fusion, batch: int | None, precision: str
    ) -> None:
        self.graph, self.fusion, self.precision = graph, fusion, precision
        self.batch = batch or space.input_shape[0]
        if graph.source is None:
            raise ModelError("A graph without its source cannot be followed.", do="read it with `read_graph`")
        self.followed = Followed(graph.source, space)
        self.layers = layers_by_tensor(space)
        self.inside = [self.graph.inside(block) for block in space.blocks]
        self.first_gate = len(space.groups)
        self.members: dict[str, list[GraphNode]] = {}
        for node in graph.nodes:
            kernel = fusion.kernels.get(node.output, node.output)
            if kernel not in fusion.idle:
                self.members.setdefault(kernel, []).append(node)

    def kernels(self) -> NetworkKernels:
        slots, kernel_of = [], {}
        for index, nodes in enumerate(self.members.values()):
            slots.append(self._slot(nodes))
            kernel_of.update({name: index for node in nodes for name in node.outputs})
        reorder_of = {}
        for tensor in sorted(self.fusion.reordered):
            members = self.members.get(tensor, [])
            made = [name for node in members for name in node.outputs] or [tensor]
            reorder_of.update(dict.fromkeys(made, len(slots)))
            slots.append(self._reorder(made, slots[kernel_of[made[0]]] if members else None))
        return NetworkKernels(tuple(slots), kernel_of, reorder_of)

    def _slot(self, nodes: Sequence[GraphNode]) -> KernelSlot:
        main = next((node for node in nodes if node.op in WEIGHTED), nodes[0])
        layer = self.layers.get(main.weight or "")
        outputs = self.followed.channels(main.output)
        inputs = self._inputs(main, outputs)
        own = self.followed.axis(main.weight or "", 1) if main.groups > 1 else None
        fixed = main.groups if own is not None and own.groups else 0
        group_inputs = inputs.size // main.groups if main.groups > 1 and not fixed else 0
        full = self._spec(main, nodes, inputs.size, outputs.size)
        name = layer.name if layer else ""
        gates = tuple(gate for gate, own in enumerate(self.inside, self.first_gate) if main.output in own)
        return KernelSlot(nodes[-1].output, name, full, inputs, outputs, group_inputs, fixed, gates)

    def _inputs(self, main: GraphNode, outputs: ChannelMap) -> ChannelMap:
        if main.op in BINARY or main.op == "Concat" or not main.inputs:
            return outputs
        return self.followed.channels(main.inputs[0])

    def _spec(self, main: GraphNode, nodes: Sequence[GraphNode], inputs: int, outputs: int) -> KernelSpec:
        fused = [node for node in nodes if node is not main]
        height, width = self._size(main.output)
        return KernelSpec(
            op=_op_name(main, inputs) + "".join(f"+{n.op.lower()}" for n in fused if n.op in BINARY),
            in_channels=inputs,
            out_channels=outputs,
            kernel_h=main.kernel[0],
            kernel_w=main.kernel[1],
            stride=main.stride,
            groups=main.groups,
            height=height,
            width=width,
            batch=self.batch,
            activation="+".join(n.op.lower() for n in fused if n.op in ACTIVATIONS),
            precision=self.precision,
        )

    def _size(self, tensor: str) -> tuple[int, int]:
        shape = [max(size, 1) for size in self.graph.shapes.get(tensor, ())]
        return (shape[2], shape[3]) if len(shape) == 4 else (1, 1 if len(shape) < 3 else shape[1])

    def _reorder(self, made: Sequence[str], source: KernelSlot | None) -> KernelSlot:
        """The layout change of a tensor; how often it is needed depends on what makes and what reads it."""
        tensor = made[-1]
        readers = {
            node for name in made for node in self.graph.consumers.get(name, ()) if node.output not in made
        }
        around = "+".join(sorted({_OP_NAMES.get(node.op, node.op.lower()) for node in readers})) or "output"
        channels = self.followed.channels(tensor)
        height, width = self._size(tensor)
        full = KernelSpec(
            op=f"reorder/{source.full.op if source else 'input'}>{around}",
            in_channels=source.inputs.size if source else channels.size,
            out_channels=channels.size,
            height=height,
            width=width,
            batch=self.batch,
            precision=self.precision,
        )
        reads, gates = (source.inputs, source.gates) if source else (channels, ())
        return KernelSlot(tensor, "", full, reads, channels, gates=gates)


def _op_name(node: GraphNode, inputs: int) -> str:
    if node.op == "Conv" and node.groups > 1:
        return "dwconv" if node.groups == inputs else "groupconv"
    return _OP_NAMES.get(node.op, node.op.lower())
