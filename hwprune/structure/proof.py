"""The proof of a search space: what it says of a model is tried on it, by numbers.

Checks, all on a copy with shaken weights, so that no constant hides a fault:

- `permutation`: the channels of each group in another order compute the same;
- `masking`: a pruned network equals the full one whose removed channels are not read (where no statistic over
  channels, such as layer normalisation, sees them go);
- `onnx`: the sliced ONNX, which is made by the labels alone, equals the pruned module, which runs the model's
  own code: at the narrowest widths, and at random ones at another batch;
- `counts`: parameters, and how many MACs go, are those that torch counts;
- blocks that are left out: the sliced ONNX and the counts again. A block that fails is none.

All groups are tried at once; where a check fails, halves are tried, down to the groups at fault.
"""

from __future__ import annotations

import contextlib
import copy
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from hwprune.errors import ModelError
from hwprune.structure.bisect import (
    NOT_FINITE,
    NOT_MASKED,
    OTHER_ORDER,
    OTHER_SHAPE,
    Bisection,
)
from hwprune.structure.compare import difference, distance, finite
from hwprune.structure.export import Inputs, input_names, tensors_of
from hwprune.structure.onnx_slice import OnnxSlicer
from hwprune.structure.prune import light_copy, prune_in_place
from hwprune.structure.rank import sort_channels
from hwprune.structure.shake import random_like
from hwprune.structure.space import SearchSpace

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from hwprune.structure.bisect import Check
    from hwprune.structure.compare import Array
    from hwprune.structure.onnx_weights import WeightedGraph
    from hwprune.structure.space import Widths

    _Outcome = tuple[nn.Module, tuple[Array, ...], int]

CHECKS = ("permutation", "masking", "onnx", "counts")
TOLERANCE = 2e-3  # of the largest output, in float32: ONNX Runtime and torch add up in different orders
_MOST_TOLERANCE = 0.05  # where a model blows up rounding errors
_ROUNDING = 20  # times the difference that float32 makes to torch itself
_EXACT, _NEAR = 1e-6, 1e-3  # of two runs of torch, in float64 and in float32
_CHEAP = 5 * 10**8  # FLOPs up to which float64 is tried first; beyond, where float32 does not do
_MOST_EXACT = 50_000_000  # parameters up to which it is tried at all
_FACTORS = (0, -10)  # of the inputs, that should not take another path


class Prover(Bisection):
    """Tries the networks of a space on the model itself.

    Args:
        model: The model with the shaken weights.
        inputs: Example inputs.
        base: Its ONNX, with the same weights.
        readers: (weight, axis) of every axis from which channels are read.
        idle: Whether some layers take no part in eval mode: pruned networks must then run in training mode.
        decides: Whether the model's code may decide by the values of tensors.
    """

    def __init__(
        self,
        model: nn.Module,
        inputs: Inputs,
        base: WeightedGraph,
        readers: Collection[tuple[str, int]],
        *,
        idle: bool = False,
        decides: bool = False,
    ) -> None:
        super().__init__(base, readers)
        self.model = model
        self.inputs = random_like(inputs)
        self.other_batch = 3 if self._images() == 2 else 2
        others = (torch.cat([x] * self.other_batch)[: self.other_batch] if x.ndim else x for x in self.inputs)
        self.others = random_like(tuple(others))  # no two images alike
        self.batches: bool | None = None  # whether the model takes another batch; not known yet
        self.full, self.full_flops = self._counted(self.model)
        self.names = input_names(model, len(inputs))
        self._outcomes: dict[Widths, _Outcome] = {}
        self._loaded: tuple[WeightedGraph, Any] | None = None
        self._decides = decides
        self._trains = idle and self._runs_in_training(self.model)
        self.exact, self.exact_inputs, self.exact_full, self.near = self.model, self.inputs, self.full, _NEAR
        self.tolerance = TOLERANCE
        if self.full_flops <= _CHEAP:
            self._be_exact()

    def _be_exact(self) -> bool:
        """Try torch against itself in float64 from now on; whether that is news, and the model runs so."""
        if self.exact is not self.model or sum(p.numel() for p in self.model.parameters()) > _MOST_EXACT:
            return False
        # A forward may make tensors of float32 itself.
        with contextlib.suppress(Exception), torch.no_grad():
            twin = light_copy(self.model).double()
            inputs = tuple(x.double() if x.is_floating_point() else x for x in self.inputs)
            full = self._run(twin, inputs)
            rounding = max(map(distance, self.full, full), default=0.0)
            self.tolerance = min(max(TOLERANCE, _ROUNDING * rounding), _MOST_TOLERANCE)
            self.exact, self.exact_inputs, self.exact_full, self.near = twin, inputs, full, _EXACT
        return self.exact is not self.model

    def check_base(self) -> None:
        """Compare the unpruned model with its ONNX, for inputs of other sizes too.

        Raises:
            ModelError: They differ, or no runtime loads it.
        """
        try:
            fault = self._compare(self.base, self.inputs, self.full, self.tolerance)
            if fault and self._be_exact():  # which tells how large rounding errors are
                fault = self._compare(self.base, self.inputs, self.full, self.tolerance)
            fault = fault or self._other_paths()
        except Exception as error:  # runtimes raise errors of their own
            fault = f"{type(error).__name__}: {error}".splitlines()[0][:300]
        if fault:
            raise ModelError(
                "The exported model does not compute what the model computes.",
                where=type(self.model).__name__,
                got=fault,
                do="look for a path that depends on the data, or for random numbers, in the model's forward",
            )

    def refused_by(self, space: SearchSpace, mixed: Collection[int]) -> dict[int, str]:
        """Groups whose pruning a check refuses -> what it says; {} when all are right.

        Args:
            space: The space.
            mixed: Groups that masking cannot be tried on.
        """
        self._outcomes = {}
        with torch.no_grad():
            return super().refused_by(space, mixed)

    def _other_paths(self) -> str:
        """Whether other inputs take another way through the model than the one that was exported."""
        for factor in _FACTORS if self._decides else ():
            inputs = tuple(factor * x if x.is_floating_point() else x for x in self.inputs)
            with torch.no_grad():
                expected = self._run(self.model, inputs)
            fixed = [x.shape for x in expected] == [x.shape for x in self.full]  # as many boxes as there were
            floats = all(x.dtype.kind == "f" and finite(x) for x in expected)
            if fixed and floats and self._compare(self.base, inputs, expected, _MOST_TOLERANCE):
                return f"its path changes with the data: inputs times {factor} give other outputs"
        return ""

    def with_blocks(self, space: SearchSpace) -> SearchSpace:
        """The space with those of its blocks that may be left out, the others among what is kept."""
        self._outcomes = {}
        with torch.no_grad():
            return super().with_blocks(space)

    def _leaves_out(self, blocks: Sequence[int]) -> str:
        """Without some blocks, and every second of them, torch and ONNX agree, and the counts are right."""
        for gone in (blocks, blocks[::2]) if len(blocks) > 1 else (blocks,):
            chosen = self.without(gone, self.drawn(range(len(self.space.groups))))
            fault = self._counts(chosen) or self._at_batch(chosen)
            if fault:
                return fault
        return ""

    def checks(self) -> Iterator[Check]:
        """Torch alone first, then with ONNX Runtime."""
        yield from (self._runs, self._slices, self._permutes, self._masks)

    def _pruned(self, widths: Widths) -> _Outcome:
        """A pruned network, its outputs and FLOPs; the two made last are kept."""
        if widths not in self._outcomes:
            pruned = prune_in_place(light_copy(self.model), self.space, widths)
            self._outcomes = dict([*self._outcomes.items()][-1:])
            self._outcomes[widths] = pruned, *self._counted(pruned)
        return self._outcomes[widths]

    def _runs(self, groups: Sequence[int]) -> str:
        """Torch runs the pruned model, and what it counts is what the space counts."""
        widths = self.drawn(groups)
        fault = self._counts(self.narrowest(groups)) or self._counts(widths)
        if not fault and self._trains and not self._runs_in_training(self._pruned(widths)[0]):
            fault = "layers that only training uses fail"
        return fault

    def _runs_in_training(self, model: nn.Module) -> bool:
        twin = light_copy(model).train()
        try:
            self._run(twin, self.others)
        except Exception:  # the user's own forward may raise anything
            return False
        return True

    def _counts(self, widths: Widths) -> str:
        pruned, outputs, flops = self._pruned(widths)
        if [x.shape for x in outputs] != [x.shape for x in self.full]:
            return OTHER_SHAPE
        if any(finite(before) and not finite(x) for before, x in zip(self.full, outputs, strict=True)):
            return NOT_FINITE
        params, known = sum(p.numel() for p in pruned.parameters()), int(self.space.params(widths))
        if params != known:
            return f"{params} parameters are left, not {known}"
        gone = int(self.space.macs(self.space.full())) - int(self.space.macs(widths))
        counted = (self.full_flops - flops) // 2 // self._images()
        return "" if counted == gone else f"{counted} MACs go, not {gone}"

    def _slices(self, groups: Sequence[int]) -> str:
        """The sliced ONNX equals the pruned module, one of them at another batch."""
        narrow, widths = self.narrowest(groups), self.drawn(groups)
        return (
            self._at_batch(narrow)
            or self._batches(widths)
            or ("" if self.batches else self._at_batch(widths))
        )

    def _at_batch(self, widths: Widths) -> str:
        """The sliced ONNX equals the pruned module, at the batch of the example inputs."""
        return self._onnx(widths, self.inputs, self._pruned(widths)[1], None)

    def _permutes(self, groups: Sequence[int]) -> str:
        """The channels of each group in another order compute the same."""
        scores = [torch.from_numpy(one) for one in self.scores(groups)]
        got = self._run(sort_channels(self.exact, self.space, scores), self.exact_inputs)
        fault = difference(got, self.exact_full, self.near) and OTHER_ORDER
        return self._permutes(groups) if fault and self._be_exact() else fault

    def _masks(self, groups: Sequence[int]) -> str:
        """A pruned network equals the full one that does not read the removed channels."""
        widths = self.masked(groups)
        if widths == self.space.full():
            return ""
        masked = light_copy(self.exact)
        state: dict[str, torch.Tensor] = dict(masked.named_parameters(remove_duplicate=False))
        state |= dict(masked.named_buffers(remove_duplicate=False))
        for name, axis, gone in self.unread(widths):
            index = torch.from_numpy(gone).to(state[name].device)
            state[name].data = state[name].index_fill(axis, index, 0)
        expected = self._run(masked, self.exact_inputs)
        if self.exact is self.model:
            got = self._pruned(widths)[1]
        else:
            got = self._run(prune_in_place(light_copy(self.exact), self.space, widths), self.exact_inputs)
        fault = difference(got, expected, self.near) and NOT_MASKED
        return self._masks(groups) if fault and self._be_exact() else fault

    def _images(self) -> int:
        return max(1, self.inputs[0].shape[0] if self.inputs[0].ndim else 1)

    def _batches(self, widths: Widths) -> str:
        """The same at another batch, unless the unpruned model takes no other (tried where this fails)."""
        if self.batches is False:
            return ""
        try:
            outputs = self._run(self._pruned(widths)[0], self.others)
            fault = self._onnx(widths, self.others, outputs, self.other_batch)
        except Exception as error:
            fault = f"it fails at another batch ({type(error).__name__}: {error})".splitlines()[0][:200]
        self.batches = not fault or self.batches or self._takes_batches()
        return fault if self.batches else ""

    def _takes_batches(self) -> bool:
        """Whether the unpruned model, and its ONNX, take another batch."""
        slicer = OnnxSlicer(self.base, SearchSpace("", tuple(self.inputs[0].shape), (), ()))
        with contextlib.suppress(Exception):  # a model made for one batch raises anything
            net = slicer.sliced((), batch=self.other_batch)
            expected = self._run(self.model, self.others)
            return not self._compare(net, self.others, expected, self.tolerance)
        return False

    def _onnx(self, widths: Widths, inputs: Inputs, expected: Sequence[Array], batch: int | None) -> str:
        net = self.slicer.sliced(widths, batch=batch)
        fault = self._compare(net, inputs, expected, self.tolerance)
        if fault:  # which may be rounding: how much of it there is to be is asked only then
            fault = self._compare(
                net, inputs, expected, max(self._rounding(widths, inputs, expected), self.tolerance)
            )
        return fault and f"its sliced ONNX computes something else ({fault})"

    def _rounding(self, widths: Widths, inputs: Inputs, expected: Sequence[Array]) -> float:
        """How far rounding alone may carry the outputs of a pruned network, by torch in float64."""
        if not self.space.groups or (self.exact is self.model and not self._be_exact()):
            return 0.0
        pruned = prune_in_place(light_copy(self.exact), self.space, widths)
        wide = tuple(x.double() if x.is_floating_point() else x for x in inputs)
        return _ROUNDING * max(map(distance, expected, self._run(pruned, wide)), default=0.0)

    def _compare(
        self, net: WeightedGraph, inputs: Inputs, expected: Sequence[Array], tolerance: float
    ) -> str:
        """How far the outputs of an ONNX model are from those of torch; "" within the tolerance."""
        if self._loaded is None or self._loaded[0] is not net:
            self._loaded = net, net.session(torch.get_num_threads())
        session = self._loaded[1]
        known = {entry.name for entry in session.get_inputs()}
        feeds = {n: x.numpy(force=True) for n, x in zip(self.names, inputs, strict=True) if n in known}
        return difference([np.asarray(value) for value in session.run(None, feeds)], expected, tolerance)

    def _run(self, model: nn.Module, inputs: Inputs) -> tuple[Array, ...]:
        return tuple(x.numpy(force=True) for x in tensors_of(model(*copy.deepcopy(inputs))))

    def _counted(self, model: nn.Module) -> tuple[tuple[Array, ...], int]:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            outputs = self._run(model, self.inputs)
        return outputs, int(counter.get_total_flops())
