"""Given weights: a file's, torchvision's, timm's; nothing that is read is executed."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn

from hwprune.errors import ModelError
from hwprune.models import external
from hwprune.models.weight_files import read_state

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from torch import Tensor

_PREFIXES = ("module.", "_orig_mod.", "model.", "net.")  # of DataParallel, torch.compile, Lightning
_COUNTER = "n_averaged"  # of torch's AveragedModel
_SHOWN = 5


@dataclass(frozen=True)
class GivenWeights:
    """What is known of the trained weights that a network got.

    Attributes:
        source: Where they come from.
        anew: Layers that have random weights all the same: their outputs are other classes.
        notes: What the user should know of them, one sentence each.
        digest: Stands for their values, where no file does.
    """

    source: str
    anew: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    digest: str = ""


def load_weights(model: nn.Module, source: str | Path) -> GivenWeights:
    """Replace the weights of `model`, all of them or none.

    A last layer for another number of classes is left out: it keeps its random weights.

    Args:
        model: The network, changed in place. Values are converted to the type of its parameters.
        source: `FILE.safetensors`; `FILE.pt` or `FILE.pth` with a state dict, plain or nested as training
            programs do it, of which averaged weights (EMA) are preferred, read with torch's weights-only
            unpickler, which refuses everything that is not a tensor or a plain container;
            `torchvision:NAME`, torchvision's best weights, or `torchvision:WEIGHTS` (such as
            `ResNet50_Weights.IMAGENET1K_V2`); `timm:NAME`. Those of the two packages are downloaded into
            their caches.

    Returns:
        What was loaded.

    Raises:
        ModelError: No such file, not such a file, refused content, a failed download, or weights that do not
            fit: every missing, unexpected and misshapen tensor is counted, the first five are named.
        UsageError: The source has none of these forms.
    """
    text = str(source)
    package, _, name = text.partition(":")
    notes: list[str] = []
    if package in external.SOURCES:
        state = dict(external.SOURCES[package].weights(name))
    else:
        state, notes = read_state(Path(text).expanduser())
    state = _without_prefixes(state, model)
    anew = _other_classes(state, model)
    for layer, (given, own) in anew.items():
        notes.append(
            f"{layer} was made anew, with random weights: the source has {given} classes, the model has {own}"
        )
        state = {key: value for key, value in state.items() if not key.startswith(f"{layer}.")}
    _check_fits(state, model, text, [f"{layer}." for layer in anew])
    model.load_state_dict(state, strict=False)
    if package == "torchvision" and hasattr(model, "transform_input"):
        # Networks ported from TensorFlow expect its normalisation; this converts ours in the forward pass.
        model.transform_input = True  # type: ignore[assignment]
    return GivenWeights(text, tuple(anew), tuple(notes))


def _without_prefixes(state: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Drop what wrappers put before every name, one after another."""
    own = model.state_dict().keys()
    if _COUNTER in state and _COUNTER not in own:
        state = {key: value for key, value in state.items() if key != _COUNTER}
    for prefix in _PREFIXES * 2:  # wrappers of wrappers
        shared = all(key.startswith(prefix) for key in state)
        if state and shared and not any(key.startswith(prefix) for key in own):
            state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state


def _other_classes(state: Mapping[str, Tensor], model: nn.Module) -> dict[str, tuple[int, int]]:
    """The layer that differs in its number of outputs alone -> (outputs in `state`, its own).

    Where nothing else differs, nothing reads those outputs: it is the last one.
    """
    own = model.state_dict()
    if set(_needed(own)) - state.keys() or state.keys() - own.keys():
        return {}
    differing = [key for key in state if state[key].shape != own[key].shape]
    layers = {key.rpartition(".")[0] for key in differing}
    only_outputs = all(state[key].shape[1:] == own[key].shape[1:] and state[key].ndim for key in differing)
    if len(layers) != 1 or not only_outputs:
        return {}
    layer = layers.pop()
    if not isinstance(model.get_submodule(layer), nn.Linear | nn.Conv2d):
        return {}
    weight = f"{layer}.weight"
    return {layer: (len(state[weight]), len(own[weight]))} if weight in differing else {}


def _check_fits(state: Mapping[str, Tensor], model: nn.Module, source: str, anew: list[str]) -> None:
    own = {key: value for key, value in model.state_dict().items() if not key.startswith(tuple(anew))}
    missing = [key for key in _needed(own) if key not in state]
    unexpected = [key for key in state if key not in own]
    misshapen = [
        f"{key} {tuple(state[key].shape)} instead of {tuple(own[key].shape)}"
        for key in own
        if key in state and state[key].shape != own[key].shape
    ]
    told = [_with_nearest(key, unexpected) for key in missing[:_SHOWN]] + missing[_SHOWN:]
    problems = (("missing", told), ("unexpected", unexpected), ("of another shape", misshapen))
    if any(names for _, names in problems):
        raise ModelError(
            f"The weights do not fit the network {type(model).__name__}; it was left as it was.",
            where=source,
            got="; ".join(f"{len(names)} {what}: {_some(names)}" for what, names in problems if names),
            do="build the network they were trained on",
        )


def _needed(own: Iterable[str]) -> list[str]:
    """Names without a counter that files from before 2018 lack, and nothing here depends on."""
    return [key for key in own if not key.endswith(".num_batches_tracked")]


def _with_nearest(name: str, others: list[str]) -> str:
    """A missing name, and the one that it may have in the file."""
    alike = [other for other in others if other.rpartition(".")[2] == name.rpartition(".")[2]]
    near = difflib.get_close_matches(name, alike[:1000], n=1, cutoff=0.7)
    return f"{name} (there is {near[0]})" if near else name


def _some(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
