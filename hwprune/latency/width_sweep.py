"""Latency over width, layer by layer, and the places where a narrower network is not the faster one.

Choices are snapped to the device's channel multiple so that narrower is faster, or at least not slower. Where
that fails all the same, pruning there costs accuracy for nothing, and whoever reads a report must know.
"""

from __future__ import annotations

import itertools
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from hwprune import artifacts
from hwprune.payloads import misfits

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from hwprune.latency.measure import Measurement
    from hwprune.latency.model import TableModel
    from hwprune.structure.space import Widths

    Measure = Callable[[Sequence[Widths]], Sequence[Measurement]]

KIND, SCHEMA_VERSION = "width-curves", 1
MOST_MEASURED = 8  # pairs: those that are predicted to save least
LEAST_PERCENT = 0.1  # less than any measurement could tell: two widths on one step of the staircase
_CLEAR = 2.0  # standard errors by which a measured inversion must exceed its error


@dataclass(frozen=True, kw_only=True)
class WidthCurve:
    """Latency over the width of one channel group; all other groups keep their full width.

    Attributes:
        group: Name of the group.
        widths: The group's choices, ascending.
        network_ms: Predicted latency of the network at each.
        layers_us: Layer -> predicted microseconds of its kernel at each; only layers that the group changes.
    """

    group: str
    widths: tuple[int, ...]
    network_ms: tuple[float, ...]
    layers_us: dict[str, tuple[float, ...]]


@dataclass(frozen=True, kw_only=True)
class Inversion:
    """Two networks that differ by one step in one group, of which the narrower one may be slower.

    Attributes:
        group: Name of the group.
        narrow: Its smaller width.
        wide: Its next larger choice.
        around: Which network the other groups' widths are those of: `unpruned`, `middle` or `chosen`.
        predicted_percent: By how much the narrower network is predicted to be slower; negative: faster.
        measured_percent: By how much it was measured to be slower; None when it was not measured.
        error_percent: One standard error of `measured_percent`.
    """

    group: str
    narrow: int
    wide: int
    around: str
    predicted_percent: float
    measured_percent: float | None = None
    error_percent: float | None = None

    @property
    def confirmed(self) -> bool | None:
        """Whether measuring agreed; None when it was not measured."""
        if self.measured_percent is None or self.error_percent is None:
            return None
        return self.measured_percent > _CLEAR * self.error_percent


@dataclass(frozen=True, kw_only=True)
class WidthSweep:
    """All curves of a search space on a device, and the inversions that were found."""

    curves: tuple[WidthCurve, ...]
    inversions: tuple[Inversion, ...]

    def save(self, path: Path) -> None:
        """Write them as JSON."""
        artifacts.write_json(path, KIND, SCHEMA_VERSION, asdict(self))

    @classmethod
    def load(cls, path: Path) -> WidthSweep:
        """Read what `save` wrote.

        Raises:
            ArtifactError: Missing, damaged, or written by another schema version.
        """
        payload = artifacts.read_json(path, KIND, SCHEMA_VERSION, "hwprune profile")
        try:
            return cls(
                curves=tuple(_curve_of(curve) for curve in payload["curves"]),
                inversions=tuple(map(_inversion_of, payload["inversions"])),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise artifacts.broken(path, f"{type(error).__name__}: {error}", "hwprune profile") from error


def _inversion_of(payload: dict[str, Any]) -> Inversion:
    if wrong := misfits(payload, Inversion):
        raise ValueError(f"unexpected fields of an inversion: {', '.join(wrong)}")
    return Inversion(**payload)


def _curve_of(payload: dict[str, Any]) -> WidthCurve:
    layers = {str(name): tuple(map(float, us)) for name, us in payload["layers_us"].items()}
    curve = WidthCurve(
        group=str(payload["group"]),
        widths=tuple(map(int, payload["widths"])),
        network_ms=tuple(map(float, payload["network_ms"])),
        layers_us=layers,
    )
    if any(len(times) != len(curve.widths) for times in (curve.network_ms, *layers.values())):
        raise ValueError("a curve has other points than widths")
    return curve


def width_sweep(model: TableModel) -> tuple[WidthCurve, ...]:
    """Sweep each group over its choices."""
    return tuple(_curve(model, index) for index in range(len(model.space.groups)))


def _curve(model: TableModel, index: int) -> WidthCurve:
    group = model.space.groups[index]
    networks = _sweep(model.space.full(), index, group.choices)
    layers = {
        slot.layer: tuple(model.kernel_us(slot, networks).tolist())
        for slot in model.kernels.slots
        if slot.layer and index in {*slot.inputs.groups, *slot.outputs.groups}
    }
    network_ms = tuple(model.predict(networks).tolist())
    return WidthCurve(group=group.name, widths=group.choices, network_ms=network_ms, layers_us=layers)


def _sweep(widths: Widths, index: int, choices: Sequence[int]) -> np.ndarray:
    networks = np.tile(np.array(widths, dtype=np.int64), (len(choices), 1))
    networks[:, index] = choices
    return networks


def inversions(
    model: TableModel, around: dict[str, Widths], measure: Measure, most: int = MOST_MEASURED
) -> tuple[Inversion, ...]:
    """Look at all neighbours of some networks, and measure those that save least by being narrower.

    Args:
        model: The latency model.
        around: Networks in whose neighbourhood to look, by name.
        measure: Measures networks interleaved; asked for both networks of each pair.
        most: Pairs to measure.

    Returns:
        Those that are predicted to be slower by more than `LEAST_PERCENT`, or were measured to be; the
        largest prediction first.
    """
    steps = [step for name, widths in around.items() for step in _steps(model, name, widths)]
    steps.sort(key=lambda step: -step[0].predicted_percent)
    some = steps[:most]
    results = measure([widths for _, *pair in some for widths in pair]) if some else []
    looked_at = [_measured(one, *results[2 * i : 2 * i + 2]) for i, (one, *_) in enumerate(some)]
    found = [*looked_at, *(one for one, *_ in steps[most:])]
    return tuple(one for one in found if one.confirmed or one.predicted_percent > LEAST_PERCENT)


def _steps(model: TableModel, name: str, widths: Widths) -> list[tuple[Inversion, Widths, Widths]]:
    """(figures, the narrower network, the wider network) for each step of each group."""
    found = []
    for index, group in enumerate(model.space.groups):
        networks = model.space.canonical(_sweep(widths, index, group.choices))
        if (networks == networks[0]).all():  # inside a block that is left out
            continue
        slower = model.predict(networks)
        percents = (100 * (slower[:-1] / slower[1:] - 1)).tolist()
        for (narrow, wide), percent, pair in zip(
            itertools.pairwise(group.choices), percents, itertools.pairwise(networks.tolist()), strict=True
        ):
            one = Inversion(
                group=group.name, narrow=narrow, wide=wide, around=name, predicted_percent=percent
            )
            found.append((one, tuple(pair[0]), tuple(pair[1])))
    return found


def _measured(one: Inversion, narrow: Measurement, wide: Measurement) -> Inversion:
    ratio = narrow.ms / wide.ms
    error = ratio * float(np.hypot(narrow.relative_error, wide.relative_error))
    return replace(one, measured_percent=100 * (ratio - 1), error_percent=100 * error)
