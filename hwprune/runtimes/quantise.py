"""Static int8 quantisation of an ONNX model, by ONNX Runtime's own quantiser, as quantise/dequantise pairs.

Weights get one scale for each output channel, so a quantised network can be pruned by slicing like any
other: a channel takes its scale, its zero point and its bias with it.
"""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from hwprune import artifacts
from hwprune.errors import DeviceError, ModelError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_WEIGHTED = ["Conv", "ConvTranspose", "Gemm", "MatMul"]
# TensorRT fuses a convolution with what follows only if nothing is quantised in between, so only what layers
# with weights read is quantised (NVIDIA's guide to the placement of Q/DQ layers).
_SYMMETRIC = {
    "ActivationSymmetric": True,
    "WeightSymmetric": True,
    "QuantizeBias": False,
    "OpTypesToExcludeOutputQuantization": _WEIGHTED,
}
_RANDOM_BATCHES = 4  # to know the ranges of a network that is only timed


def quantise(content: bytes, images: Sequence[NDArray[np.float32]] = (), *, symmetric: bool = False) -> bytes:
    """Quantise the weights and activations of a network to 8 bits.

    Args:
        content: The network, 32-bit floats, one input with a static shape.
        images: Batches of inputs whose ranges decide the scales; random ones when there are none.
        symmetric: Signed activations around zero, biases in 32-bit floats, and only inputs of layers with
            weights quantised: what TensorRT takes and fuses.

    Returns:
        The network with QuantizeLinear and DequantizeLinear around its operators.

    Raises:
        ModelError: The quantiser cannot handle the network.
        DeviceError: A library that the quantiser needs is missing.
    """
    try:
        from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    except ImportError as error:
        raise DeviceError(
            "ONNX Runtime's quantiser cannot be loaded.", got=error, do=f"pip install {error.name}"
        ) from error
    with tempfile.TemporaryDirectory(prefix="hwprune-int8-") as folder:
        given, made = Path(folder) / "fp32.onnx", Path(folder) / "int8.onnx"
        try:
            model = onnx.load_model_from_string(content)
            artifacts.write_bytes(given, content)
            logging.getLogger().addFilter(_no_advice)  # it logs through the root logger
            quantize_static(
                given,
                made,
                _reader(model, images),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=_WEIGHTED if symmetric else None,
                per_channel=True,
                activation_type=QuantType.QInt8 if symmetric else QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                extra_options=_SYMMETRIC if symmetric else {},
            )
        except Exception as error:  # the quantiser raises whatever goes wrong inside
            raise ModelError(
                "The network cannot be quantised to int8.",
                got=f"{type(error).__name__}: {error}"[:300],
                do="use a profile with precision fp32",
            ) from error
        finally:
            logging.getLogger().removeFilter(_no_advice)
        return _without_unused(onnx.load_model_from_string(artifacts.read_bytes(made)))


def _without_unused(model: onnx.ModelProto) -> bytes:
    """Drop constants of operators that quantisation absorbed: runtimes warn about each of them."""
    used = {name for node in model.graph.node for name in node.input}
    used |= {output.name for output in model.graph.output}
    kept = [tensor for tensor in model.graph.initializer if tensor.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    return bytes(model.SerializeToString())


def _no_advice(record: logging.LogRecord) -> bool:
    """Drop the quantiser's advice to run its own preparation: batch normalisation is folded already."""
    return "pre-processing before quantization" not in record.getMessage()


def _reader(model: onnx.ModelProto, images: Sequence[NDArray[np.float32]]) -> Any:
    """Hands batches to the quantiser one by one, under the name of the network's input."""
    from onnxruntime.quantization import CalibrationDataReader

    weights = {tensor.name for tensor in model.graph.initializer}
    entry = next(value for value in model.graph.input if value.name not in weights)
    shape = [dim.dim_value for dim in entry.type.tensor_type.shape.dim]
    rng = np.random.default_rng(0)
    batches = images or [rng.standard_normal(shape, dtype=np.float32) for _ in range(_RANDOM_BATCHES)]

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # the library has no types
        left = iter(batches)

        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            batch = next(self.left, None)
            return None if batch is None else {entry.name: batch}

    return Reader()
