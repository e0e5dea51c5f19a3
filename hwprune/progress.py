"""How the library reports progress: callbacks, so that only the command line prints."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator


class Progress(Protocol):
    """Called after each finished unit of work (an epoch, a network, a generation), and within long ones."""

    def __call__(self, done: float, total: int, /, **figures: float) -> None:
        """Report that `done` of `total` units are finished, with named figures to show.

        A fraction is the finished part of a unit under way. A fraction without figures begins the work: its
        whole units are those of an earlier run, and what comes after is timed from there.
        """


def silent(done: float, total: int, /, **figures: float) -> None:
    """A `Progress` that reports nothing."""


class Reporter(Protocol):
    """Told what a verb is doing."""

    def stage(self, title: str, unit: str) -> contextlib.AbstractContextManager[Progress]:
        """Begin a piece of long work; `unit` is what its `Progress` counts, in the plural."""

    def note(self, text: str) -> None:
        """Tell one fact that the user should see."""


class Quiet:
    """A `Reporter` that reports nothing."""

    @contextlib.contextmanager
    def stage(self, title: str, unit: str) -> Iterator[Progress]:
        """Give a silent `Progress`."""
        yield silent

    def note(self, text: str) -> None:
        """Report nothing."""


QUIET: Reporter = Quiet()
