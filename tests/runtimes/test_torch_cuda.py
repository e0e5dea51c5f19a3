"""The torch runtime for GPUs above a stand-in for `torch.cuda`, and above torch's CPU; see docs/gpus.md."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch_cuda_contract import MS_PER_RUN, Gpu, fake_cuda

from hwprune.errors import ConfigError, DeviceError
from hwprune.runtimes import TargetProfile, torch_cuda
from hwprune.runtimes.gpu_errors import more_memory
from hwprune.runtimes.probes import conv_chain
from hwprune.runtimes.torch_cuda import TorchCudaRuntime, has_code, replicas, switches
from hwprune.runtimes.torch_graph import TorchGraph

PROFILE = TargetProfile(name="gpu", device="cuda:0", runtime="torch_cuda")
NET = conv_chain([3, 8, 4])


@pytest.fixture
def gpu(monkeypatch):
    """A pretended GPU; networks lie on the CPU and only count their runs."""
    gpu = Gpu()
    for name, fake in fake_cuda(gpu).items():
        monkeypatch.setattr(torch.cuda, name, fake)

    class Counted(TorchGraph):
        def __call__(self, images, around=None):
            gpu.ran("run")
            return super().__call__(images, around)

    def counted(onnx, profile):
        return Counted(onnx, torch.device("cpu"), torch.float32, channels_last=True)

    monkeypatch.setattr(torch_cuda, "_graph", counted)
    return gpu


def with_options(**options):
    return replace(PROFILE, options=options)


def test_a_session_warms_up_captures_once_and_replays(gpu):
    with TorchCudaRuntime().compile(NET, PROFILE) as session:
        made = list(gpu.calls)
        times = session.time_runs(5)
    warm = torch_cuda.WARM_UP_RUNS
    captured = ["wait_stream", *["run"] * warm, "synchronize", "capture", "run"]
    trial = ["replay", "synchronize", *["replay"] * 6, "synchronize"]  # how long a run is, and for the host
    assert made == captured + trial
    assert gpu.calls[len(made) :] == ["replay"] * 6 + ["synchronize"]  # one ahead
    assert times.tolist() == [MS_PER_RUN] * 5
    with pytest.raises(DeviceError, match="closed"):
        session.time_runs(1)


def test_without_a_graph_every_run_starts_its_kernels(gpu):
    with TorchCudaRuntime().compile(NET, with_options(cuda_graph=False)) as session:
        assert "capture" not in gpu.calls
        before = len(gpu.calls)
        assert session.time_runs(3).tolist() == [MS_PER_RUN] * 3
        assert gpu.calls[before:] == ["run"] * 4 + ["synchronize"]


def test_rotating_buffers_take_turns_among_enough_copies(gpu, monkeypatch):
    monkeypatch.setattr(torch_cuda, "replicas", lambda network, cache: 3)
    with TorchCudaRuntime().compile(NET, with_options(buffers="rotating")) as session:
        assert gpu.calls.count("capture") == 3
        assert gpu.pools == [None, 1, 1]  # what copies compute lies in one place
        taken = []
        session._turns = iter([lambda i=i: taken.append(i) for i in (0, 1, 2, 0)])
        session.time_runs(3)
        assert taken == [0, 1, 2, 0]  # the first only keeps the GPU busy


def test_probes_have_one_copy_of_each_network():
    profile = with_options(buffers="rotating", tf32=True)
    assert TorchCudaRuntime().for_probes(profile) == with_options(tf32=True)


def test_copies_are_twice_as_large_as_the_cache_together():
    assert replicas(10 * 2**20, 50 * 2**20) == 10
    assert replicas(200 * 2**20, 50 * 2**20) == 2  # one alone would find its end in the cache
    assert replicas(1000, 50 * 2**20) == 64


def test_out_of_memory_is_told_with_what_to_do(gpu):
    session = TorchCudaRuntime().compile(NET, PROFILE)
    gpu.out_of_memory = True
    for call in (lambda: session.time_runs(2), lambda: TorchCudaRuntime().compile(NET, PROFILE)):
        with pytest.raises(DeviceError, match="too little memory") as told:
            call()
        assert "nvidia-smi" in str(told.value)
        assert "2 GiB" in str(told.value)
        assert gpu.calls[-1] == "empty_cache"


@pytest.mark.parametrize(
    ("words", "do"),
    [
        ("Unable to find an engine to execute this computation", "another precision"),
        (
            "CUDA error: an illegal memory access was encountered\nCUDA kernel errors might be",
            "nvidia-smi -q",
        ),
        ("CUDA error: uncorrectable ECC error encountered", "nvidia-smi -q"),
        ("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED", "hwprune doctor"),
    ],
)
def test_errors_of_cudnn_and_the_driver_are_told_with_what_to_do(gpu, monkeypatch, words, do):
    session = TorchCudaRuntime().compile(NET, PROFILE)

    def fails(what):
        raise RuntimeError(words)

    monkeypatch.setattr(gpu, "ran", fails)
    for call in (
        lambda: session.time_runs(2),
        lambda: TorchCudaRuntime().compile(NET, PROFILE),
        lambda: TorchCudaRuntime().profile_kernels(NET, PROFILE),
    ):
        with pytest.raises(DeviceError) as told:
            call()
        assert do in told.value.do
        assert told.value.got == words.splitlines()[0]
        assert "profile gpu" in told.value.where


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"batch": 32}, ["batch = 1", "it is 32", "profiles/gpu.toml"]),
        ({"options": {"buffers": "rotating"}}, ['buffers = "hot"']),
        ({}, ["--profile cuda-trt-fp16"]),
    ],
)
def test_too_little_memory_names_what_to_set(change, words):
    advice = more_memory(replace(PROFILE, **change))
    assert all(word in advice for word in ["nvidia-smi", *words])


def test_a_network_that_cannot_be_captured_names_the_option(gpu, monkeypatch):
    def refused(*args, **kwargs):
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(torch.cuda, "graph", refused)
    with pytest.raises(DeviceError, match="cuda_graph = false"):
        TorchCudaRuntime().compile(NET, PROFILE)


def test_settings_hold_all_that_decides_a_latency(gpu):
    found = TorchCudaRuntime().settings(with_options(tf32=True))
    assert found["tf32"] is True
    assert found["buffers"] == "hot"
    assert (found["gpu"], found["capability"], found["multiprocessors"]) == ("Pretended", "9.0", 132)


def test_switches_are_on_inside_and_put_back():
    def state():
        return (
            torch.backends.cudnn.allow_tf32,
            torch.backends.cudnn.benchmark,
            torch.backends.cuda.matmul.allow_tf32,
        )

    before = state()
    with switches(PROFILE):
        assert state() == (False, True, False)
    with switches(with_options(tf32=True, cudnn_benchmark=False)):
        assert state() == (True, False, True)
    assert state() == before


def test_a_profile_is_checked(gpu, monkeypatch):
    runtime = TorchCudaRuntime()
    with pytest.raises(ConfigError) as wrong:
        runtime.check(replace(with_options(tf23=True, buffers="warm"), precision="int8"))
    assert all(word in str(wrong.value) for word in ("tf23", "warm", "rotating", "int8", "bf16"))
    with pytest.raises(DeviceError, match="no such GPU") as other:
        runtime.check(replace(PROFILE, device="cuda:3"))
    assert "cuda:0" in str(other.value)
    assert "nvidia-smi -L" in other.value.do
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: (7, 0))
    with pytest.raises(DeviceError, match="no code for this GPU") as old:
        runtime.check(PROFILE)
    assert "pip install" in str(old.value)
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_70"])
    runtime.check(PROFILE)
    with pytest.raises(DeviceError, match="bfloat16"):
        runtime.check(replace(PROFILE, precision="bf16"))


@pytest.mark.parametrize(
    ("known", "capability", "runs"),
    [
        (["sm_80", "sm_90a"], (9, 0), True),
        (["sm_80"], (8, 6), True),
        (["sm_86"], (8, 0), False),
        (["sm_80"], (9, 0), False),
        (["sm_80", "compute_80"], (9, 0), True),
        (["sm_100", "sm_120"], (10, 3), True),
        ([], (5, 0), True),
    ],
)
def test_which_gpus_a_build_runs_on(known, capability, runs):
    assert has_code(known, *capability) == runs


def test_what_is_missing_comes_with_a_command(monkeypatch):
    runtime = TorchCudaRuntime()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch_cuda, "gpus", list)
    assert "no NVIDIA GPU" in runtime.missing()[0]
    assert "nvidia-smi" in runtime.missing()[1]
    monkeypatch.setattr(torch_cuda, "gpus", lambda: [{"gpu_driver": "470.1"}])
    assert "470.1 is too old for the CUDA 13.0" in runtime.missing()[0]
    monkeypatch.setattr(torch.version, "cuda", None)
    assert "without CUDA" in runtime.missing()[0]
    assert "pip install" in runtime.missing()[1]
    with pytest.raises(DeviceError, match="without CUDA"):
        runtime.compile(NET, PROFILE)
