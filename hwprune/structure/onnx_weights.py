"""The weights of an ONNX model as arrays beside its graph. No torch.

Large weights are only declared in the graph then, by type and shape: a graph is copied, searched and changed
without copying gigabytes, and ONNX Runtime takes the arrays as they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import numpy_helper

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from numpy.typing import NDArray

    Array = NDArray[Any]

_FEW = 64  # elements: smaller tensors may be sizes, which shape inference asks for
_APART = tuple(np.dtype(name) for name in ("float16", "float32", "float64", "int8", "uint8"))


@dataclass(frozen=True)
class WeightedGraph:
    """A graph and the values of its initialisers.

    Attributes:
        model: The graph; its large initialisers hold no values.
        arrays: Initialiser -> value, of all of them.
    """

    model: onnx.ModelProto
    arrays: dict[str, Array]

    @classmethod
    def of(cls, model: onnx.ModelProto) -> WeightedGraph:
        """A model whose weights are taken out of it, in place."""
        arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
        for tensor in model.graph.initializer:
            if _apart(arrays[tensor.name]):
                declare(tensor, tensor.name, arrays[tensor.name])
        return cls(model, arrays)

    def keep(self, names: Collection[str]) -> None:
        """Drop all other initialisers."""
        kept = [tensor for tensor in self.model.graph.initializer if tensor.name in names]
        if len(kept) < len(self.arrays):
            copies = onnx.GraphProto(initializer=kept)
            del self.model.graph.initializer[:]
            self.model.graph.initializer.extend(copies.initializer)
            for name in self.arrays.keys() - {tensor.name for tensor in copies.initializer}:
                del self.arrays[name]

    def put(self, name: str, array: Array) -> None:
        """Give an initialiser a value; it is made where there is none."""
        found = (tensor for tensor in self.model.graph.initializer if tensor.name == name)
        tensor = next(found, None) if name in self.arrays else None
        declare(self.model.graph.initializer.add() if tensor is None else tensor, name, array)
        self.arrays[name] = array

    def copied(self) -> WeightedGraph:
        """The same with a graph of its own; the arrays are shared."""
        model = onnx.ModelProto()
        model.CopyFrom(self.model)
        return WeightedGraph(model, dict(self.arrays))

    def content(self) -> bytes:
        """The serialised model, weights inside."""
        model = self.copied().model
        for tensor in model.graph.initializer:
            if _apart(array := self.arrays[tensor.name]):
                tensor.raw_data = array.tobytes()
        return bytes(model.SerializeToString())

    def run(self, feeds: Mapping[str, Array], threads: int = 0) -> list[Array]:
        """What ONNX Runtime makes of some inputs.

        Raises:
            Exception: The runtime does not take the model.
        """
        return [np.asarray(value) for value in self.session(threads).run(None, dict(feeds))]

    def session(self, threads: int = 0) -> Any:
        """The model as ONNX Runtime has it; 0 threads are as many as it likes.

        Raises:
            Exception: The runtime does not take it.
        """
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = threads, 4
        model, apart = self.copied().model, {}
        for tensor in model.graph.initializer:
            if _apart(array := self.arrays[tensor.name]):
                tensor.data_location = onnx.TensorProto.EXTERNAL
                tensor.external_data.add(key="location", value="memory")
                value = onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array))
                apart[tensor.name] = value
        options.add_external_initializers(list(apart), list(apart.values()))
        content = model.SerializeToString()
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        session.weights = apart  # in whose memory it works
        return session


def example_feeds(model: onnx.ModelProto) -> dict[str, Array]:
    """Random numbers for the inputs of a model, which have fixed sizes; ones where they are no floats."""
    rng, feeds = np.random.default_rng(0), {}
    for entry in model.graph.input:
        shape = [dim.dim_value for dim in entry.type.tensor_type.shape.dim]
        kind = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(entry.type.tensor_type.elem_type))
        value = rng.standard_normal(shape) if kind.kind == "f" else np.ones(shape)
        feeds[entry.name] = value.astype(kind)
    return feeds


def keep_inputs(model: onnx.ModelProto, wanted: Callable[[str], bool]) -> None:
    """Leave only some of a model's inputs."""
    copies = onnx.GraphProto(input=[entry for entry in model.graph.input if wanted(entry.name)])
    del model.graph.input[:]
    model.graph.input.extend(copies.input)


def declare(tensor: onnx.TensorProto, name: str, array: Array) -> None:
    """Describe an array; its values are left out where they are many."""
    if _apart(array):
        tensor.Clear()
        tensor.name, tensor.data_type = name, onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
        tensor.dims[:] = array.shape
    else:
        tensor.CopyFrom(numpy_helper.from_array(np.array(array, order="C"), name))


def _apart(array: Array) -> bool:
    return array.size > _FEW and array.dtype in _APART
