"""How far latencies wander against one reference and against two, and which percentile wanders least.

    python benchmarks/two_references.py --model torchvision:mobilenet_v2 --seconds 200

Twenty networks, from the narrowest to the unpruned, are visited in turns, in random order. What each takes in
a visit is compared with what the references take in the same round. The rounds are put together in windows of
some seconds, and the spread of a network's windows is what a measurement of that length would be off by.
"""

from __future__ import annotations

import argparse
import contextlib
import time
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from common import finish

from hwprune.latency.measure import warm_up
from hwprune.latency.sampling import planned
from hwprune.latency.staircase import channel_multiple
from hwprune.models.registry import build, default_image_size
from hwprune.runtimes.profiles import load_profile
from hwprune.runtimes.registry import get_runtime
from hwprune.structure.export import export_base
from hwprune.structure.onnx_slice import OnnxSlicer
from hwprune.structure.trace import trace

if TYPE_CHECKING:
    from numpy.typing import NDArray

NETWORKS, HEAVY, LIGHT = 20, 0, 2  # the plan's first is the unpruned network, its third the middle one
PERCENTILES = (0, 5, 10, 25, 50)
VISIT_MS = 25.0
WINDOWS = (8, 24)  # rounds


def main() -> None:
    """Visit, compare, write the result file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="torchvision:mobilenet_v2")
    parser.add_argument("--profile", default="cpu-1t")
    parser.add_argument("--seconds", type=float, default=200.0)
    options = parser.parse_args()
    lows_ms = visits(options.model, options.profile, options.seconds)  # (rounds, networks, percentiles)
    round_s = options.seconds / len(lows_ms)
    figures = {
        "rounds": len(lows_ms),
        "spread_percent": {
            f"windows of {round_s * rounds:.1f} s": {
                f"percentile {percent}": spreads(np.log(lows_ms[:, :, place]), rounds)
                for place, percent in enumerate(PERCENTILES)
            }
            for rounds in WINDOWS
        },
    }
    finish(f"two_references_{options.model.rpartition(':')[2]}_{options.profile}", figures)


def visits(model_name: str, profile_name: str, seconds: float) -> NDArray[np.float64]:
    """Low percentiles of each visit: (rounds, networks, percentiles) milliseconds."""
    size = default_image_size(model_name)
    model = build(model_name).eval()
    target = load_profile(profile_name)
    runtime = get_runtime(target)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        space = trace(model, torch.zeros(1, 3, size, size), name=model_name)
    space = space.with_choices(channel_multiple(runtime, target))
    slicer = OnnxSlicer(runtime.lower(export_base(model, (target.batch, 3, size, size)), target), space)
    rng, rounds = np.random.default_rng(0), []
    with contextlib.ExitStack() as stack:
        sessions = [
            stack.enter_context(runtime.compile(slicer.slice(planned(space, number, 0)), target))
            for number in range(NETWORKS)
        ]
        runs = [int(np.clip(round(VISIT_MS / warm_up(session)), 3, 300)) for session in sessions]
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            found = np.empty((NETWORKS, len(PERCENTILES)))
            for index in rng.permutation(NETWORKS):
                found[index] = np.percentile(sessions[index].time_runs(runs[index] + 1)[1:], PERCENTILES)
                sessions[index].settle()
            rounds.append(found)
    return np.array(rounds)


def spreads(logs: NDArray[np.float64], rounds: int) -> dict[str, Any]:
    """Mean over the networks of the spread of their windows, percent: alone, and against the references."""
    whole = len(logs) // rounds * rounds
    windows = np.median(logs[:whole].reshape(-1, rounds, logs.shape[1]), axis=1)  # (windows, networks)
    light, heavy = windows[:, LIGHT, None], windows[:, HEAVY, None]
    level = windows.mean(axis=0)
    share = np.clip((level - level[LIGHT]) / (level[HEAVY] - level[LIGHT]), 0.0, 1.0)
    judged = [place for place in range(windows.shape[1]) if place not in (LIGHT, HEAVY)]
    against = {
        "no reference": windows,
        "one reference": windows - light,
        "two references": windows - (1 - share) * light - share * heavy,
    }
    found = {
        name: round(100 * float(values.std(axis=0)[judged].mean()), 2) for name, values in against.items()
    }
    return {**found, "heavy against light": round(100 * float((heavy - light).std()), 2)}


if __name__ == "__main__":
    main()
