"""Every reader by its name, and how many of the inputs it gets."""

from __future__ import annotations

from typing import TYPE_CHECKING

import fuzz_files
import fuzz_models
import fuzz_reports

if TYPE_CHECKING:
    from pathlib import Path

    from fuzz_harness import Reader

# Inputs of each thousand or so; slow readers get fewer.
SHARES = {
    "config": 30,
    "profile": 40,
    "latency-table": 4,
    "plan": 25,
    "checkpoint": 30,
    "profile-result": 40,
    "search-result": 25,
    "search-front": 20,
    "train-result": 40,
    "export-result": 40,
    "search-space": 12,
    "width-curves": 40,
    "staircase": 60,
    "search-state": 40,
    "evaluations": 30,
    "device-speeds": 60,
    "latency-network": 15,
    "latency-session": 90,
    "bench-result": 60,
    "report": 25,
    "lock-owner": 60,
    "onnx": 110,
    "weights.safetensors": 110,
    "weights.pt": 80,
    "image-folder": 12,
    "parquet": 80,
    "quantity": 200,
    "command-line": 6,
}


def all_readers(sandbox: Path) -> dict[str, Reader]:
    """Name -> reader; seeds are written in the sandbox first.

    Raises:
        ValueError: A reader has no share.
    """
    every = (*fuzz_files.readers(sandbox), *fuzz_reports.readers(sandbox), *fuzz_models.readers())
    readers = {reader.name: reader for reader in every}
    if readers.keys() != SHARES.keys():
        raise ValueError(f"no share, or no reader: {readers.keys() ^ SHARES.keys()}")
    return readers


def counts(inputs: int) -> dict[str, int]:
    """Name -> how many of `inputs` it gets, rounded up."""
    whole = sum(SHARES.values())
    return {name: -(-inputs * share // whole) for name, share in SHARES.items()}
