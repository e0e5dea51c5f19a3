"""How well the latency model predicts networks that it never saw, and how well the alternatives do.

    python benchmarks/latency_accuracy.py --model torchvision:mobilenet_v2 --threads 1 --widths aligned

A latency table is built as `hwprune profile` does, within --seconds of device time. Then the truth is
measured: networks drawn with another seed, 40 spread evenly over the range of latencies and 20 of equal MACs,
each timed interleaved in two sessions. With --disturb another process loads one core in bursts while the
table is built.

Virtual machines with two cores change their state: for seconds or minutes two threads are no faster than one.
A table belongs to one state, so a part of the truth that was measured in another one is measured again, at
most RETRIES times; how often that was done, and how often in vain, is part of the result.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import subprocess
import sys
import time
import warnings
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import latency_baselines as baselines
import numpy as np
import torch
from common import finish
from scipy.stats import kendalltau

from hwprune import artifacts
from hwprune.evolution.problem import Constraint, Problem
from hwprune.evolution.sampling import Sampler
from hwprune.latency.measure import low_percentile, measure_many
from hwprune.latency.model import TableModel
from hwprune.latency.profiler import profile_space
from hwprune.latency.records import STATE
from hwprune.latency.sampling import planned, pool
from hwprune.latency.staircase import channel_multiple
from hwprune.models.registry import build, default_image_size
from hwprune.runtimes.profiles import load_profile
from hwprune.runtimes.registry import get_runtime
from hwprune.structure.export import export_base
from hwprune.structure.kernels import derive_kernels
from hwprune.structure.onnx_slice import OnnxSlicer
from hwprune.structure.trace import trace

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from hwprune.latency.measure import Measurement
    from hwprune.latency.table import LatencyTable
    from hwprune.runtimes.base import Runtime, TargetProfile
    from hwprune.structure.space import SearchSpace, Widths

SPREAD, EQUAL_MACS, ISOLATED = 40, 20, 10
TRUTH_SEED = 1_000_003
ALIVE = 10  # networks measured round-robin at a time
RETRIES = 12
EQUAL_SHARE = 0.45  # of the unpruned network's MACs
BURSTS = """
import random, time
while True:
    end = time.monotonic() + random.uniform(0.2, 2.0)
    while time.monotonic() < end:
        sum(range(10_000))
    time.sleep(random.uniform(0.2, 2.0))
"""


class Case:
    """One model on one target: what is profiled and what is true."""

    def __init__(self, options: argparse.Namespace) -> None:
        size = default_image_size(options.model)
        model = build(options.model).eval()
        self.target: TargetProfile = replace(
            load_profile("cpu-1t"), threads=options.threads, precision=options.precision
        )
        self.runtime: Runtime = get_runtime(self.target)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            space = trace(model, torch.zeros(1, 3, size, size), name=options.model, depth=options.depth)
        self.multiple = channel_multiple(self.runtime, self.target) if options.widths == "aligned" else 1
        self.space: SearchSpace = space.with_choices(self.multiple)
        self.base = self.runtime.lower(export_base(model, (1, 3, size, size)), self.target)
        self.slicer = OnnxSlicer(self.base, self.space)
        self.truth_seconds: float = options.truth_seconds
        self.retries = self.other_state = 0

    def table(self, folder: Path, seconds: float, max_error: float) -> LatencyTable:
        """Build the table as `hwprune profile` does."""
        return profile_space(
            self.space,
            self.base,
            self.target,
            self.runtime,
            folder=folder,
            max_seconds=seconds,
            max_error=max_error,
        )

    def measured(
        self, folder: Path, networks: Sequence[Widths], units_ms: tuple[float, float], seed: int
    ) -> NDArray[np.float64]:
        """What `measure` gives, or gave for these networks in a run that was killed since."""
        path, wanted = folder / f"truth-{seed}.json", [list(map(int, widths)) for widths in networks]
        if path.exists() and (known := json.loads(path.read_text()))["networks"] == wanted:
            return np.array(known["ms"])
        found = self.measure(networks, units_ms, seed)
        artifacts.write_bytes(path, json.dumps({"networks": wanted, "ms": found.tolist()}).encode())
        return found

    def measure(
        self, networks: Sequence[Widths], units_ms: tuple[float, float], seed: int
    ) -> NDArray[np.float64]:
        """Milliseconds of networks, in the units of the table: (N,)."""
        order = np.random.default_rng(seed).permutation(len(networks))
        found = np.empty(len(networks))
        for start in range(0, len(order), ALIVE):
            part = order[start : start + ALIVE]
            for _ in range(RETRIES):
                results = self._part([networks[i] for i in part], units_ms, seed)
                if same_state(results[0]):
                    break
                self.retries += 1
            else:
                self.other_state += len(part)
            found[part] = [result.ms for result in results]
        return found

    def _part(
        self, networks: Sequence[Widths], units_ms: tuple[float, float], seed: int
    ) -> list[Measurement]:
        with contextlib.ExitStack() as stack:
            light, heavy = (
                stack.enter_context(self._compile(net))
                for net in (planned(self.space, 2, 0), self.space.full())
            )
            return measure_many(
                [stack.enter_context(self._compile(widths)) for widths in networks],
                light,
                heavy=heavy,
                relative_error=0.004,
                max_seconds=self.truth_seconds * len(networks),
                units_ms=units_ms,
                seed=seed,
            )

    def _compile(self, widths: Widths) -> Any:
        return self.runtime.compile(self.slicer.slice(widths), self.target)


def main() -> None:
    """Profile, predict, measure, compare; write the result file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="torchvision:mobilenet_v2")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--widths", choices=("aligned", "raw"), default="aligned")
    parser.add_argument("--precision", choices=("fp32", "int8"), default="fp32")
    parser.add_argument("--seconds", type=float, default=120.0, help="device time for the table")
    parser.add_argument("--max-error", type=float, default=0.015, help="error at which it may stop earlier")
    parser.add_argument(
        "--truth-seconds", type=float, default=1.2, help="for one network in one of the two sessions"
    )
    parser.add_argument("--resume", action="store_true", help="go on with a killed run")
    parser.add_argument("--depth", action="store_true", help="networks without some of their blocks too")
    parser.add_argument("--disturb", action="store_true", help="load one core in bursts while profiling")
    options = parser.parse_args()
    name = f"latency_accuracy_{options.model.rpartition(':')[2]}_{options.threads}t_{options.widths}"
    name += "_int8" if options.precision == "int8" else ""
    name += "_depth" if options.depth else ""
    name += "_disturbed" if options.disturb else ""
    case = Case(options)
    folder = Path("runs") / name
    if not options.resume:
        shutil.rmtree(folder, ignore_errors=True)
    with bursts() if options.disturb else contextlib.nullcontext():
        table = case.table(folder, options.seconds, options.max_error)
    model = TableModel.fit(table, case.space, case.base)
    spread, equal = spread_networks(case.space, model), equal_macs_networks(case.space)
    networks = [*spread, *equal]
    predicted = model.predict(np.array(networks))
    first, second = (case.measured(folder, networks, table.units_ms, seed) for seed in (1, 2))
    truth = (first + second) / 2
    figures = {
        **errors(predicted, truth),
        "kendall_tau": tau(predicted[:SPREAD], truth[:SPREAD]),
        "kendall_tau_equal_macs": tau(predicted[SPREAD:], truth[SPREAD:]),
        "spread_of_equal_macs_percent": round(100 * float(np.std(truth[SPREAD:]) / truth[SPREAD:].mean()), 2),
        "device_seconds": round(table.seconds, 1),
        "networks_profiled": len(table.networks),
        "held_out_error_percent": round(100 * model.relative_error, 2),
        "truth_repeat_error_percent": round(100 * float(np.mean(np.abs(first / second - 1))), 2),
        "predictions_per_second": prediction_rate(case.space, model),
        "channel_multiple": case.multiple,
        "truth_retries": case.retries,
        "truth_in_another_state": case.other_state,
        "left_out_of_the_table": table.provenance["left_out"],
        "latency_range_ms": [round(float(truth.min()), 3), round(float(truth.max()), 3)],
        "baselines": compare(case, table, networks, truth),
    }
    finish(name, figures)


def same_state(result: Measurement) -> bool:
    """Whether all blocks of the reference were near its latency in the table."""
    lows = np.array([low_percentile(block) for block in result.reference_samples_ms[0]])
    return bool(np.abs(np.log(np.percentile(lows, (10, 50, 90)) / result.reference_ms)).max() < np.log(STATE))


@contextlib.contextmanager
def bursts() -> Iterator[None]:
    """Another process that loads one core in bursts."""
    process = subprocess.Popen([sys.executable, "-c", BURSTS])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def spread_networks(space: SearchSpace, model: TableModel) -> list[Widths]:
    """Networks whose latencies are evenly spread; the model only sorts the pool that they are taken from."""
    drawn = pool(space, 3000, np.random.default_rng(TRUTH_SEED))
    expected = model.predict(drawn)
    chosen: list[int] = []
    for level in np.linspace(expected.min(), expected.max(), SPREAD):
        order = np.argsort(np.abs(expected - level))
        chosen.append(next(int(i) for i in order if int(i) not in chosen))
    return [tuple(drawn[index].tolist()) for index in chosen]


def equal_macs_networks(space: SearchSpace) -> list[Widths]:
    """Networks whose MACs differ by less than a percent or so."""
    limit = EQUAL_SHARE * float(space.macs(space.full()))
    macs = Constraint(
        name="macs", predict=lambda w: space.macs(w).astype(np.float64), limit=limit, unit="MACs"
    )
    sampler = Sampler(Problem(space=space, constraints=(macs,), accuracy=lambda _: 0.0))
    drawn = sampler.genome.widths(sampler.draw(10 * EQUAL_MACS, np.random.default_rng(TRUTH_SEED)))
    nearest = np.argsort(limit - space.macs(drawn))[:EQUAL_MACS]
    return [tuple(drawn[index].tolist()) for index in nearest]


def compare(
    case: Case, table: LatencyTable, networks: Sequence[Widths], truth: NDArray[np.float64]
) -> dict[str, float]:
    """Error of each alternative on the same networks; layers are timed alone for every sixth of them."""
    kernels = derive_kernels(case.base, case.space, table.fusion)
    some = np.arange(0, len(networks), len(networks) // ISOLATED)
    alone = baselines.by_isolated_layers(case.runtime, case.target, kernels, [networks[i] for i in some])
    found = {
        "macs": (baselines.by_macs(table, case.space, networks), truth),
        "isolated_layers": (alone, truth[some]),
        "random_forest": (baselines.by_random_forest(table, kernels, networks), truth),
    }
    return {name: errors(*pair)["mape_percent"] for name, pair in found.items()}


def errors(predicted: NDArray[np.float64], truth: NDArray[np.float64]) -> dict[str, float]:
    """Mean absolute percentage error, and the share of networks within 5 and 10 %."""
    missed = 100 * np.abs(predicted / truth - 1)
    return {
        "mape_percent": round(float(missed.mean()), 2),
        "worst_percent": round(float(missed.max()), 2),
        "within_5_percent": round(100 * float((missed <= 5).mean()), 1),
        "within_10_percent": round(100 * float((missed <= 10).mean()), 1),
    }


def tau(predicted: NDArray[np.float64], truth: NDArray[np.float64]) -> float:
    """Kendall's rank correlation."""
    return round(float(kendalltau(predicted, truth).statistic), 3)


def prediction_rate(space: SearchSpace, model: TableModel) -> int:
    """Networks predicted in a second on one core."""
    rng = np.random.default_rng(0)
    networks = space.canonical(np.column_stack([rng.choice(one.choices, 300_000) for one in space.genes]))
    model.predict(networks[:1000])
    started = time.process_time()
    model.predict(networks)
    return round(len(networks) / (time.process_time() - started))


if __name__ == "__main__":
    main()
