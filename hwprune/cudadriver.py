"""Facts of a GPU from NVIDIA's driver itself: it is wherever a GPU can be used, no Python module is needed.

Functions and numbers are those of `cuda.h`. GPUs are numbered as CUDA numbers them.
"""

from __future__ import annotations

import ctypes
import os
from typing import Any, NamedTuple

_LIBRARY = "nvcuda.dll" if os.name == "nt" else "libcuda.so.1"
_NAME_BYTES = 256
# CUdevice_attribute of cuda.h
L2_CACHE_SIZE, CAPABILITY_MAJOR, CAPABILITY_MINOR = 38, 75, 76


class DriverFacts(NamedTuple):
    """A GPU as its driver describes it.

    Attributes:
        name: Product name.
        capability: Compute capability, such as 9.0.
        cache_bytes: Size of its L2 cache.
    """

    name: str
    capability: str
    cache_bytes: int


def driver_facts(index: int) -> DriverFacts | None:
    """Facts of a GPU; None where there is no driver, or no such GPU.

    Args:
        index: N of `cuda:N`.
    """
    try:
        library: Any = ctypes.CDLL(_LIBRARY)
    except OSError:
        return None
    device, name = ctypes.c_int(), ctypes.create_string_buffer(_NAME_BYTES)
    if (
        library.cuInit(0)
        or library.cuDeviceGet(ctypes.byref(device), index)
        or library.cuDeviceGetName(name, _NAME_BYTES, device)
    ):
        return None
    major, minor, cache = (
        _attribute(library, which, device) for which in (CAPABILITY_MAJOR, CAPABILITY_MINOR, L2_CACHE_SIZE)
    )
    return DriverFacts(name.value.decode(errors="replace"), f"{major}.{minor}", cache)


def _attribute(library: Any, which: int, device: ctypes.c_int) -> int:
    value = ctypes.c_int()
    return 0 if library.cuDeviceGetAttribute(ctypes.byref(value), which, device) else value.value
