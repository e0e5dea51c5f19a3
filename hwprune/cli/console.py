"""What the user sees: progress, notes, warnings, results. Progress goes to stderr, results to stdout."""

from __future__ import annotations

import contextlib
import json as json_format
import math
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console as RichConsole
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.progress import Progress as Bar
from rich.text import Text

from hwprune.cli.parts import Next
from hwprune.cli.views import view
from hwprune.units import format_seconds

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hwprune.progress import Progress

_WIDE = 100  # columns from which on a bar has room
_LONG_S = 30.0  # what takes longer is told before
_LINE_EVERY_S = 10.0  # plain log lines are no more frequent than this


class Console:
    """The `Reporter` of the command line.

    Args:
        json: Print results as JSON on stdout and everything else on stderr.
        project: The project folder, for the commands that are proposed.
    """

    def __init__(self, json: bool = False, project: Path = Path(".")) -> None:
        self.json, self.project = json, project
        self.out = RichConsole(highlight=False)
        self.err = RichConsole(stderr=True, highlight=False)

    def note(self, text: str) -> None:
        """Tell one fact."""
        self.err.print(text, markup=False, soft_wrap=True)

    def warn(self, text: str) -> None:
        """Tell a warning."""
        self.err.print(f"warning: {text}", style="yellow", markup=False, soft_wrap=True)

    @contextlib.contextmanager
    def stage(self, title: str, unit: str) -> Iterator[Progress]:
        """A progress bar on a terminal, plain lines elsewhere."""
        started = time.monotonic()
        if self.err.is_terminal:
            with self._bar() as bar:
                task = bar.add_task(title, total=None, unit=unit, rate="", short="", left="", figures="")
                yield _BarProgress(_Pace(self, title, unit), bar, task)
        else:
            self.note(f"{title} ...")
            yield _LineProgress(_Pace(self, title, unit))
        self.note(f"{title}: done in {format_seconds(time.monotonic() - started)}")

    def _bar(self) -> Bar:
        narrow = self.err.width < _WIDE
        return Bar(*(_narrow_columns() if narrow else _wide_columns()), console=self.err, transient=True)

    def show(self, verb: str, result: Any) -> None:
        """Print a verb's result."""
        if self.json:
            told = asdict(result)
            if unmeasured := getattr(result, "unmeasured", ()):
                told["predicted, not measured"] = list(unmeasured)
            print(json_format.dumps(told, indent=1))
        else:
            for part in view(verb, result):
                if isinstance(part, Next):
                    option = "" if self.project == Path(".") else f" --project {self.project}"
                    self.out.print(f"Next: hwprune {part}{option}", markup=False, soft_wrap=True)
                else:
                    self.out.print(part, soft_wrap=isinstance(part, Text))


def _wide_columns() -> tuple[ProgressColumn, ...]:
    return (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[unit]}  {task.fields[rate]}  {task.fields[figures]}"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[left]}"),
    )


def _narrow_columns() -> tuple[ProgressColumn, ...]:
    """One text, cut at its end: what counts most comes first."""
    return (TextColumn("{task.description} {task.fields[short]}  {task.fields[figures]}"),)


class _Pace:
    """How fast a stage goes; what an earlier run had finished, and getting ready, do not count."""

    def __init__(self, console: Console, title: str, unit: str) -> None:
        self.console, self.title, self.unit = console, title, unit
        self.started, self.first = time.monotonic(), math.nan
        self.told = True  # until it is known where the work began: what came before would count

    def left(self, done: float, total: int, begins: bool) -> float | None:
        """Seconds left, where they can be told; says once how long it takes, and where it goes on."""
        now = time.monotonic()
        if begins:
            self.started, self.first, self.told = now, done, False
            if done >= 1:
                self.console.note(f"{self.title}: goes on after {int(done)} of {total} {self.unit}.")
            return None
        if math.isnan(self.first):
            self.first = math.ceil(done) - 1
        rate = self.rate(done)
        left = max(total - done, 0.0) / rate if rate > 0 else None
        if left is not None and not self.told:
            self.told = True
            if left > _LONG_S:
                more = f"{total}" if self.first < 1 else f"the other {total - int(self.first)}"
                self.console.note(f"{self.title}: about {format_seconds(left)} for {more} {self.unit}.")
        return left

    def rate(self, done: float) -> float:
        """Units in a second."""
        return (done - self.first) / max(time.monotonic() - self.started, 1e-9)


class _BarProgress:
    def __init__(self, pace: _Pace, bar: Bar, task: Any) -> None:
        self.pace, self.bar, self.task = pace, bar, task

    def __call__(self, done: float, total: int, /, **figures: float) -> None:
        self.bar.update(self.task, completed=done, total=total, figures=_figures(figures))
        seconds = self.pace.left(done, total, _begins(done, figures))
        left = f", {format_seconds(seconds)} left" if seconds else ""
        rate = "" if seconds is None else f"{self.pace.rate(done):.3g}/s"
        short = f"{_count(done)}/{total} {self.pace.unit}{left}"
        self.bar.update(self.task, rate=rate, left=left.removeprefix(", "), short=short)


class _LineProgress:
    def __init__(self, pace: _Pace) -> None:
        self.pace, self.last, self.finished = pace, -math.inf, False

    def __call__(self, done: float, total: int, /, **figures: float) -> None:
        now = time.monotonic()
        seconds = self.pace.left(done, total, _begins(done, figures))
        ends = done >= total and not self.finished  # some go on beyond what was expected
        if seconds is None or not (ends or now - self.last >= _LINE_EVERY_S):
            return
        self.last, self.finished = now, self.finished or ends
        pace, left = self.pace, format_seconds(seconds)
        count = f"{_count(done)}/{total} {pace.unit}"
        self.pace.console.note(
            f"{pace.title}: {count}, {pace.rate(done):.3g}/s, {left} left  {_figures(figures)}"
        )


def _begins(done: float, figures: dict[str, float]) -> bool:
    """Whether a report only says where the work begins; see `hwprune.progress.Progress`."""
    return not figures and done != int(done)


def _count(done: float) -> str:
    """Finished units; of one under way, its tenths."""
    return str(int(done)) if done == int(done) else f"{done:.1f}"


def _figures(figures: dict[str, float]) -> str:
    return "  ".join(f"{name} {value:.4g}" for name, value in figures.items())
