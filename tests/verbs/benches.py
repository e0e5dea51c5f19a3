"""Networks of known latencies on a pretended device, for the tests of `hwprune bench`."""

from __future__ import annotations

import pytest

from hwprune.cli.main import main
from hwprune.runtimes import TargetProfile
from hwprune.runtimes.fake import FakeDevice, FakeRuntime
from hwprune.runtimes.probes import conv_chain
from hwprune.verbs import bench as module

NETWORKS = {"slim": [16, 64, 64], "base": [16, 128, 128], "slow": [16, 128, 160], "fat": [16, 256, 256]}


def command(*arguments: str) -> int:
    return main(["bench", *arguments, "--profile", "fake.toml"])


def true_ms(name: str) -> float:
    profile = TargetProfile(name="fake", runtime="fake")
    return FakeRuntime().latency_ms(conv_chain(NETWORKS[name]), profile)


def noisy(monkeypatch: pytest.MonkeyPatch, **device: float) -> None:
    """Make the pretended device a worse one."""
    monkeypatch.setattr(module, "get_runtime", lambda _: FakeRuntime(FakeDevice(**device)))


def counted_looks(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The relative error that each look of a run is for, as they come."""
    looks: list[float] = []
    plain = module.measure

    def counted(*sessions: object, relative_error: float, max_seconds: float) -> object:
        looks.append(relative_error)
        return plain(*sessions, relative_error=relative_error, max_seconds=max_seconds)

    monkeypatch.setattr(module, "measure", counted)
    return looks
