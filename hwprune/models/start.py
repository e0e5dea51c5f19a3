"""What a network starts from: trained weights that the user's own function loaded, or none."""

from __future__ import annotations

import hashlib
import warnings
from typing import TYPE_CHECKING

import torch

from hwprune.errors import HwpruneWarning
from hwprune.models.weights import GivenWeights

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import nn

_SEEDS = (1_234_567, 7_654_321)
_TRAINED_SHARE = 0.5  # of the random-looking weights, which do not depend on the seed
_SHOWN = 5


def trained_by(make_model: Callable[[], nn.Module], source: str) -> GivenWeights | None:
    """Whether the function that builds a network also loads trained weights.

    It is called twice, after different seeds. Weights that come out alike were loaded; those that differ
    were drawn at random. A function that sets torch's seed itself gives the same ones twice: then the
    statistics of batch normalisation decide, which are 0 and 1 before any training.

    Args:
        make_model: Builds the network.
        source: The function's name, for the answer.

    Returns:
        The trained weights, and the layers that have random ones all the same; None where none are trained.
    """
    (first, seeded), (second, _) = (_made(make_model, seed) for seed in _SEEDS)
    others = dict(second.named_parameters())
    weights = {name: one.detach() for name, one in first.named_parameters() if _varied(one)}
    loaded = {name: one for name, one in weights.items() if _same(one, others.get(name))}
    share = sum(map(torch.numel, loaded.values())) / max(1, sum(map(torch.numel, weights.values())))
    if share <= _TRAINED_SHARE or (seeded and not _has_statistics(first)):
        return None
    anew = tuple(dict.fromkeys(name.rpartition(".")[0] for name in weights if name not in loaded))
    notes = f"{source} loads trained weights" + (f"; random are those of {', '.join(anew)}" if anew else "")
    return GivenWeights(source, anew, (notes,), _digest(loaded))


def factory_is_pretrained(make_model: Callable[[], nn.Module]) -> bool:
    """Whether the function that builds a network also loads trained weights; see `trained_by`."""
    return trained_by(make_model, "the function") is not None


def _made(make_model: Callable[[], nn.Module], seed: int) -> tuple[nn.Module, bool]:
    """The network built after a seed, and whether its function set another seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = make_model()
        return model, torch.initial_seed() != seed


def _digest(tensors: Mapping[str, torch.Tensor]) -> str:
    found = hashlib.sha256()
    for name in sorted(tensors):
        found.update(name.encode())
        found.update(tensors[name].cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def _varied(parameter: torch.Tensor) -> bool:
    """Whether the values are not all one constant, as of an untrained bias or normalisation."""
    return parameter.numel() > 1 and bool((parameter != parameter.flatten()[0]).any())


def _same(one: torch.Tensor, other: torch.Tensor | None) -> bool:
    return other is not None and one.shape == other.shape and bool(torch.equal(one, other))


def _has_statistics(model: nn.Module) -> bool:
    """Whether a normalisation has seen images."""
    means = [value for name, value in model.named_buffers() if name.endswith("running_mean")]
    return any(bool(mean.any()) for mean in means)


@torch.no_grad()
def reset_parameters(model: nn.Module, seed: int | None = None) -> tuple[str, ...]:
    """Give every parameter the initial value of its layer's class, and normalisation its first statistics.

    Args:
        model: The network, changed in place.
        seed: Decides the random values, and torch's own generator stays as it was; None draws from that.

    Returns:
        Names of the parameters that keep their values: their modules have no `reset_parameters()`.
    """
    parameters = {name: one for name, one in model.named_parameters() if one.is_floating_point()}
    before = {name: one.clone() for name, one in parameters.items()}
    for one in parameters.values():
        one.fill_(float("nan"))  # what is not reset shows
    with torch.random.fork_rng(devices=[], enabled=seed is not None):
        if seed is not None:
            torch.manual_seed(seed)
        for module in model.modules():
            reset = getattr(module, "reset_parameters", None) or getattr(module, "_reset_parameters", None)
            if callable(reset):
                reset()
    kept = tuple(name for name, one in parameters.items() if bool(one.isnan().any()))
    for name in kept:
        parameters[name].copy_(before[name])
    return kept


def warn_of_kept(names: Sequence[str]) -> None:
    """Warn that a network is not from scratch in all its parameters."""
    if not names:
        return
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    warnings.warn(
        f"{', '.join(names[:_SHOWN])}{more} start from the values that the model's function gave them: "
        "their modules have no reset_parameters()",
        HwpruneWarning,
        stacklevel=3,
    )
