"""How long `trace` takes and what it finds, network by network; the goal is under 10 s for each."""

from __future__ import annotations

import argparse
import time
import warnings
from typing import Any

import torch
from common import finish

from hwprune.models.registry import build, default_image_size
from hwprune.structure.trace import trace

NAMES = [
    "torchvision:resnet18",
    "torchvision:resnet50",
    "torchvision:mobilenet_v2",
    "torchvision:mobilenet_v3_large",
    "torchvision:vgg16_bn",
    "torchvision:densenet121",
    "torchvision:googlenet",
    "torchvision:inception_v3",
    "torchvision:squeezenet1_0",
    "torchvision:efficientnet_b0",
    "torchvision:mnasnet1_0",
    "torchvision:regnet_y_400mf",
    "torchvision:resnext50_32x4d",
    "torchvision:shufflenet_v2_x1_0",
    "torchvision:convnext_tiny",
    "resnet20",
    "resnet56",
    "resnet110",
    "vgg16_bn",
    "vgg16_bn_cifar",
    "mobilenet_v1",
    "mobilenet_v1_cifar",
    "mobilenet_v2",
    "mobilenet_v2_cifar",
]


def main() -> None:
    """Trace them all, write the result file."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    rows = {name: row(name) for name in NAMES}
    slowest = max(rows, key=lambda name: rows[name]["seconds"])
    finish("trace_zoo", {"slowest": slowest, "slowest_seconds": rows[slowest]["seconds"], "networks": rows})


def row(name: str) -> dict[str, Any]:
    """One network at its own image size."""
    model, size = build(name).eval(), default_image_size(name)
    image = torch.randn(1, 3, size, size)
    started = time.monotonic()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        space = trace(model, image, name=name)
    smallest = int(space.params(space.smallest())) / int(space.params(space.full()))
    return {
        "seconds": round(time.monotonic() - started, 1),
        "groups": len(space.groups),
        "frozen": {k: v for k, v in space.frozen.items() if "outputs" not in v},
        "smallest_params_share": round(smallest, 4),
    }


if __name__ == "__main__":
    main()
