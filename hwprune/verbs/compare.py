"""`hwprune compare`: several results, devices or runs side by side."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from hwprune import artifacts
from hwprune.errors import MissingArtifactError, UsageError, steps_in
from hwprune.plain import xml_text
from hwprune.progress import QUIET, Reporter
from hwprune.project.folder import Project
from hwprune.project.outputs import checked_outputs
from hwprune.report.compare import Comparison, Entry, comparison, entry, read_entry


def compare(
    results: tuple[Path, ...],
    /,
    *,
    html: Path | None = None,
    markdown: Path | None = None,
    reporter: Reporter = QUIET,
) -> Comparison:
    """Show several results side by side, and say plainly what of them cannot be compared.

    Args:
        results: Project folders, or report.json files that `hwprune report` wrote, maybe on other machines.
        html: Write the comparison, with a plot, as one page into this file.
        markdown: Write it as Markdown into this file.
        reporter: Told about progress.

    Returns:
        The figures of each result, and in what they differ from the first.

    Raises:
        UsageError: Fewer than two results, or a file to write that is a result.
        ArtifactError: A result is missing, damaged, or not of its project any more.

    Example:
        >>> len(hwprune.compare((folder, folder)).entries)
        2
    """
    if len(results) < 2:
        raise UsageError(
            "A comparison needs two results or more.",
            got=len(results),
            allowed="project folders or report.json files",
            do="for example hwprune compare project-a project-b/report.json",
        )
    outputs = {"--html": html, "--markdown": markdown}
    places = checked_outputs(outputs, [(str(path), path) for path in results])
    names = _names(results)
    found = comparison([_entry(name, path) for name, path in zip(names, results, strict=True)])
    _write(found, *places)
    return replace(found, files=tuple(str(path) for path in outputs.values() if path))


def _entry(name: str, path: Path) -> Entry:
    if not path.exists():
        raise MissingArtifactError(
            "There is no such folder or file.", where=path, allowed="a project folder, or a report.json file"
        )
    if not path.is_dir():
        return read_entry(name, path)
    from hwprune.report.facts import collect

    with steps_in(path):
        opened = Project(path)
        opened.searched()  # an answer for another model or other images is no result of this project
        facts = collect(opened.path("."), opened.folder)
    return entry(name, facts.search, facts.train, facts.export)


def _names(results: tuple[Path, ...]) -> list[str]:
    """The folder's name, or the file's when it is no report.json; the path where two would be the same."""
    short = []
    for path in map(Path.resolve, results):
        own = path.name if path.is_dir() else path.stem
        short.append(xml_text(path.parent.name if own == "report" else own))
    return [
        xml_text(str(path)) if short.count(name) > 1 else name
        for path, name in zip(results, short, strict=True)
    ]


def _write(found: Comparison, html: Path | None, markdown: Path | None) -> None:
    if html is None and markdown is None:
        return
    from hwprune.report.html import page
    from hwprune.report.markdown import markdown as as_markdown
    from hwprune.report.side_by_side import document

    made = document(found)
    for path, text in ((html, page), (markdown, as_markdown)):
        if path is not None:
            artifacts.write_bytes(path, text(made).encode())
