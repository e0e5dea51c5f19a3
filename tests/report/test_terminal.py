"""What the verbs show on a terminal has names as they are, also those that Rich would take for markup."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import pytest
from examples import DEVICE, FULL, GROUPS, WIDTHS, export, figures, report, search
from rich.console import Console

from hwprune.cli.views import view
from hwprune.report.compare import comparison, entry
from hwprune.report.facts import LayerRow
from hwprune.report.verdict import rows

NAME = "c[red]"


def named() -> dict[str, Any]:
    """A result of each verb that has such a name in each of its places."""
    known = (replace(figures()[0], name=NAME), figures()[1])
    names = {"model": NAME, "profile": NAME, "groups": (NAME, *GROUPS[1:]), "binding": NAME}
    found = search(figures=known, devices=({**DEVICE, "name": NAME},), **names)
    layers = (LayerRow(name=NAME, op="conv", inputs=(3, 3), outputs=(8, 8)),)
    return {
        "search": found,
        "report": replace(report(), search=found, rows=rows(found, None, None), layers=layers),
        "export": replace(export(), file=NAME, figures=known),
        "compare": comparison([entry(NAME, found, None, None), entry("d", found, None, None)]),
    }


@pytest.mark.parametrize(("verb", "times"), [("search", 4), ("report", 6), ("export", 2), ("compare", 7)])
def test_names_in_brackets_are_shown(verb: str, times: int) -> None:
    assert shown(verb, named()[verb]).count(NAME) == times


def test_a_search_names_the_groups_and_gives_the_widths_for_predict() -> None:
    text = shown("search", search(**without_a_block()))
    assert f"widths: {GROUPS[0]} 16, {GROUPS[1]} 16, {GROUPS[2]} 32" in text
    assert "--widths 16,16,32,1,0\n" in text


def test_blocks_that_are_left_out_stand_before_the_layers() -> None:
    text = shown("report", report(search(**without_a_block())))
    assert text.index("blocks left out: layer2.1") < text.index("Layers, unpruned -> pruned")


def without_a_block() -> dict[str, Any]:
    blocks, (full, widths) = ("layer1.1", "layer2.1"), ((*FULL, 1, 1), (*WIDTHS, 1, 0))
    return {"blocks": blocks, "full_widths": full, "widths": widths}


def shown(verb: str, result: Any) -> str:
    console = Console(file=io.StringIO(), width=400, highlight=False)
    for part in view(verb, result):
        console.print(part)
    return console.file.getvalue()
