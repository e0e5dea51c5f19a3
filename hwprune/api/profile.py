"""`hwprune profile`: trace the model and build the latency table of a device."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from hwprune import artifacts
from hwprune.api.project import Project
from hwprune.errors import UsageError
from hwprune.progress import QUIET, Reporter
from hwprune.results import ProfileResult
from hwprune.units import parse_seconds

if TYPE_CHECKING:
    from hwprune.structure.space import SearchSpace


def profile(
    *,
    project: Path = Path("."),
    device: str = "",
    profile: str = "",
    model: str = "",
    max_time: str = "",
    max_error: str = "",
    reporter: Reporter = QUIET,
) -> ProfileResult:
    """Measure the device and build its latency table; run it again to go on where it was stopped.

    Args:
        project: The project folder; without hwprune.toml the embedded example is used.
        device: cpu or cuda:0; "" takes the project's.
        profile: A target profile, such as cpu-1t or cpu; "" takes the project's or the device's default.
        model: Begin a project for this model in an empty folder, without images (latency only).
        max_time: Device time to spend, such as 120s or 5m.
        max_error: Mean error at which to stop earlier, such as 3%.
        reporter: Told about progress.
    """
    opened = _open(project, model)
    settings = opened.config.profiling
    if max_time:
        settings = replace(settings, max_seconds=parse_seconds(max_time, "--max-time"))
    if max_error:
        settings = replace(settings, max_error=_fraction(max_error))
    return build_table(opened.with_config(profiling=settings), device, profile, reporter)


def _open(folder: Path, model: str) -> Project:
    """The project; `--model` makes a new one when the folder has none."""
    opened = Project(folder)
    if not model or model == opened.config.model.name:
        return opened
    if opened.config_path.exists():
        raise UsageError(
            "This folder is a project for another model.",
            where=opened.config_path,
            got=model,
            allowed=opened.config.model.name,
            do="use another --project folder",
        )
    from hwprune.api.init import init

    init(project=folder, model=model, data="")
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


def build_table(opened: Project, device: str, profile_name: str, reporter: Reporter) -> ProfileResult:
    """Trace, export and profile; see `profile`."""
    from hwprune.api.device import Device
    from hwprune.export import export_base
    from hwprune.latency.model import LatencyModel
    from hwprune.latency.profiler import profile_space
    from hwprune.latency.staircase import channel_multiple
    from hwprune.runtimes.registry import get_runtime

    target = opened.target(device, profile_name)
    runtime = get_runtime(target)
    space = trace_project(opened)
    multiple = channel_multiple(runtime, target)
    space = space.with_choices(multiple)
    shape = (target.batch, *space.input_shape[1:])
    base = export_base(opened.new_model(), shape)
    folder = opened.table_folder(target)
    settings = opened.config.profiling
    with reporter.stage(f"Profiling {space.model} on {target.name}", "networks") as progress:
        table = profile_space(
            space,
            base,
            target,
            runtime,
            folder=folder,
            seed=opened.config.seed,
            max_seconds=settings.max_seconds,
            max_error=settings.max_error,
            progress=progress,
        )
    space.save(opened.path("space.json"))
    artifacts.write_bytes(opened.path("base.onnx"), base)
    reporter.note("Measuring the unpruned network.")
    measured = Device(opened, space, target).base()
    result = ProfileResult(
        model=space.model,
        profile=target.name,
        groups=len(space.groups),
        frozen=dict(space.frozen),
        networks=len(table.networks),
        kernels=len(table.kernels),
        channel_multiple=multiple,
        base_ms=measured.ms,
        base_error_ms=measured.error_ms,
        error_percent=100 * LatencyModel.fit(table, space, base).relative_error,
        seconds=table.seconds,
    )
    result.save(folder / "profile.json")
    return result


def trace_project(opened: Project) -> SearchSpace:
    """The search space of the project's model, with the paper's raw choices."""
    import torch

    from hwprune.structure.trace import trace

    size = opened.image_size
    return trace(
        opened.new_model(),
        torch.zeros(1, 3, size, size),
        name=opened.config.model.name,
        exclude=opened.config.model.exclude,
    )
