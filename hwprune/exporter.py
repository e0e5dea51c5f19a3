"""Export to ONNX, with names that the search space knows.

The TorchScript-based exporter is used on purpose: it writes `GlobalAveragePool`, `Flatten` and `Gemm`,
which runtimes fuse and lay out better than the `ReduceMean` and constant `Reshape` of the dynamo exporter,
and whose shapes follow the channels when initialisers are sliced.
"""

from __future__ import annotations

import copy
import io
import warnings
from typing import TYPE_CHECKING

import numpy as np
import onnx
import torch
from onnx import numpy_helper

from hwprune.errors import ModelError
from hwprune.structure.onnx_fold import fold_batch_norm

if TYPE_CHECKING:
    from torch import nn

    from hwprune.data.images import Images

OPSET = 17  # the first with LayerNormalization; old enough for the runtimes in use


def export_base(model: nn.Module, input_shape: tuple[int, ...]) -> bytes:
    """Export a model as ONNX with static shapes, batch normalisation folded, weights inside.

    Initialisers keep their `state_dict` names; the input is named `input`, the output `output`.

    Args:
        model: Any module with one input; it is not modified.
        input_shape: (N, C, H, W).

    Returns:
        The serialised model.

    Raises:
        ModelError: The model cannot be exported.
    """
    exported = _export_named(model, input_shape)
    values = {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}
    for tensor in exported.graph.initializer:
        if tensor.name in values:
            tensor.CopyFrom(numpy_helper.from_array(values[tensor.name].numpy(), tensor.name))
    fold_batch_norm(exported)
    return bytes(exported.SerializeToString())


def largest_difference(model: nn.Module, content: bytes, input_shape: tuple[int, ...]) -> float:
    """Run an exported file in ONNX Runtime and compare it with torch on random images.

    Returns:
        The largest difference of the outputs, relative to the largest output of torch.
    """
    import onnxruntime

    images = torch.randn(input_shape, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = model.eval()(images).numpy()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    got = session.run(None, {"input": images.numpy()})[0]
    return float(np.abs(got - expected).max() / max(np.abs(expected).max(), 1e-12))


def file_accuracy(content: bytes, images: Images, batch_size: int) -> float:
    """Top-1 accuracy of an exported file in ONNX Runtime, 0 to 1.

    Args:
        content: The file; its batch is fixed.
        images: What it is scored on.
        batch_size: That batch; the last one is filled up with zeros.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    right = 0
    for batch, labels in images.batches(batch_size):
        filled = np.zeros((batch_size, *batch.shape[1:]), dtype=np.float32)
        filled[: len(batch)] = batch.numpy()
        scores = session.run(None, {"input": filled})[0][: len(batch)]
        right += int((scores.argmax(1) == labels.numpy()).sum())
    return right / len(images)


def _export_named(model: nn.Module, input_shape: tuple[int, ...]) -> onnx.ModelProto:
    """Export a twin whose tensors are all different: the exporter merges equal ones and loses their names."""
    twin = copy.deepcopy(model).cpu().eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for tensor in twin.state_dict().values():  # others, such as fixed filters, are constants of the graph
            if tensor.is_floating_point():
                tensor.copy_(torch.rand(tensor.shape, generator=generator))
    buffer = io.BytesIO()
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # the exporter's deprecation; why it is used stands at the top
            torch.onnx.export(
                twin,
                (torch.zeros(input_shape),),
                buffer,  # type: ignore[arg-type]  # this exporter does write to memory
                opset_version=OPSET,
                input_names=["input"],
                output_names=["output"],
                training=torch.onnx.TrainingMode.PRESERVE,  # keeps BN apart, and so all names
                do_constant_folding=False,
                dynamo=False,
            )
    except Exception as error:  # the exporter raises whatever the model's forward makes it raise
        raise ModelError(
            "This model cannot be exported to ONNX.",
            where=type(model).__name__,
            got=f"{type(error).__name__}: {error}".splitlines()[0],
            do="replace the operation that ONNX does not know",
        ) from error
    return onnx.load_model_from_string(buffer.getvalue())
