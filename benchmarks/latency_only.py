"""A model without images: profile it, ask the table, search under an absolute budget, measure the answer.

python benchmarks/latency_only.py --model torchvision:resnet50 --latency 15ms
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from common import finish


def main() -> None:
    """Run the verbs, write the result file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="torchvision:resnet50")
    parser.add_argument("--latency", default="15ms")
    options = parser.parse_args()
    name = f"latency_only_{options.model.rpartition(':')[2]}"
    folder = Path("runs") / name
    seconds: dict[str, float] = {}

    def hwprune(verb: str, *arguments: str) -> dict[str, Any]:
        started = time.monotonic()
        command = [sys.executable, "-m", "hwprune", verb, "--project", str(folder), "--json", *arguments]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        seconds[verb] = round(time.monotonic() - started, 1)
        result: dict[str, Any] = json.loads(done.stdout)
        return result

    profiled = hwprune("profile", "--device", "cpu", "--model", options.model)
    predicted = hwprune("predict", "--uniform", "25%", "50%", "75%", "100%")
    found = hwprune("search", "--latency", options.latency)
    exported = hwprune("export", "--onnx")
    rows = {row[0]: {"predicted_ms": row[2], "macs": row[3], "params": row[4]} for row in predicted["rows"]}
    macs = next(figure for figure in found["figures"] if figure["name"] == "macs")
    figures = {
        "base_ms": profiled["base_ms"],
        "table_error_percent": profiled["error_percent"],
        "networks_measured": profiled["networks"],
        "channel_multiple": profiled["channel_multiple"],
        "predictions": rows,
        "budget": options.latency,
        **{f"{key}_ms": found["figures"][0][key] for key in ("predicted", "measured", "error")},
        "exported_measured_ms": exported["figures"][0]["measured"],
        "exported_base_ms": exported["figures"][0]["base"],
        "within_budget": exported["within_budget"],
        "macs_kept": macs["predicted"] / macs["base"],
        "seconds": seconds,
    }
    finish(name, figures)


if __name__ == "__main__":
    main()
