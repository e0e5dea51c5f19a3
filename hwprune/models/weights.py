"""Load pretrained weights from a file or from torchvision; nothing that is read is executed."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from hwprune.errors import ModelError, UsageError
from hwprune.models import external

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn

_NESTED_UNDER = ("state_dict", "model", "model_state_dict", "net")
_AUXILIARY = ("aux1.", "aux2.", "AuxLogits.")  # classifiers that help training only; never built here
_SHOWN = 5


def load_weights(model: nn.Module, source: str | Path) -> None:
    """Replace the weights of `model`, all of them or none.

    Args:
        model: The network, changed in place. Values are converted to the type of its parameters.
        source: `FILE.safetensors`; `FILE.pt` or `FILE.pth` with a state dict, plain or under the key
            `state_dict` or `model`, read with torch's weights-only unpickler, which refuses everything that
            is not a tensor or a plain container; or `torchvision:NAME`, which downloads torchvision's best
            weights to torch's cache.

    Raises:
        ModelError: No such file, not such a file, refused content, a failed download, or weights that do not
            fit: every missing, unexpected and misshapen tensor is counted, the first five are named.
        UsageError: The source has none of these forms.
    """
    text = str(source)
    if text.startswith("torchvision:"):
        state = _download(text.removeprefix("torchvision:"))
        # Networks ported from TensorFlow expect its normalisation; this converts ours in the forward pass.
        transform_input = hasattr(model, "transform_input")
    else:
        state, transform_input = _read(Path(text).expanduser()), False
    state = _without_prefix(state, model)
    _check_fits(state, model, text)
    model.load_state_dict(state, strict=False)
    if transform_input:
        model.transform_input = True  # type: ignore[assignment]


def _read(path: Path) -> dict[str, Tensor]:
    readers = {".safetensors": _read_safetensors, ".pt": _read_torch, ".pth": _read_torch}
    if path.suffix not in readers:
        raise UsageError(
            "Weights cannot be read from that.",
            where="weights",
            got=repr(str(path)),
            allowed="FILE.safetensors, FILE.pt, FILE.pth or torchvision:NAME",
        )
    if not path.is_file():
        raise ModelError("There is no such file of weights.", where=path, do="check the path")
    return _state_dict(readers[path.suffix](path), path)


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


def _state_dict(content: object, path: Path) -> dict[str, Tensor]:
    """The tensors by name, from the file's content or from a dict nested one level down."""
    if isinstance(content, dict):
        nested = [content[key] for key in _NESTED_UNDER if isinstance(content.get(key), dict)]
        state = nested[0] if nested else content
        if state and all(isinstance(k, str) and torch.is_tensor(v) for k, v in state.items()):
            return dict(state)
    found = (
        ", ".join(map(str, list(content)[:_SHOWN])) if isinstance(content, dict) else type(content).__name__
    )
    raise ModelError(
        "The file holds no state dict.",
        where=path,
        got=found or "nothing",
        allowed="names and tensors, plain or under the key state_dict or model",
    )


def _download(name: str) -> dict[str, Tensor]:
    import torchvision

    external.check_torchvision_name(name)
    weights: Any = torchvision.models.get_model_weights(name).DEFAULT
    try:
        state: Mapping[str, Tensor] = weights.get_state_dict(progress=False, check_hash=True)
    except (OSError, RuntimeError) as error:  # URLError and timeouts are OSErrors; a wrong hash is not
        raise ModelError(
            "torchvision's weights could not be downloaded.",
            where=weights.url,
            got=error,
            do="check the network, or download that file elsewhere and give it as FILE.pth",
        ) from error
    return {key: value for key, value in state.items() if not key.startswith(_AUXILIARY)}


def _without_prefix(state: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Drop the `module.` that DataParallel puts before every name."""
    if all(key.startswith("module.") for key in state) and not hasattr(model, "module"):
        return {key.removeprefix("module."): value for key, value in state.items()}
    return state


def _check_fits(state: Mapping[str, Tensor], model: nn.Module, source: str) -> None:
    own = model.state_dict()
    # Files from before 2018 lack this counter, and nothing here depends on it.
    missing = [key for key in own if key not in state and not key.endswith(".num_batches_tracked")]
    unexpected = [key for key in state if key not in own]
    misshapen = [
        f"{key} {tuple(state[key].shape)} instead of {tuple(own[key].shape)}"
        for key in own
        if key in state and state[key].shape != own[key].shape
    ]
    problems = (("missing", missing), ("unexpected", unexpected), ("of another shape", misshapen))
    if any(names for _, names in problems):
        raise ModelError(
            f"The weights do not fit the network {type(model).__name__}; it was left as it was.",
            where=source,
            got="; ".join(f"{len(names)} {what}: {_some(names)}" for what, names in problems if names),
            do="build the network they were trained on, with the same number of classes",
        )


def _some(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
