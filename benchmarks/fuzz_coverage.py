"""Feeds the readers that are written in Python inputs that libFuzzer chooses by the code they reach.

    pip install atheris
    python benchmarks/fuzz_coverage.py --runs 50000

For text that Python code parses: quantities, `hwprune.toml`, target profiles, and lines of a search's state,
which get a right checksum. Readers of binary formats leave that to libraries, where coverage of Python code
says little; they are in `fuzz.py`. A reader may accept an input or raise one of `hwprune.errors`; anything
else ends its run. The last line, which `results/fuzz_coverage.json` holds too, is JSON.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import atheris

FUZZ = Path(__file__).parents[1] / "tests" / "fuzz"
READERS = ("quantity", "config", "profile", "search-state")


def run(name: str, runs: int, folder: Path) -> None:
    """Fuzz one reader; libFuzzer ends this process, with 0 when nothing was found."""
    sys.path.insert(0, str(FUZZ))
    with atheris.instrument_imports(include=["hwprune", "tomllib"]):
        from fuzz_readers import all_readers

        from hwprune.errors import HwpruneError
    from fuzz_mutator import sealed_lines

    corpus, sandbox = folder / "corpus", folder / "sandbox"
    corpus.mkdir()
    sandbox.mkdir()
    reader = all_readers(sandbox)[name]
    sealed = name == "search-state"
    for number, seed in enumerate(reader.seeds):
        (corpus / str(number)).write_bytes(entries(seed) if sealed else seed)
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")

    def one(content: bytes) -> None:
        with contextlib.suppress(HwpruneError):
            reader.read(sandbox, sealed_lines(content) if sealed else content)

    atheris.Setup([sys.argv[0], f"-runs={runs}", "-seed=1", "-max_len=4096", "-timeout=30", str(corpus)], one)
    atheris.Fuzz()


def entries(logbook: bytes) -> bytes:
    """The lines of a logbook without their checksums."""
    return b"\n".join(json.dumps(json.loads(line)["entry"]).encode() for line in logbook.splitlines())


def main() -> int:
    """Fuzz every reader in a process of its own; the exit code is 1 when something was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--runs", type=int, default=50_000, help="inputs for each reader")
    parser.add_argument("--reader", choices=READERS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        if options.reader:
            run(options.reader, options.runs, Path(name))
        found = {}
        for reader in READERS:
            command = [sys.executable, __file__, "--reader", reader, "--runs", str(options.runs)]
            done = subprocess.run(command, cwd=name, capture_output=True, text=True, check=False)
            covered = [line for line in done.stderr.splitlines() if " cov: " in line]
            edges = [int(line.split(" cov: ")[1].split()[0]) for line in (covered[:1] + covered[-1:])]
            found[reader] = {
                "inputs": options.runs,
                "edges_first_last": edges,
                "failed": done.returncode != 0,
            }
            print(reader, found[reader], file=sys.stderr, flush=True)
            if done.returncode:
                print(done.stdout[-3000:], done.stderr[-3000:], file=sys.stderr)
    from common import finish

    finish("fuzz_coverage", {"readers": found, "inputs": options.runs * len(READERS)})
    return int(any(row["failed"] for row in found.values()))


if __name__ == "__main__":
    sys.exit(main())
