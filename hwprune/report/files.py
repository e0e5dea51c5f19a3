"""Writes a report as Markdown, JSON and one HTML page."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from hwprune import artifacts
from hwprune.report.build import document
from hwprune.report.facts import KIND, SCHEMA_VERSION
from hwprune.report.html import page
from hwprune.report.markdown import markdown

if TYPE_CHECKING:
    from pathlib import Path

    from hwprune.report.facts import Report


def write_report(report: Report, folder: Path) -> None:
    """Write report.md, report.html and report.json into `folder`."""
    made = document(report)
    artifacts.write_bytes(folder / "report.md", markdown(made).encode())
    artifacts.write_bytes(folder / "report.html", page(made).encode())
    artifacts.write_json(folder / "report.json", KIND, SCHEMA_VERSION, asdict(report))
