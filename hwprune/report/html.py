"""A document as one HTML page that opens without a network."""

from __future__ import annotations

import json
import re
from html import escape
from typing import TYPE_CHECKING

from hwprune.report.standing import Standing
from hwprune.report.style import AXIS, LAYOUT, PALETTES, SCRIPT, STYLE, UNWANTED

if TYPE_CHECKING:
    from hwprune.report.parts import Document, Plot, Section, Table

_MARKS = {
    Standing.GOOD: "kept",
    Standing.COSTLY: "costly",
    Standing.LOST: "missed",
    Standing.MISSED: "missed",
}


def page(document: Document) -> str:
    """The page as text."""
    title = escape(document.title)
    mark = _MARKS[document.standing]
    body = [
        f"<h1>{title}</h1>",
        f'<p class="verdict {mark}">{escape(document.verdict)}</p>',
        _list(document.advice),
        _cards(document.cards),
        *(_section(one) for one in document.sections),
    ]
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
    script = _script() if any(one.plots for one in document.sections) else ""
    return (
        f'<!doctype html>\n<html lang="en"><head>{head}<title>{title}</title><style>{STYLE}</style>{script}'
        f"</head>\n<body><main>\n{chr(10).join(body)}\n</main></body></html>\n"
    )


def _script() -> str:
    from plotly.offline import get_plotlyjs

    named = {"PALETTES": PALETTES, "LAYOUT": LAYOUT, "AXIS": AXIS, "UNWANTED": UNWANTED}
    known = "".join(f"const {name} = {_data(value)};" for name, value in named.items())
    return f"<script>{get_plotlyjs()}</script><script>{known}{SCRIPT}</script>"


def _data(value: object) -> str:
    """JSON that may stand inside a script element, whatever texts are in it."""
    return json.dumps(value, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


def _cards(cards: tuple[tuple[str, str, str], ...]) -> str:
    inner = "".join(
        f"<div><dt>{escape(what)}</dt><dd>{escape(figure)}</dd><dd>{escape(remark)}</dd></div>"
        for what, figure, remark in cards
    )
    return f'<dl class="cards">{inner}</dl>' if cards else ""


def _section(section: Section) -> str:
    plots = "".join(_plot(one) for one in section.plots)
    grid = any(one.small for one in section.plots)
    parts = [
        f"<section><h2>{escape(section.title)}</h2>",
        *(f"<p>{escape(text)}</p>" for text in section.text),
        f'<div class="grid">{plots}</div>' if grid else plots,
        _list(section.points),
        *(_folded(one) if one.folded else _table(one) for one in section.tables),
        _block("\n".join(section.commands)) if section.commands else "",
        *(
            f"<details><summary>{escape(name)}</summary>{_block(text)}</details>"
            for name, text in section.files
        ),
        "</section>",
    ]
    return "".join(parts)


def _list(points: tuple[str, ...]) -> str:
    return "<ul>" + "".join(f"<li>{_inline(line)}</li>" for line in points) + "</ul>" if points else ""


def _inline(text: str) -> str:
    """A line whose commands stand between backquotes."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))


def _block(text: str) -> str:
    return f'<pre tabindex="0"><code>{escape(text)}</code></pre>'


def _plot(plot: Plot) -> str:
    """The plot, named by its caption, and its figures behind it."""
    name = escape(plot.caption)
    spec = {"data": plot.data, "layout": {**plot.layout, "height": plot.height}, "small": plot.small}
    return (
        f'<figure><figcaption>{name}</figcaption><div class="plot" role="img" aria-label="{name}" '
        f'style="min-height:{plot.height}px"></div>'
        f'<script type="application/json">{_data(spec)}</script>'
        f"<details><summary>The figures as a table</summary>{_table(plot.table)}</details></figure>"
    )


def _folded(table: Table) -> str:
    return f"<details><summary>{escape(table.title)}</summary>{_table(table)}</details>"


def _table(table: Table) -> str:
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in table.head)
    head = f"<thead><tr>{head}</tr></thead>" if any(table.head) else ""
    kind = ' class="words"' if table.words else ""
    rows = "".join(
        f'<tr><th scope="row">{escape(row[0])}</th>'
        + "".join(f"<td>{escape(cell)}</td>" for cell in row[1:])
        + "</tr>"
        for row in table.rows
    )
    title = escape(table.title)
    return (
        f'<div class="wide" role="region" aria-label="{title}" tabindex="0"><table{kind}>'
        f"<caption>{title}</caption>{head}<tbody>{rows}</tbody></table></div>"
    )
