"""`hwprune report`: what was reached, as text, Markdown and JSON."""

from __future__ import annotations

from pathlib import Path

from hwprune.api.lock import locked
from hwprune.api.project import Project
from hwprune.progress import QUIET, Reporter
from hwprune.report.facts import Report, collect
from hwprune.report.files import write_report


@locked
def report(*, project: Path = Path("."), reporter: Reporter = QUIET) -> Report:
    """Print and write base versus pruned: report.html, report.md and report.json in the project folder.

    Args:
        project: The project folder.
        reporter: Told about progress.

    Returns:
        The report; figures of stages that have not been run are missing from it.

    Raises:
        ArtifactError: `hwprune search` has not been run here, or for another model or other images.
    """
    opened = Project(project)
    opened.searched()  # an answer for another model or other images is no result of this project
    facts = collect(opened.path("."), opened.folder)
    write_report(facts, opened.folder)
    return facts
