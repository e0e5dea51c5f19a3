"""Keeps the memory that a training step frees, for the next step."""

from __future__ import annotations

import contextlib
import ctypes
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8  # of glibc's mallopt
# glibc moves its thresholds as large blocks come and go; setting one of them switches that off, so both are
# set, and stay. `_MMAP` trades memory for time: a lower one leaves fewer holes and more pages to hand out.
_MMAP, _TRIM = 28 * 2**20, 64 * 2**20
_ALL = 2**31 - 1


@contextlib.contextmanager
def keep_freed_memory() -> Iterator[None]:
    """Let the C library keep freed blocks while this runs; they go back to the system at its end.

    glibc gives large blocks back when they are freed, and the system hands out, page by page, zeroed memory
    for the next ones. For activations at 224 pixels that took longer than the convolutions. Blocks above
    28 MB still go back: kept, they would leave holes that nothing else fits into. Where another C library is
    in use, nothing happens.
    """
    libc = _glibc()
    if libc is None:
        yield
        return
    libc.mallopt(_MMAP_THRESHOLD, _MMAP)
    libc.mallopt(_TRIM_THRESHOLD, _ALL)
    libc.mallopt(_ARENA_MAX, 1)  # else each thread keeps what it freed itself, where no other finds it
    try:
        yield
    finally:
        libc.mallopt(_TRIM_THRESHOLD, _TRIM)
        libc.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    try:
        libc = ctypes.CDLL("libc.so.6")
    except OSError:
        return None
    return libc if hasattr(libc, "mallopt") and hasattr(libc, "malloc_trim") else None
