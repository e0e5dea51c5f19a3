"""`hwprune bench`: the gate for CI. Measure a network against a baseline or a budget, and give a verdict."""

from __future__ import annotations

import contextlib
import functools
import math
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hwprune import artifacts
from hwprune.environment import device_fingerprint, library_versions
from hwprune.errors import DeviceError, HwpruneError, ModelError, StorageError
from hwprune.gate.files import junit as junit_text
from hwprune.gate.files import markdown as markdown_text
from hwprune.gate.result import BenchResult, Ratio, Timed
from hwprune.gate.verdict import Verdict, estimate, judge_all, overall
from hwprune.latency.measure import measure
from hwprune.latency.noise import reference_workload
from hwprune.latency.slow_files import slow_causes
from hwprune.progress import QUIET, Reporter
from hwprune.project.outputs import checked_outputs
from hwprune.runtimes.profiles import load_profile
from hwprune.runtimes.registry import get_runtime
from hwprune.units import parse_seconds
from hwprune.verbs.bench_accuracy import accuracy, wanted
from hwprune.verbs.bench_elsewhere import elsewhere, taken
from hwprune.verbs.bench_inputs import (
    Baseline,
    ModelFile,
    check_inputs,
    find_baseline,
    find_model,
    located,
    parse_limits,
    target_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from hwprune.gate.result import Accuracy, Elsewhere
    from hwprune.gate.verdict import Limit
    from hwprune.latency.measure import Measurement
    from hwprune.runtimes.base import Runtime, Session, TargetProfile

# (relative standard error, share of the time) of a look; a second follows only where the first cannot tell.
_LOOKS = ((0.005, 0.3), (0.001, 0.7))
_DRIFT_LEFT = 0.5  # of the machine's own drift, when a latency is related to the reference workload's


@contextlib.contextmanager
def _input_code() -> Iterator[None]:
    """Give errors the exit code of wrong input: 1 says that the network is too slow."""
    try:
        yield
    except HwpruneError as error:
        error.exit_code = 2
        raise
    except OSError as error:
        refused = StorageError("The operating system refused.", got=error)
        refused.exit_code = 2
        raise refused from error


def bench(
    model: Path,
    /,
    *,
    baseline: Path | None = None,
    max_regression: str = "",
    budget: str = "",
    data: str = "",
    min_accuracy: str = "",
    max_drop: float | None = None,
    device: str = "",
    profile: str = "",
    also: tuple[str, ...] = (),
    max_time: str = "30s",
    output: Path | None = None,
    markdown: Path | None = None,
    junit: Path | None = None,
    reporter: Reporter = QUIET,
) -> BenchResult:
    """Measure a network: exit code 0 pass, 1 a limit is broken, 2 wrong input, 3 too noisy to tell.

    Args:
        model: An ONNX file, a project folder, or what an earlier --output wrote.
        baseline: The same; measured in the same run, or, where only figures are left, compared with those.
        max_regression: How much slower than the baseline it may be; 5% unless --budget is a share of it.
        budget: Latency allowed, such as 15ms, or 60% of the baseline's.
        data: Score the network on the test images of imagefolder:ROOT, parquet:DIR, cifar10:ROOT or digits; a
            project folder brings its own for the limits below.
        min_accuracy: Test top-1 wanted, such as 90%.
        max_drop: Points of test top-1 that may be lost against the baseline.
        device: cpu or cuda:0; "" takes the project's, or cpu.
        profile: A target profile, such as cpu-1t or cpu; "" takes the project's or the device's default.
        also: Time the network under these target profiles too, side by side: openvino-1t.
        max_time: Device time for the verdict; less where it is clear earlier, more where five blocks of both
            networks take longer, and up to a third more with --output, for later runs.
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

    Example:
        >>> hwprune.bench(folder / "pruned.onnx", profile=fake).exit_code
        0
    """
    with _input_code():
        limits = parse_limits(max_regression, budget, baseline is not None)
        asked = wanted(model, data, min_accuracy, max_drop, baseline=baseline is not None)
        seconds = parse_seconds(max_time, "--max-time")
        found = find_model(model)
        beside = Baseline() if baseline is None else find_baseline(baseline)
        output, markdown, junit = checked_outputs(
            {"--output": output, "--markdown": markdown, "--junit": junit},
            _read_from({"MODEL": (model, found), "--baseline": (baseline, beside.model)}),
        )
        check_inputs(found, beside)
        target, why = target_of(found, device, profile)
        if why:
            reporter.note(why)
        others = [load_profile(name) for name in also]
        for one in others:
            get_runtime(one).check(one)
        scored = accuracy(found, beside, asked, reporter)
        gate = _Gate(found, beside, target, (*limits, *asked.limits), scored)
        if beside.kind == "figures" and beside.figures and baseline:
            beside.figures.check_comparable(gate.conditions, gate.workload.sha256, baseline)
        result = _measured(gate, seconds, output, reporter)
        result = replace(result, elsewhere=_elsewhere(found, target, others, seconds, reporter))
        result = replace(result, slow=gate.slow_causes())
        _write(result, output, markdown, junit)
        return result


def _elsewhere(
    model: ModelFile,
    target: TargetProfile,
    others: Sequence[TargetProfile],
    seconds: float,
    reporter: Reporter,
) -> tuple[Elsewhere, ...]:
    """The network under other profiles; where one fails the verdict stands all the same."""
    try:
        return elsewhere(model, target, others, seconds, reporter)
    except HwpruneError as error:
        reporter.note(f"Not timed under other profiles: {error.what} {error.got or ''}".rstrip())
        return ()


def _measured(gate: _Gate, seconds: float, output: Path | None, reporter: Reporter) -> BenchResult:
    """The verdict; with an output also what later runs need, and a word when they should not compare."""
    result = gate.run(seconds, reporter)
    if output is None:
        return result
    if result.workload is None:
        result = gate.with_workload(result, seconds, reporter)
    if not result.trusted:
        reporter.note(
            f"The machine was too noisy for the figures in {output} to be trusted: compared with them, later "
            "runs cannot tell. Measure again when it is quiet; `hwprune doctor` shows what disturbs."
        )
    return result


def _read_from(named: dict[str, tuple[Path | None, ModelFile | None]]) -> Iterator[tuple[str, Path]]:
    """(name, path) of what is read: the networks that were found, and what the user named."""
    for option, (path, model) in named.items():
        if model is not None:
            yield f"the network of {option}", model.path
        if path is not None:
            yield option, path


def _write(result: BenchResult, output: Path | None, markdown: Path | None, junit: Path | None) -> None:
    if output:
        result.save(output)
    if markdown:
        before = artifacts.read_bytes(markdown) if markdown.exists() else b""
        artifacts.write_bytes(markdown, before + markdown_text(result).encode())
    if junit:
        artifacts.write_bytes(junit, junit_text(result).encode())


class _Gate:
    """Measures one network and compares it.

    Args:
        model: The network.
        baseline: What it is compared with.
        target: The conditions.
        limits: What it may be at most.
        scored: Its accuracy, where that was asked for.
    """

    def __init__(
        self,
        model: ModelFile,
        baseline: Baseline,
        target: TargetProfile,
        limits: Sequence[Limit],
        scored: Accuracy | None,
    ) -> None:
        self.model, self.baseline, self.target, self.limits = model, baseline, target, limits
        self.scored = scored
        self.runtime: Runtime = get_runtime(target)
        self._lowered: dict[ModelFile, bytes] = {}
        self.conditions: dict[str, Any] = {
            "profile": target.to_payload(),
            "device": device_fingerprint(target.device),
            "runtime": self.runtime.describe(),
        }

    def run(self, seconds: float, reporter: Reporter) -> BenchResult:
        """Measure it beside the baseline's model where there is one, else beside the reference workload."""
        beside = self.baseline.model.path if self.baseline.model else "a reference workload"
        reporter.note(f"Measuring {self.model.path} beside {beside} on {self.target.name} ...")
        for model in filter(None, (self.model, self.baseline.model)):
            if self._content(model) is not model.content:
                reporter.note(
                    f"{model.path} is in 32-bit floats: it is brought to {self.target.precision}"
                    f"{', with made-up scales' * (self.target.precision == 'int8')}; the file stays as it is."
                )
        for relative_error, share in _LOOKS:
            found = self._measure(self.baseline.model, relative_error, share * seconds)
            result = self._result(found)
            if result.verdict != Verdict.TOO_NOISY or not result.baseline_trusted:
                break  # stored figures do not get better by a longer look
        return result

    def slow_causes(self) -> tuple[str, ...]:
        """What makes the network's file slow for no reason."""
        model = self.model
        return slow_causes(
            self._content(model),
            self.target,
            self.runtime,
            step=model.step,
            table_runtime=model.table_runtime,
        )

    def with_workload(self, result: BenchResult, seconds: float, reporter: Reporter) -> BenchResult:
        """The result with what later runs can compare with when the network itself is gone."""
        reporter.note(f"Measuring {self.model.path} beside a reference workload, for later runs ...")
        relative_error, share = _LOOKS[0]
        found = self._measure(None, relative_error, share * seconds)
        return replace(
            result,
            workload=_to_workload(found),
            workload_sha256=self.workload.sha256,
            trusted=result.trusted and not found.too_noisy,
        )

    @functools.cached_property
    def workload(self) -> ModelFile:
        """The network that figures of different hours are related to."""
        return ModelFile(Path("reference workload"), reference_workload(self.runtime, self.target), ())

    def _measure(self, other: ModelFile | None, relative_error: float, seconds: float) -> Measurement:
        """Time the network interleaved with another one, by default the reference workload."""
        with self._session(self.model) as session, self._session(other or self.workload) as standard:
            return measure(session, standard, relative_error=relative_error, max_seconds=seconds)

    @contextlib.contextmanager
    def _session(self, model: ModelFile) -> Iterator[Session]:
        content = self._content(model)
        try:
            session = self.runtime.compile(content, self.target)
        except (ModelError, DeviceError) as error:
            raise located(error, model.path) from error
        with session:
            yield session

    def _content(self, model: ModelFile) -> bytes:
        if model not in self._lowered:
            self._lowered[model] = taken(model, self.runtime, self.target)
        return self._lowered[model]

    def _result(self, found: Measurement) -> BenchResult:
        own = _timed(self.model, found.ms, found.relative_error, found.noise)
        to_workload = None if self.baseline.model else _to_workload(found)
        baseline, ratio = self._compared(found, to_workload)
        earlier = self.baseline.figures if self.baseline.kind == "figures" else None
        trusted, baseline_trusted = not found.too_noisy, earlier is None or earlier.trusted
        checks = judge_all(
            self.limits,
            estimate(own.ms, own.error),
            estimate(ratio.value, ratio.error) if ratio else None,
            accuracies=self.scored.figures if self.scored else {},
            trusted=trusted and baseline_trusted,
        )
        return BenchResult(
            verdict=overall(checks),
            model=own,
            baseline=baseline,
            compared_with=self.baseline.kind,
            ratio=ratio,
            workload=to_workload,
            workload_sha256=self.workload.sha256 if to_workload else "",
            accuracy=self.scored,
            checks=checks,
            noise=found.noise,
            stolen=found.stolen,
            blocks=found.blocks,
            trusted=trusted,
            baseline_trusted=baseline_trusted,
            percentiles_ms=found.distribution(),
            conditions=self.conditions,
            libraries=library_versions(),
            date=datetime.now(UTC).isoformat(timespec="seconds"),
        )

    def _compared(self, found: Measurement, to_workload: Ratio | None) -> tuple[Timed | None, Ratio | None]:
        """The baseline, and the latency relative to it."""
        if model := self.baseline.model:
            ratio = Ratio(value=found.ratio, error=found.relative_error)
            return _timed(model, found.reference_ms, found.noise), ratio
        figures = self.baseline.figures
        if figures is None or figures.workload is None or to_workload is None:
            return None, None
        return figures.model, to_workload.over(figures.workload)


def _to_workload(found: Measurement) -> Ratio:
    """A network's latency relative to the reference workload; these leave about half of the machine's drift.

    Seen on two shared cores under load, over five minutes: latencies spread by 4.7 to 6.1 %, those in
    those ratios by 2.3 to 3.2 %.
    """
    error = math.hypot(found.relative_error, _DRIFT_LEFT * found.noise)
    return Ratio(value=found.ratio, error=error)


def _timed(model: ModelFile, ms: float, *relative_errors: float) -> Timed:
    """A network's latency; the spread of the machine's own speed is one of its errors."""
    error = math.hypot(*relative_errors)
    return Timed(file=str(model.path), sha256=model.sha256, inputs=model.inputs, ms=ms, error=error)
