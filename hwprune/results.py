"""What the verbs hand on and what reports read: plain data, written as JSON. No torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar, Self

from hwprune import artifacts

if TYPE_CHECKING:
    from pathlib import Path


class _Stored:
    """Saving and loading for the frozen dataclasses below."""

    kind: ClassVar[str]
    made_by: ClassVar[str]
    schema_version: ClassVar[int] = 1

    def save(self, path: Path) -> None:
        """Write the result as JSON, atomically."""
        artifacts.write_json(path, self.kind, self.schema_version, asdict(self))  # type: ignore[call-overload]

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a result.

        Raises:
            ArtifactError: Missing (names the command that makes it), damaged, or of another kind.
        """
        payload = artifacts.read_json(path, cls.kind, cls.schema_version, cls.made_by)
        names = {item.name for item in fields(cls)}  # type: ignore[arg-type]
        if set(payload) != names:
            raise artifacts.broken(path, f"unexpected fields {set(payload) ^ names}", cls.made_by)
        return cls(**{name: _tuples(value) for name, value in payload.items()})


def _tuples(value: Any) -> Any:
    """JSON knows lists only; these classes hold tuples."""
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value


@dataclass(frozen=True, kw_only=True)
class ProfileResult(_Stored):
    """What `profile` measured.

    Attributes:
        model: Name of the model.
        profile: Name of the target profile.
        groups: Channel groups found.
        frozen: Layer -> why it keeps its width.
        networks: Networks measured end to end.
        kernels: Rows of the latency table.
        channel_multiple: Step in channels at which this device's latency changes; 1 when there is none.
        base_ms: Measured latency of the unpruned network: the unit of all later measurements.
        base_error_ms: One standard error of it.
        base_digest: SHA-256 of the unpruned network's ONNX as it was profiled.
        target: The target profile.
        structure: Stands for the model, its images' size and its exclusions.
        error_percent: Mean error of predictions for networks that were held out, percent; None if unknown.
        seconds: Device time spent.
    """

    kind: ClassVar[str] = "profile-result"
    made_by: ClassVar[str] = "hwprune profile"

    model: str
    profile: str
    groups: int
    frozen: dict[str, str]
    networks: int
    kernels: int
    channel_multiple: int
    base_ms: float
    base_error_ms: float
    base_digest: str
    target: dict[str, Any]
    structure: str
    error_percent: float | None
    seconds: float


@dataclass(frozen=True, kw_only=True)
class SearchResult(_Stored):
    """The network that `search` chose, and how it was found.

    Attributes:
        model: Name of the model.
        widths: Channels of each group.
        groups: Name of each group.
        full_widths: Channels of each group in the unpruned network.
        budget: The budget as the user wrote it.
        limit_ms: The budget in milliseconds.
        predicted_ms: Latency that the model predicted for the network.
        measured_ms: Latency measured end to end on the device.
        error_ms: One standard error of `measured_ms`.
        base_ms: Measured latency of the unpruned network.
        base_meets_budget: Whether the unpruned network keeps the budget, so that nothing was pruned.
        score: What the judge gave: top-1 on sub-val (0 to 1), or the share of MACs kept.
        score_kind: `pruningnet` or `macs`.
        images: Whether the project has images to train on.
        macs: Multiply-accumulates of one image.
        params: Parameters.
        base_macs: The same of the unpruned network.
        base_params: The same of the unpruned network.
        profile: Name of the target profile.
        seed: Seed of the search.
        structure: Stands for the model and its images, as in `ProfileResult`.
        pruningnet: File name of the judge in the work folder, or "".
        pruningnet_history: Figures of each epoch of the judge.
        history: Figures of each generation.
        candidates: [score, predicted ms] of every network evaluated.
        corrections: What predictions were multiplied with after each generation.
        inversions: Steps to a wider network that is predicted to be faster, see `latency.curves.Inversion`.
    """

    kind: ClassVar[str] = "search-result"
    made_by: ClassVar[str] = "hwprune search"
    schema_version: ClassVar[int] = 2

    model: str
    widths: tuple[int, ...]
    groups: tuple[str, ...]
    full_widths: tuple[int, ...]
    budget: str
    limit_ms: float
    predicted_ms: float
    measured_ms: float
    error_ms: float
    base_ms: float
    base_meets_budget: bool
    score: float
    score_kind: str
    images: bool
    macs: int
    params: int
    base_macs: int
    base_params: int
    profile: str
    seed: int
    structure: str
    pruningnet: str = ""
    pruningnet_history: tuple[dict[str, Any], ...] = field(default=(), repr=False)
    history: tuple[dict[str, Any], ...] = field(default=(), repr=False)
    candidates: tuple[tuple[float, float], ...] = field(default=(), repr=False)
    corrections: tuple[float, ...] = field(default=(), repr=False)
    inversions: tuple[dict[str, Any], ...] = field(default=(), repr=False)


@dataclass(frozen=True, kw_only=True)
class TrainResult(_Stored):
    """What `train` reached; the test images are read here and nowhere before.

    Attributes:
        model: Name of the model.
        widths: Channels of each group of the pruned network.
        base_top1: Test top-1 of the unpruned network, 0 to 1.
        top1: Test top-1 of the pruned network, 0 to 1.
        base_source: Where the unpruned network's weights came from.
        start: What the pruned network was trained from: `scratch`, `generated` or `base`.
        epochs: Epochs of the pruned network.
        test_images: Images behind the accuracies.
        seed: Seed of the training.
        structure: Stands for the model and its images, as in `ProfileResult`.
        history: Figures of each epoch of the pruned network.
        base_history: Figures of each epoch of the unpruned network; empty when its weights were given.
    """

    kind: ClassVar[str] = "train-result"
    made_by: ClassVar[str] = "hwprune train"

    model: str
    widths: tuple[int, ...]
    base_top1: float
    top1: float
    base_source: str
    start: str
    epochs: int
    test_images: int
    seed: int
    structure: str
    history: tuple[dict[str, Any], ...] = field(default=(), repr=False)
    base_history: tuple[dict[str, Any], ...] = field(default=(), repr=False)


@dataclass(frozen=True, kw_only=True)
class ExportResult(_Stored):
    """The exported file, as it was found on the device.

    Attributes:
        file: Path of the ONNX file, relative to the project folder.
        bytes: Its size.
        precision: Number format of the file, the target profile's.
        max_difference: Largest difference of its outputs from torch's, relative to their scale; before the
            file was brought to an integer format.
        tolerance: The most that was allowed.
        widths: Channels of each group.
        profile: Name of the target profile.
        measured_ms: Latency of the file, measured end to end.
        error_ms: One standard error of it.
        base_ms: Latency of the unpruned network in the same session.
        limit_ms: The budget in that session's milliseconds.
        within_budget: Whether the file runs within the budget.
        budget: The budget as the user wrote it.
        weights: `trained`, or without images `given` (by the user) or `random`.
        top1: Test top-1 of the file, 0 to 1; None when its weights were not trained here.
        trained_top1: Test top-1 of the weights as they were trained; another than `top1` for integer formats.
        digest: SHA-256 of the file.
        structure: Stands for the model and its images, as in `ProfileResult`.
    """

    kind: ClassVar[str] = "export-result"
    made_by: ClassVar[str] = "hwprune export --onnx"
    schema_version: ClassVar[int] = 2

    file: str
    bytes: int
    precision: str
    max_difference: float
    tolerance: float
    widths: tuple[int, ...]
    profile: str
    measured_ms: float
    error_ms: float
    base_ms: float
    limit_ms: float
    within_budget: bool
    budget: str
    weights: str
    top1: float | None
    trained_top1: float | None
    digest: str
    structure: str
