"""`hwprune.search` and `hwprune.export`: on plain data; with keywords alone, the verbs on a project."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from hwprune import artifacts
from hwprune.errors import UsageError
from hwprune.searching import library

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor, nn

    from hwprune.evolution.problem import AccuracyScore
    from hwprune.structure.space import SearchSpace


def search(space: SearchSpace | None = None, score: AccuracyScore | None = None, **options: Any) -> Any:
    """Find the best network within limits: see `hwprune.searching.library.search`.

    Without a space it is the verb `hwprune.verbs.search.search`, on a project folder.

    Args:
        space: The search space.
        score: Network -> number, higher is better.
        **options: Of one or the other.

    Example:
        >>> score = hwprune.Scorer(hwprune.Inherited(model, space, loader), task, held_out)
        >>> found = hwprune.search(space, score, limits=latency.limit("80%"), settings=few)
        >>> found.latency.value <= found.latency.limit
        True
    """
    if space is None and score is None:
        from hwprune.verbs.search import search as verb

        return verb(**options)
    if space is None or score is None:
        raise UsageError(
            "A search needs a space and a score.",
            got=f"no {'space' if space is None else 'score'}",
            do='write search(space, score, limits=latency.limit("60%")); in a project search(latency="60%")',
        )
    return library.search(space, score, **options)


def export(
    model: nn.Module | None = None,
    example: Tensor | Sequence[Tensor] | Sequence[int] = (),
    path: Path | str = "pruned.onnx",
    **options: Any,
) -> Any:
    """Write a network as ONNX, batch normalisation folded, and check the file against torch.

    Without a model it is the verb `hwprune.verbs.export.export`, on a project folder.

    Args:
        model: Any traced or pruned network.
        example: What it is called with, or the shape of its one input; sizes in the file are fixed to it.
        path: The file to write.
        **options: Those of the verb; with a model there are none.

    Returns:
        The path of the file.

    Raises:
        UsageError: Options with a model.
        ModelError: It cannot be exported, or the file computes something else than torch.
        StorageError: The file cannot be written.

    Example:
        >>> import torch, torchvision, hwprune
        >>> model = torchvision.models.resnet18(num_classes=10).eval()
        >>> hwprune.export(model, (1, 3, 64, 64), "resnet18.onnx").name
        'resnet18.onnx'
    """
    if model is None:
        from hwprune.verbs.export import export as verb

        return verb(**options)
    if options:
        raise UsageError(
            "With a model these are no options of export.",
            got=", ".join(sorted(options)),
            allowed="model, example, path",
            do="leave them out; `hwprune export` of a project quantises (int8) and measures",
        )
    from hwprune.exporter import checked_onnx

    artifacts.write_bytes(Path(path), checked_onnx(model, example)[0])
    return Path(path)
