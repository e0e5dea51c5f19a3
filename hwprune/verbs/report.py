"""`hwprune report`: what was reached, as text, Markdown and JSON."""

from __future__ import annotations

from pathlib import Path

from hwprune.errors import UsageError
from hwprune.progress import QUIET, Reporter
from hwprune.project.folder import Project
from hwprune.project.lock import locked
from hwprune.report.facts import Report, collect
from hwprune.report.files import write_report
from hwprune.report.standing import MAX_DROP


@locked
def report(*, project: Path = Path("."), max_drop: float = MAX_DROP, reporter: Reporter = QUIET) -> Report:
    """Print and write base versus pruned: report.html, report.md and report.json in the project folder.

    Args:
        project: The project folder.
        max_drop: Points of test top-1 that may be lost: a result that lost more is headed in red, whatever
            its latency; what lost more than 5 is told in any case.
        reporter: Told about progress.

    Returns:
        The report; figures of stages that have not been run are missing from it.

    Raises:
        UsageError: `max_drop` is no number of points.
        ArtifactError: `hwprune search` has not been run here, or for another model or other images.
    """
    if not 0 <= max_drop <= 100:
        raise UsageError("--max-drop is not a number of points.", got=max_drop, allowed="0 to 100")
    opened = Project(project)
    opened.searched()  # an answer for another model or other images is no result of this project
    facts = collect(opened.path("."), opened.folder, max_drop)
    write_report(facts, opened.folder)
    return facts
