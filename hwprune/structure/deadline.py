"""A time limit on pure Python work that cannot be asked to stop, in any thread."""

from __future__ import annotations

import contextlib
import ctypes
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class DeadlineExceeded(BaseException):
    """The limit of `deadline` ran out; no `except Exception` on the way must swallow it."""


@contextlib.contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Raise `DeadlineExceeded` in the calling thread when the block runs longer than `seconds`.

    CPython delivers the exception between two bytecodes, so one long call into C is not cut short.
    """
    thread = threading.get_ident()
    lock, done = threading.Lock(), False

    def expire() -> None:
        with lock:
            if not done:
                target = ctypes.c_ulong(thread)
                ctypes.pythonapi.PyThreadState_SetAsyncExc(target, ctypes.py_object(DeadlineExceeded))

    timer = threading.Timer(max(seconds, 0.0), expire)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        with lock:
            done = True
        timer.cancel()
