"""What a report is made of: sections of text, plots and tables, the same for a page and for Markdown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hwprune.report.standing import Standing

Cells = tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table of text.

    Attributes:
        title: What it shows, for those who do not see where it stands.
        head: Name of each column; the first column names the rows.
        rows: Its rows.
        words: Whether it holds words, to be read from the left, and not numbers.
        folded: Whether a page folds it away.
    """

    title: str
    head: Cells
    rows: tuple[Cells, ...]
    words: bool = False
    folded: bool = False


@dataclass(frozen=True, kw_only=True)
class Plot:
    """A plot and the table behind it, for those who cannot see the plot or want the figures.

    Attributes:
        caption: What it shows; also its name for a screen reader.
        data: Plotly's traces, as plain data; colours are names of `style.PALETTES`.
        layout: What is special about Plotly's layout.
        table: The figures.
        height: Pixels.
        small: Whether several such plots may stand side by side.
    """

    caption: str
    data: tuple[dict[str, Any], ...]
    layout: dict[str, Any]
    table: Table
    height: int = 380
    small: bool = False


@dataclass(frozen=True, kw_only=True)
class Section:
    """One subject of a report.

    Attributes:
        title: Its heading.
        text: Paragraphs; why nothing is drawn, where that is so.
        plots: What is drawn.
        points: A list of short facts.
        tables: Further tables.
        commands: What to type.
        files: Title -> text of a file, folded away.
    """

    title: str
    text: tuple[str, ...] = ()
    plots: tuple[Plot, ...] = ()
    points: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    commands: tuple[str, ...] = ()
    files: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Document:
    """A whole report.

    Attributes:
        title: Its heading.
        verdict: What came out, one sentence.
        standing: Whether that is what was asked for.
        advice: What to do next.
        cards: The most important figures: (what, figure, remark).
        sections: All the rest.
    """

    title: str
    verdict: str
    standing: Standing
    advice: tuple[str, ...] = ()
    cards: tuple[tuple[str, str, str], ...] = ()
    sections: tuple[Section, ...] = ()


def missing(title: str, why: str) -> Section:
    """A section that cannot be drawn."""
    return Section(title=title, text=(f"Not shown: {why}",))
