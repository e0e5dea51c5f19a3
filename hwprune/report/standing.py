"""Whether a result is what was asked for, by budget and by accuracy, and what to do next."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

from hwprune.results import metrics
from hwprune.units import format_ms

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hwprune.results import ExportResult, Figure, SearchResult, TrainResult

TOLD, MAX_DROP = 5.0, 15.0  # points of test top-1 lost: told from here on; beyond the second, no success
_LITTLE = 1.0  # points that a number format may cost


class Standing(StrEnum):
    """How a result stands."""

    GOOD = "good"
    COSTLY = "costly"  # the budget is kept, and accuracy was lost that should be told
    LOST = "accuracy lost"  # the budget is kept by a network that lost more accuracy than allowed
    MISSED = "missed"  # the budget is not kept


def met(search: SearchResult, export: ExportResult | None) -> bool:
    """Whether the budget is kept, by what was measured last."""
    if export:
        return export.within_budget
    return search.base_meets_budget or search.met


def last_top1(train: TrainResult, export: ExportResult | None) -> float:
    """Test top-1 of the pruned network: of its file, where that was scored."""
    return train.top1 if export is None or export.top1 is None else export.top1


def points_lost(train: TrainResult | None, export: ExportResult | None) -> float:
    """Points of the test metric lost against the unpruned network, percent where it is no share."""
    return 0.0 if train is None else metrics.points_lost(train.base_top1, last_top1(train, export))


def standing(
    search: SearchResult, train: TrainResult | None, export: ExportResult | None, max_drop: float = MAX_DROP
) -> Standing:
    """How the result stands.

    Args:
        search: The chosen network.
        train: Its accuracies, if trained.
        export: The exported file, if exported.
        max_drop: Points of test top-1 that may be lost.
    """
    lost = points_lost(train, export)
    if not met(search, export):
        return Standing.MISSED
    if lost > max_drop:
        return Standing.LOST
    return Standing.COSTLY if lost > min(TOLD, max_drop) else Standing.GOOD


def advice(
    search: SearchResult, train: TrainResult | None, export: ExportResult | None, max_drop: float = MAX_DROP
) -> tuple[str, ...]:
    """What to do next, the first thing first; see `standing` for the arguments."""
    how = standing(search, train, export, max_drop)
    lines: list[str] = []
    if search.images and train is None:
        lines.append("Train the network: `hwprune train`.")
    elif export is None:
        lines.append("Write the file and measure it: `hwprune export --onnx`.")
    if how == Standing.MISSED:
        lines.append(
            "Measure again on a quiet machine (`hwprune doctor` shows what disturbs), or search again "
            "under a smaller budget."
        )
    elif how != Standing.GOOD and train is not None:
        lines += _for_accuracy(search, train)
    return (*lines, *(_for_format(export) if export else ()))


def _for_accuracy(search: SearchResult, train: TrainResult) -> Iterator[str]:
    """What brings accuracy back: training first, for it needs no new search."""
    if train.start == "scratch":
        yield "Start from the unpruned network's weights: `hwprune train --start inherited`."
    yield f"Train longer: `hwprune train --epochs {2 * train.epochs:.3g}`; it was {train.epochs:.3g} epochs."
    if (larger := _larger(search.latency)) is not None:
        yield f"Allow more latency: `hwprune search --latency {larger}`; it was {search.latency.budget}."
    if search.epochs:
        yield f"Give the search more epochs: `--epochs {2 * search.epochs:.3g}`; it was {search.epochs:.3g}."
    if search.score_kind == "macs":
        yield 'Score networks by images, not by MACs: `score = "auto"` under [search].'


def _larger(latency: Figure) -> str | None:
    """A budget halfway from this one to the unpruned network."""
    if latency.limit is None or latency.limit >= latency.base:
        return None
    half = (latency.limit + latency.base) / 2
    relative = latency.budget.endswith("%")
    return f"{100 * half / latency.base:.0f}%" if relative else format_ms(half).replace(" ", "")


def _for_format(export: ExportResult) -> Iterator[str]:
    """Whether a file in another number format than 32-bit floats is worth it."""
    if export.floats is None:
        return
    if (export.floats["ratio"] or 0.0) > 1:
        yield f"{export.precision} is not faster on this device: export without `--int8`."
    elif export.top1 is not None and export.trained_top1 is not None:
        points = metrics.points_lost(export.trained_top1, export.top1)
        if points > _LITTLE:
            unit = metrics.loss_words(export.trained_top1, export.top1)
            yield (
                f"{export.precision} alone costs {points:.1f} {unit}: export without `--int8`, or take the "
                "scales from images as the network will see them, `--int8 --calibration DIR`."
            )
