"""Every reader by its name, and how many of the inputs it gets."""

from __future__ import annotations

import fuzz_files
import fuzz_models
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from fuzz_harness import Reader

# Inputs of each thousand or so; slow readers get fewer.
SHARES = {
    **{"config": 50, "profile": 70, "latency-table": 10, "plan": 50, "checkpoint": 60},
    **{"profile-result": 50, "search-result": 60, "search-front": 50, "train-result": 50, "export-result": 50},
    **{"search-space": 50, "width-curves": 50, "staircase": 50, "search-state": 60},
    **{"latency-network": 30, "latency-session": 50, "onnx": 90, "weights.safetensors": 40, "weights.pt": 40},
    **{"image-folder": 40, "parquet": 60, "quantity": 110, "command-line": 20},
}


def all_readers(sandbox: Path) -> dict[str, Reader]:
    """Name -> reader; seeds are written in the sandbox first.

    Raises:
        ValueError: A reader has no share.
    """
    readers = {reader.name: reader for reader in (*fuzz_files.readers(sandbox), *fuzz_models.readers())}
    if readers.keys() != SHARES.keys():
        raise ValueError(f"no share, or no reader: {readers.keys() ^ SHARES.keys()}")
    return readers


def counts(inputs: int) -> dict[str, int]:
    """Name -> how many of `inputs` it gets, rounded up."""
    whole = sum(SHARES.values())
    return {name: -(-inputs * share // whole) for name, share in SHARES.items()}
