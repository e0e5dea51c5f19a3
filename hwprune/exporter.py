"""Exported files beside torch: how far they are from it, and as networks that are scored like any other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from torch.utils import _pytree as pytree

from hwprune.errors import ModelError
from hwprune.structure.export import as_inputs, export_base, tensors_of
from hwprune.structure.prune import light_copy

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

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
    drawn = torch.Generator().manual_seed(0)
    inputs = [
        torch.randn(one.shape, generator=drawn) if one.is_floating_point() else one.cpu()
        for one in as_inputs(example)
    ]
    with torch.inference_mode():
        expected = [one.numpy() for one in tensors_of(light_copy(model).cpu().eval()(*inputs))]
    session = _session(content)
    names = [one.name for one in session.get_inputs()]
    got = session.run(None, {name: one.numpy() for name, one in zip(names, inputs, strict=True)})
    return max(
        float(np.abs(one - true).max() / max(np.abs(true).max(), 1e-12))
        for one, true in zip(got, expected, strict=True)
    )


def _session(content: bytes) -> Any:
    import onnxruntime

    try:
        return onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's own have no common base
        raise ModelError("ONNX Runtime refuses the file.", got=str(error)[-300:]) from error


class FileNetwork(nn.Module):
    """An exported file in ONNX Runtime on the CPU, called like the module that it was exported from.

    Args:
        content: The file, of one input; its batch is fixed.
        batch: That batch; images are brought into as many as needed, the last one filled up with zeros.
        like: What the module returns, for the structure of the outputs; None where that is one tensor.

    Raises:
        ModelError: ONNX Runtime refuses the file.
    """

    def __init__(self, content: bytes, batch: int, like: Any = None) -> None:
        super().__init__()
        self._session = _session(content)
        self._input, self._batch = self._session.get_inputs()[0].name, batch
        self._form = pytree.tree_structure(torch.zeros(0) if like is None else like)

    def forward(self, images: torch.Tensor) -> Any:
        """The file's outputs for any number of images, (N, C, H, W)."""
        found = [self._run(part) for part in torch.split(images.cpu(), self._batch)]
        outputs = [torch.from_numpy(np.concatenate(parts)) for parts in zip(*found, strict=True)]
        return pytree.tree_unflatten(outputs[: self._form.num_leaves], self._form)

    def _run(self, images: torch.Tensor) -> list[Any]:
        filled = np.zeros((self._batch, *images.shape[1:]), dtype=np.float32)
        filled[: len(images)] = images.numpy()
        return [one[: len(images)] for one in self._session.run(None, {self._input: filled})]
