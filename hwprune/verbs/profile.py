"""`hwprune profile`: trace the model and build the latency table of a device."""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from hwprune import artifacts
from hwprune.errors import ArtifactError, ConfigError, ModelError, UsageError
from hwprune.progress import QUIET, Reporter
from hwprune.project.folder import Project
from hwprune.project.lock import locked
from hwprune.project.network import traced, unpruned_onnx
from hwprune.results import ProfileResult
from hwprune.units import parse_seconds

_PLAN_NETWORKS = 160

if TYPE_CHECKING:
    from hwprune.latency.device import Device
    from hwprune.latency.model import TableModel
    from hwprune.latency.table import LatencyTable
    from hwprune.runtimes.base import TargetProfile
    from hwprune.structure.space import SearchSpace


@dataclass(frozen=True)
class PlanResult:
    """A plan that was written.

    Attributes:
        file: Where it is.
        model: Name of the model.
        profile: The conditions it will be measured under.
        networks: Networks that the target shall run.
        bytes: Size of the file.
    """

    file: str
    model: str
    profile: str
    networks: int
    bytes: int


@locked
def profile(
    *,
    project: Path = Path("."),
    device: str = "",
    profile: str = "",
    model: str = "",
    max_time: str = "",
    max_error: str = "",
    plan: Path | None = None,
    reporter: Reporter = QUIET,
) -> ProfileResult | PlanResult:
    """Measure the device and build its latency table; run it again to go on where it was stopped.

    Args:
        project: The project folder; without hwprune.toml the embedded example is used.
        device: cpu or cuda:0; "" takes the project's.
        profile: A target profile, such as cpu-1t or cpu; "" takes the project's or the device's default.
        model: Begin a project for this model in an empty folder, without images (latency only).
        max_time: Device time to spend, such as 120s or 5m, with what earlier visits spent; a first round of
            eight networks is always measured. Tracing the model, and building networks for a GPU, tens of
            seconds each with TensorRT, come on top of it.
        max_error: Mean error at which to stop earlier, such as 3%.
        plan: Measure nothing here: write a plan into this file, for a target device without torch.
        reporter: Told about progress.

    Example:
        >>> table = hwprune.profile(project=folder)  # a finished one is not measured again
        >>> table.networks > 0
        True
    """
    known = Project(project).config_path.exists()
    opened = _open(project, model, device, profile)
    settings = opened.config.profiling
    if max_time:
        settings = replace(settings, max_seconds=parse_seconds(max_time, "--max-time"))
    if max_error:
        settings = replace(settings, max_error=_fraction(max_error))
    opened = opened.with_config(profiling=settings)
    try:
        if plan is not None:
            return _write_plan(opened, plan, device, profile, reporter)
        return build_table(opened, device, profile, reporter)
    except (ModelError, ConfigError):
        if not known:  # a project begun for what cannot work would stand in the way of the next try
            opened.config_path.unlink(missing_ok=True)
        raise


def _open(folder: Path, model: str, device: str, profile: str) -> Project:
    """The project; `--model` makes a new one when the folder has none."""
    opened = Project(folder)
    if not model or (opened.config_path.exists() and model == opened.config.model.name):
        return opened
    if opened.config_path.exists():
        raise UsageError(
            "This folder is a project for another model.",
            where=opened.config_path,
            got=model,
            allowed=opened.config.model.name,
            do="use another --project folder",
        )
    from hwprune.verbs.init import init

    init(project=folder, model=model, data="", device=device or "cpu", profile=profile)
    return Project(folder)


def _fraction(text: str) -> float:
    number = text.strip().removesuffix("%")
    try:
        value = float(number) / (100 if text.strip().endswith("%") else 1)
    except ValueError:
        value = -1.0
    if not 0 < value < 1:
        raise UsageError("--max-error is not an error.", got=repr(text), allowed="3% or 0.03")
    return value


def _write_plan(
    opened: Project, path: Path, device: str, profile_name: str, reporter: Reporter
) -> PlanResult:
    """Trace and export here, leave the measuring to `python -m hwprune.probe` on the target."""
    from hwprune.latency.plan import Plan
    from hwprune.runtimes.registry import get_runtime

    target, why = opened.choice(device, profile_name)
    if why:
        reporter.note(why)
    reporter.note(f"Tracing {opened.config.model.name}.")
    space = traced(opened)
    base = unpruned_onnx(opened, space, target.batch)
    base = get_runtime(target).lower(base, target)
    settings, multiple = opened.config.profiling, opened.config.profiling.channel_multiple
    drawn = Plan.draw(
        space.with_choices(multiple) if multiple else space,
        base,
        target,
        count=_PLAN_NETWORKS,
        max_seconds=settings.max_seconds,
        seed=opened.config.seed,
    )
    drawn = replace(drawn, snap=not multiple)
    drawn.save(path)
    return PlanResult(str(path), space.model, target.name, len(drawn.networks), path.stat().st_size)


def build_table(opened: Project, device: str, profile_name: str, reporter: Reporter) -> ProfileResult:
    """Trace, export and profile; see `profile`."""
    from hwprune.latency.device import Device
    from hwprune.latency.model import TableModel
    from hwprune.latency.profiler import Times, profile_space
    from hwprune.latency.staircase import known_multiple
    from hwprune.latency.table import GRAPH, SPACE, STAIRCASE
    from hwprune.runtimes.registry import get_runtime
    from hwprune.structure.onnx_graph import without_weights

    target, why = opened.choice(device, profile_name)
    runtime = get_runtime(target)
    runtime.check_table(target)
    if why:
        reporter.note(why)
    folder = opened.table_folder(target.name)
    reporter.note(f"Tracing {opened.config.model.name}.")
    space = traced(opened)
    reporter.note("Looking for the steps of the device's latency over the width of a layer.")
    settings = opened.config.profiling
    times = Times.of(settings.max_seconds)
    multiple = settings.channel_multiple or known_multiple(
        folder / STAIRCASE, runtime, target, seconds=times.steps
    )
    space = space.with_choices(multiple)
    base = unpruned_onnx(opened, space, target.batch)
    base = runtime.lower(base, target)
    with reporter.stage(f"Profiling {space.model} on {target.name}", "networks") as progress:
        table = profile_space(
            space,
            base,
            target,
            runtime,
            folder=folder,
            seed=opened.config.seed,
            max_seconds=times.networks,
            max_error=settings.max_error,
            progress=progress,
        )
    space.save(folder / SPACE)
    artifacts.write_bytes(folder / GRAPH, without_weights(base))
    artifacts.write_bytes(folder / "base.onnx", base)
    model = TableModel.fit(table, space, base)
    result = _result(opened, space, target, table, base, multiple, model.relative_error)
    if (old := _unchanged(folder, result)) is not None:
        return old
    here = Device(base, space, target, neighbour_seconds=times.neighbours)
    with reporter.stage("Measuring the unpruned network", "networks"):
        measured = here.base(times.base)
    _keep_curves(folder, model, here, measured.ms, reporter)
    error_ms = math.hypot(measured.error_ms, table.build_spread * measured.ms)  # the next build is another
    result = replace(result, base_ms=measured.ms, base_error_ms=error_ms)
    result.save(folder / "profile.json")
    return result


def _result(
    opened: Project,
    space: SearchSpace,
    target: TargetProfile,
    table: LatencyTable,
    base: bytes,
    multiple: int,
    error: float,
) -> ProfileResult:
    """Everything but the unpruned network's latency."""
    return ProfileResult(
        model=space.model,
        profile=target.name,
        groups=len(space.groups),
        frozen=dict(space.frozen),
        networks=len(table.networks),
        kernels=len(table.kernels),
        channel_multiple=multiple,
        base_ms=0.0,
        base_error_ms=0.0,
        base_digest=artifacts.sha256(base),
        target=target.to_payload(),
        structure=opened.structure(),
        error_percent=100 * error if math.isfinite(error) else None,
        seconds=table.seconds,
        blocks=len(space.blocks),
    )


def _unchanged(folder: Path, result: ProfileResult) -> ProfileResult | None:
    """What an earlier visit found, if this one measured nothing new.

    All budgets and measurements are in the unit of the unpruned network's latency, so a second
    `hwprune profile` that measured nothing new must not move it.
    """
    from hwprune.latency.table import CURVES
    from hwprune.latency.width_sweep import WidthSweep

    with contextlib.suppress(ArtifactError):  # missing, damaged or old: measure again
        old = ProfileResult.load(folder / "profile.json")
        WidthSweep.load(folder / CURVES)
        if replace(result, base_ms=old.base_ms, base_error_ms=old.base_error_ms) == old:
            return old
    return None


def _keep_curves(folder: Path, model: TableModel, device: Device, base_ms: float, reporter: Reporter) -> None:
    """Latency over the width of each group, and the places where narrower is slower, measured."""
    from hwprune.latency.table import CURVES
    from hwprune.latency.width_sweep import MOST_MEASURED, WidthSweep, inversions, width_sweep

    space = model.space
    around = {"unpruned": space.full(), "middle": space.uniform(0.5)}
    most = min(MOST_MEASURED, max(1, device.affordable_pairs(base_ms)))
    with reporter.stage("Measuring neighbours that save little by being narrower", "networks"):
        found = inversions(model, around, device.neighbours, most)
    WidthSweep(curves=width_sweep(model), inversions=found).save(folder / CURVES)
    if confirmed := sum(bool(one.confirmed) for one in found):
        are = "1 narrower network is" if confirmed == 1 else f"{confirmed} narrower networks are"
        reporter.note(f"{are} slower than the next wider neighbour; see the report.")
