"""A time limit on pure Python work that cannot be asked to stop, in any thread."""

from __future__ import annotations

import contextlib
import ctypes
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


_TOO_SHORT = 0.01  # seconds that are not worth another timer


class DeadlineExceeded(BaseException):
    """The limit of `deadline` ran out; no `except Exception` on the way must swallow it."""


@contextlib.contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Raise `DeadlineExceeded` in the calling thread when the block computes longer than `seconds`.

    Its own computing counts, where the system can tell, not the time in which other programs had the core: a
    busy machine must not change what comes out. CPython delivers the exception between two bytecodes, so one
    long call into C is not cut short.
    """
    thread, clock = threading.get_ident(), _clock_of_this_thread()
    begun, lock, done = clock(), threading.Lock(), False

    def start(wait: float) -> None:
        timer = threading.Timer(max(wait, 0.0), expire)
        timer.daemon = True
        timer.start()
        timers[:] = [timer]

    def expire() -> None:
        with lock:
            if done:
                return
            if (left := seconds - (clock() - begun)) > _TOO_SHORT:
                start(left)
                return
            target = ctypes.c_ulong(thread)
            ctypes.pythonapi.PyThreadState_SetAsyncExc(target, ctypes.py_object(DeadlineExceeded))

    timers: list[threading.Timer] = []
    start(seconds)
    try:
        yield
    finally:
        with lock:
            done = True
        timers[0].cancel()


def _clock_of_this_thread() -> Callable[[], float]:
    """Seconds that the calling thread has computed, to be read from any thread; else seconds that passed."""
    if hasattr(time, "pthread_getcpuclockid"):
        clock = time.pthread_getcpuclockid(threading.get_ident())
        return lambda: time.clock_gettime(clock)
    return time.monotonic
