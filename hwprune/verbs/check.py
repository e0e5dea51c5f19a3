"""`hwprune check`: what can be done with a network, told before anything is measured for long."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hwprune.config import DataConfig, ModelConfig
from hwprune.errors import ModelError
from hwprune.progress import QUIET, Reporter
from hwprune.project.folder import Project
from hwprune.project.network import check_settings, traced, unpruned_onnx
from hwprune.project.own_task import remarks_on
from hwprune.units import parse_latency, parse_seconds

if TYPE_CHECKING:
    from hwprune.latency.model import TableModel
    from hwprune.latency.table import LatencyTable
    from hwprune.runtimes.base import TargetProfile
    from hwprune.structure.space import SearchSpace
    from hwprune.units import Quantity

_MAX_ERROR = 0.5  # of a model fitted to a handful of networks: it need not be good, it must exist
_LEAST_SECONDS = 0.5


@dataclass(frozen=True)
class CheckResult:
    """What `check` found.

    Attributes:
        model: Name of the model.
        profile: The target profile.
        input_shape: Shape of one input.
        groups: Channel groups that can be pruned.
        blocks: Blocks that may go.
        kept_blocks: Modules that look like blocks -> why they may not go.
        macs: Multiply-accumulates of the unpruned network, for one image.
        removable_macs: Share of them that can go: at the narrowest widths, without blocks that may go.
        frozen: Layer -> why its channels, or some of them, stay.
        checks: What was tried on the model; see `structure.proof`.
        trace_seconds: Time of tracing, without the checks.
        proof_seconds: Time of the checks.
        base_ms: Latency of the unpruned network.
        smallest_ms: Latency of that network.
        networks: Networks that were measured.
        kernels: Kernels of the network, by operation.
        error_percent: Cross-validated error of a latency model fitted to these networks; None when they are
            too few to tell.
        budget: The budget asked about, "" when none.
        budget_ms: The same in milliseconds, None when none.
        own: Whether it is the project's own model; another one needs `hwprune init` first.
    """

    model: str
    profile: str
    input_shape: tuple[int, ...]
    groups: int
    blocks: tuple[str, ...]
    macs: int
    removable_macs: float
    frozen: dict[str, str]
    checks: tuple[str, ...]
    trace_seconds: float
    proof_seconds: float
    base_ms: float
    smallest_ms: float
    networks: int
    kernels: dict[str, int] = field(default_factory=dict)
    error_percent: float | None = None
    budget: str = ""
    budget_ms: float | None = None
    own: bool = True
    kept_blocks: dict[str, str] = field(default_factory=dict)

    @property
    def reachable(self) -> bool:
        """Whether the narrowest network keeps the budget, if there is one."""
        return self.budget_ms is None or self.smallest_ms <= self.budget_ms

    @property
    def exit_code(self) -> int:
        """1 when the budget is out of reach."""
        return 0 if self.reachable else 1


def check(
    model: str = "",
    /,
    *,
    project: Path = Path("."),
    device: str = "",
    profile: str = "",
    image_size: int = 0,
    latency: str = "",
    max_time: str = "8s",
    reporter: Reporter = QUIET,
) -> CheckResult:
    """Trace a network, prove it, export it and measure a few pruned ones: seconds, before a long profile.

    Tells what is frozen and why, how much of the latency can go, and whether a budget can be kept. Writes
    nothing.

    Args:
        model: resnet20, torchvision:NAME, timm:NAME, path/to/file.py:factory, or an ONNX file; "" takes the
            project's.
        project: The project folder, for its settings.
        device: cpu or cuda:0; "" takes the project's.
        profile: A target profile, such as cpu-1t or cpu; "" takes the project's or the device's default.
        image_size: Side of the images in pixels; 0 takes the model's own.
        latency: A budget to ask about, such as 15ms or 30%.
        max_time: Time for the whole check, tracing and loading torch included. Eight networks are measured
            all the same, so a large network takes longer.
        reporter: Told about progress.

    Returns:
        What was found; the command ends with exit code 1 when the budget is out of reach.

    Raises:
        ModelError: The network cannot be pruned, exported or predicted; says why.

    Example:
        >>> hwprune.check(project=folder, latency="80%").reachable
        True
    """
    begun = time.monotonic()
    wanted = parse_latency(latency) if latency else None
    ends = begun + parse_seconds(max_time, "--max-time")
    opened = _opened(project, model, image_size)
    own = not model or (opened.config_path.exists() and model == Project(project).config.model.name)
    target, why = opened.choice(device, profile)
    if why:
        reporter.note(why)
    if opened.config.data.source:
        for note in remarks_on(opened):
            reporter.note(note)
    reporter.note(f"Tracing {opened.config.model.name}.")
    space = traced(opened)
    table, fitted, space = _measured(opened, space, target, ends, reporter)
    return replace(_result(space, table, fitted, target, latency, wanted), own=own)


def _result(
    space: SearchSpace,
    table: LatencyTable,
    fitted: TableModel,
    target: TargetProfile,
    budget: str,
    wanted: Quantity | None,
) -> CheckResult:
    latency_ms = table.networks["latency_ms"].to_numpy()
    full, smallest = (_row(table, np.array(one)) for one in (space.full(), space.smallest()))
    base_ms = float(latency_ms[full])
    macs = int(space.macs(space.full()))
    families: dict[str, int] = {}
    for spec in fitted.kernels.specs(space.full()):
        families[spec.family] = families.get(spec.family, 0) + 1
    return CheckResult(
        model=space.model,
        profile=target.name,
        input_shape=space.input_shape,
        groups=len(space.groups),
        blocks=tuple(block.name for block in space.blocks),
        macs=macs,
        removable_macs=1 - int(space.macs(space.smallest())) / max(macs, 1),
        frozen=dict(space.frozen),
        kept_blocks=dict(space.kept),
        checks=space.proof.checks,
        trace_seconds=space.proof.analysis_seconds,
        proof_seconds=space.proof.seconds,
        base_ms=base_ms,
        smallest_ms=float(latency_ms[smallest]),
        networks=len(table.networks),
        kernels=dict(sorted(families.items())),
        error_percent=100 * fitted.relative_error if np.isfinite(fitted.relative_error) else None,
        budget=budget,
        budget_ms=wanted.of(base_ms) if wanted else None,
    )


def _opened(project: Path, model: str, image_size: int) -> Project:
    """The project, or one like it for this model alone."""
    opened = Project(project)
    own = opened.config
    if model and model != own.model.name:
        opened = opened.with_config(
            model=ModelConfig(name=model), data=DataConfig(source="", image_size=image_size)
        )
    elif image_size:
        opened = opened.with_config(data=replace(own.data, image_size=image_size))
    check_settings(opened)
    return opened


def _measured(
    opened: Project, space: SearchSpace, target: TargetProfile, ends: float, reporter: Reporter
) -> tuple[LatencyTable, TableModel, SearchSpace]:
    """A small latency table, a model fitted to it, and the space with the usual choices; leaves no file.

    Raises:
        ModelError: A kernel of some network cannot be predicted.
    """
    from hwprune.latency.model import TableModel
    from hwprune.latency.profiler import profile_space
    from hwprune.latency.staircase import USUAL_MULTIPLE
    from hwprune.runtimes.registry import get_runtime

    runtime = get_runtime(target)
    base = runtime.lower(unpruned_onnx(opened, space, target.batch), target)
    with (
        tempfile.TemporaryDirectory(prefix="hwprune-check-") as folder,
        reporter.stage(f"Measuring a handful of networks on {target.name}", "networks") as progress,
    ):
        multiple = opened.config.profiling.channel_multiple
        # Finding the device's own steps takes seconds, and finer ones are no slower at the narrowest.
        space = space.with_choices(multiple or USUAL_MULTIPLE)
        table = profile_space(
            space,
            base,
            target,
            runtime,
            folder=Path(folder),
            max_seconds=_left(ends),
            max_error=_MAX_ERROR,
            progress=progress,
        )
        fitted = TableModel.fit(table, space, base)
    asked = [space.full(), space.uniform(0.5), space.smallest()]
    if not np.isfinite(fitted.predict(np.array(asked))).all():
        raise ModelError("The latency of this network cannot be predicted.", where=space.model)
    return table, fitted, space


def _left(ends: float) -> float:
    """Seconds until then, and a little where it is over: something is always measured."""
    return max(ends - time.monotonic(), _LEAST_SECONDS)


def _row(table: LatencyTable, widths: np.ndarray) -> int:
    return int(np.flatnonzero((table.widths == widths).all(axis=1))[0])
