"""Checks of exported files: against torch, and by their accuracy."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from torch import nn

    from hwprune.data.images import Images


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
    name, right = session.get_inputs()[0].name, 0
    for batch, labels in images.batches(batch_size):
        filled = np.zeros((batch_size, *batch.shape[1:]), dtype=np.float32)
        filled[: len(batch)] = batch.numpy()
        scores = session.run(None, {name: filled})[0][: len(batch)]
        right += int((scores.argmax(1) == labels.numpy()).sum())
    return right / len(images)
