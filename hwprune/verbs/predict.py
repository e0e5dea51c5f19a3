"""`hwprune predict`: ask the latency table about any widths, without running anything."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hwprune.errors import UsageError
from hwprune.progress import QUIET, Reporter
from hwprune.project.folder import Project
from hwprune.project.targets import project_target
from hwprune.searching.latency_model import LatencyModel

if TYPE_CHECKING:
    from hwprune.structure.space import SearchSpace, Widths


@dataclass(frozen=True)
class PredictResult:
    """What the table says about some networks.

    Attributes:
        profile: Name of the target profile.
        base_ms: Measured latency of the unpruned network.
        rows: For each network: its name, widths, predicted latency (ms), MACs and parameters.
        errors_ms: One standard error of each predicted latency.
    """

    profile: str
    base_ms: float
    rows: tuple[tuple[str, tuple[int, ...], float, int, int], ...]
    errors_ms: tuple[float, ...]


def predict(
    *,
    project: Path = Path("."),
    table: Path | None = None,
    uniform: tuple[str, ...] = (),
    widths: tuple[str, ...] = (),
    device: str = "",
    profile: str = "",
    reporter: Reporter = QUIET,
) -> PredictResult:
    """Predict the latency of networks from the table; predicted, not measured.

    Args:
        project: The project folder.
        table: The folder of a latency table to ask in place of the project's; it may be another device's.
        uniform: Networks with all groups at a share of their width, such as 50% 75%.
        widths: Networks by their widths, one number for each group, such as 16,32,64; then, unless all blocks
            are there, 1 or 0 for each block.
        device: cpu or cuda:0; "" takes the project's.
        profile: A target profile; "" takes the project's or the device's default.
        reporter: Told about progress.

    Returns:
        Predictions for the networks asked for; without any, for 25, 50, 75 and 100 % uniform widths.

    Raises:
        UsageError: Widths that the space does not have.
        ArtifactError: `hwprune profile` has not been run here.

    Example:
        >>> hwprune.predict(project=folder, uniform=("50%",)).profile
        'fake'
    """
    if table is not None and (device or profile):
        raise UsageError(
            "A table names its own device and profile.",
            got=device or profile,
            allowed="--table without --device and --profile",
        )
    if table is None:
        target = project_target(Project(project), device, profile, reporter)
    else:
        target = LatencyModel.load(table)
    model, space = target.model, target.space
    named = _networks(space, uniform or ("25%", "50%", "75%", "100%") * (not widths), widths)
    networks = np.array([net for _, net in named])
    latencies, errors_ms = model.predict(networks), model.uncertainty_ms(networks)
    rows = tuple(
        (text, net, float(ms), int(space.macs(net)), int(space.params(net)))
        for (text, net), ms in zip(named, latencies, strict=True)
    )
    return PredictResult(target.name, target.base_ms, rows, tuple(errors_ms.tolist()))


def _networks(
    space: SearchSpace, uniform: tuple[str, ...], widths: tuple[str, ...]
) -> list[tuple[str, Widths]]:
    networks = []
    for text in uniform:
        try:
            ratio = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
        except ValueError:
            ratio = 0.0
        if not 0 < ratio <= 1:
            raise UsageError("--uniform is not a share of the width.", got=repr(text), allowed="50% or 0.5")
        networks.append((f"uniform {ratio:.0%}", space.uniform(ratio)))
    for text in widths:
        try:
            numbers = [int(part) for part in text.split(",")]
        except ValueError as error:
            raise UsageError(
                "--widths is not a list of numbers.", got=repr(text), allowed="16,32,64"
            ) from error
        gates = [1] * len(space.blocks) if len(numbers) == len(space.groups) else []
        networks.append((text, space.check([*numbers, *gates])))
    return networks
