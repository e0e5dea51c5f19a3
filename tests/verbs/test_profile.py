"""How `hwprune profile` spends its time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from projects import FAKE

from hwprune.latency import profiler, staircase
from hwprune.latency.device import Device
from hwprune.runtimes.probes import conv_chain
from hwprune.verbs.profile import profile


def test_all_that_is_measured_keeps_to_the_time_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "fake.toml").write_text(FAKE)
    (tmp_path / "net.onnx").write_bytes(conv_chain((3, 32, 48, 32)))
    given: dict[str, float] = {}
    as_is = staircase.known_multiple, profiler.profile_space, Device.base, Device.__init__

    def steps(*args: Any, seconds: float) -> int:
        given["steps"] = seconds
        return as_is[0](*args, seconds=seconds)

    def networks(*args: Any, max_seconds: float, **more: Any) -> Any:
        given["networks"] = max_seconds
        return as_is[1](*args, max_seconds=max_seconds, **more)

    def base(device: Device, max_seconds: float) -> Any:
        given["base"] = max_seconds
        return as_is[2](device, max_seconds)

    def made(device: Device, *args: Any, neighbour_seconds: float) -> None:
        given["neighbours"] = neighbour_seconds
        as_is[3](device, *args, neighbour_seconds=neighbour_seconds)

    monkeypatch.setattr(staircase, "known_multiple", steps)
    monkeypatch.setattr(profiler, "profile_space", networks)
    monkeypatch.setattr(Device, "base", base)
    monkeypatch.setattr(Device, "__init__", made)
    options = {"model": str(tmp_path / "net.onnx"), "profile": str(tmp_path / "fake.toml")}
    profile(project=tmp_path / "p", max_time="10s", **options)
    assert given == {"steps": 1.0, "networks": 7.0, "base": 1.0, "neighbours": 1.0}
    profile(project=tmp_path / "q", max_time="1000s", **options)
    assert given == {"steps": 6.0, "networks": 974.0, "base": 8.0, "neighbours": 12.0}
