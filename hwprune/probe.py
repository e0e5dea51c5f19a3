"""Measure a plan on a target device: `python -m hwprune.probe out.hwplan`.

Needs numpy, onnx and onnxruntime, no torch, pandas or scikit-learn. What it writes is a latency table that
`hwprune lut merge` takes on the workstation. A second run goes on where the first was stopped.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from hwprune import artifacts
from hwprune.errors import HwpruneError
from hwprune.latency.attribution import attribute
from hwprune.latency.bench import ROUND, Bench
from hwprune.latency.plan import Plan
from hwprune.latency.records import Journal
from hwprune.latency.staircase import known_multiple
from hwprune.latency.table import GRAPH, SPACE, STAIRCASE, write_rows
from hwprune.progress import silent
from hwprune.runtimes.registry import get_runtime
from hwprune.structure.onnx_graph import without_weights

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hwprune.latency.records import NetworkRecord
    from hwprune.progress import Progress


def probe(plan: Plan, folder: Path, progress: Progress = silent) -> tuple[int, int]:
    """Measure the networks of a plan and write their latency table.

    Args:
        plan: What to measure.
        folder: Where the table goes; records found there are not measured again.
        progress: Called after each network.

    Returns:
        How many networks the table holds, and how many were left out: the machine ran at another speed.

    Raises:
        DeviceError: The runtime is not here, or fails.
        MismatchError: `folder` holds the records of another plan or device.
    """
    runtime = get_runtime(plan.profile)
    space = plan.space
    if plan.snap:
        space = space.with_choices(known_multiple(folder / STAIRCASE, runtime, plan.profile))
    bench = Bench(space, plan.base_onnx, plan.profile, runtime, plan.seed)
    records = _measured(plan, bench, Journal(folder / "networks", bench.identity()), progress)
    rows = attribute(
        records, bench.graph, space, plan.profile, identity=bench.identity(), reference=bench.reference
    )
    space.save(folder / SPACE)
    artifacts.write_bytes(folder / GRAPH, without_weights(plan.base_onnx))
    write_rows(folder, rows.kernels, rows.networks, rows.provenance)
    return len(rows.networks), rows.provenance["left_out"]


def _measured(plan: Plan, bench: Bench, journal: Journal, progress: Progress) -> list[NetworkRecord]:
    records = journal.load()
    chosen = plan.chosen(bench.space)
    with bench.references() as references:
        while True:
            taken = {record.index for record in records}
            left = [one for one in chosen if one.number not in taken][:ROUND]
            seconds = plan.max_seconds - sum(record.seconds for record in records)
            if not left or (records and seconds <= 0):
                return records
            for record in bench.round(left, references, journal, max_seconds=seconds, seed=len(records)):
                records.append(record)
                progress(len(records), len(chosen), noise_percent=100 * record.noise)


def main(argv: Sequence[str] | None = None) -> int:
    """The command: exit code 0, or 1 with a message."""
    parser = argparse.ArgumentParser(prog="python -m hwprune.probe", description=__doc__)
    parser.add_argument("plan", type=Path, help="the file that `hwprune profile --plan` wrote")
    parser.add_argument("--output", type=Path, help="folder for the table; by default PLAN.table")
    options = parser.parse_args(argv)
    folder = options.output or options.plan.with_suffix(".table")

    def show(done: float, total: int, /, **figures: float) -> None:
        text = "  ".join(f"{name} {value:.3g}" for name, value in figures.items())
        sys.stderr.write(f"{done}/{total} networks  {text}\n")

    try:
        count, left_out = probe(Plan.load(options.plan), folder, show)
    except HwpruneError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    except KeyboardInterrupt:
        sys.stderr.write("\nStopped. What was measured is kept; the same command goes on from there.\n")
        return 130
    if left_out:
        sys.stderr.write(
            f"{left_out} networks were left out: while they were measured the machine ran at another speed.\n"
        )
    sys.stdout.write(f"{count} networks in {folder}\nTo use it: hwprune lut merge {folder} --output TABLE\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
