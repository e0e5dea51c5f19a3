"""What views are made of: tables of text as it is, and commands to type next."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


class Next(str):
    """The verb and options that usually follow; the console completes them to a command."""

    __slots__ = ()


def table(title: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """A table of text as it is: names may hold what Rich takes for markup, such as `c[base]`."""
    table = Table(title=Text(title), title_justify="left", show_header=bool(head))
    for index, column in enumerate(head):
        table.add_column(Text(column), justify="left" if index == 0 else "right")
    for row in rows:
        table.add_row(*map(Text, row))
    return table


def facts(title: str, *rows: tuple[str, str]) -> Table:
    """Names and figures."""
    return table(title, (), rows)
