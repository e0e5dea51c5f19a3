"""Work that may crash in native code, in a child process: then the child dies, and not the caller.

The child is forked, so it has everything that its parent has, and costs milliseconds; it must use one thread
and no CUDA. Where forks are not safe (any system but Linux), the work is done in the process itself.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import warnings
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_MOST_SECONDS = 900  # a child that hangs ends by itself
_DONE, _RAISED = b"+", b"-"


class ChildError(Exception):
    """The work raised an exception, or the child died; the message says which, and so does `died`."""

    def __init__(self, message: str, *, died: bool = False) -> None:
        super().__init__(message)
        self.died = died


def in_child(work: Callable[[], bytes]) -> bytes:
    """What some work returns, done by a child process.

    Raises:
        ChildError: The work raises, or ends the process.
    """
    if sys.platform != "linux":
        try:
            return work()
        except Exception as error:
            raise ChildError(_told(error)) from error
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside threads: the child uses none
        child = os.fork()
    if child == 0:
        _be_child(work, writing)
    os.close(writing)
    try:
        with os.fdopen(reading, "rb") as pipe:
            answer = pipe.read()
    except BaseException:  # such as Ctrl+C
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        raise
    finally:
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code or not answer:
        ending = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        raise ChildError(f"the process that did it died ({ending})", died=True)
    if answer[:1] == _RAISED:
        raise ChildError(answer[1:].decode(errors="replace"))
    return answer[1:]


def _be_child(work: Callable[[], bytes], writing: int) -> None:
    """Work, answer, and end, without what a process does on its way out."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(_MOST_SECONDS)
    try:
        try:
            answer = _DONE + work()
        except BaseException as error:  # the parent raises it again
            answer = _RAISED + _told(error).encode()
        with os.fdopen(writing, "wb") as pipe:
            pipe.write(answer)
    finally:
        os._exit(0)


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
