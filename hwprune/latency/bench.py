"""Whole networks of one search space on one runtime, measured in rounds: what a profile and a probe share."""

from __future__ import annotations

import contextlib
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from hwprune.environment import device_fingerprint
from hwprune.latency.fingerprint import graph_fingerprint, space_fingerprint
from hwprune.latency.measure import measure_many
from hwprune.latency.records import NetworkRecord
from hwprune.latency.sampling import planned
from hwprune.nvml import GpuLog
from hwprune.structure.onnx_graph import read_graph
from hwprune.structure.onnx_slice import OnnxSlicer

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from hwprune.latency.measure import Measurement
    from hwprune.latency.records import Journal
    from hwprune.runtimes.base import KernelTime, Runtime, Session, TargetProfile
    from hwprune.structure.space import SearchSpace, Widths

ROUND = 8  # networks alive and measured round-robin at a time
_HELD_OUT_EVERY = 4
_RELATIVE_ERROR = 0.01  # of one network; the model averages over many
_NETWORK_SECONDS = 0.8  # time for that
_BUILDS = 3
_PROFILE_MS, _MIN_RUNS, _MAX_RUNS = 80.0, 5, 30


class Planned(NamedTuple):
    """One network to measure.

    Attributes:
        number: Its number in the plan.
        widths: Its widths.
        held_out: Whether it only judges the model.
    """

    number: int
    widths: Widths
    held_out: bool


class References(NamedTuple):
    """Networks that all others are interleaved with.

    Attributes:
        light: The middle network of the space.
        heavy: The unpruned network, which suffers most from whoever else uses cache and memory.
    """

    light: Session
    heavy: Session


def is_held_out(number: int) -> bool:
    """Whether the network with this number only judges the model."""
    return number % _HELD_OUT_EVERY == _HELD_OUT_EVERY - 1


class Bench:
    """Measures networks of a space end to end and under the runtime's profiler.

    Args:
        space: The search space.
        base_onnx: The unpruned network, in the profile's number format.
        profile: The conditions.
        runtime: What runs the networks.
        seed: Decides which networks are drawn.

    Attributes:
        graph: The unpruned network's graph.
        reference: Widths of the light reference.
    """

    def __init__(
        self, space: SearchSpace, base_onnx: bytes, profile: TargetProfile, runtime: Runtime, seed: int
    ) -> None:
        self.space, self.profile, self.runtime, self.seed = space, profile, runtime, seed
        self.graph = read_graph(base_onnx)
        self.reference = planned(space, 2, seed)  # the middle network
        self._slicer = OnnxSlicer(base_onnx, space)

    def identity(self) -> dict[str, Any]:
        """What must not change between two visits: device, runtime, profile, model, seed."""
        return {
            "profile": self.profile.to_payload(),
            "device": device_fingerprint(self.profile.device),
            "runtime": self.runtime.describe(),
            "settings": self.runtime.settings(self.profile),
            "model": self.space.model,
            "space": space_fingerprint(self.space),
            "graph": graph_fingerprint(self.graph),
            "seed": self.seed,
        }

    @contextlib.contextmanager
    def references(self) -> Iterator[References]:
        """The networks that all others are interleaved with, compiled: the middle and the unpruned one."""
        with self._session(self.reference) as light, self._session(self.space.full()) as heavy:
            yield References(light, heavy)

    def builds(self) -> dict[str, Any]:
        """How far builds of the unpruned network differ; {} where all builds are the same.

        Returns:
            `median_ms` of each build, and `spread`, their standard deviation relative to their mean.
        """
        content = self._slicer.slice(self.space.full(), batch=self.profile.batch)
        medians = self.runtime.rebuild(content, self.profile, builds=_BUILDS)
        if len(medians) < 2:
            return {}
        spread = float(np.std(medians, ddof=1) / np.mean(medians))
        return {"median_ms": np.round(medians, 6).tolist(), "spread": spread}

    def _session(self, widths: Widths) -> Session:
        return self.runtime.compile(self._slicer.slice(widths, batch=self.profile.batch), self.profile)

    def round(
        self,
        chosen: Sequence[Planned],
        references: References,
        journal: Journal,
        *,
        max_seconds: float,
        seed: int,
    ) -> Iterator[NetworkRecord]:
        """Measure some networks round-robin against the references, then profile each.

        Args:
            chosen: The networks.
            references: The compiled references.
            journal: Where each network is kept as soon as it is profiled.
            max_seconds: Device time left; a round takes no more than its networks need.
            seed: Seed of the order of visits.

        Returns:
            The records, one after the other.
        """
        begun = time.perf_counter()
        models = [self._slicer.slice(one.widths, batch=self.profile.batch) for one in chosen]
        with contextlib.ExitStack() as stack:
            sessions = [stack.enter_context(self.runtime.compile(model, self.profile)) for model in models]
            compiled = time.perf_counter()
            with GpuLog(self.profile.device) as log:
                results = measure_many(
                    sessions,
                    references.light,
                    heavy=references.heavy,
                    relative_error=_RELATIVE_ERROR,
                    max_seconds=min(_NETWORK_SECONDS * len(sessions), max(max_seconds, 1.0)),
                    seed=seed,
                )
        journal.keep_references([one.number for one in chosen], results[0])
        measured = time.perf_counter()
        shared = self._counted(measured - begun, measured - compiled)
        for one, model, result in zip(chosen, models, results, strict=True):
            started = time.perf_counter()
            kernels = self._kernels(model, result)
            running_s = sum(kernel.time_us * kernel.runs for kernel in kernels) / 1e6
            alone = self._counted(time.perf_counter() - started, running_s)
            seconds, preparing = (all_ / len(chosen) + own for all_, own in zip(shared, alone, strict=True))
            record = NetworkRecord.of(*one, result, kernels, seconds)
            record = replace(record, preparing=preparing, gpu=log.summary())
            journal.append(record)
            yield record

    def _counted(self, wall_s: float, running_s: float) -> tuple[float, float]:
        """Seconds that are device time, and those that are not, of a time in which networks ran for a part.

        A GPU's engines are built in tens of seconds and timed in one: with those counted, a budget of a
        minute would be one round. A CPU prepares itself, in a small part of the time.
        """
        counted = min(running_s, wall_s) if self.profile.on_gpu else wall_s
        return counted, wall_s - counted

    def _kernels(self, model: bytes, result: Measurement) -> list[KernelTime]:
        """Times of a network's kernels, each under a tensor that the graph knows."""
        names = self.graph.carried
        found = self.runtime.profile_kernels(model, self.profile, _profile_runs(result))
        return [replace(kernel, tensor=names.get(kernel.tensor or "", kernel.tensor)) for kernel in found]


def _profile_runs(result: Measurement) -> int:
    return int(np.clip(round(_PROFILE_MS / result.ms), _MIN_RUNS, _MAX_RUNS))
