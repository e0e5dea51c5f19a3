"""Keeps the memory that a training step frees, for the next step."""

from __future__ import annotations

import contextlib
import ctypes
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of glibc's mallopt
_KEEP = 32 * 2**20  # larger blocks still go back: kept, they would leave holes that nothing else fits into
_ALL = 2**31 - 1
_DEFAULT = 128 * 1024


@contextlib.contextmanager
def keep_freed_memory() -> Iterator[None]:
    """Let the C library keep freed blocks while this runs; they go back to the system at its end.

    glibc gives every large block back when it is freed, and the system hands out, page by page, zeroed
    memory for the next one. For activations at 224 pixels that took longer than the convolutions. Where
    another C library is in use, nothing happens.
    """
    libc = _glibc()
    if libc is None:
        yield
        return
    libc.mallopt(_TRIM_THRESHOLD, _ALL)
    libc.mallopt(_MMAP_THRESHOLD, _KEEP)
    try:
        yield
    finally:
        for what in (_TRIM_THRESHOLD, _MMAP_THRESHOLD):
            libc.mallopt(what, _DEFAULT)
        libc.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    try:
        libc = ctypes.CDLL("libc.so.6")
    except OSError:
        return None
    return libc if hasattr(libc, "mallopt") and hasattr(libc, "malloc_trim") else None
