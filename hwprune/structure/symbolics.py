"""ONNX for operators of torch that its exporter does not know, or whose form would not follow the batch."""

from __future__ import annotations

from typing import Any

import torch
from torch import onnx
from torch.onnx import symbolic_helper
from torch.onnx._internal.torchscript_exporter import symbolic_opset11

exporter: Any = onnx  # none of them is typed in full
helper: Any = symbolic_helper
opset11: Any = symbolic_opset11
OPSET = 17  # the first with LayerNormalization; old enough for the runtimes in use


def _constant(g: Any, value: Any, dtype: torch.dtype = torch.int64) -> Any:
    return g.op("Constant", value_t=torch.tensor(value, dtype=dtype))


def _ones(g: Any, x: Any, fill: float = 1.0) -> Any:
    return _constant(g, [fill] * helper._get_tensor_dim_size(x, 1), torch.float32)


@symbolic_helper.parse_args("v", "v", "v", "v", "v", "i", "f", "f", "i")
def _instance_norm(
    g: Any, x: Any, weight: Any, bias: Any, mean: Any, variance: Any, own: int, _m: float, eps: float, _c: int
) -> Any:
    """The exporter's own form repeats the statistics for each image, and so fixes the batch."""
    weight = _ones(g, x) if helper._is_none(weight) else weight
    bias = _ones(g, x, 0.0) if helper._is_none(bias) else bias
    if own:
        return g.op("InstanceNormalization", x, weight, bias, epsilon_f=eps)
    return g.op("BatchNormalization", x, weight, bias, mean, variance, epsilon_f=eps)


def _vdot(g: Any, one: Any, other: Any) -> Any:
    return g.op("ReduceSum", g.op("Mul", one, other), keepdims_i=0)


@symbolic_helper.parse_args("v", "is", "v", "v")
def _rms_norm(g: Any, x: Any, shape: list[int], weight: Any, eps: Any) -> Any:
    axes = list(range(-len(shape), 0))
    known = None if helper._is_none(eps) else helper._maybe_get_const(eps, "f")
    small = _constant(g, torch.finfo(torch.float32).eps if known is None else known, torch.float32)
    square = g.op("ReduceMean", g.op("Mul", x, x), axes_i=axes, keepdims_i=1)
    result = g.op("Div", x, g.op("Sqrt", g.op("Add", square, small)))
    return result if helper._is_none(weight) else g.op("Mul", result, weight)


@symbolic_helper.parse_args("v", "i")
def _channel_shuffle(g: Any, x: Any, groups: int) -> Any:
    sizes = helper._get_tensor_sizes(x)
    parts = g.op("Reshape", x, _constant(g, [0, groups, -1, *sizes[2:]]))
    order = [0, 2, 1, *range(3, len(sizes) + 1)]
    return g.op("Reshape", g.op("Transpose", parts, perm_i=order), _constant(g, [0, -1, *sizes[2:]]))


def _linear(g: Any, x: Any, weight: Any, bias: Any) -> Any:
    """The exporter's own form takes what it does not know the rank of for a matrix."""
    plain = helper._is_none(bias)
    if helper._get_tensor_rank(x) == 2 and not plain:
        return g.op("Gemm", x, weight, bias, transB_i=1)
    product = g.op("MatMul", x, g.op("Transpose", weight, perm_i=[1, 0]))
    return product if plain else g.op("Add", product, bias)


@symbolic_helper.parse_args("v", "is")
def _tile(g: Any, x: Any, times: list[int]) -> Any:
    """The exporter's own form asks for the rank at run time."""
    rank = helper._get_tensor_rank(x)
    lead = max(0, len(times) - rank)
    wide = g.op("Unsqueeze", x, _constant(g, list(range(lead)))) if lead else x
    return g.op("Tile", wide, _constant(g, [*[1] * (rank + lead - len(times)), *times]))


def _pads(g: Any, x: Any, padding: Any) -> Any:
    """How much is added to each axis, a constant where it is one: else the exporter loses later sizes."""
    known = helper._maybe_get_const(padding, "is")
    rank = helper._get_tensor_rank(x)
    if not isinstance(known, list) or rank is None:
        return opset11._prepare_onnx_paddings(g, x, padding)
    before, after = [0] * rank, [0] * rank
    for place in range(len(known) // 2):  # from the last axis on
        before[rank - 1 - place], after[rank - 1 - place] = known[2 * place], known[2 * place + 1]
    return _constant(g, before + after)


def _constant_pad(g: Any, x: Any, padding: Any, value: Any = None) -> Any:
    filling = helper._if_scalar_type_as(helper._maybe_get_scalar(value), x)
    return g.op("Pad", x, _pads(g, x, padding), filling, mode_s="constant")


def _mirror_pad(mode: str) -> Any:
    return lambda g, x, padding: g.op("Pad", x, _pads(g, x, padding), mode_s=mode)


def _pad(g: Any, x: Any, padding: Any, mode: Any, value: Any) -> Any:
    kind = helper._parse_arg(mode, "s")
    if kind == "constant":
        return _constant_pad(g, x, padding, value)
    if kind in ("reflect", "replicate"):
        return _mirror_pad("reflect" if kind == "reflect" else "edge")(g, x, padding)
    return opset11.pad(g, x, padding, mode, value)


def register() -> None:
    """Make the exporter know them."""
    symbolics = {"instance_norm": _instance_norm, "vdot": _vdot, "rms_norm": _rms_norm}
    symbolics |= {"channel_shuffle": _channel_shuffle, "linear": _linear, "tile": _tile}
    symbolics |= {"pad": _pad, "constant_pad_nd": _constant_pad}
    for axes in (1, 2, 3):
        symbolics |= {f"reflection_pad{axes}d": _mirror_pad("reflect")}
        symbolics |= {f"replication_pad{axes}d": _mirror_pad("edge")}
    for name, symbolic in symbolics.items():
        exporter.register_custom_op_symbolic(f"aten::{name}", symbolic, OPSET)
