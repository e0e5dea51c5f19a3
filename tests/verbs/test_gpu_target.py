"""Which profile a project's options come down to, with GPUs pretended."""

from __future__ import annotations

from pathlib import Path

import pytest

from hwprune.config import Config, TargetConfig
from hwprune.errors import UsageError
from hwprune.project.folder import Project
from hwprune.runtimes.torch_cuda import TorchCudaRuntime


@pytest.fixture(autouse=True)
def torch_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TorchCudaRuntime, "check", lambda self, profile: None)


def target(own: TargetConfig, device: str = "", profile: str = "") -> tuple[str, str]:
    found = Project(Path(), Config(target=own)).target(device, profile)
    return found.name, found.device


def test_the_projects_profile_counts_unless_another_device_is_asked_for() -> None:
    own = TargetConfig(profile="cuda-torch-fp16")  # its device was never written down
    assert target(own) == ("cuda-torch-fp16", "cuda:0")
    assert target(own, device="cuda:0") == ("cuda-torch-fp16", "cuda:0")
    assert target(own, device="cuda") == ("cuda-torch-fp16", "cuda:0")
    assert target(own, device="cuda:1") == ("cuda-torch-fp16-gpu1", "cuda:1")
    assert target(own, device="cpu") == ("cpu-1t", "cpu")
    assert target(own, profile="cpu") == ("cpu", "cpu")


def test_a_gpu_alone_means_its_default_profile() -> None:
    assert target(TargetConfig(device="cuda:0")) == ("cuda-torch-fp32", "cuda:0")
    assert target(TargetConfig(), device="cuda:3") == ("cuda-torch-fp32-gpu3", "cuda:3")
    both = TargetConfig(device="cuda:2", profile="cuda-torch-fp32")
    assert target(both) == ("cuda-torch-fp32-gpu2", "cuda:2")


def test_a_profile_that_nobody_chose_comes_with_the_reason() -> None:
    def why(own: TargetConfig, device: str = "", profile: str = "") -> str:
        return Project(Path(), Config(target=own)).choice(device, profile)[1]

    told = why(TargetConfig(device="cuda:0"))
    assert "measured by torch_cuda (profile cuda-torch-fp32)" in told
    assert "First would come tensorrt" in told
    assert why(TargetConfig(profile="cpu"), device="cuda:0") == told  # the project's is for another device
    assert why(TargetConfig(profile="cuda-torch-fp16")) == ""
    assert why(TargetConfig(), device="cuda:0", profile="cuda-torch-fp32") == ""
    assert why(TargetConfig()) == ""  # a CPU has one runtime


def test_a_profile_of_a_cpu_is_not_for_a_gpu() -> None:
    with pytest.raises(UsageError, match="another device"):
        target(TargetConfig(), device="cuda:0", profile="cpu-1t")
    assert target(TargetConfig(profile="cpu"), device="cuda:0") == ("cuda-torch-fp32", "cuda:0")
