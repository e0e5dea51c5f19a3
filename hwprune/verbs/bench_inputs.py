"""What `hwprune bench` is given: networks, an earlier run's figures, limits, and files to write."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from hwprune import artifacts
from hwprune.config import Config
from hwprune.errors import HwpruneError, MismatchError, MissingArtifactError, ModelError, UsageError, steps_in
from hwprune.gate.result import BenchResult
from hwprune.gate.verdict import Limit, Verdict
from hwprune.latency.table import runtime_of
from hwprune.project.folder import WORK, Project
from hwprune.results import ExportResult, ProfileResult
from hwprune.runtimes.base import TargetProfile
from hwprune.structure.onnx_graph import static_inputs
from hwprune.units import parse_latency, parse_percent

if TYPE_CHECKING:
    from collections.abc import Mapping

_DEFAULT_REGRESSION = "5%"


@dataclass(frozen=True, eq=False)
class ModelFile:
    """A network to measure.

    Attributes:
        path: The ONNX file.
        content: What is in it.
        inputs: What the network reads, see `static_inputs`.
        target: The target profile that it was made for, if that is known.
        step: The step of channels in which that device's latency changes; 0 where it is not known.
        table_runtime: The runtime behind the latency table that it was searched with, as it described itself.
    """

    path: Path
    content: bytes
    inputs: tuple[str, ...]
    target: TargetProfile | None = None
    step: int = 0
    table_runtime: Mapping[str, str] = field(default_factory=dict)

    @property
    def sha256(self) -> str:
        """Digest of the file."""
        return artifacts.sha256(self.content)


@dataclass(frozen=True, eq=False)
class Baseline:
    """What a network is compared with: a model to measure beside it, figures, both, or nothing.

    Attributes:
        model: The model; None when it is not there, or has changed since its figures were taken.
        figures: What an earlier run found.
    """

    model: ModelFile | None = None
    figures: BenchResult | None = None

    @property
    def kind(self) -> str:
        """`model`, `figures` or "": what counts, as in `BenchResult.compared_with`."""
        return "model" if self.model else "figures" if self.figures else ""


def find_model(path: Path) -> ModelFile:
    """The network that a user named.

    Args:
        path: An ONNX file, a project folder, or the figures of an earlier run.

    Raises:
        ArtifactError: There is nothing there, or it is damaged.
        ModelError: Not an ONNX file, or one that cannot be timed.
    """
    found = find_baseline(path)
    if found.model is None:
        raise MissingArtifactError(
            "The model behind these figures is not there, or has changed.",
            where=path,
            got=found.figures.model.file if found.figures else None,
            do="name the ONNX file itself",
        )
    return found.model


def find_baseline(path: Path) -> Baseline:
    """What a user wants to compare with; the same kinds of files as for `find_model`.

    Raises:
        ArtifactError: As for `find_model`; figures whose model is gone will do.
        ModelError: As for `find_model`.
    """
    if path.is_dir():
        return Baseline(_exported(path.parent if path.name == WORK else path))
    content = _read(path)
    if content.lstrip()[:1] != b"{":  # no ONNX file begins with it
        return Baseline(_opened(path, content))
    figures = BenchResult.load(path)
    return Baseline(_model_of(figures, path), figures)


def _model_of(figures: BenchResult, where: Path) -> ModelFile | None:
    """The model that figures are of, unchanged: under the name it had, or beside the figures."""
    named = Path(figures.model.file)
    target = TargetProfile.from_payload(figures.conditions["profile"], where)
    for path in (named, where.parent / named.name):
        if artifacts.is_file(path) and artifacts.sha256(content := _read(path)) == figures.model.sha256:
            return _opened(path, content, target)
    return None


def _exported(folder: Path) -> ModelFile:
    """The network that a project exported."""
    with steps_in(folder):
        return _checked_export(folder)


def _checked_export(folder: Path) -> ModelFile:
    project = Project(folder, Config())  # what was measured is the file, whatever the settings are now
    result = ExportResult.load(project.path("export.json"))
    path = folder / result.file
    content = artifacts.read_bytes(path, ExportResult.made_by, artifacts.MAX_ONNX_BYTES)
    if artifacts.sha256(content) != result.digest:
        raise MismatchError(
            "The file is not the one that was exported.",
            where=path,
            do=f"run `{ExportResult.made_by}` again, or name the ONNX file itself",
        )
    profiled = ProfileResult.load(project.table_folder(result.profile) / "profile.json")
    target = TargetProfile.from_payload(profiled.target, where=result.profile)
    found = _opened(path, content, replace(target, precision=result.precision))
    table_runtime = runtime_of(project.table_folder(result.profile))
    return replace(found, step=profiled.channel_multiple, table_runtime=table_runtime)


def _read(path: Path) -> bytes:
    if not artifacts.is_file(path):
        raise MissingArtifactError(
            "There is no such file or folder.",
            where=path,
            got="something that is not a file" if path.exists() else None,
            allowed="an ONNX file, a project folder, or what an earlier `hwprune bench --output FILE` wrote",
        )
    return artifacts.read_bytes(path, limit=artifacts.MAX_ONNX_BYTES)


def _opened(path: Path, content: bytes, target: TargetProfile | None = None) -> ModelFile:
    try:
        return ModelFile(path, content, static_inputs(content), target)
    except ModelError as error:
        raise located(error, path) from error


def located(error: HwpruneError, path: Path) -> HwpruneError:
    """The same error, with the file that it is about."""
    where = path if error.where is None else f"{path}, {error.where}"
    return type(error)(error.what, where=where, got=error.got, allowed=error.allowed, do=error.do)


def check_inputs(model: ModelFile, baseline: Baseline) -> None:
    """Refuse to compare networks that read different things; names of inputs do not count.

    Raises:
        MismatchError: They do.
    """
    figures = baseline.figures.model.inputs if baseline.figures else model.inputs
    inputs = baseline.model.inputs if baseline.model else figures
    if model.inputs != inputs:
        raise MismatchError(
            "The network and its baseline read different inputs.",
            where=model.path,
            got=", ".join(model.inputs),
            allowed=f"{', '.join(inputs)}, as the baseline",
            do="export both with the same batch and image size",
        )


def target_of(model: ModelFile, device: str, profile: str) -> tuple[TargetProfile, str]:
    """The target profile: the options given, else the one that the network was made for, else the default.

    Returns:
        The profile and, where hwprune chose it for a GPU, which and why.

    Raises:
        UsageError: There is no such profile, or it is for another device.
        DeviceError: The device is unknown, or cannot be measured.
    """
    if model.target is not None and not profile and device in ("", model.target.device):
        return model.target, ""
    return Project(config=Config()).choice(device, profile)


def parse_limits(max_regression: str, budget: str, baseline: bool) -> tuple[Limit, ...]:
    """The limits of a command.

    Args:
        max_regression: A percentage; "" is the default with a baseline, unless the budget is a share of it.
        budget: A latency or a share of the baseline's, or "".
        baseline: Whether there is one.

    Raises:
        UsageError: One cannot be understood, or needs a baseline that is not there.
    """
    share_of = f", or 60% of the baseline's{'' if baseline else ' with --baseline FILE'}"
    allowed = f"15ms, 800us, 0.015s{share_of}"
    quantity = parse_latency(budget, "--budget", allowed) if budget else None
    share = quantity is not None and quantity.relative
    given = parse_percent(max_regression, "--max-regression") if max_regression else None
    if (given or share) and not baseline:
        raise UsageError(
            "A limit in percent needs something that it is a percentage of.",
            got=f"--budget {budget}" if share else f"--max-regression {max_regression}",
            do="add --baseline FILE, an ONNX model or the figures of an earlier run",
        )
    if given is None and baseline and not share:
        given = parse_percent(_DEFAULT_REGRESSION, "--max-regression")
    limits = []
    if given:
        limits.append(Limit(breach=Verdict.REGRESSION, text=given.text, most=1 + given.value, unit="ratio"))
    if quantity:
        unit = "ratio" if share else "ms"
        limits.append(Limit(breach=Verdict.OVER_BUDGET, text=quantity.text, most=quantity.value, unit=unit))
    return tuple(limits)
