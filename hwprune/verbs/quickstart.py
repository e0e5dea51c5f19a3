"""`hwprune quickstart`: the whole job on the embedded example."""

from __future__ import annotations

from pathlib import Path

from hwprune.progress import QUIET, Reporter
from hwprune.project.budgets import parse_budgets
from hwprune.project.folder import Project
from hwprune.project.lock import locked
from hwprune.report.facts import Report
from hwprune.verbs.export import export
from hwprune.verbs.init import init
from hwprune.verbs.profile import profile
from hwprune.verbs.report import report
from hwprune.verbs.search import search
from hwprune.verbs.train import train


@locked
def quickstart(
    *,
    project: Path = Path("hwprune-quickstart"),
    latency: str = "50%",
    reporter: Reporter = QUIET,
) -> Report:
    """Prune a ResNet-20 to half its latency on this CPU, from start to the measured ONNX file, in minutes.

    The images are scikit-learn's handwritten digits; nothing is downloaded.

    Args:
        project: The folder to work in; a second run goes on where the first was stopped.
        latency: The budget.
        reporter: Told about progress.

    Returns:
        The report, as `hwprune report` gives it.

    Raises:
        UsageError: The budget cannot be understood.
    """
    parse_budgets(latency, macs="", params="", size="")  # a mistake is told before anything is measured
    if not Project(project).config_path.exists():
        init(project=project)
    profile(project=project, reporter=reporter)
    search(project=project, latency=latency, reporter=reporter)
    train(project=project, reporter=reporter)
    export(project=project, reporter=reporter)
    return report(project=project, reporter=reporter)
