"""The document of a report, as Markdown and as a page, for every kind of project."""

from __future__ import annotations

import functools
import itertools
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from examples import (
    GROUPS,
    HOSTILE,
    KINDS,
    export,
    figures,
    finished,
    front,
    latency_only,
    nothing_pruned,
    report,
    search,
    table_only,
    train,
)

from hwprune.latency.width_sweep import Inversion
from hwprune.report import side_by_side
from hwprune.report.build import document
from hwprune.report.compare import comparison, entry
from hwprune.report.draw import before_after
from hwprune.report.facts import Report
from hwprune.report.files import write_report
from hwprune.report.html import page
from hwprune.report.markdown import markdown
from hwprune.report.style import PALETTES, SERIES
from hwprune.report.verdict import rows
from hwprune.report.words import inversion_lines

TITLES = (
    "Unpruned and pruned",
    "Accuracy against latency",
    "Accuracy of each class",
    "Widths",
    "Where the time goes",
    "Steps of the device",
    "Latency over width, layer by layer",
    "Is narrower faster?",
    "Predicted against measured",
    "Search history",
    "Training of PruningNet",
    "How it was found",
    "Device, versions, commands",
)
VOID = ("meta", "br", "img", "link")


class Reader(HTMLParser):
    """Headings, figures and tables of a page; refuses tags that do not nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.tags)


@functools.cache
def page_of(kind: str) -> str:
    return page(document(KINDS[kind]()))


def missing(made: Report) -> set[str]:
    """The sections that say why they show nothing."""
    return {one.title for one in document(made).sections if one.text and one.text[0].startswith("Not shown:")}


def test_a_finished_project_has_every_section_and_the_verdict_first() -> None:
    made = document(finished())
    assert tuple(section.title for section in made.sections) == TITLES
    assert missing(finished()) == set()
    assert [card[:2] for card in made.cards] == [
        ("budget", "600 µs"),
        ("latency, measured", "580 µs"),
        ("test top-1", "90.0%"),
        ("speed-up", "1.72x"),
    ]
    for text in (markdown(made), page(made)):
        assert text.index("Budget met") < text.index("Unpruned and pruned")


def test_what_is_missing_is_said_in_one_line() -> None:
    untrained = {"Accuracy of each class"}
    assert missing(latency_only()) == {"Training of PruningNet"} | untrained
    elsewhere = {"Steps of the device", "Latency over width, layer by layer"}
    assert missing(table_only()) == elsewhere | untrained
    assert missing(nothing_pruned()) == untrained | {
        "Accuracy against latency",
        "Search history",
        "Training of PruningNet",
    }
    assert missing(front()) == untrained


def test_what_was_only_predicted_is_called_so() -> None:
    made = document(table_only())
    assert made.cards[1][0] == "latency, PREDICTED, NOT MEASURED"
    assert "PREDICTED, NOT MEASURED" in made.verdict
    assert "came from elsewhere" in markdown(made)


@pytest.mark.parametrize("kind", KINDS)
def test_a_page_is_sound_and_can_be_read_without_seeing_the_plots(kind: str) -> None:
    text = page_of(kind)
    reader = Reader(text)
    levels = [int(tag[1]) for tag, _ in reader.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    plots = [attributes for _, attributes in reader.tags if attributes.get("class") == "plot"]
    assert plots
    assert all(attributes["role"] == "img" and attributes["aria-label"] for attributes in plots)
    assert len(plots) == reader.count("figure") == reader.count("figcaption")
    assert reader.count("details") >= len(plots), "the figures of every plot stand behind it"
    assert ("html", {"lang": "en"}) in reader.tags


@pytest.mark.parametrize("kind", KINDS)
def test_a_page_needs_no_network_and_has_the_library_once(kind: str) -> None:
    text = page_of(kind)
    assert not re.search(r"<(?:script|img|link|iframe)[^>]*\b(?:src|href)=", text)
    assert text.count("plotly.js v") == 1


@pytest.mark.parametrize("kind", KINDS)
def test_every_colour_of_a_plot_is_known_in_light_and_dark(kind: str) -> None:
    made = document(KINDS[kind]())
    used = set(
        re.findall(r'"(@\w+)"', json.dumps([(p.data, p.layout) for s in made.sections for p in s.plots]))
    )
    assert used
    assert used <= set(PALETTES["light"]) == set(PALETTES["dark"])


def test_names_from_a_model_are_text_and_nothing_else() -> None:
    made = document(KINDS["hostile"]())
    text = page(made)
    assert HOSTILE not in text
    assert "&lt;/script&gt;&lt;img" in text
    assert r"| \| b |" in markdown(made)


def skeleton(text: str) -> list[tuple[str, int]]:
    """How each line begins, and how many cells it has."""
    return [
        (re.match(r"#* ?|- |```+|\||", line)[0], len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)))
        for line in text.splitlines()
    ]


@pytest.mark.parametrize(
    "name", [HOSTILE, "a\n\n# b", "a\r- b", "`c", "*d* _e_", "| f", "1. g", "<!-- h", "---", "&lt;"]
)
def test_no_name_breaks_the_markdown_of_a_report_or_a_comparison(name: str) -> None:
    def texts(called: str) -> list[str]:
        made = search(
            model=called, groups=(called, *GROUPS[1:]), layer_times={called: (2.0, 1.0), "b": (1.0, 1.0)}
        )
        one = report(made, trained=replace(train(), data=called), exported=replace(export(), file="x.onnx"))
        both = comparison([entry(each, made, one.train, one.export) for each in (called, "other")])
        return [
            markdown(replace(document(one), sections=document(one).sections[:-1])),
            markdown(side_by_side.document(both)),
        ]

    for found, expected in zip(texts(name), texts("harmless"), strict=True):
        assert skeleton(found) == skeleton(expected)
        assert "<" not in found.replace("&lt;", "")


def test_no_settings_end_their_block() -> None:
    text = markdown(document(replace(finished(), settings="a = 1\n```\n# Heading\n````\n")))
    block = text[text.index("`````") :].splitlines()
    assert block == ["`````", "a = 1", "```", "# Heading", "````", "`````"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_have_enough_contrast(scheme: str) -> None:
    colours = PALETTES[scheme]
    for name in ("@text", "@muted", *SERIES):
        assert contrast(colours[name], colours["@page"]) >= 4.5, name
    for name in drawn_colours():
        assert contrast(colours[name], colours["@page"]) >= 3, name


def drawn_colours() -> set[str]:
    """The colours of all points, lines, bars and error bars; the edges of points are the page's."""
    entries = [
        entry(name, one.search, one.train, one.export) for name, one in (("a", finished()), ("b", front()))
    ]
    made = [*(document(make()) for make in KINDS.values()), side_by_side.document(comparison(entries))]
    plots = [plot for one in made for section in one.sections for plot in section.plots]
    found = set(
        re.findall(r'"(@\w+)"', json.dumps([[plot.data, plot.layout.get("shapes")] for plot in plots]))
    )
    assert "@pale" in found
    return found - {"@page"}


def contrast(one: str, other: str) -> float:
    """The ratio of WCAG 2, 1 to 21."""
    low, high = sorted(luminance(colour) for colour in (one, other))
    return (high + 0.05) / (low + 0.05)


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_markdown_shows_each_table_once_and_leaves_the_longest_to_the_page() -> None:
    candidates = tuple((n / 1000, n / 1000) for n in range(1, 501))
    text = markdown(document(report(search(candidates=candidates))))
    assert "Networks that were evaluated: 500 rows, in report.html and report.json." in text
    assert text.count("Predicted and measured latencies:") == 1
    assert text.count("Epochs of PruningNet:") == 1
    for line in text.splitlines():
        assert "NaN" not in line


def test_the_table_of_evaluated_networks_does_not_call_leaders_predicted() -> None:
    section = next(one for one in document(finished()).sections if one.title == "Accuracy against latency")
    assert "latency, predicted or measured" in section.plots[0].table.head
    assert "leaders have the latency that was measured" in section.text[0]


def test_the_front_is_drawn_with_its_points_and_a_wider_scatter() -> None:
    made = front()
    assert len(made.evaluated) == 80, "networks of several budgets count once"
    section = next(one for one in document(made).sections if one.title == "Accuracy against latency")
    names = [trace["name"] for trace in section.plots[0].data]
    assert "front, measured" in names
    assert len(section.tables[0].rows) == 3


def test_widths_are_drawn_once_and_the_layers_folded_away() -> None:
    section = next(one for one in document(finished()).sections if one.title == "Widths")
    assert [plot.caption for plot in section.plots] == [
        "Channels of every channel group, unpruned and pruned"
    ]
    assert [table.title for table in section.tables] == ["Layers"]
    assert "<details><summary>Layers</summary>" in page_of("finished")


def test_a_long_name_keeps_its_beginning_and_its_end() -> None:
    _, layout, _ = before_after(GROUPS, (1, 1, 1), (1, 1, 1), "channels")
    short = layout["yaxis"]["ticktext"]
    assert short[:2] == list(GROUPS[:2])
    assert re.fullmatch(r"feature….*24\.conv2", short[2])
    assert len(short[2]) == 22


def test_a_prediction_stands_beside_the_unpruned_network_of_its_own_session() -> None:
    """The export measured both networks anew, on a machine that had become slower."""
    first, macs = figures()
    slower = replace(first, base=1.5, measured=0.87, limit=0.9)
    made = {row.name: row for row in rows(search(), None, replace(export(), figures=(slower, macs)))}
    predicted, measured = (made[f"latency on cpu-1t, {word}"] for word in ("predicted", "measured"))
    assert (predicted.base, predicted.pruned, predicted.change) == ("1 ms", "590 µs", "59.0%")
    assert (measured.base, measured.change) == ("1.5 ms", "58.0%")


@pytest.mark.parametrize(
    ("confirmed", "words"),
    [
        ((None, None), "2 narrower networks are predicted .* none of them was measured."),
        ((False, None), "1 of them was measured, and none is slower."),
        ((True, False), "2 of them were measured, and 1 is slower."),
        ((True, True), "2 of them were measured, and 2 are slower."),
        ((True,), "1 narrower network is predicted"),
    ],
)
def test_how_many_narrower_networks_were_found_slower_reads_well(
    confirmed: tuple[bool | None, ...], words: str
) -> None:
    measured = {True: 2.0, False: -2.0, None: None}
    steps = {"group": "stem", "narrow": 8, "wide": 16, "around": "middle", "predicted_percent": 1.0}
    found = tuple(
        Inversion(**steps, measured_percent=measured[one], error_percent=None if one is None else 0.1)
        for one in confirmed
    )
    made = finished()
    lines = inversion_lines(replace(made, curves=replace(made.curves, inversions=found)))
    assert re.search(words, lines[0])


def test_the_three_files_are_written(tmp_path: Path) -> None:
    write_report(finished(), tmp_path)
    payload = json.loads((tmp_path / "report.json").read_text())
    assert payload["schema_version"] == 4
    assert payload["payload"]["search"]["layer_times"]["fc"] == [200.0, 120.0]
    assert "hwprune search --latency 60% --seed 0" in (tmp_path / "report.md").read_text()
    again = (tmp_path / "report.html").read_bytes()
    write_report(replace(finished()), tmp_path)
    assert (tmp_path / "report.html").read_bytes() == again
