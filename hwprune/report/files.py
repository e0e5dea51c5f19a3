"""Writes a report as Markdown and JSON."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from hwprune import artifacts

if TYPE_CHECKING:
    from pathlib import Path

    from hwprune.report.facts import Report

KIND, SCHEMA_VERSION = "report", 1


def write_report(report: Report, folder: Path) -> None:
    """Write report.md and report.json into `folder`."""
    artifacts.write_bytes(folder / "report.md", markdown(report).encode())
    artifacts.write_json(folder / "report.json", KIND, SCHEMA_VERSION, asdict(report))


def markdown(report: Report) -> str:
    """The report as Markdown."""
    search = report.search
    lines = [f"# {search.model} under {search.budget} on {search.profile}", "", f"**{report.verdict}**", ""]
    lines += ["| | unpruned | pruned | |", "|---|---|---|---|"]
    lines += [f"| {row.name} | {row.base} | {row.pruned} | {row.change} |" for row in report.rows]
    lines += ["", "## Widths", "", "| channel group | unpruned | pruned | kept |", "|---|---|---|---|"]
    for name, full, width in zip(search.groups, search.full_widths, search.widths, strict=True):
        lines.append(f"| `{name}` | {full} | {width} | {width / full:.0%} |")
    lines += ["", "## Layers", "", "| layer | | channels read | channels made |", "|---|---|---|---|"]
    lines += [
        f"| `{row.name}` | {row.op} | {change(row.inputs)} | {change(row.outputs)} |" for row in report.layers
    ]
    return "\n".join([*lines, "", "## How it was found", "", *_how(report)]) + "\n"


def change(channels: tuple[int, int]) -> str:
    """Channels before and after, as `64 -> 48`, or one number when they are the same."""
    before, after = channels
    return str(before) if before == after else f"{before} -> {after}"


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
