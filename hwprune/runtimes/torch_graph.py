"""`TorchGraph`: an ONNX network that torch runs, node by node, on any device and in any number format."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import onnx
import torch
from onnx import numpy_helper

from hwprune.errors import ModelError
from hwprune.runtimes.torch_ops import OPERATORS

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from torch import Tensor

    from hwprune.runtimes.torch_ops import Operator


class Node(NamedTuple):
    """One operator of the network.

    Attributes:
        op: Its ONNX name.
        run: What computes it.
        attributes: Its ONNX attributes.
        inputs: Names of the tensors it reads, "" for one that is left out.
        output: Name of the tensor it makes.
        done: Names of the tensors that nobody needs after it.
    """

    op: str
    run: Operator
    attributes: dict[str, Any]
    inputs: tuple[str, ...]
    output: str
    done: tuple[str, ...]


class TorchGraph:
    """A network, its weights on a device.

    Args:
        content: The ONNX file, with static shapes and one input.
        device: Where to run it.
        dtype: Number format of weights and activations.
        channels_last: Whether weights and feature maps are stored channels last.

    Attributes:
        nodes: The operators in execution order.
        bytes: Size of weights and input on the device.

    Raises:
        ModelError: It cannot be read, or has an operator that is not known.
    """

    def __init__(
        self, content: bytes, device: torch.device, dtype: torch.dtype, *, channels_last: bool
    ) -> None:
        self.device, self.dtype, self._last = device, dtype, channels_last
        try:
            graph = onnx.load_model_from_string(content).graph
        except Exception as error:  # protobuf's error has no public name
            raise ModelError("This is not an ONNX file.", got=str(error)[:200]) from error
        self._weights = {w.name: self._place(numpy_helper.to_array(w)) for w in graph.initializer}
        inputs = [entry for entry in graph.input if entry.name not in self._weights]
        if len(inputs) != 1 or len(graph.output) != 1:
            raise ModelError(
                "The torch runtime runs networks with one input and one output.",
                got=f"{len(inputs)} inputs and {len(graph.output)} outputs",
            )
        self._input, self._output = inputs[0].name, graph.output[0].name
        self.nodes = self._read(graph)
        self.example = self._random(inputs[0])
        placed = [self.example, *self._weights.values()]
        self.bytes = sum(t.nbytes for t in placed if t.device == self.device)

    def _place(self, values: Any) -> Tensor:
        """A constant: numbers on the device; whole numbers and scalars in the host's memory."""
        tensor = torch.from_numpy(np.array(values))
        if not tensor.is_floating_point() or tensor.ndim == 0:
            return tensor
        layout = torch.channels_last if self._last and tensor.ndim == 4 else torch.preserve_format
        return tensor.to(self.device, self.dtype).contiguous(memory_format=layout)

    def _random(self, entry: Any) -> Tensor:
        shape = [dim.dim_value for dim in entry.type.tensor_type.shape.dim]
        if not shape or not all(shape):
            raise ModelError("Only networks with static shapes can be timed.", where=entry.name, got=shape)
        # All zeros would time denormals and shortcuts.
        return self._place(np.random.default_rng(0).standard_normal(shape, dtype=np.float32))

    def _read(self, graph: Any) -> tuple[Node, ...]:
        nodes = []
        last_use = {name: index for index, node in enumerate(graph.node) for name in node.input}
        for index, node in enumerate(graph.node):
            attributes = {a.name: _plain(onnx.helper.get_attribute_value(a)) for a in node.attribute}
            if node.op_type == "Constant":
                self._weights[node.output[0]] = self._place(_constant(attributes))
                continue
            if node.op_type not in OPERATORS:
                raise ModelError(
                    "The torch runtime does not know an operator of this network.",
                    where=node.output[0],
                    got=node.op_type,
                    allowed=", ".join(sorted(OPERATORS)),
                    do="use another runtime (--profile), for example one of ONNX Runtime",
                )
            done = {name for name in node.input if last_use[name] == index and name not in self._weights}
            nodes.append(
                Node(
                    node.op_type,
                    OPERATORS[node.op_type],
                    attributes,
                    tuple(node.input),
                    node.output[0],
                    tuple(sorted(done)),
                )
            )
        return tuple(nodes)

    @torch.inference_mode()
    def __call__(
        self, images: Tensor, around: Callable[[int], AbstractContextManager[object]] | None = None
    ) -> Tensor:
        """Run the network.

        Args:
            images: (N, C, H, W), on the device, in its number format.
            around: Gives a context for the node with this number; what a profiler names kernels by.

        Returns:
            What the network returns.
        """
        around = around or _nothing
        values: dict[str, Any] = {**self._weights, self._input: images, "": None}
        for number, node in enumerate(self.nodes):
            with around(number):
                values[node.output] = node.run(node.attributes, [values[name] for name in node.inputs])
            for name in node.done:
                del values[name]  # as any framework does, so that the memory is used again
        return values[self._output]  # type: ignore[no-any-return]


def _nothing(number: int) -> AbstractContextManager[object]:
    return contextlib.nullcontext()


def _plain(value: Any) -> Any:
    return value.decode() if isinstance(value, bytes) else value


def _constant(attributes: dict[str, Any]) -> Any:
    (kind, value), *_ = attributes.items()
    return numpy_helper.to_array(value) if kind == "value" else np.array(value)
