"""Torch's two exporters to ONNX: do their files run as fast, and do they keep names and sizes?

    pip install onnxscript
    python benchmarks/exporters.py [MODEL ...]

For each network: operators, weights that keep the names of the state, seconds, and the latency of the
`torch.export`-based exporter's file against that of the TorchScript-based one, measured in turns on one core.
"""

from __future__ import annotations

import argparse
import collections
import io
import time
import warnings
from typing import Any

import onnx
import torch
from common import finish

from hwprune.latency.measure import measure
from hwprune.models.registry import build
from hwprune.runtimes.profiles import load_profile
from hwprune.runtimes.registry import get_runtime
from hwprune.structure.export import export_base
from hwprune.structure.onnx_fold import fold_batch_norm
from hwprune.structure.onnx_weights import WeightedGraph

MODELS = {
    "torchvision:resnet50": 224,
    "torchvision:mobilenet_v2": 224,
    "torchvision:mobilenet_v3_large": 224,
    "torchvision:shufflenet_v2_x1_0": 224,
    "resnet56": 32,
}
_GOAL = 0.01


def main() -> None:
    """Export each network twice, compare, write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", default=list(MODELS))
    parser.add_argument("--seconds", type=float, default=15.0, help="of measuring, for each network")
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = {name: compare(name, MODELS.get(name, 224), options.seconds) for name in options.models}
    worst = max(abs(one["ratio"] - 1) for one in found.values())
    finish("exporters", {"networks": found, "largest_difference": worst, "within_goal": worst <= _GOAL})


def compare(name: str, size: int, seconds: float) -> dict[str, Any]:
    """Both files of one network."""
    torch.manual_seed(0)
    model = build(name, num_classes=10).eval()
    x = torch.randn(1, 3, size, size)
    begun = time.perf_counter()
    old = export_base(model, x)
    middle = time.perf_counter()
    new = by_torch_export(model, x)
    ended = time.perf_counter()
    target = load_profile("cpu-1t")
    runtime = get_runtime(target)
    with runtime.compile(new, target) as session, runtime.compile(old, target) as reference:
        result = measure(session, reference, relative_error=0.002, max_seconds=seconds)
    names = set(model.state_dict())
    return {
        "ratio": round(result.ratio, 4),
        "error": round(result.error_ms / result.ms, 4),
        "seconds": {"torchscript": round(middle - begun, 2), "torch.export": round(ended - middle, 2)},
        "torchscript": describe(old, names),
        "torch.export": describe(new, names),
    }


def by_torch_export(model: torch.nn.Module, x: torch.Tensor) -> bytes:
    """The newer exporter's file, batch norm folded as hwprune does."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            model, (x,), dynamo=True, optimize=True, input_names=["input"], output_names=["output"]
        )
        program.save(buffer)
    net = WeightedGraph.of(onnx.load_model_from_string(buffer.getvalue()))
    fold_batch_norm(net)
    return net.content()


def describe(content: bytes, names: set[str]) -> dict[str, Any]:
    """Operators of a file, and how many of its weights have names of the state."""
    graph = onnx.load_model_from_string(content).graph
    operators = collections.Counter(node.op_type for node in graph.node if node.op_type != "Constant")
    weights = [tensor.name for tensor in graph.initializer if len(tensor.dims) > 1]
    fixed = sum(node.op_type == "Reshape" for node in graph.node)
    return {
        "operators": dict(operators.most_common()),
        "weights": len(weights),
        "named_weights": sum(name in names for name in weights),
        "reshapes": fixed,
    }


if __name__ == "__main__":
    main()
