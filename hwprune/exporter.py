"""Checks of exported files: against torch, and by their accuracy."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from hwprune.errors import ModelError
from hwprune.structure.export import as_inputs, export_base, tensors_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor, nn

    from hwprune.data.images import Images


TOLERANCE = 1e-3  # largest difference of outputs from torch's, relative to their scale


def checked_onnx(model: nn.Module, example: Tensor | Sequence[Tensor] | Sequence[int]) -> tuple[bytes, float]:
    """A network as ONNX, compared with torch.

    Args:
        model: The network.
        example: Its inputs, or the shape of its one input, (N, C, H, W); sizes in the file are fixed to it.

    Returns:
        The file's content, and how far its outputs are from torch's, see `largest_difference`.

    Raises:
        ModelError: It cannot be exported, or the file computes something else than torch.
    """
    content = export_base(model, example)
    difference = largest_difference(model, content, example)
    if not difference <= TOLERANCE:
        raise ModelError(
            "The exported file does not compute what torch computes.",
            got=f"relative difference {difference:.1e}",
            allowed=f"{TOLERANCE:.0e}",
            do="report this with the name of the model; the file was not written",
        )
    return content, difference


def largest_difference(
    model: nn.Module, content: bytes, example: Tensor | Sequence[Tensor] | Sequence[int]
) -> float:
    """Run an exported file in ONNX Runtime and compare it with torch on random inputs.

    Args:
        model: The network.
        content: The file.
        example: As in `checked_onnx`; of integers its own values are taken.

    Returns:
        The largest difference of any output, relative to the largest of that output in torch.
    """
    import onnxruntime

    drawn = torch.Generator().manual_seed(0)
    inputs = [
        torch.randn(one.shape, generator=drawn) if one.is_floating_point() else one
        for one in as_inputs(example)
    ]
    with torch.inference_mode():
        expected = [one.numpy() for one in tensors_of(model.eval()(*inputs))]
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    names = [one.name for one in session.get_inputs()]
    got = session.run(None, {name: one.numpy() for name, one in zip(names, inputs, strict=True)})
    return max(
        float(np.abs(one - true).max() / max(np.abs(true).max(), 1e-12))
        for one, true in zip(got, expected, strict=True)
    )


def file_accuracy(content: bytes, images: Images, batch_size: int) -> float:
    """Top-1 accuracy of an exported file in ONNX Runtime, 0 to 1.

    Args:
        content: The file; its batch is fixed.
        images: What it is scored on.
        batch_size: That batch; the last one is filled up with zeros.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    name, right = session.get_inputs()[0].name, 0
    for batch, labels in images.batches(batch_size):
        filled = np.zeros((batch_size, *batch.shape[1:]), dtype=np.float32)
        filled[: len(batch)] = batch.numpy()
        scores = session.run(None, {name: filled})[0][: len(batch)]
        right += int((scores.argmax(1) == labels.numpy()).sum())
    return right / len(images)
