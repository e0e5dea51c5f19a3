"""How the library reports progress: a callback, so that only the command line prints."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Called after each finished unit of work (an epoch, a network, a generation)."""

    def __call__(self, done: int, total: int, /, **figures: float) -> None:
        """Report that `done` of `total` units are finished, with named figures to show."""


def silent(done: int, total: int, /, **figures: float) -> None:
    """A `Progress` that reports nothing."""
