"""What `hwprune bench` found, as it is kept for later runs."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

from hwprune import artifacts
from hwprune.errors import MismatchError
from hwprune.gate.verdict import Check, Estimate, Limit, Verdict, overall
from hwprune.latency.table import condition_differences
from hwprune.results import Stored

if TYPE_CHECKING:
    from pathlib import Path

_CONDITIONS = ("profile", "device", "runtime")


@dataclass(frozen=True, kw_only=True)
class Timed:
    """One network and its latency.

    Attributes:
        file: The ONNX file, as it was named.
        sha256: Digest of that file.
        inputs: What it reads, such as `float[1, 3, 224, 224]`.
        ms: Latency of one run of a whole batch, milliseconds.
        error: Relative standard error of `ms`; the spread of the machine's own speed is in it.
    """

    file: str
    sha256: str
    inputs: tuple[str, ...]
    ms: float
    error: float


@dataclass(frozen=True, kw_only=True)
class Elsewhere:
    """The network under another target profile, timed interleaved with the one that was asked for.

    Attributes:
        profile: Name of the target profile.
        runtime: The runtime and its version.
        ms: Latency, milliseconds.
        error: Relative standard error of `ms`.
        ratio: Latency relative to that under the profile that was asked for.
    """

    profile: str
    runtime: str
    ms: float
    error: float
    ratio: float


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """A latency relative to another one.

    Attributes:
        value: The ratio.
        error: Relative standard error of it.
    """

    value: float
    error: float

    def over(self, other: Ratio) -> Ratio:
        """How two latencies stand to each other that are known relative to the same third one."""
        return Ratio(value=self.value / other.value, error=math.hypot(self.error, other.error))


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """What a network was scored.

    Attributes:
        top1: Test top-1 of its file, 0 to 1.
        baseline_top1: That of the baseline on the same images; None without one.
        images: Test images.
        data: The images as they were named.
        test_digest: Stands for the classes and the labels of the test images.
    """

    top1: float
    baseline_top1: float | None
    images: int
    data: str
    test_digest: str

    @property
    def figures(self) -> dict[str, float]:
        """The accuracy as limits have it: the share of errors, and the points lost against the baseline."""
        figures = {"errors": round(1 - self.top1, 9)}
        if self.baseline_top1 is not None:
            figures["points"] = round(100 * (self.baseline_top1 - self.top1), 7)
        return figures


@dataclass(frozen=True, kw_only=True)
class BenchResult(Stored):
    """A network measured against its baseline.

    Attributes:
        verdict: The gravest of all checks.
        model: The network.
        baseline: What it is compared with; None without a baseline.
        compared_with: `model` for a baseline measured in the same run, `figures` for one that is known by its
            stored figures, "" without a baseline.
        ratio: Latency relative to the baseline's; None without one.
        workload: Latency relative to that of `latency.noise.reference_workload`: how figures of different
            hours are compared, for the machine is not equally fast in both. None where it was not asked for.
        workload_sha256: Digest of that network; "" where it was not asked for.
        checks: The limits and what was found.
        noise: Relative spread of the reference network over the session.
        stolen: Share of the session's time in which other programs had the core.
        blocks: Interleaved blocks behind the figures.
        trusted: Whether the machine was quiet enough.
        baseline_trusted: Whether it was when the baseline's stored figures were taken; true without these.
        percentiles_ms: Of all single runs, as they came.
        conditions: Target profile, device and runtime.
        libraries: Versions.
        date: When it was measured, UTC.
        accuracy: What it was scored; None where no images were named.
        elsewhere: The network under other target profiles.
        slow: What makes the file slow for no reason, with the cure of each.
    """

    kind: ClassVar[str] = "bench-result"
    later: ClassVar[dict[str, Any]] = {"accuracy": None, "elsewhere": (), "slow": ()}
    made_by: ClassVar[str] = "hwprune bench MODEL.onnx --output FILE"
    schema_version: ClassVar[int] = 2

    verdict: Verdict
    model: Timed
    baseline: Timed | None
    compared_with: str
    ratio: Ratio | None
    workload: Ratio | None
    workload_sha256: str
    checks: tuple[Check, ...]
    noise: float
    stolen: float
    blocks: int
    trusted: bool
    baseline_trusted: bool
    percentiles_ms: dict[str, float]
    conditions: dict[str, Any]
    libraries: dict[str, str]
    date: str
    accuracy: Accuracy | None = None
    elsewhere: tuple[Elsewhere, ...] = ()
    slow: tuple[str, ...] = ()

    @property
    def exit_code(self) -> int:
        """The exit code of the command."""
        return self.verdict.exit_code

    @property
    def deciding(self) -> Check | None:
        """The check behind the verdict; None when nothing was limited."""
        return next((check for check in self.checks if check.verdict == self.verdict), None)

    @classmethod
    def _completed(cls, payload: dict[str, Any]) -> dict[str, Any]:
        # names of version 0.1
        older = {"yardstick": "workload", "yardstick_sha256": "workload_sha256"}
        return super()._completed({older.get(name, name): value for name, value in payload.items()})

    @classmethod
    def _made(cls, fields: dict[str, Any]) -> Self:
        made = {**fields, "model": _timed(fields["model"])}
        made["baseline"] = None if made["baseline"] is None else _timed(made["baseline"])
        for name in ("ratio", "workload"):
            made[name] = None if made[name] is None else _ratio(made[name])
        made["accuracy"] = None if made["accuracy"] is None else _accuracy(made["accuracy"])
        made["elsewhere"] = tuple(map(_elsewhere, made["elsewhere"]))
        made["checks"] = tuple(map(_check, made["checks"]))
        made["verdict"] = Verdict(made["verdict"])
        if made["verdict"] != overall(made["checks"]):
            raise ValueError("its verdict does not follow from its checks")
        if made["compared_with"] not in ("model", "figures", ""):
            raise ValueError("it does not say what it was compared with")
        _check_conditions(made["conditions"])
        return cls(**made)

    def check_comparable(self, now: dict[str, Any], workload_sha256: str, where: Path) -> None:
        """Refuse to compare with figures of another machine, other settings or another reference workload.

        Args:
            now: The conditions of the present run.
            workload_sha256: Digest of the reference workload of the present run.
            where: The file that these figures are from.

        Raises:
            MismatchError: Names what differs.
            ArtifactError: They are not related to the reference workload.
        """
        if self.workload is None:
            raise artifacts.broken(where, "no reference workload", self.made_by)
        different = condition_differences(_plain(now), _plain(self.conditions))
        if self.workload_sha256 != workload_sha256:
            different.append("another reference workload")
        if different:
            raise MismatchError(
                "The baseline's figures were measured under other conditions.",
                where=where,
                got=f"here {'; '.join(different)}",
                allowed="the same device, runtime, target profile and reference workload",
                do=f"keep the baseline's model ({self.model.file}) beside its figures, and both are measured "
                "here, interleaved; or measure it on this machine: hwprune bench BASELINE.onnx --output FILE",
            )


def _plain(conditions: dict[str, Any]) -> dict[str, Any]:
    """As JSON has it: a list and a tuple are the same."""
    plain: dict[str, Any] = json.loads(json.dumps(conditions))
    return plain


def _check_conditions(conditions: dict[str, Any]) -> None:
    if wrong := [name for name in _CONDITIONS if not isinstance(conditions.get(name), dict)]:
        raise ValueError(f"conditions.{wrong[0]} is not a table")
    runtime = conditions["runtime"]
    if not all(isinstance(runtime.get(name), str) for name in ("runtime", "version")):
        raise ValueError("conditions.runtime names no runtime")


def _timed(fields: dict[str, Any]) -> Timed:
    timed = Timed(**fields)
    if not (0 < timed.ms < math.inf and 0 <= timed.error < math.inf):
        raise ValueError("a latency is not above zero")
    return timed


def _elsewhere(fields: dict[str, Any]) -> Elsewhere:
    found = Elsewhere(**fields)
    if not all(0 < value < math.inf for value in (found.ms, found.ratio)) or not 0 <= found.error < math.inf:
        raise ValueError("a latency is not above zero")
    return found


def _accuracy(fields: dict[str, Any]) -> Accuracy:
    scored = Accuracy(**fields)
    if not (0 <= scored.top1 <= 1 and 0 <= (scored.baseline_top1 or 0.0) <= 1 and scored.images > 0):
        raise ValueError("an accuracy is not between 0 and 1")
    return scored


def _ratio(fields: dict[str, Any]) -> Ratio:
    ratio = Ratio(**fields)
    if not (0 < ratio.value < math.inf and 0 <= ratio.error < math.inf):
        raise ValueError("a ratio is not above zero")
    return ratio


def _check(fields: dict[str, Any]) -> Check:
    limit = {**fields["limit"], "breach": Verdict(fields["limit"]["breach"])}
    return Check(limit=Limit(**limit), found=Estimate(**fields["found"]), verdict=Verdict(fields["verdict"]))
