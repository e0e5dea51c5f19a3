"""What every result file says about where it came from."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import shlex
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

# Elsewhere in CI, where other settings than those of the kept results are in force.
RESULTS = Path(os.environ.get("BENCHMARK_RESULTS") or Path(__file__).parent / "results")
_PACKAGES = (
    "hwprune",
    "torch",
    "torchvision",
    "torch-pruning",
    "onnx",
    "onnxruntime",
    "scikit-learn",
    "numpy",
)


def provenance() -> dict[str, Any]:
    """Hardware, versions, date and command of this run."""
    model = next((line.split(":", 1)[1].strip() for line in _cpuinfo() if line.startswith("model name")), "")
    return {
        "command": shlex.join(["python", *sys.argv]),
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "cpu": model or platform.processor(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
        "versions": dict(filter(None, map(_version, _PACKAGES))),
    }


def _version(name: str) -> tuple[str, str] | None:
    """The version of a package, None where it is not installed: the rivals are optional."""
    try:
        return name, importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []


def finish(name: str, figures: dict[str, Any], kept: dict[str, Any] | None = None) -> None:
    """Write `NAME.json` into RESULTS and print the figures as one JSON line, the last of the output.

    Args:
        name: Of the file.
        figures: What is written and printed.
        kept: What is written too.
    """
    RESULTS.mkdir(parents=True, exist_ok=True)
    content = {**figures, **(kept or {}), "provenance": provenance()}
    (RESULTS / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n")
    print(json.dumps(figures))
