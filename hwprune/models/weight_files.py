"""Files of weights: safetensors, and what `torch.save` wrote of tensors and plain containers."""

from __future__ import annotations

import zipfile
from typing import TYPE_CHECKING, Any

import torch

from hwprune.errors import ModelError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

_AVERAGED = ("state_dict_ema", "model_ema", "ema_state_dict", "ema")
_NESTED_UNDER = (*_AVERAGED, "state_dict", "model_state_dict", "model", "net", "module")
_DEPTH = 3  # dicts around the tensors
_SHOWN = 5


def read_state(path: Path) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors in a file of weights by name, and what the user should know about them.

    Raises:
        ModelError: No such file, damaged, more than weights, or no state dict.
        UsageError: The name does not end like a file of weights.
    """
    readers = {".safetensors": _read_safetensors, ".pt": _read_torch, ".pth": _read_torch}
    if path.suffix not in readers:
        raise UsageError(
            "Weights cannot be read from that.",
            where="weights",
            got=repr(str(path)),
            allowed="FILE.safetensors, FILE.pt, FILE.pth, torchvision:NAME or timm:NAME",
        )
    if not path.is_file():
        raise ModelError("There is no such file of weights.", where=path, do="check the path")
    content = readers[path.suffix](path)
    found = _state_dict(content)
    if found is None:
        names = ", ".join(map(str, list(content)[:_SHOWN])) if isinstance(content, dict) else ""
        raise ModelError(
            "The file holds no state dict.",
            where=path,
            got=names or ("nothing" if isinstance(content, dict) else type(content).__name__),
            allowed=f"names and tensors, plain or under one of the keys {', '.join(_NESTED_UNDER)}",
        )
    state, keys = found
    averaged = [key for key in keys if key in _AVERAGED]
    return state, [f"the averaged weights under {key!r} of {path} were taken" for key in averaged]


def _read_safetensors(path: Path) -> object:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError("The file is not a readable safetensors file.", where=path, got=error) from error


def _read_torch(path: Path) -> object:
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                if any(info.compress_type != zipfile.ZIP_STORED for info in archive.infolist()):
                    raise ValueError("a part of it is compressed, which torch.save never does")
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged or hostile file can raise anything
        raise ModelError(
            "The file is damaged, or holds more than weights; nothing in it was run.",
            where=path,
            got=(str(error).strip() or type(error).__name__).splitlines()[0],
            allowed="a state dict of tensors",
            do="save the weights alone: torch.save(model.state_dict(), FILE), or as FILE.safetensors",
        ) from error


def _state_dict(content: Any, keys: tuple[str, ...] = ()) -> tuple[dict[str, Tensor], tuple[str, ...]] | None:
    """The tensors by name, and the keys that lead to them; None where there are none."""
    if not isinstance(content, dict) or len(keys) > _DEPTH:
        return None
    if content and all(isinstance(k, str) and torch.is_tensor(v) for k, v in content.items()):
        return dict(content), keys
    for key in _NESTED_UNDER:
        if (found := _state_dict(content.get(key), (*keys, key))) is not None:
            return found
    return None
