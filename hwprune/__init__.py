"""hwprune: prune a CNN to a latency budget that is measured on the device it will run on.

The names below load on first use, so that `import hwprune` stays fast and needs no torch.
"""

from __future__ import annotations

import importlib
import os
from typing import Any

__version__ = "0.1.0"

# oneDNN keeps the code of the last 1024 shapes it met, 0.8 MB each; networks of random widths hardly ever
# meet one again. It reads this once, before its first convolution. 256 hold most networks of fixed shapes.
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "256")

_PUBLIC = {
    "Target": "hwprune.searching.target",
    "LatencyModel": "hwprune.searching.latency_model",
    "Task": "hwprune.training.task",
    "Classification": "hwprune.training.task",
    "Inherited": "hwprune.pruningnet.inherited",
    "PruningNet": "hwprune.pruningnet.net",
    "fit": "hwprune.pruningnet.fit",
    "Scorer": "hwprune.pruningnet.scorer",
    "evaluate": "hwprune.training.evaluation",
    "SearchSpace": "hwprune.structure.space",
    "trace": "hwprune.structure.trace",
    "prune": "hwprune.structure.prune",
    "trace_onnx": "hwprune.structure.trace_onnx",
    "prepare_onnx": "hwprune.structure.trace_onnx",
    "slice_onnx": "hwprune.structure.onnx_slice",
    "export_base": "hwprune.structure.export",
    "init": "hwprune.verbs.init",
    "check": "hwprune.verbs.check",
    "profile": "hwprune.verbs.profile",
    "predict": "hwprune.verbs.predict",
    "search": "hwprune.library",
    "train": "hwprune.verbs.train",
    "export": "hwprune.library",
    "compare": "hwprune.verbs.compare",
    "bench": "hwprune.verbs.bench",
}
__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'hwprune' has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
