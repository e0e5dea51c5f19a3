"""`hwprune bench`: the gate for CI. Measure a network against a baseline or a budget, and give a verdict."""

from __future__ import annotations

import contextlib
import math
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hwprune import artifacts
from hwprune.api.bench_inputs import (
    Baseline,
    ModelFile,
    check_inputs,
    check_outputs,
    find_baseline,
    find_model,
    located,
    parse_limits,
    target_of,
)
from hwprune.environment import device_fingerprint, library_versions
from hwprune.errors import DeviceError, ModelError
from hwprune.gate.files import junit as junit_text
from hwprune.gate.files import markdown as markdown_text
from hwprune.gate.result import BenchResult, Timed
from hwprune.gate.verdict import Verdict, estimate, judge_all, overall
from hwprune.latency.measure import measure
from hwprune.progress import QUIET, Reporter
from hwprune.runtimes.registry import get_runtime
from hwprune.units import parse_seconds

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from hwprune.gate.verdict import Limit
    from hwprune.latency.measure import Measurement
    from hwprune.runtimes.base import Runtime, Session, TargetProfile

# (relative standard error, share of the time) of a look; a second follows only where the first cannot tell.
_LOOKS = ((0.005, 0.3), (0.001, 0.7))


def bench(
    model: Path,
    /,
    *,
    baseline: Path | None = None,
    max_regression: str = "",
    budget: str = "",
    device: str = "",
    profile: str = "",
    max_time: str = "30s",
    output: Path | None = None,
    markdown: Path | None = None,
    junit: Path | None = None,
    reporter: Reporter = QUIET,
) -> BenchResult:
    """Measure a network, give a verdict: exit code 0 pass, 1 regression or over budget, 3 too noisy to tell.

    Args:
        model: An ONNX file, a project folder, or what an earlier --output wrote.
        baseline: The same; measured in the same run, or, where only figures are left, compared with those.
        max_regression: How much slower than the baseline it may be; 5% unless --budget is a share of it.
        budget: Latency allowed, such as 15ms, or 60% of the baseline's.
        device: cpu or cuda:0; "" takes the project's, or cpu.
        profile: A target profile, such as cpu-1t or cpu; "" takes the project's or the device's default.
        max_time: Device time to spend at most; less where the verdict is clear earlier.
        output: Write the figures into this JSON file, a baseline for later runs.
        markdown: Append the result to this file, such as "$GITHUB_STEP_SUMMARY".
        junit: Write the result as JUnit XML.
        reporter: Told about progress.

    Returns:
        The figures, the checks and the verdict.

    Raises:
        UsageError: A limit that cannot be understood, or one in percent without a baseline.
        ModelError: Not an ONNX file, or one that cannot be timed.
        MismatchError: Inputs differ, or stored figures are of another machine.
        ArtifactError: A file is missing, damaged, or cannot be written.
        DeviceError: The device is not here.
    """
    limits = parse_limits(max_regression, budget, baseline is not None)
    seconds = parse_seconds(max_time, "--max-time")
    check_outputs(
        {"--output": output, "--markdown": markdown, "--junit": junit},
        {"MODEL": model, "--baseline": baseline},
    )
    found = find_model(model)
    beside = Baseline() if baseline is None else find_baseline(baseline)
    check_inputs(found, beside)
    gate = _Gate(found, beside, target_of(found, device, profile), limits)
    if beside.kind == "figures" and beside.figures and baseline:
        beside.figures.check_conditions(gate.conditions, baseline)
    result = gate.run(seconds, reporter)
    if output:
        result.save(output)
    if markdown:
        before = artifacts.read_bytes(markdown) if markdown.exists() else b""
        artifacts.write_bytes(markdown, before + markdown_text(result).encode())
    if junit:
        artifacts.write_bytes(junit, junit_text(result).encode())
    return result


class _Gate:
    """Measures one network and compares it.

    Args:
        model: The network.
        baseline: What it is compared with.
        target: The conditions.
        limits: What it may be at most.
    """

    def __init__(
        self, model: ModelFile, baseline: Baseline, target: TargetProfile, limits: Sequence[Limit]
    ) -> None:
        self.model, self.baseline, self.target, self.limits = model, baseline, target, limits
        self.runtime: Runtime = get_runtime(target)
        self.conditions: dict[str, Any] = {
            "profile": target.to_payload(),
            "device": device_fingerprint(target.device),
            "runtime": self.runtime.describe(),
        }

    def run(self, seconds: float, reporter: Reporter) -> BenchResult:
        """Measure it beside the baseline's model where that is to be had, else beside a twin of itself."""
        reference = self.baseline.model or self.model
        beside = reference.path if self.baseline.model else "a twin of itself"
        reporter.note(f"Measuring {self.model.path} beside {beside} on {self.target.name} ...")
        with self._session(self.model) as session, self._session(reference) as standard:
            for relative_error, share in _LOOKS:
                found = measure(session, standard, relative_error=relative_error, max_seconds=share * seconds)
                result = self._result(found)
                if result.verdict != Verdict.TOO_NOISY:
                    break
        return result

    @contextlib.contextmanager
    def _session(self, model: ModelFile) -> Iterator[Session]:
        try:
            session = self.runtime.compile(model.content, self.target)
        except (ModelError, DeviceError) as error:
            raise located(error, model.path) from error
        with session:
            yield session

    def _result(self, found: Measurement) -> BenchResult:
        own = _timed(self.model, found.ms, found.relative_error, found.noise)
        baseline, ratio, trusted = self._beside(found, own)
        checks = judge_all(
            self.limits, estimate(own.ms, own.error), estimate(*ratio) if ratio else None, trusted=trusted
        )
        return BenchResult(
            verdict=overall(checks),
            model=own,
            baseline=baseline,
            compared_with=self.baseline.kind,
            ratio=ratio[0] if ratio else None,
            ratio_error=ratio[1] if ratio else None,
            checks=checks,
            noise=found.noise,
            stolen=found.stolen,
            blocks=found.blocks,
            trusted=trusted,
            percentiles_ms=found.distribution(),
            conditions=self.conditions,
            libraries=library_versions(),
            date=datetime.now(UTC).isoformat(timespec="seconds"),
        )

    def _beside(
        self, found: Measurement, own: Timed
    ) -> tuple[Timed | None, tuple[float, float] | None, bool]:
        """The baseline, the ratio to it with its relative error, and whether both can be trusted."""
        trusted = not found.too_noisy
        if model := self.baseline.model:
            baseline = _timed(model, found.reference_ms, found.noise)
            return baseline, (found.ratio, found.relative_error), trusted
        if figures := self.baseline.figures:
            ratio = own.ms / figures.model.ms, math.hypot(own.error, figures.model.error)
            return figures.model, ratio, trusted and figures.trusted
        return None, None, trusted


def _timed(model: ModelFile, ms: float, *relative_errors: float) -> Timed:
    """A network's latency; the spread of the machine's own speed is one of its errors."""
    error = math.hypot(*relative_errors)
    return Timed(file=str(model.path), sha256=model.sha256, inputs=model.inputs, ms=ms, error=error)
