"""What hwprune notes in the metadata of an ONNX model. No torch."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from onnx import helper

from hwprune.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnx

_BATCHED = "hwprune.batched"
_FOLLOWING = "hwprune.following"
_DECIDES = "hwprune.decides"
_OPEN = "hwprune.open"


def properties(model: onnx.ModelProto) -> dict[str, str]:
    """All metadata of a model: key -> value."""
    return {entry.key: entry.value for entry in model.metadata_props}


def set_metadata(model: onnx.ModelProto, facts: Mapping[str, str]) -> None:
    """Store `facts` in the model's metadata, replacing entries of the same name."""
    helper.set_model_props(model, {**properties(model), **facts})


def batched(model: onnx.ModelProto) -> dict[str, list[int]]:
    """Constants that follow the batch -> the flat places of the numbers that do.

    A negative place -1 - axis stands for a constant of one equal part for each image along that axis.

    Raises:
        ModelError: The metadata is not what hwprune writes.
    """
    return _places(model, _BATCHED)


def following(model: onnx.ModelProto) -> dict[str, list[int]]:
    """Constants that follow the sizes of channels -> the flat places of the numbers that do.

    Raises:
        ModelError: The metadata is not what hwprune writes.
    """
    return _places(model, _FOLLOWING)


def _places(model: onnx.ModelProto, key: str) -> dict[str, list[int]]:
    text = properties(model).get(key, "{}")
    try:
        return {str(name): [int(place) for place in places] for name, places in json.loads(text).items()}
    except (AttributeError, TypeError, ValueError) as error:
        raise ModelError(
            "The metadata of this ONNX model is damaged.",
            where=key,
            got=text[:100],
            do="export the model again",
        ) from error


def note_batched(model: onnx.ModelProto, places: Mapping[str, list[int]]) -> None:
    """Store what `batched` returns, replacing what was stored."""
    set_metadata(model, {_BATCHED: json.dumps(places)})


def note_following(model: onnx.ModelProto, places: Mapping[str, list[int]]) -> None:
    """Store what `following` returns, replacing what was stored."""
    set_metadata(model, {_FOLLOWING: json.dumps(places)})


def is_open(model: onnx.ModelProto) -> bool:
    """Whether the model was exported with an open batch, so that its graph tells what follows sizes."""
    return _OPEN in properties(model)


def note_open(model: onnx.ModelProto) -> None:
    """Note that `is_open`."""
    set_metadata(model, {_OPEN: "1"})


def decides(model: onnx.ModelProto) -> bool:
    """Whether the code of the exported model made Python values of tensors, and so may decide by them."""
    return _DECIDES in properties(model)


def note_decides(model: onnx.ModelProto) -> None:
    """Note that it `decides`."""
    set_metadata(model, {_DECIDES: "1"})
