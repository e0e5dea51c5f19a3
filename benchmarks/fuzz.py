"""Feeds mutated inputs to every reader and counts what comes of them.

    python benchmarks/fuzz.py --inputs 100000

Readers, mutations and the watch over them are those of `tests/fuzz`; each reader runs in a process of its
own, so that a crash is a failure too. The last line, which `results/fuzz.json` holds too, is JSON: inputs
`accepted`, `refused` with a documented error, and `failures` (anything else), in all and by reader;
`peak_mb` is how much the most memory of the process grew.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common import finish

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "fuzz"))

from fuzz_harness import MEMORY_BYTES, Outcome, Reader, fuzz
from fuzz_readers import all_readers, counts

if TYPE_CHECKING:
    from multiprocessing.connection import Connection


def apart(reader: Reader, folder: Path, count: int, seed: int, others: tuple[bytes, ...]) -> Outcome:
    """Fuzz a reader in a forked process; its end before the last input is a failure."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(theirs, reader, folder, count, seed, others))
    process.start()
    theirs.close()
    try:
        found = Outcome(**ours.recv())
    except EOFError:
        found = Outcome(failures=[f"{reader.name}: the process crashed"])
    process.join()
    return found


def _send(
    pipe: Connection, reader: Reader, folder: Path, count: int, seed: int, others: tuple[bytes, ...]
) -> None:
    pipe.send(asdict(fuzz(reader, folder, count=count, seed=seed, others=others)))


def _figures(outcome: Outcome) -> dict[str, Any]:
    return {
        "inputs": outcome.inputs,
        "accepted": outcome.accepted,
        "refused": outcome.refused,
        "failures": len(outcome.failures),
        "peak_mb": round(outcome.peak_mb, 1),
    }


def main() -> int:
    """Fuzz, print the figures; the exit code is 1 when there was a failure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    outcomes: dict[str, Outcome] = {}
    with tempfile.TemporaryDirectory() as name:
        readers = all_readers(Path(name))
        others = tuple(content for reader in readers.values() for content in reader.seeds)
        for reader, count in counts(options.inputs).items():
            folder = Path(name, f"in-{reader}")
            folder.mkdir()
            outcomes[reader] = apart(readers[reader], folder, count, options.seed, others)
            print(f"{reader}: {_figures(outcomes[reader])}", file=sys.stderr, flush=True)
    failures = [text for outcome in outcomes.values() for text in outcome.failures]
    for text in failures:
        print(text, file=sys.stderr)
    names = ("inputs", "accepted", "refused", "failures")
    table = {reader: _figures(outcome) for reader, outcome in outcomes.items()}
    total = {key: sum(row[key] for row in table.values()) for key in names}
    finish("fuzz", {**total, "memory_limit_mb": MEMORY_BYTES // 2**20, "readers": table})
    return int(bool(failures))


if __name__ == "__main__":
    sys.exit(main())
