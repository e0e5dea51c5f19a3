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
    TimeRemainingColumn,
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
                yield _BarProgress(
                    bar, bar.add_task(title, total=None, unit=unit, rate="", short="", figures="")
                )
        else:
            self.note(f"{title} ...")
            yield _LineProgress(self, title, unit)
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
        TextColumn("left"),
        TimeRemainingColumn(),
    )


def _narrow_columns() -> tuple[ProgressColumn, ...]:
    """One text, cut at its end: what counts most comes first."""
    return (TextColumn("{task.description} {task.fields[short]}  {task.fields[figures]}"),)


class _BarProgress:
    def __init__(self, bar: Bar, task: Any) -> None:
        self.bar, self.task = bar, task

    def __call__(self, done: float, total: int, /, **figures: float) -> None:
        self.bar.update(self.task, completed=done, total=total, figures=_figures(figures))
        task = next(task for task in self.bar.tasks if task.id == self.task)
        left = f", {format_seconds(task.time_remaining)} left" if task.time_remaining else ""
        short = f"{_count(done)}/{total} {task.fields['unit']}{left}"
        self.bar.update(self.task, rate=f"{task.speed:.3g}/s" if task.speed else "", short=short)


class _LineProgress:
    def __init__(self, console: Console, title: str, unit: str) -> None:
        self.console, self.title, self.unit = console, title, unit
        self.started = self.last = time.monotonic()
        self.first = 0

    def __call__(self, done: float, total: int, /, **figures: float) -> None:
        now = time.monotonic()
        if self.last == self.started:
            self.first = math.ceil(done) - 1  # what an earlier run had finished does not count for the rate
        if done < total and now - self.last < _LINE_EVERY_S and self.last != self.started:
            return
        self.last = now
        rate = (done - self.first) / max(now - self.started, 1e-9)
        left = format_seconds(max(total - done, 0) / rate) if rate > 0 else "?"
        count = f"{_count(done)}/{total} {self.unit}"
        self.console.note(f"{self.title}: {count}, {rate:.3g}/s, {left} left  {_figures(figures)}")


def _count(done: float) -> str:
    """Finished units; of one under way, its tenths."""
    return str(int(done)) if done == int(done) else f"{done:.1f}"


def _figures(figures: dict[str, float]) -> str:
    return "  ".join(f"{name} {value:.4g}" for name, value in figures.items())
