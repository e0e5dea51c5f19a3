"""Several results side by side, and in what they cannot be compared."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hwprune import artifacts
from hwprune.latency.table import condition_differences
from hwprune.report.facts import KIND, SCHEMA_VERSION
from hwprune.report.standing import last_top1, met
from hwprune.report.verdict import verdict
from hwprune.report.words import START_WORDS
from hwprune.results import ExportResult, SearchResult, TrainResult

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from hwprune.results import DeviceFacts, Figure

_OTHER_SPEED = 0.05  # unpruned latencies further apart than this were taken at other speeds of the machine


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One result of a comparison.

    Attributes:
        name: What the comparison calls it.
        model: Name of the model.
        met: Whether the budget is met, by what was measured last.
        verdict: The sentence of its report.
        budget: All budgets as one text.
        figures: Of the exported file, or of the network that was searched when nothing is exported.
        base_top1: Test top-1 of the unpruned network, 0 to 1; None when it was not trained.
        top1: The same of the pruned network, or of its file.
        images: The test images, for a reader; "" when none were looked at.
        test_digest: Stands for them.
        training: How it was trained, for a reader.
        device: Conditions of the first device, as in `SearchResult.devices`.
    """

    name: str
    model: str
    met: bool
    verdict: str
    budget: str
    figures: tuple[Figure, ...]
    base_top1: float | None
    top1: float | None
    images: str
    test_digest: str
    training: str
    device: DeviceFacts

    @property
    def latency(self) -> Figure:
        """The latency on the first device."""
        return next(one for one in self.figures if one.unit == "ms")

    @property
    def how(self) -> str:
        """`measured`, or `predicted`."""
        return "measured" if self.latency.is_measured else "predicted"


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Results side by side.

    Attributes:
        entries: The results.
        latency_differs: Why latencies in ms cannot be compared; empty when they can.
        accuracy_differs: Why accuracies cannot be compared; empty when they can.
        remarks: What else to know.
        files: Files that were written.
    """

    entries: tuple[Entry, ...]
    latency_differs: tuple[str, ...]
    accuracy_differs: tuple[str, ...]
    remarks: tuple[str, ...]
    files: tuple[str, ...] = ()


def entry(name: str, search: SearchResult, train: TrainResult | None, export: ExportResult | None) -> Entry:
    """The entry for what the stages of a project left."""
    known = export or search
    return Entry(
        name=name,
        model=search.model,
        met=met(search, export),
        verdict=verdict(search, train, export),
        budget=known.budget,
        figures=known.figures,
        base_top1=train.base_top1 if train else None,
        top1=last_top1(train, export) if train else None,
        images=f"{train.test_images} of {train.data}" if train else "",
        test_digest=train.test_digest if train else "",
        training=f"{train.epochs:.3g} epochs from {START_WORDS[train.start]}" if train else "not trained",
        device=search.devices[0],
    )


def read_entry(name: str, path: Path) -> Entry:
    """The entry for a report.json.

    Raises:
        ArtifactError: Missing, damaged, or written with another schema version.
    """
    payload = artifacts.read_json(path, KIND, SCHEMA_VERSION, "hwprune report")
    try:
        train, export = payload["train"], payload["export"]
        return entry(
            name,
            SearchResult.from_payload(payload["search"]),
            None if train is None else TrainResult.from_payload(train),
            None if export is None else ExportResult.from_payload(export),
        )
    except (KeyError, ValueError) as error:
        raise artifacts.broken(path, f"{type(error).__name__}: {error}", "hwprune report") from error


def comparison(entries: Sequence[Entry]) -> Comparison:
    """Compare every result with the first."""
    first, others = entries[0], entries[1:]
    return Comparison(
        entries=tuple(entries),
        latency_differs=_each(_latency_differs(first, other) for other in others),
        accuracy_differs=_each(_accuracy_differs(first, other) for other in others),
        remarks=_each(_remarks(first, other) for other in others),
    )


def _each(found: Iterable[list[str]]) -> tuple[str, ...]:
    return tuple(itertools.chain.from_iterable(found))


def _latency_differs(first: Entry, other: Entry) -> list[str]:
    lines = []
    if first.how != other.how:
        lines.append(f"{other.name} is {other.how}, {first.name} is {first.how}")
    if conditions := condition_differences(other.device, first.device):
        lines.append(
            f"{other.name} is for another device, runtime or profile than {first.name}: "
            + "; ".join(conditions)
        )
    return lines


def _accuracy_differs(first: Entry, other: Entry) -> list[str]:
    if first.test_digest == other.test_digest:
        return []
    untrained = [one.name for one in (first, other) if not one.test_digest]
    if untrained:
        return [f"{' and '.join(untrained)} was not trained, so its accuracy is not known"]
    return [f"{other.name} was scored on other images ({other.images}) than {first.name} ({first.images})"]


def _remarks(first: Entry, other: Entry) -> list[str]:
    lines = []
    if first.model != other.model:
        lines.append(
            f"{other.name} is a {other.model}, {first.name} a {first.model}: shares of the unpruned network "
            "are of different networks."
        )
    elif not _latency_differs(first, other):
        apart = other.latency.base / first.latency.base - 1
        if abs(apart) > _OTHER_SPEED:
            lines.append(
                f"The unpruned network took {first.latency.text(first.latency.base)} for {first.name} and "
                f"{other.latency.text(other.latency.base)} for {other.name}: the machine ran at another "
                "speed, so compare shares of the unpruned network, not milliseconds."
            )
    if first.test_digest and other.test_digest and first.training != other.training:
        lines.append(
            f"{other.name} was trained otherwise ({other.training}) than {first.name} ({first.training})."
        )
    return lines
