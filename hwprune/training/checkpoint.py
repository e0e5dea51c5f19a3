"""Checkpoints of a training run: weights, the optimiser's state and the epochs in one safetensors file.

Everything random in an epoch follows from (seed, epoch), so nothing else is needed to go on exactly.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Protocol

from hwprune import artifacts, strict_json
from hwprune.errors import MismatchError
from hwprune.payloads import misfits
from hwprune.training.history import EpochFigures, History

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from torch import Tensor, nn

    from hwprune.training.optimiser import Optimiser
    from hwprune.training.settings import PrecisionName

_KIND, _SCHEMA = "training-checkpoint", 1
_WEIGHT = "weight/"
_STATE = {"momentum_buffer": "momentum/", "exp_avg": "mean/", "exp_avg_sq": "squares/", "step": "steps/"}


class Kept(Protocol):
    """Something else that a run keeps from epoch to epoch, such as an average of the weights."""

    prefix: str

    def tensors(self) -> dict[str, Tensor]:
        """Its state."""

    def load(self, tensors: Mapping[str, Tensor], /) -> None:
        """Go on from what `tensors` gave."""


def save_checkpoint(
    path: Path,
    module: nn.Module,
    optimiser: Optimiser,
    history: History,
    identity: Mapping[str, Any],
    kept: Sequence[Kept] = (),
    precision: str = "",
) -> None:
    """Write the state after the last epoch of `history`; replaces an earlier checkpoint atomically.

    Args:
        path: The file.
        module: The network being trained.
        optimiser: Its optimiser.
        history: The epochs finished so far.
        identity: JSON-able settings that a run must share to go on from here.
        kept: What else the run keeps.
        precision: What the steps are computed in, which a resumed run goes on with.

    Raises:
        StorageError: Full disk, no permission.
    """
    tensors = {_WEIGHT + name: tensor for name, tensor in module.state_dict().items()}
    for name, parameter in module.named_parameters():
        for kind, value in optimiser.state(parameter).items():
            tensors[_STATE[kind] + name] = value
    for one in kept:
        tensors |= {one.prefix + name: value for name, value in one.tensors().items()}
    info = {"identity": dict(identity), "history": history.to_payload(), "precision": precision}
    artifacts.write_tensors(path, _KIND, _SCHEMA, tensors, info)


def kept_precision(path: Path | None) -> PrecisionName | None:
    """The precision that the run of a checkpoint computes in; None where that is not known."""
    if path is None:
        return None
    with contextlib.suppress(ValueError, AttributeError, RecursionError):
        found = strict_json.parse(artifacts.tensors_claim(path, "info")).get("precision")
        return found if found in ("fp32", "bf16") else None
    return None


def load_checkpoint(
    path: Path,
    module: nn.Module,
    optimiser: Optimiser,
    identity: Mapping[str, Any],
    kept: Sequence[Kept] = (),
) -> History:
    """Put `module` and `optimiser` into the state that `save_checkpoint` wrote.

    Returns:
        The epochs finished in that state.

    Raises:
        MismatchError: The checkpoint is of another network, seed or recipe; nothing was changed.
        ArtifactError: Damaged, or not a checkpoint.
    """
    tensors, info = artifacts.read_tensors(path, _KIND, _SCHEMA)
    if not isinstance(info.get("identity"), dict) or not isinstance(info.get("history"), list):
        raise artifacts.broken(path, "no identity or history")
    _check_identity(path, info["identity"], identity)
    history = _history(path, info["history"])
    weights = _with_prefix(tensors, _WEIGHT)
    parameters = dict(module.named_parameters())
    _check_shapes(path, weights, module.state_dict())
    states = {kind: _with_prefix(tensors, prefix) for kind, prefix in _STATE.items()}
    for kind, state in states.items():
        known = state.keys() & parameters.keys()
        own = {name: parameters[name].sum() if kind == "step" else parameters[name] for name in known}
        _check_shapes(path, state, own)
    for one in kept:
        _check_shapes(path, _with_prefix(tensors, one.prefix), one.tensors())
    module.load_state_dict(weights)
    for name, parameter in parameters.items():
        found = {kind: state[name] for kind, state in states.items() if name in state}
        if found:
            optimiser.set_state(parameter, found)
    for one in kept:
        one.load(_with_prefix(tensors, one.prefix))
    return history


def load_weights(path: Path, module: nn.Module) -> None:
    """Put the weights of a checkpoint into `module`, whatever recipe they were trained by.

    Raises:
        MismatchError: They are of another network; nothing was changed.
        ArtifactError: Missing, damaged, or not a checkpoint.
    """
    tensors, _ = artifacts.read_tensors(path, _KIND, _SCHEMA)
    weights = _with_prefix(tensors, _WEIGHT)
    _check_shapes(path, weights, module.state_dict())
    module.load_state_dict(weights)


def _history(path: Path, payload: list[Any]) -> History:
    if any(misfits(epoch, EpochFigures) for epoch in payload):
        raise artifacts.broken(path, "an epoch's figures are not those of a history")
    return History.from_payload(payload)


def _with_prefix(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}


def _check_identity(path: Path, got: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    differing = [key for key in {**got, **wanted} if got.get(key) != wanted.get(key)]
    if differing:
        raise _mismatch(
            path,
            ", ".join(f"{key}={got.get(key)!r}" for key in differing),
            ", ".join(f"{key}={wanted.get(key)!r}" for key in differing),
        )


def _check_shapes(path: Path, got: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    for name in sorted(got.keys() | wanted.keys()):
        shapes = [tuple(side[name].shape) if name in side else "absent" for side in (got, wanted)]
        if shapes[0] != shapes[1]:
            raise _mismatch(path, f"{name}: {shapes[0]}", f"{name}: {shapes[1]}")


def _mismatch(path: Path, got: str, allowed: str) -> MismatchError:
    return MismatchError(
        "The checkpoint belongs to another training run.",
        where=path,
        got=got,
        allowed=allowed,
        do="delete it to train anew, or run again with the settings it was made with",
    )
