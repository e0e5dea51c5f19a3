"""On which device networks are trained and scored."""

from __future__ import annotations

import torch

from hwprune.errors import DeviceError


def compute_device(name: str = "auto") -> torch.device:
    """The device that a setting means.

    Args:
        name: `cpu`, `cuda` (this worker's GPU), `cuda:N`; `auto` takes a GPU where there is one.

    Raises:
        DeviceError: A GPU was asked for and torch cannot use it.
    """
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise DeviceError(
            "torch cannot train on a GPU here.",
            where="[compute] device",
            got=name,
            do='`hwprune doctor` says what is missing; or set device = "cpu"',
        )
    wanted = torch.device("cuda" if name == "auto" else name)
    index = torch.cuda.current_device() if wanted.index is None else wanted.index
    if index >= torch.cuda.device_count():
        raise DeviceError(
            "There is no such GPU.",
            where="[compute] device",
            got=name,
            allowed=", ".join(f"cuda:{i}" for i in range(torch.cuda.device_count())),
            do="set one of these; `nvidia-smi -L` lists them",
        )
    return torch.device("cuda", index)
