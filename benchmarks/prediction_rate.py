"""How many networks a second each shipped latency table predicts, on one core.

    python benchmarks/prediction_rate.py [--out benchmarks/results/prediction_rate.json]

Seconds until the first prediction, in which the tables that others are gathered from are made, are told
apart.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
from latency_accuracy import prediction_rate

from hwprune.artifacts import write_bytes
from hwprune.latency.folder import TableFolder
from hwprune.shipped import shipped_tables


def main() -> None:
    """Measure all tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="JSON file")
    out = parser.parse_args().out
    found = {}
    for name, folder in sorted(shipped_tables().items()):
        table = TableFolder.load(folder)
        started = time.process_time()
        model = table.model()
        model.predict(np.array([table.space.full()]))
        first_s = round(time.process_time() - started, 2)
        found[name] = {"predictions_per_second": prediction_rate(table.space, model), "first_s": first_s}
        print(name, found[name], flush=True)
    if out:
        write_bytes(out, (json.dumps(found, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
