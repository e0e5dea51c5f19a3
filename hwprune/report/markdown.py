"""A document as Markdown: everything but the plots, whose figures stand there as tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hwprune.plain import markdown_block, markdown_text

if TYPE_CHECKING:
    from hwprune.report.parts import Document, Section, Table

_MOST_ROWS = 130  # a longer table is for report.html and report.json


def markdown(document: Document) -> str:
    """The document as text."""
    lines = [f"# {markdown_text(document.title)}", "", f"**{markdown_text(document.verdict)}**"]
    lines += ["", *(f"- {markdown_text(line)}" for line in document.advice)] if document.advice else []
    for section in document.sections:
        lines += ["", f"## {markdown_text(section.title)}", *_section(section)]
    return "\n".join(lines) + "\n"


def _section(section: Section) -> list[str]:
    lines: list[str] = []
    for text in section.text:
        lines += ["", markdown_text(text)]
    for table in dict.fromkeys(plot.table for plot in section.plots):  # two plots may show one table
        lines += _table(table)
    lines += ["", *(f"- {markdown_text(point)}" for point in section.points)] if section.points else []
    for table in section.tables:
        lines += _table(table)
    lines += ["", *markdown_block("\n".join(section.commands))] if section.commands else []
    for name, text in section.files:
        lines += ["", f"{markdown_text(name)}:", "", *markdown_block(text)]
    return lines


def _table(table: Table) -> list[str]:
    title = markdown_text(table.title)
    lines = ["", f"{title}:", ""]
    if len(table.rows) > _MOST_ROWS:
        return [*lines[:-2], f"{title}: {len(table.rows)} rows, in report.html and report.json."]
    lines += [_row(table.head), "|---" * len(table.head) + "|"]
    return [*lines, *map(_row, table.rows)]


def _row(cells: tuple[str, ...]) -> str:
    return f"| {' | '.join(map(markdown_text, cells))} |"
