"""Rows of results: tables of a few fields, kept as they stand in JSON. `payloads.misfits` checks them."""

from __future__ import annotations

from typing import Any, TypedDict


class Epoch(TypedDict):
    """One epoch of a training, see `training.history.EpochFigures`."""

    epoch: int
    loss: float
    top1: float | None
    lr: float
    seconds: float


class Generation(TypedDict):
    """One generation of a search, see `evolution.search.GenerationSummary`.

    None stands where corrections left no network inside the budget.
    """

    generation: int
    evaluated: int
    best_score: float | None
    mean_score: float
    budget_use: float | None


class CorrectionFacts(TypedDict):
    """What measuring the leaders of a generation taught.

    Attributes:
        factors: What the predictions of each budget were multiplied with from then on.
        measured: (widths, figures by name) of each leader.
        checks: (name, predicted, measured, standard error) of each of those figures.
        refitted: Budgets whose latency model was refitted to all that was measured.
    """

    factors: dict[str, float]
    measured: tuple[tuple[tuple[int, ...], dict[str, float]], ...]
    checks: tuple[tuple[str, float, float, float | None], ...]
    refitted: tuple[str, ...]


class Step(TypedDict):
    """Two networks of which the narrower one may be slower, see `latency.width_sweep.Inversion`."""

    group: str
    narrow: int
    wide: int
    around: str
    predicted_percent: float
    measured_percent: float | None
    error_percent: float | None


class FloatFile(TypedDict):
    """The network of an exported file in another number format, in 32-bit floats.

    Attributes:
        bytes: Size of its file, without metadata.
        ratio: Latency of the exported file relative to its, in one session; None when not measured.
        error: Standard error of `ratio`.
    """

    bytes: int
    ratio: float | None
    error: float | None


class _Dated(TypedDict, total=False):
    date: str


class DeviceFacts(_Dated):
    """A device and what its latency table was measured under: of the table's provenance, and two more.

    Attributes:
        name: As the latencies on it are called.
        command: What measured the table; "" for a table from elsewhere.
    """

    name: str
    command: str
    profile: dict[str, Any]
    device: dict[str, Any]
    runtime: dict[str, Any]
    settings: dict[str, Any]
    libraries: dict[str, Any]
