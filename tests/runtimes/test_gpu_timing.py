"""Pairs of events around runs, above a pretended GPU that the host feeds."""

from __future__ import annotations

import pytest

from hwprune.runtimes import gpu_timing
from hwprune.runtimes.gpu_timing import RunQueue, runs_per_pair, times_ms


class Gpu:
    """A run takes `run_ms` and its start `host_ms`; the GPU works off what the host gave it, in order.

    An event takes the host `event_ms` and is passed when the GPU gets there.
    """

    def __init__(self, run_ms: float, host_ms: float, event_ms: float = 0.0) -> None:
        self.run_ms, self.host_ms, self.event_ms = run_ms, host_ms, event_ms
        self.host = self.gpu = 0.0
        self.runs = 0

    def launch(self) -> None:
        self.host += self.host_ms
        self.gpu = max(self.gpu, self.host) + self.run_ms
        self.runs += 1

    def record(self, event: list[float]) -> None:
        self.host += self.event_ms
        event.append(max(self.gpu, self.host))

    def wait(self) -> None:
        self.host = max(self.host, self.gpu)

    def queue(self) -> RunQueue:
        elapsed = lambda before, after: after[0] - before[0]  # noqa: E731
        return RunQueue(self.launch, list, self.record, elapsed, self.wait)


@pytest.fixture
def timed(monkeypatch):
    """Times a pretended GPU; the host's clock is its."""

    gpu_timing._told.cache_clear()

    def timed(gpu: Gpu, name: str = "gpu", copies: int = 1) -> tuple[int, list[float]]:
        monkeypatch.setattr(gpu_timing.time, "perf_counter", lambda: gpu.host / 1e3)
        runs = runs_per_pair(gpu.queue(), name, copies)
        return runs, times_ms(gpu.queue(), 20, runs)

    return timed


def test_a_run_of_some_length_has_a_pair_of_events_to_itself(timed, caplog):
    gpu = Gpu(run_ms=2.0, host_ms=0.01, event_ms=0.003)
    runs, times = timed(gpu)
    assert runs == 1
    assert times == pytest.approx([2.0] * 20)
    assert not caplog.text


def test_short_runs_share_a_pair_so_that_the_hosts_time_for_events_is_not_counted(timed, caplog):
    gpu = Gpu(run_ms=0.010, host_ms=0.007, event_ms=0.004)
    runs, times = timed(gpu)
    assert runs == 20
    assert max(times[1:]) < 1.05 * gpu.run_ms
    alone = times_ms(gpu.queue(), 20, 1)
    assert min(alone[2:]) > 1.05 * gpu.run_ms  # what pairs of single runs would tell
    assert not caplog.text


def test_a_host_that_is_slower_than_the_gpu_is_told_once(timed, caplog):
    _, times = timed(Gpu(run_ms=0.010, host_ms=0.030), "slow-host")
    assert times == pytest.approx([0.030] * 20, rel=0.2)  # nothing can hide it
    assert "the host needs 0.030 ms" in caplog.text
    assert "cuda_graph = true" in caplog.text
    timed(Gpu(run_ms=0.010, host_ms=0.030), "slow-host")
    assert caplog.text.count("the host needs") == 1
    timed(Gpu(run_ms=1.0, host_ms=3.0), "slow-host")  # more than a probe
    assert caplog.text.count("the host needs") == 2


def test_each_copy_runs_before_the_trial(timed):
    gpu = Gpu(run_ms=1.0, host_ms=0.01)
    runs_per_pair(gpu.queue(), "copies", 7)
    assert gpu.runs == 7 + 1 + 5
