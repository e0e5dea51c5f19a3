"""Try a search space on its model: does the model still run when a group is narrower?

Trials run on the meta device (shapes only, no arithmetic); a model that creates tensors on a device of its
own is tried for real instead.
"""

from __future__ import annotations

import copy
import math
import time
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from hwprune.errors import ModelError
from hwprune.structure.prune import prune_in_place

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hwprune.structure.space import SearchSpace, Widths

_Inputs = tuple[torch.Tensor, ...]
_NO_TIME = "there was no time left to try it"
_OUTPUTS = "its channels are the model's outputs"


def record_positions(model: nn.Module, inputs: _Inputs) -> dict[str, int]:
    """Run the model once and note how many positions each convolution and linear layer computes.

    Returns:
        Layer name -> output elements per output channel and input image, summed over repeated calls.

    Raises:
        ModelError: The model does not run on these inputs.
    """
    positions: dict[str, int] = {}

    def note(name: str, channels: int) -> object:
        def hook(_module: nn.Module, _inputs: object, output: torch.Tensor) -> None:
            positions[name] = positions.get(name, 0) + output.numel() // (
                channels * max(1, inputs[0].shape[0])
            )

        return hook

    hooks = []
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            channels = module.out_channels if isinstance(module, nn.Conv2d) else module.out_features
            hooks.append(module.register_forward_hook(note(name, channels)))  # type: ignore[arg-type]
    was_training = model.training
    try:
        with torch.no_grad():
            model.eval()(*inputs)
    except Exception as error:  # the user's own forward may raise anything
        raise ModelError(
            "The model does not run on the example inputs.",
            where=type(model).__name__,
            got=f"{type(error).__name__}: {error}",
            allowed=f"inputs of shape {[tuple(x.shape) for x in inputs]}",
            do="give the image size the model was made for, or fix its forward",
        ) from error
    finally:
        model.train(was_training)
        for hook in hooks:
            hook.remove()
    return positions


def broken_groups(
    model: nn.Module, space: SearchSpace, inputs: _Inputs, stop: float = math.inf
) -> dict[int, str]:
    """Groups whose pruning stops the model from running or changes the shape of its outputs.

    Groups are tried together at widths drawn at random; where that fails, each half is tried, down to the
    single groups at fault. So every group is tried, and a model without faults needs a handful of runs.

    Args:
        model: Not modified.
        space: The groups to try.
        inputs: Example inputs.
        stop: `time.thread_time()` after which what has not been tried counts as broken.

    Returns:
        Group index -> reason; empty when every trial ran.
    """
    bench = _Bench(model, space, inputs)
    bench.stop = stop
    return _halve(bench, range(len(space.groups))) or _broken_jointly(bench, space)


def _halve(bench: _Bench, candidates: Sequence[int]) -> dict[int, str]:
    if time.thread_time() > bench.stop:
        return dict.fromkeys(candidates, _NO_TIME)
    errors = [error for seed in range(2) if (error := bench.run(bench.draw(candidates, seed)))]
    if not errors:
        return {}
    if len(candidates) == 1:
        error = errors[0]
        reason = error if error == _OUTPUTS else f"the model fails when it is pruned ({error})"
        return {candidates[0]: reason}
    middle = len(candidates) // 2
    return {**_halve(bench, candidates[:middle]), **_halve(bench, candidates[middle:])}


def _broken_jointly(bench: _Bench, space: SearchSpace) -> dict[int, str]:
    """The group that breaks only in company: the first whose pruning, after those before it, fails."""
    everything = range(len(space.groups))
    for widths in (space.smallest(), bench.draw(everything, 2), bench.draw(everything, 3)):
        if not bench.run(widths):
            continue
        low, high = 0, len(widths)  # pruning the first `high` groups together fails, the first `low` does not
        while high - low > 1:
            middle = (low + high) // 2
            if bench.run((*widths[:middle], *space.full()[middle:])):
                high = middle
            else:
                low = middle
        error = bench.run((*widths[:high], *space.full()[high:]))
        return {high - 1: f"the model fails when it is pruned with others ({error})"}
    return {}


class _Bench:
    """Runs pruned copies of a model cheaply."""

    def __init__(self, model: nn.Module, space: SearchSpace, inputs: _Inputs) -> None:
        self.space = space
        self.expected: object = None
        self.stop = math.inf
        self.model, self.inputs = copy.deepcopy(model).eval(), inputs
        if not self._move_to_meta() and (error := self.run(space.full())):
            raise ModelError("The unpruned model does not run a second time.", got=error)

    def _move_to_meta(self) -> bool:
        """Go on without arithmetic, if the model runs that way."""
        real = self.model, self.inputs
        try:
            self.model, self.inputs = (
                copy.deepcopy(self.model).to("meta"),
                tuple(x.to("meta") for x in self.inputs),
            )
        except (NotImplementedError, RuntimeError):
            return False
        if self.run(self.space.full()) is None:
            return True
        self.model, self.inputs = real
        return False

    def draw(self, candidates: Sequence[int], seed: int) -> Widths:
        """Random widths, narrower than full, for the candidates; the others stay full."""
        rng = np.random.default_rng([seed, *candidates])
        widths = list(self.space.full())
        for index in candidates:
            choices = self.space.groups[index].choices
            widths[index] = int(rng.choice(choices[len(choices) // 4 : -1] or choices))
        return tuple(widths)

    def run(self, widths: Sequence[int]) -> str | None:
        """Prune, run forward once, and return what went wrong in one line, or None."""
        try:
            with torch.no_grad():
                output = prune_in_place(copy.deepcopy(self.model), self.space, widths)(*self.inputs)
        except Exception as error:  # any failure of the user's forward means the same: do not prune this
            return f"{type(error).__name__}: {error}".splitlines()[0][:120]
        shapes = [tuple(tensor.shape) for tensor in tree_leaves(output) if isinstance(tensor, torch.Tensor)]
        if tuple(widths) == self.space.full():
            self.expected = shapes
        return None if shapes == self.expected else _OUTPUTS
