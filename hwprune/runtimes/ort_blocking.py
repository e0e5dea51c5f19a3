"""Kernel times of ONNX Runtime's CUDA provider, from a process in which starting a kernel waits for it.

ONNX Runtime's profiler notes when the host has *started* the kernels of an operator, which says nothing
about the GPU. With `CUDA_LAUNCH_BLOCKING=1` every start waits for its kernel, so what is noted is the time
of the kernel plus a constant, which a chain of empty operators shows and which is taken off. The variable
must be set before CUDA begins, hence a process: `python -m hwprune.runtimes.ort_blocking FOLDER`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from hwprune import artifacts
from hwprune.errors import DeviceError
from hwprune.runtimes.base import KernelTime, TargetProfile
from hwprune.runtimes.gpu_errors import gpu_failure

if TYPE_CHECKING:
    from collections.abc import Callable

_KIND, _SCHEMA = "blocking-profile", 1
_SECONDS = 600
_LAST = 300  # characters of a failure that are shown
_MODEL, _ASKED, _FOUND = "model.onnx", "asked.json", "found.json"


def profiled_blocking(onnx: bytes, profile: TargetProfile, runs: int) -> list[KernelTime]:
    """Kernel times of a network on a GPU.

    Raises:
        DeviceError: The process failed; says how.
    """
    with tempfile.TemporaryDirectory(prefix="hwprune-blocking-") as name:
        folder = Path(name)
        artifacts.write_bytes(folder / _MODEL, onnx)
        asked = {"profile": profile.to_payload(), "runs": runs}
        artifacts.write_json(folder / _ASKED, _KIND, _SCHEMA, asked)
        command = [sys.executable, "-m", "hwprune.runtimes.ort_blocking", name]
        environment = {**os.environ, "CUDA_LAUNCH_BLOCKING": "1"}
        try:
            done = subprocess.run(
                command, env=environment, capture_output=True, text=True, timeout=_SECONDS, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise DeviceError(
                "ONNX Runtime did not end while its kernels were timed.",
                where=f"profile {profile.name}",
                got=f"no answer in {_SECONDS} s",
                do="see `nvidia-smi`: another program may hold the GPU; measure with torch meanwhile, "
                "--profile cuda-torch-fp32",
            ) from error
        if done.returncode:
            what = "ONNX Runtime failed while its kernels were timed."
            raise gpu_failure(what, profile, " ".join(done.stderr.split())[-_LAST:])
        found = artifacts.read_json(folder / _FOUND, _KIND, _SCHEMA)
    return [KernelTime(**kernel) for kernel in found["kernels"]]


def _serve(folder: Path, profile_kernels: Callable[..., list[KernelTime]]) -> None:
    """The other process: read the question, write the answer."""
    asked = artifacts.read_json(folder / _ASKED, _KIND, _SCHEMA)
    profile = TargetProfile.from_payload(asked["profile"])
    kernels = profile_kernels(artifacts.read_bytes(folder / _MODEL), profile, asked["runs"])
    content = {"kernels": [asdict(kernel) for kernel in kernels]}
    artifacts.write_json(folder / _FOUND, _KIND, _SCHEMA, content)


if __name__ == "__main__":
    from hwprune.runtimes.onnxruntime import profiled

    _serve(Path(sys.argv[1]), profiled)
