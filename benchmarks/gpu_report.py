"""What hwprune does on a GPU machine: everything that is installed is run, and one JSON file is written.

    python benchmarks/gpu_report.py                       # all profiles for GPUs whose runtime works here
    python benchmarks/gpu_report.py --profiles cuda-torch-fp32 --models torchvision:mobilenet_v2 --seconds 60

Parts: the staircase of each profile; how far engines that TensorRT builds of one network differ; a latency
table for each model and profile, judged by networks that had no part in it (mean error, share within 5 %,
rank correlation); latencies of the unpruned networks by all runtimes; PruningNet's training speed and time
per candidate. From these follow `goals`, whether each table keeps to a mean error of 3 % and 95 % of networks
within 5 %, and `runtimes`, which compares the runtimes.

Each part is kept as soon as it is done, and one that is in the file is not run again: the same command goes
on where it was stopped. A part that fails leaves its error in the file, and the next run tries it again. A
file holds one set of devices and libraries, and each part is named after its device; another's file is
refused, `--fresh` begins anew. Without a GPU it says so and ends with code 2; `--profiles cpu-1t --out FILE`
tries the script itself on a CPU.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import warnings
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from gpu_report_file import Report, identity
from gpu_report_training import candidate_seconds, training_speed
from scipy.stats import kendalltau, spearmanr

from hwprune.environment import device_fingerprint
from hwprune.errors import HwpruneError
from hwprune.latency.measure import measure_many
from hwprune.latency.model import TableModel
from hwprune.latency.profiler import profile_space
from hwprune.latency.sampling import planned
from hwprune.latency.staircase import probe_staircase
from hwprune.models.registry import build, default_image_size
from hwprune.nvml import GpuLog
from hwprune.runtimes.profiles import load_profile, profile_names
from hwprune.runtimes.registry import all_runtimes, get_runtime
from hwprune.runtimes.tensorrt import TensorRt
from hwprune.structure.export import export_base
from hwprune.structure.onnx_slice import OnnxSlicer
from hwprune.structure.trace import trace

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hwprune.runtimes.base import Session, TargetProfile
    from hwprune.structure.space import Widths

RESULTS = Path(__file__).parent / "results"
MODELS = ("torchvision:resnet50", "torchvision:mobilenet_v2")
BATCHES = (1, 32)
TRUTH_SEED = 1_000_003
ALIVE = 8


class Case:
    """One model under one profile."""

    def __init__(self, model: str, target: TargetProfile, multiple: int, seconds: float) -> None:
        self.model, self.seconds = model, seconds
        size = default_image_size(model)
        net = build(model).eval()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            space = trace(net, torch.zeros(1, 3, size, size), name=model)
        self.target, self.runtime = target, get_runtime(target)
        self.space = space.with_choices(multiple)
        self.base = self.runtime.lower(export_base(net, (target.batch, 3, size, size)), target)
        self.slicer = OnnxSlicer(self.base, self.space)

    def accuracy(self, folder: Path, networks: int) -> dict[str, Any]:
        """Build the table, then predict and measure networks that it does not know."""
        table = profile_space(
            self.space, self.base, self.target, self.runtime, folder=folder, max_seconds=self.seconds
        )
        model = TableModel.fit(table, self.space, self.base)
        drawn = [planned(self.space, 3 + i, TRUTH_SEED) for i in range(networks)]
        with GpuLog(self.target.device) as log:
            measured = self.measure(drawn, table.units_ms)
        predicted = model.predict(drawn)
        errors = predicted / measured - 1
        return {
            "networks": len(table.networks),
            "held_out_error": model.relative_error,
            "mean_error": float(np.abs(errors).mean()),
            "bias": float(np.median(errors)),
            "within_5_percent": float((np.abs(errors) < 0.05).mean()),
            "kendall": float(kendalltau(predicted, measured).statistic),
            "spearman": float(spearmanr(predicted, measured).statistic),
            "regressors": dict(model.cross_validation.regressors),
            "predicted_ms": np.round(predicted, 6).tolist(),
            "measured_ms": np.round(measured, 6).tolist(),
            "gpu": log.summary(),
            "runtime": {**self.runtime.describe(), **self.runtime.settings(self.target)},
        }

    def session(self, widths: Widths) -> Session:
        """A network, compiled."""
        return self.runtime.compile(self.slicer.slice(widths), self.target)

    def measure(self, networks: list[Widths], units_ms: tuple[float, float]) -> NDArray[np.float64]:
        """Milliseconds of networks, against the table's own references, a few alive at a time."""
        found: list[float] = []
        with self.session(planned(self.space, 2, 0)) as light, self.session(self.space.full()) as heavy:
            for start in range(0, len(networks), ALIVE):
                part = networks[start : start + ALIVE]
                with contextlib.ExitStack() as stack:
                    sessions = [stack.enter_context(self.session(net)) for net in part]
                    results = measure_many(
                        sessions,
                        light,
                        heavy=heavy,
                        relative_error=0.005,
                        max_seconds=min(30.0, self.seconds),
                        units_ms=units_ms,
                    )
                found += [one.ms for one in results]
        return np.array(found)

    def unpruned(self) -> dict[str, Any]:
        """Latency of the unpruned network, and its distribution."""
        with self.session(self.space.full()) as one, self.session(self.space.full()) as other:
            seconds = min(10.0, self.seconds)
            (result,) = measure_many([one], other, relative_error=0.005, max_seconds=seconds)
        target = self.target
        return {
            "model": self.model,
            "device": target.device,
            "profile": target.name,
            "runtime": target.runtime,
            "precision": target.precision,
            "batch": target.batch,
            "buffers": buffers(target),
            "ms": result.ms,
            "error_ms": result.error_ms,
            "noise": result.noise,
            **result.distribution(),
        }

    def builds(self) -> dict[str, Any]:
        """Median latencies of engines that TensorRT built of the unpruned network, one after another."""
        if not isinstance(self.runtime, TensorRt):
            raise TypeError(f"{self.runtime.name} builds no engines")
        medians = self.runtime.rebuild(self.slicer.slice(self.space.full()), self.target)
        return {"median_ms": medians.tolist(), "spread": float(np.ptp(medians) / np.median(medians))}


def at_batch(profile: TargetProfile, batch: int) -> TargetProfile:
    """The profile with several images in a run, and copies in turns, as the shipped profile of 32 images."""
    options = {**profile.options, "buffers": "rotating"}
    return replace(profile, batch=batch, name=f"{profile.name}-b{batch}", options=options)


def conditions(profile: TargetProfile) -> tuple[object, ...]:
    """In what two profiles must agree to be the same row of the comparison of runtimes."""
    provider = profile.options.get("provider")
    return profile.runtime, provider, profile.precision, profile.batch, buffers(profile)


def buffers(profile: TargetProfile) -> str:
    """`hot` or `rotating`."""
    return str(profile.options.get("buffers", "hot"))


def usable(names: list[str]) -> list[TargetProfile]:
    """The profiles asked for, or all for GPUs, at batch 1 and 32, that work here; says why others do not."""
    chosen = [load_profile(name) for name in names or profile_names()]
    if not names:
        chosen = [profile for profile in chosen if profile.device != "cpu"]
        others = [at_batch(p, b) for p in chosen for b in BATCHES if p.batch == 1 and b > 1]
        known = set(map(conditions, chosen))
        chosen += [p for p in others if conditions(p) not in known]
    found = []
    for profile in chosen:
        try:
            get_runtime(profile)
        except HwpruneError as error:
            print(f"Left out: profile {profile.name}: {error}", flush=True)
        else:
            found.append(profile)
    return found


def staircase(target: TargetProfile, seconds: float) -> dict[str, Any]:
    """Latency over the width of one layer, and the channel multiple that it shows."""
    return asdict(probe_staircase(get_runtime(target), target, seconds=min(20.0, seconds)))


def run_all(report: Report, targets: list[TargetProfile], options: argparse.Namespace) -> None:
    """Every part in turn; what needs least time and tells most comes first."""
    devices = list(dict.fromkeys(target.device for target in targets))
    for device in devices:
        report.part(f"machine/{device}", lambda device=device: machine(device))
    for target in targets:
        name = f"staircase/{target.device}/{target.name}"
        report.part(name, lambda target=target: staircase(target, options.seconds))
    for model in options.models:
        for target in targets:
            run_case(report, model, target, options)
    for model in options.models:
        for device in map(torch.device, devices):
            name = f"{device}/{model.rpartition(':')[2]}"
            report.part(
                f"pruningnet/{name}",
                lambda model=model, device=device: training_speed(model, device, options.steps),
            )
            report.part(
                f"candidate/{name}", lambda model=model, device=device: candidate_seconds(model, device)
            )


def run_case(report: Report, model: str, target: TargetProfile, options: argparse.Namespace) -> None:
    """The parts of one model under one profile."""
    stairs = report.parts[f"staircase/{target.device}/{target.name}"]

    def case() -> Case:
        return Case(model, target, stairs.get("multiple", 8), options.seconds)

    tag = f"{target.device}/{model.rpartition(':')[2]}/{target.name}"
    folder = options.out.parent / "gpu_report_tables" / tag.replace(":", "-")
    report.part(f"unpruned/{tag}", lambda: case().unpruned())
    if target.runtime == TensorRt.name:
        report.part(f"builds/{tag}", lambda: case().builds())
    try:
        get_runtime(target).check_table(target)
    except HwpruneError as error:
        print(f"table/{tag}: left out: {error.what}", flush=True)
    else:
        report.part(f"table/{tag}", lambda: case().accuracy(folder, options.networks))


def machine(device: str) -> dict[str, Any]:
    """The device and, of every runtime, what it lacks."""
    lacking = {runtime.name: runtime.missing() for runtime in all_runtimes()}
    return {"device": device_fingerprint(device), "missing": lacking}


def main() -> None:
    """Run the report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--profiles", nargs="*", default=[])
    parser.add_argument("--models", nargs="*", default=list(MODELS))
    parser.add_argument("--seconds", type=float, default=120.0, help="device time for each table")
    parser.add_argument("--networks", type=int, default=40, help="that judge each table")
    parser.add_argument("--steps", type=int, default=30, help="of PruningNet's training")
    parser.add_argument("--fresh", action="store_true", help="begin anew, whatever is in the file")
    parser.add_argument("--out", type=Path, default=RESULTS / "gpu_report.json")
    options = parser.parse_args()
    targets = usable(options.profiles)
    if not targets:
        print("No profile can be run here: this machine has no GPU that a runtime can use. See docs/gpus.md.")
        sys.exit(2)
    try:
        report = Report(options.out, identity(target.device for target in targets), fresh=options.fresh)
    except ValueError as error:
        print(f"{error}. Give another file with --out, or --fresh to begin anew.")
        sys.exit(2)
    run_all(report, targets, options)
    failed = [name for name, part in report.parts.items() if "error" in part]
    print(f"Wrote {options.out}: {len(report.parts)} parts, {len(failed)} failed {' '.join(failed)}")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
