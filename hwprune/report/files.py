"""Writes a report as Markdown, JSON and one HTML page."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from hwprune import artifacts
from hwprune.report.page import page
from hwprune.report.words import FRONT_HEAD, change, front_line, front_rows, front_title, inversion_lines

if TYPE_CHECKING:
    from pathlib import Path

    from hwprune.report.facts import Report

KIND, SCHEMA_VERSION = "report", 3


def write_report(report: Report, folder: Path) -> None:
    """Write report.md, report.html and report.json into `folder`."""
    artifacts.write_bytes(folder / "report.md", markdown(report).encode())
    artifacts.write_bytes(folder / "report.html", page(report).encode())
    artifacts.write_json(folder / "report.json", KIND, SCHEMA_VERSION, asdict(report))


def markdown(report: Report) -> str:
    """The report as Markdown."""
    search = report.search
    lines = [f"# {search.model} under {search.budget}", "", f"**{report.verdict}**", ""]
    lines += ["| | unpruned | pruned | |", "|---|---|---|---|"]
    lines += [f"| {row.name} | {row.base} | {row.pruned} | {row.change} |" for row in report.rows]
    lines += _front(report)
    lines += ["", "## Widths", "", "| channel group | unpruned | pruned | kept |", "|---|---|---|---|"]
    for name, full, width in zip(search.groups, search.full_widths, search.widths, strict=True):
        lines.append(f"| `{name}` | {full} | {width} | {width / full:.0%} |")
    lines += ["", "## Layers", "", "| layer | | channels read | channels made |", "|---|---|---|---|"]
    lines += [
        f"| `{row.name}` | {row.op} | {change(row.inputs)} | {change(row.outputs)} |" for row in report.layers
    ]
    lines += ["", "## Latency over width", "", *(f"- {line}" for line in inversion_lines(report))]
    lines += _curve_table(report)
    return "\n".join([*lines, "", "## How it was found", "", *_how(report)]) + "\n"


def _front(report: Report) -> list[str]:
    """The networks of a range of budgets; report.html draws them."""
    if report.front is None:
        return []
    head = [f"| {' | '.join(FRONT_HEAD)} |", "|---" * len(FRONT_HEAD) + "|"]
    rows = [f"| {' | '.join(row)} |" for row in front_rows(report.front)]
    return ["", f"## {front_title(report.front)}", "", front_line(report.front), "", *head, *rows]


def _curve_table(report: Report) -> list[str]:
    """Microseconds of each layer over the width of each of its groups; report.html draws them."""
    if report.curves is None:
        return []
    lines = ["", "Predicted µs of a layer at each width of a group, the others at full width:", ""]
    lines += ["| channel group | layer | width: µs |", "|---|---|---|"]
    for curve in report.curves.curves:
        for layer, times in curve.layers_us.items():
            steps = ", ".join(f"{w}: {us:.3g}" for w, us in zip(curve.widths, times, strict=True))
            lines.append(f"| `{curve.group}` | `{layer}` | {steps} |")
    return lines


def _how(report: Report) -> list[str]:
    search, lines = report.search, []
    if report.profile:
        error = report.profile.error_percent
        known = "not known: too few networks" if error is None else f"{error:.1f} %"
        lines.append(
            f"- Latency table `{search.profile}`: {report.profile.networks} networks measured, "
            f"{report.profile.kernels} kernels, mean error on held-out networks {known}, "
            f"channel multiple {report.profile.channel_multiple}."
        )
    if search.candidates:
        lines.append(
            f"- {len(search.candidates)} networks scored by {search.score_kind} in "
            f"{len(search.history)} generations, seed {search.seed}."
        )
    if report.train:
        lines.append(
            f"- Trained for {report.train.epochs} epochs from {report.train.start}; unpruned network: "
            f"{report.train.base_source}. Accuracy on {report.train.test_images} test images."
        )
    if report.export:
        lines.append(
            f"- The exported file differs from torch by {report.export.max_difference:.1e} of the output's "
            f"scale at most (allowed {report.export.tolerance:.0e})."
        )
    return lines
