"""What the verbs hand on and what reports read: plain data, written as JSON. No torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from hwprune.payloads import is_file_name
from hwprune.results.figures import LEAST, Figure, WithFigures
from hwprune.results.rows import CorrectionFacts, DeviceFacts, Epoch, FloatFile, Generation, Step
from hwprune.results.stored import Stored

__all__ = [
    "DeviceFacts",
    "Epoch",
    "ExportResult",
    "Figure",
    "FloatFile",
    "FrontResult",
    "Generation",
    "CorrectionFacts",
    "ProfileResult",
    "SearchResult",
    "Step",
    "Stored",
    "TrainResult",
]


@dataclass(frozen=True, kw_only=True)
class ProfileResult(Stored):
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
        blocks: Blocks found that may go.
    """

    kind: ClassVar[str] = "profile-result"
    later: ClassVar[dict[str, Any]] = {"blocks": 0}
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
    blocks: int = 0


@dataclass(frozen=True, kw_only=True)
class SearchResult(WithFigures, Stored):
    """The network that `search` chose, and how it was found.

    Attributes:
        model: Name of the model.
        widths: Channels of each group.
        groups: Name of each group.
        full_widths: Channels of each group in the unpruned network; 1 for each block behind them.
        figures: Latency on each device, MACs and parameters of both networks, and whatever else has a budget.
        binding: Name of the figure that comes nearest to its budget.
        base_meets_budget: Whether the unpruned network keeps all budgets, so that nothing was pruned.
        score: Top-1 on sub-val (0 to 1) with the weights of `score_kind`, or the share of MACs kept.
        score_kind: `inherited`, `pruningnet`, `macs`, or `own` where the caller of `hwprune.search` scores.
        images: Whether the project has images to train on.
        profile: Name of the first device's target profile.
        target: That target profile.
        seed: Seed of the search.
        structure: Stands for the model and its images, as in `ProfileResult`.
        pruningnet: File name of the PruningNet in the work folder, or "".
        pruningnet_history: Each epoch of it.
        history: Each generation.
        candidates: [score, latency on the first device in ms, predicted or measured] of every network
            evaluated.
        corrections: What measuring the leaders of each generation taught.
        inversions: Steps to a wider network that is predicted to be faster.
        base_score: The same of the unpruned network.
        layer_times: Layer -> predicted microseconds on the first device, of both networks; what is no layer
            stands in brackets, see `latency.breakdown`.
        held_out: [predicted, measured, standard error] in ms of the networks that judged the first device's
            latency model.
        devices: Conditions of each device, the first one first.
        command: The command that asked for this search.
        epochs: Epochs to be spent after the unpruned network; 0 where no such budget was given.
        spent: What of these PruningNet and the scoring of networks took; a front's points have all of it.
        score_error: Standard error of `score` by the number of images; 0 where it is no accuracy.
        metric: What `score` is called where `score_kind` is not `macs`: `top-1`, or the metric of a task of
            the user's own.
    """

    kind: ClassVar[str] = "search-result"
    later: ClassVar[dict[str, Any]] = {
        "blocks": [],
        "epochs": 0.0,
        "spent": {},
        "score_error": 0.0,
        "metric": "top-1",
    }
    made_by: ClassVar[str] = "hwprune search"
    schema_version: ClassVar[int] = 4

    model: str
    widths: tuple[int, ...]
    groups: tuple[str, ...]
    full_widths: tuple[int, ...]
    figures: tuple[Figure, ...]
    binding: str
    base_meets_budget: bool
    score: float
    score_kind: str
    images: bool
    profile: str
    target: dict[str, Any]
    seed: int
    structure: str
    pruningnet: str = ""
    pruningnet_history: tuple[Epoch, ...] = field(default=(), repr=False)
    history: tuple[Generation, ...] = field(default=(), repr=False)
    candidates: tuple[tuple[float, float], ...] = field(default=(), repr=False)
    corrections: tuple[CorrectionFacts, ...] = field(default=(), repr=False)
    inversions: tuple[Step, ...] = field(default=(), repr=False)
    base_score: float = 1.0
    layer_times: dict[str, tuple[float, float]] = field(default_factory=dict, repr=False)
    held_out: tuple[tuple[float, float, float], ...] = field(default=(), repr=False)
    devices: tuple[DeviceFacts, ...] = field(repr=False)
    command: str = ""
    blocks: tuple[str, ...] = ()
    epochs: float = 0.0
    spent: dict[str, float] = field(default_factory=dict)
    score_error: float = 0.0
    metric: str = "top-1"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.score_kind not in ("inherited", "pruningnet", "macs", "own"):
            raise ValueError(f"there is no score {self.score_kind!r}")
        count = len(self.groups)
        if not len(self.widths) == count + len(self.blocks) == len(self.full_widths):
            raise ValueError("widths and groups do not go together")
        if not all(map(is_file_name, (self.profile, self.pruningnet or "none"))):
            raise ValueError(f"{self.profile!r} or {self.pruningnet!r} is not the name of a file")
        pairs = zip(self.widths[:count], self.full_widths, strict=False)
        least = 0 if self.blocks else 1  # what a missing block would concatenate has no channels
        if not all(least <= width <= full for width, full in pairs):
            raise ValueError("a group without channels, or with more than the unpruned network's")
        if not set(self.widths[count:]) <= {0, 1}:
            raise ValueError("a block that is neither there nor left out")
        checks = (row[1] for one in self.corrections for row in one["checks"])
        if any(guess < LEAST for guess in (*checks, *(row[0] for row in self.held_out))):
            raise ValueError("a predicted latency is not above zero")
        latencies = {one.name for one in self.figures if one.unit == "ms"}
        if not self.devices or not latencies.issuperset(one["name"] for one in self.devices):
            raise ValueError("the devices are not those of the latencies")
        if self.binding and self.binding not in {one.name for one in self.figures}:
            raise ValueError(f"no figure is called {self.binding!r}")

    @property
    def epochs_left(self) -> float:
        """Epochs that are left of the budget for the final training; 0 where there was none."""
        return max(self.epochs - sum(self.spent.values()), 0.0)

    @property
    def left_out(self) -> tuple[str, ...]:
        """The blocks that the network does without."""
        gates = zip(self.blocks, self.widths[len(self.groups) :], strict=True)
        return tuple(name for name, gate in gates if not gate)

    @property
    def met(self) -> bool:
        """Whether every budget is kept."""
        return all(one.met for one in self.budgets)


@dataclass(frozen=True, kw_only=True)
class FrontResult(Stored):
    """Networks of which none is both slower and of a lower score than another, from one evolution.

    Attributes:
        budget: The range of budgets as the user wrote it.
        points: What a search found at each budget, the fastest first; dominated ones are left out.
        searched: Budgets that were searched, dominated and impossible ones included.
        structure: Stands for the model and its images, as in `ProfileResult`.
    """

    kind: ClassVar[str] = "search-front"
    made_by: ClassVar[str] = "hwprune search --latency LOW:HIGH"
    schema_version: ClassVar[int] = 2

    budget: str
    points: tuple[SearchResult, ...]
    searched: int
    structure: str

    @classmethod
    def _completed(cls, payload: dict[str, Any]) -> dict[str, Any]:
        """The same for each point."""
        points = payload.get("points")
        if isinstance(points, list):
            later = SearchResult.later
            points = [{**later, **one} if isinstance(one, dict) else one for one in points]
        return {**payload, "points": points}

    def __post_init__(self) -> None:
        made = tuple(one if isinstance(one, SearchResult) else SearchResult(**one) for one in self.points)
        object.__setattr__(self, "points", made)
        if not made:
            raise ValueError("no networks")

    @property
    def unmeasured(self) -> tuple[str, ...]:
        """Devices that were not at hand: their latencies are predicted, not measured."""
        return tuple(dict.fromkeys(name for point in self.points for name in point.unmeasured))


@dataclass(frozen=True, kw_only=True)
class TrainResult(Stored):
    """What `train` reached; the test images are read here and nowhere before.

    Attributes:
        model: Name of the model.
        widths: Channels of each group of the pruned network.
        base_top1: Test top-1 of the unpruned network, 0 to 1; or the metric of a task of the user's own.
        top1: The same of the pruned network.
        base_source: Where the unpruned network's weights came from.
        start: What the pruned network was trained from: `inherited`, `generated`, `scratch` or `base`.
        epochs: Epochs of the pruned network.
        test_images: Images behind the accuracies.
        seed: Seed of the training.
        structure: Stands for the model and its images, as in `ProfileResult`.
        history: Each epoch of the pruned network.
        base_history: Each epoch of the unpruned network; empty when its weights were given.
        data: The images as the project names them.
        test_digest: Stands for the classes and the labels of the test images: results with another one were
            scored on other images.
        normalisation: Whose figures the images were normalised by; "" in files that do not tell.
        mean: Of red, green and blue, subtracted from pixels in 0..1.
        std: What is then divided by.
        classes: Name of each class; empty in files that do not tell, as what follows.
        confusion: (class, class that the pruned network named, test images) of all pairs that occur.
        base_confusion: The same of the unpruned network.
        metric: What the two are called: `top-1`, or the metric of a task of the user's own.
        options: Options of `train` that decided its rate and batches, as they are typed; "" without.
    """

    kind: ClassVar[str] = "train-result"
    later: ClassVar[dict[str, Any]] = {
        "normalisation": "",
        "mean": [],
        "std": [],
        "classes": [],
        "confusion": [],
        "base_confusion": [],
        "metric": "top-1",
        "options": "",
    }
    made_by: ClassVar[str] = "hwprune train"
    schema_version: ClassVar[int] = 2

    model: str
    widths: tuple[int, ...]
    base_top1: float
    top1: float
    base_source: str
    start: str
    epochs: float
    test_images: int
    seed: int
    structure: str
    history: tuple[Epoch, ...] = field(default=(), repr=False)
    base_history: tuple[Epoch, ...] = field(default=(), repr=False)
    data: str
    test_digest: str
    normalisation: str = ""
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    classes: tuple[str, ...] = ()
    confusion: tuple[tuple[int, int, int], ...] = field(default=(), repr=False)
    base_confusion: tuple[tuple[int, int, int], ...] = field(default=(), repr=False)
    metric: str = "top-1"
    options: str = ""

    def __post_init__(self) -> None:
        for there, named, images in (*self.confusion, *self.base_confusion):
            if not (0 <= there < len(self.classes) and 0 <= named < len(self.classes) and images > 0):
                raise ValueError("a confusion of classes that there are not")
        if self.start not in ("inherited", "generated", "scratch", "base"):
            raise ValueError(f"there is no start {self.start!r}")


@dataclass(frozen=True, kw_only=True)
class ExportResult(WithFigures, Stored):
    """The exported file, as it was found on the device.

    Attributes:
        file: Path of the ONNX file, relative to the project folder; it may lie outside of that.
        bytes: Its size.
        precision: Number format of the file, the target profile's.
        figures: As in `SearchResult`, of the file itself: measured anew on every device that is at hand, with
            budgets in milliseconds of that session.
        max_difference: Largest difference of its outputs from torch's, relative to their scale; before the
            file was brought to an integer format.
        tolerance: The most that was allowed.
        widths: Channels of each group.
        profile: Name of the target profile.
        within_budget: Whether the file keeps every budget.
        weights: `trained`, or without images `given` (by the user), `random`, or `of the file` (an ONNX
            model's).
        top1: Test top-1 of the file, 0 to 1; None when its weights were not trained here.
        trained_top1: Test top-1 of the weights as they were trained; another than `top1` for integer formats.
        digest: SHA-256 of the file.
        structure: Stands for the model and its images, as in `ProfileResult`.
        calibration: What the scales of integers come from; "" for other formats.
        floats: The same network in 32-bit floats; None when the file is in them.
        metric: As in `TrainResult`.
        slow: What makes the file slow for no reason, with the cure of each.
    """

    kind: ClassVar[str] = "export-result"
    later: ClassVar[dict[str, Any]] = {"calibration": "", "floats": None, "metric": "top-1", "slow": ()}
    made_by: ClassVar[str] = "hwprune export --onnx"
    schema_version: ClassVar[int] = 3

    file: str
    bytes: int
    precision: str
    max_difference: float
    tolerance: float
    widths: tuple[int, ...]
    profile: str
    figures: tuple[Figure, ...]
    within_budget: bool
    weights: str
    top1: float | None
    trained_top1: float | None
    digest: str
    structure: str
    calibration: str = ""
    floats: FloatFile | None = None
    metric: str = "top-1"
    slow: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.floats and (self.floats["bytes"] < 1 or (self.floats["ratio"] or LEAST) < LEAST):
            raise ValueError("a size or a ratio is not above zero")
        if not is_file_name(self.profile):
            raise ValueError(f"{self.profile!r} is not the name of a target profile")

    @property
    def exit_code(self) -> int:
        """Of the command: 1 when the file was measured over a budget."""
        return 0 if self.within_budget else 1
