"""Reports in a real browser: every plot is drawn, no script fails, nothing is wider than a phone.

Pictures are kept in the folder that HWPRUNE_SCREENSHOTS names, or else with the test's other files.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from chromium import NAMES, Chromium, chromium_path
from examples import KINDS, finished, latency_only, table_only

from hwprune.report import side_by_side
from hwprune.report.build import document
from hwprune.report.compare import comparison, entry
from hwprune.report.html import page
from hwprune.report.parts import Document

# What each plot has come to: how many drawings, how many of its traces are in them, whether it has a size.
PLOTS = """[...document.querySelectorAll('figure')].map(figure => {
  const box = figure.querySelector('.plot'), area = box.getBoundingClientRect();
  const drawn = box.querySelectorAll('.scatterlayer .trace, .barlayer .trace, .hm').length;
  const asked = JSON.parse(figure.querySelector('script').textContent).data.length;
  const shapes = [...box.querySelectorAll('.scatterlayer path, .barlayer path, .hm image')];
  return {name: box.getAttribute('aria-label'), drawn, asked, shapes: shapes.length,
    paper: getComputedStyle(box.querySelector('.main-svg')).backgroundColor,
    seen: area.width > 200 && area.height > 120 && box.querySelectorAll('svg.main-svg').length > 0};
})"""
# A legend over curves or over the title of an axis, and texts of one legend over each other.
OVERLAPS = """[...document.querySelectorAll('.plot')].flatMap(box => {
  const area = query => [...box.querySelectorAll(query)].map(one => one.getBoundingClientRect());
  const meet = (a, b) => a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 1
    && b.top < a.bottom - 1;
  const legend = area('.legend .bg'), plot = area('.plotbg, .bglayer rect, .draglayer .nsewdrag');
  const texts = area('.legend .legendtext'), titles = area('.xtitle, .ytitle');
  const name = box.getAttribute('aria-label');
  return [...legend.flatMap(one => [...plot, ...titles].filter(other => meet(one, other)).map(() => name)),
    ...texts.flatMap((one, i) => texts.slice(i + 1).filter(other => meet(one, other)).map(() => name))];
})"""
VIEWS = {"desktop": (1200, False), "dark": (1200, True), "phone": (390, False), "phone-dark": (390, True)}
PAGE_COLOURS = {False: "rgb(255, 255, 255)", True: "rgb(20, 24, 28)"}


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    path = chromium_path()
    if path is None:
        pytest.skip(f"no Chromium here: none of {', '.join(NAMES)}; on Debian `apt-get install chromium`")
    with Chromium(path, tmp_path_factory.mktemp("chromium")) as opened:
        yield opened


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = Path(os.environ.get("HWPRUNE_SCREENSHOTS") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def check(browser: Chromium, view: str, plots: int, picture: Path) -> None:
    width, dark = VIEWS[view]
    browser.look(width=width, dark=dark)
    browser.picture(picture)
    assert browser.complaints == []
    found = browser.value(PLOTS)
    assert len(found) == plots
    for one in found:
        assert one["seen"], one
        assert one["drawn"] == one["asked"] > 0, one
        assert one["shapes"] > 0, one
        assert one["paper"] == PAGE_COLOURS[dark], one
    assert browser.value("document.documentElement.scrollWidth") <= width
    assert browser.value("document.body.scrollWidth") <= width
    assert browser.value(OVERLAPS) == []
    assert browser.value("document.querySelectorAll('[data-title*=Share], [data-title*=Chart]').length") == 0
    assert picture.stat().st_size > 10_000


def plots_of(made: Document) -> int:
    return sum(len(section.plots) for section in made.sections)


@pytest.mark.slow
def test_a_report_is_drawn_on_every_screen_in_light_and_dark(
    browser: Chromium, tmp_path: Path, pictures: Path
) -> None:
    made, file = document(finished()), tmp_path / "report.html"
    file.write_text(page(made))
    for view in VIEWS:
        if view in ("desktop", "phone"):  # the others are what a reader turns these into
            browser.open(file, width=VIEWS[view][0], dark=VIEWS[view][1])
        check(browser, view, plots_of(made), pictures / f"finished-{view}.png")


@pytest.mark.slow
def test_every_kind_of_report_is_drawn(browser: Chromium, tmp_path: Path, pictures: Path) -> None:
    kinds = [document(make()) for make in KINDS.values() if make is not finished]
    sections = [section for one in kinds for section in one.sections]
    large = tuple(section for section in sections if not any(plot.small for plot in section.plots))
    made = replace(kinds[0], sections=large)  # small plots differ only in number
    file = tmp_path / "report.html"
    file.write_text(page(made))
    browser.open(file, width=390)
    check(browser, "phone", plots_of(made), pictures / "kinds-phone.png")


@pytest.mark.slow
def test_a_comparison_is_drawn(browser: Chromium, tmp_path: Path, pictures: Path) -> None:
    made = [(make.__name__, make()) for make in (finished, latency_only, table_only)]
    entries = [entry(name, one.search, one.train, one.export) for name, one in made]
    html = tmp_path / "compared.html"
    html.write_text(page(side_by_side.document(comparison(entries))))
    browser.open(html, width=390, dark=True)
    check(browser, "phone-dark", 1, pictures / "compared-phone-dark.png")


@pytest.mark.slow
def test_a_point_tells_its_figures_when_it_is_pointed_at(browser: Chromium, tmp_path: Path) -> None:
    made, file = document(finished()), tmp_path / "report.html"
    file.write_text(page(replace(made, sections=made.sections[:2])))
    browser.open(file, width=1200, height=2000)
    where = browser.value(
        "(() => {const points = document.querySelectorAll('.plot .scatterlayer .points path');"
        "const area = points[points.length - 1].getBoundingClientRect();"
        "return {x: area.left + area.width / 2, y: area.top + area.height / 2}})()"
    )
    browser.do("Input.dispatchMouseEvent", type="mouseMoved", **where)
    browser.value("new Promise(done => setTimeout(done, 500))")
    assert "%" in browser.value("document.querySelector('.hoverlayer .hovertext').textContent")


@pytest.mark.slow
def test_a_finger_zooms_with_buttons_and_scrolls_the_page(browser: Chromium, tmp_path: Path) -> None:
    made, file = document(finished()), tmp_path / "report.html"
    file.write_text(page(replace(made, sections=made.sections[:2])))
    browser.open(file, width=390)
    span = "(([low, high]) => high - low)(document.querySelector('.plot')._fullLayout.xaxis.range)"
    before = browser.value(span)
    seen = "getComputedStyle(document.querySelector('.plot .modebar')).opacity"
    assert browser.value(seen) == "1", "there is no hovering that would show it"
    browser.value("document.querySelector('.plot [data-title=\"Zoom in\"]').click()")
    browser.settle()
    assert browser.value(span) < before
    assert browser.value("document.querySelector('.plot')._fullLayout.dragmode") is False
    assert browser.complaints == []


@pytest.mark.slow
def test_a_script_that_fails_is_noticed(browser: Chromium, tmp_path: Path) -> None:
    made, file = document(finished()), tmp_path / "report.html"
    text = page(replace(made, sections=made.sections[:2]))
    file.write_text(text.replace("Plotly.react(box", "Plotly.nothing(box"))
    browser.open(file, width=1200)
    assert any("Plotly.nothing" in complaint for complaint in browser.complaints)
