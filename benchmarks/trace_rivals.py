"""Other pruners on the networks of `trace_zoo.py`: Torch-Pruning, and onnxsim's pruner of ONNX files."""

from __future__ import annotations

import copy
import io
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from trace_child import Record

ONNXSIM = Path(__file__).parents[1] / "runs" / "trace_zoo" / "packages"
_OPSET = 17
_SPARSITY = 0.4  # of onnxsim: less than the half of channels that are silenced
_LAYERS = (nn.modules.conv._ConvNd, nn.Linear)


def torch_pruning(name: str, size: int, record: Record) -> None:
    """Prune half of the channels with Torch-Pruning, drawn at random; compare with the masked network.

    The layers that give the model's outputs are left out, and it is told the heads of attention, both as
    its examples do.
    """
    import torch_pruning as rival
    from trace_child import build
    from trace_masks import masked_fault, positions

    model, image = build(name, size)
    before = sum(one.numel() for one in model.parameters())
    left: list[int] = []

    def prune(_: nn.Module) -> nn.Module:
        twin = copy.deepcopy(model)  # its graph is made with real weights: integers would not do for all
        heads = {
            one.qkv: one.num_heads
            for one in twin.modules()
            if hasattr(one, "num_heads") and isinstance(getattr(one, "qkv", None), nn.Linear)
        }
        pruner = rival.pruner.BasePruner(
            twin,
            image,
            importance=rival.importance.RandomImportance(),
            pruning_ratio=0.5,
            ignored_layers=last_layers(twin, image),
            num_heads=heads,
        )
        positions(twin)
        torch.manual_seed(1)
        pruner.step()
        left.append(sum(one.numel() for one in twin.parameters()))
        return twin.eval()

    record.keep(part="prune")
    _judge(record, masked_fault(model, prune, image), 1 - left[0] / before)


def last_layers(model: nn.Module, image: torch.Tensor) -> list[nn.Module]:
    """The convolutions and linear layers whose outputs become the model's outputs without another of them."""
    made: dict[Any, nn.Module] = {}

    def remember(module: nn.Module, _: Any, output: torch.Tensor) -> None:
        made[output.grad_fn] = module

    layers = [one for one in model.modules() if isinstance(one, _LAYERS)]
    hooks = [one.register_forward_hook(remember) for one in layers]
    with torch.enable_grad():
        result = torch.utils._pytree.tree_leaves(model(image))
    for hook in hooks:
        hook.remove()
    found, seen = [], set()
    todo = [one.grad_fn for one in result]
    while todo:
        step = todo.pop()
        if step is None or step in seen:
            continue
        seen.add(step)
        if step in made:
            found.append(made[step])
        else:
            todo += [following for following, _ in step.next_functions]
    return found


def onnxsim(name: str, size: int, record: Record) -> None:
    """Let onnxsim cut an ONNX file in which every other channel is zero; nothing may change.

    Its pruner removes the channels with the smallest weights, so the silent ones.
    """
    sys.path.append(str(ONNXSIM))
    import onnx
    from onnxsim import apply_structured_pruning
    from trace_child import build, fault, one_line, run_onnx

    model, image = build(name, size)
    silence(model, last_layers(model, image))
    record.keep(part="export")
    buffer = io.BytesIO()
    try:
        torch.onnx.export(model, (image,), buffer, opset_version=_OPSET, dynamo=False)
    except Exception as error:
        record.keep(part="done", outcome="not exported", message=one_line(str(error)))
        return
    full = onnx.load_model_from_string(buffer.getvalue())
    record.keep(part="prune")
    pruned = apply_structured_pruning(full, sparsity=_SPARSITY)
    expected = [torch.from_numpy(one) for one in run_onnx(full.SerializeToString(), image)]
    try:
        off: str | None = fault(run_onnx(pruned.SerializeToString(), image), expected)
    except Exception as error:  # ONNX Runtime's own
        off = one_line(f"does not run: {error}")
    if off.startswith("off") and any("Normalization" in node.op_type for node in full.graph.node):
        off = None  # silent channels change the statistics of a norm over channels, wherever they are cut
    _judge(record, off, 1 - _elements(pruned) / _elements(full))


def silence(model: nn.Module, last: list[nn.Module]) -> None:
    """Make every other output channel of all layers but the last ones, and of all norms, zero."""
    with torch.no_grad():
        for module in model.modules():
            normalises = "norm" in type(module).__name__.lower()
            if (isinstance(module, _LAYERS) and module not in last) or normalises:
                transposed = isinstance(module, nn.modules.conv._ConvTransposeNd)
                for parameter in module.parameters(recurse=False):
                    if parameter.ndim:
                        axis = 1 if transposed and parameter.ndim > 1 else 0
                        parameter.transpose(0, axis)[1::2] = 0
                if getattr(module, "running_mean", None) is not None:
                    module.running_mean[1::2] = 0


def _elements(model: Any) -> int:
    return sum(math.prod(one.dims) for one in model.graph.initializer)


def _judge(record: Record, wrong: str | None, removed: float) -> None:
    outcome = "right" if not wrong else "does not run" if "not run" in wrong else "wrong"
    message = "only its shapes can be compared" if wrong is None else wrong.removeprefix("does not run: ")
    record.keep(part="done", outcome=outcome, message=message, removed=round(removed, 4))
