"""The pages as a site: it builds strictly, loads nothing from elsewhere; what scripts make is current."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from pages import PAGES, ROOT, text_of

import hwprune
from hwprune import errors
from hwprune.cli.main import VERBS


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as `make docs` does."""
    folder = tmp_path_factory.mktemp("site")
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stderr
    return folder


def test_every_page_is_in_the_site_and_loads_nothing_from_elsewhere(site: Path) -> None:
    made = {path.stem for path in site.glob("*.html")}
    assert {Path(page).stem for page in PAGES if page.startswith("docs/")} <= made
    for path in site.glob("*.html"):
        tags = re.findall(r"<(?:script|img|link|iframe)\b[^>]*>", path.read_text())
        assert not [tag for tag in tags if re.search(r'(?:src|href)="(?:https?:)?//', tag)], path.name


def test_links_out_of_the_pages_lead_to_copies(site: Path) -> None:
    assert 'href="repository/benchmarks/results/kills.json"' in (site / "search.html").read_text()
    copied = site / "repository/benchmarks/results/kills.json"
    assert copied.read_bytes() == (ROOT / "benchmarks/results/kills.json").read_bytes()


def test_the_reference_holds_every_public_name(site: Path) -> None:
    text = (site / "reference.html").read_text()
    public = {f"{module}.{name}" for name, module in hwprune._PUBLIC.items()}
    verbs = {f"hwprune.verbs.{verb}.{verb}" for verb in VERBS}
    raised = {f"hwprune.errors.{name}" for name, value in vars(errors).items() if isinstance(value, type)}
    documented = set(re.findall(r'id="(hwprune[\w.]+)"', text))
    assert public | verbs | {name for name in raised if name.endswith("Error")} <= documented


@pytest.mark.parametrize("page", PAGES)
def test_links_between_pages_and_files_lead_somewhere(page: str) -> None:
    prose = re.sub(r"```.*?```", "", text_of(page), flags=re.S)
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", prose):
        if not target.startswith(("http", "mailto")):
            assert ((ROOT / page).parent / target).exists(), target


@pytest.mark.parametrize("script", ["licences.py", "draw_floors.py"])
def test_made_pages_are_current(script: str) -> None:
    checked = subprocess.run([sys.executable, f"docs/tools/{script}", "--check"], cwd=ROOT)
    assert checked.returncode == 0, f"run python docs/tools/{script}"


def test_the_recording_names_no_machine() -> None:
    picture = (ROOT / "docs" / "result.svg").read_text()
    assert "Budget&#160;met" in picture
    assert not re.search(r"/(home|root|tmp|work|Users)/", picture)
    assert "@font-face" not in picture
