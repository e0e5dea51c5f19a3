"""What hwprune notes in the metadata of an ONNX model. No torch."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from onnx import helper

from hwprune.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnx

# Constants of which some numbers follow the batch, and those that follow the sizes of channels; see `places`.
BATCHED, FOLLOWING = "hwprune.batched", "hwprune.following"
OPEN = "hwprune.open"  # the model was exported with an open batch: its graph tells what follows sizes
DECIDES = "hwprune.decides"  # its code made Python values of tensors, and so may decide by them


def properties(model: onnx.ModelProto) -> dict[str, str]:
    """All metadata of a model: key -> value."""
    return {entry.key: entry.value for entry in model.metadata_props}


def set_metadata(model: onnx.ModelProto, facts: Mapping[str, str]) -> None:
    """Store `facts` in the model's metadata, replacing entries of the same name."""
    helper.set_model_props(model, {**properties(model), **facts})


def places(model: onnx.ModelProto, key: str) -> dict[str, list[int]]:
    """Constants that follow something -> the flat places of the numbers that do.

    A negative place -1 - axis stands for a constant of one equal part for each image along that axis.

    Args:
        model: The model.
        key: `BATCHED` or `FOLLOWING`.

    Raises:
        ModelError: The metadata is not what hwprune writes.
    """
    text = properties(model).get(key, "{}")
    try:
        return {str(name): [int(place) for place in found] for name, found in json.loads(text).items()}
    except (AttributeError, TypeError, ValueError) as error:
        raise ModelError(
            "The metadata of this ONNX model is damaged.",
            where=key,
            got=text[:100],
            do="export the model again",
        ) from error


def note_places(model: onnx.ModelProto, key: str, found: Mapping[str, list[int]]) -> None:
    """Store what `places` returns, replacing what was stored; nothing is stored of none."""
    if found:
        set_metadata(model, {key: json.dumps(found)})


def noted(model: onnx.ModelProto, key: str) -> bool:
    """Whether `OPEN` or `DECIDES` holds of the model."""
    return key in properties(model)


def note(model: onnx.ModelProto, key: str) -> None:
    """Note that it does."""
    set_metadata(model, {key: "1"})
