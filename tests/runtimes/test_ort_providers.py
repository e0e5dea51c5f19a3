"""ONNX Runtime's providers for GPUs, as far as can be seen without one: above stand-ins at the boundary."""

from __future__ import annotations

import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest

from hwprune.cli.main import main
from hwprune.cudadriver import DriverFacts
from hwprune.errors import ConfigError, DeviceError, ModelError
from hwprune.runtimes import TargetProfile, load_profile, ort_blocking, ort_providers
from hwprune.runtimes.onnxruntime import OnnxRuntime, OrtSession, session_options
from hwprune.runtimes.ort_providers import check_provider, provider_list, takes_rtx
from hwprune.runtimes.probes import conv_chain

GPU = TargetProfile(name="gpu", device="cuda:1")
RUNTIME = OnnxRuntime()
NET = conv_chain([3, 8, 4])


def with_options(**options):
    return replace(GPU, options=options)


class Session:
    """What `InferenceSession` was asked for, and the providers that it says it has."""

    def __init__(self, *given, **more):
        self.given, self.more = given, more
        self.fell_back = True

    def disable_fallback(self):
        self.fell_back = False

    def get_providers(self):
        return [*[name for name, _ in self.more.get("providers", [])], "CPUExecutionProvider"]


@pytest.fixture
def sessions(monkeypatch):
    """Sessions are only noted; every name that the stand-in has is one of the real class."""
    made = []

    def make(*given, **more):
        made.append(Session(*given, **more))
        return made[-1]

    for name in ("disable_fallback", "get_providers"):
        assert hasattr(onnxruntime.InferenceSession, name)
    monkeypatch.setattr(onnxruntime, "InferenceSession", make)
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: None)
    return made


def test_a_session_names_device_and_options_and_may_not_fall_back(sessions):
    profile = with_options(tf32=True)
    options = session_options(profile)
    assert options.get_session_config_entry(ort_providers.NO_FALLBACK) == "1"
    session = ort_providers.open_on_gpu(NET, options, profile)
    (name, found), *rest = session.more["providers"]
    assert (name, rest) == ("CUDAExecutionProvider", [])
    assert found["device_id"] == "1"
    assert (found["use_tf32"], found["enable_cuda_graph"]) == ("1", "0")
    assert not session.fell_back
    assert session.more["enable_fallback"] == 0  # nor while it is made


def test_a_silent_fallback_is_an_error(sessions, monkeypatch):
    monkeypatch.setattr(Session, "get_providers", lambda self: ["CPUExecutionProvider"])
    with pytest.raises(DeviceError, match="could not load the provider") as told:
        ort_providers.open_on_gpu(NET, session_options(GPU), GPU)
    assert "pip install" in str(told.value)
    check_provider(["CUDAExecutionProvider", "CPUExecutionProvider"], GPU)
    with pytest.raises(DeviceError) as told:
        check_provider(["CUDAExecutionProvider"], with_options(provider="tensorrt"))
    assert "libnvinfer" in told.value.do


CPU_LEFT = "This session contains graph nodes that are assigned to the default CPU EP"


@pytest.mark.parametrize(
    ("text", "error"),
    [(CPU_LEFT, ModelError), ("Failed to allocate memory for requested buffer of size 123", DeviceError)],
)
def test_a_refused_network_says_what_to_do(sessions, monkeypatch, text, error):
    make = onnxruntime.InferenceSession

    def refuse(content, *given, **more):
        if content == NET:
            raise RuntimeError(text)
        return make(content, *given, **more)

    monkeypatch.setattr(onnxruntime, "InferenceSession", refuse)
    with pytest.raises(error) as told:
        ort_providers.open_on_gpu(NET, session_options(GPU), GPU)
    assert text in str(told.value)
    assert "use " in told.value.do


def test_a_provider_without_its_libraries_is_not_blamed_on_the_network(sessions, monkeypatch):
    """All is left to the CPU then, which is refused with the words for a network that is left to it."""
    make = onnxruntime.InferenceSession

    def refuse(content, *given, **more):
        if content == NET:
            raise RuntimeError(CPU_LEFT)
        return make(content, *given, **more)

    monkeypatch.setattr(onnxruntime, "InferenceSession", refuse)
    monkeypatch.setattr(Session, "get_providers", lambda self: ["CPUExecutionProvider"])
    with pytest.raises(DeviceError, match="could not load the provider") as told:
        ort_providers.open_on_gpu(NET, session_options(GPU), GPU)
    assert "cuDNN" in told.value.do


def test_the_installed_onnxruntime_keeps_its_own_words():
    """The real library: what went wrong is not replaced by what a second try on the CPU says."""
    profile = replace(GPU, device="cuda:0")
    with pytest.raises(DeviceError, match="could not load the provider") as told:
        ort_providers.open_on_gpu(NET, session_options(profile), profile)
    assert "CUDAExecutionProvider" in str(told.value)


def test_the_installed_onnxruntime_refuses_to_leave_operators_to_the_cpu():
    """The real library, CPU only: the entry that forbids the fallback is one that it knows and heeds."""
    options = session_options(GPU)
    with pytest.raises(Exception, match=r"(?i)cpu"):
        onnxruntime.InferenceSession(NET, options, providers=["AzureExecutionProvider"])


def test_tensorrt_comes_before_cuda_and_captures_by_itself():
    (first, options), (second, rest) = provider_list(with_options(provider="tensorrt", cuda_graph=True))
    assert (first, second) == ("TensorrtExecutionProvider", "CUDAExecutionProvider")
    assert options["trt_cuda_graph_enable"] == "1"
    assert rest["enable_cuda_graph"] == "0"


def test_the_plugin_is_registered_once_and_takes_its_device(sessions, monkeypatch):
    calls = []
    for name in ("register_execution_provider_library", "get_ep_devices"):
        assert hasattr(onnxruntime, name)
    assert hasattr(onnxruntime.SessionOptions, "add_provider_for_devices")
    devices = [SimpleNamespace(ep_name=ort_providers.PROVIDERS["tensorrt_rtx"], n=n) for n in range(2)]
    plugin = SimpleNamespace(get_library_path=lambda: "/lib.so")
    monkeypatch.setitem(sys.modules, "onnxruntime_ep_nv_tensorrt_rtx", plugin)
    register = "register_execution_provider_library"
    monkeypatch.setattr(onnxruntime, register, lambda name, path: calls.append((name, path)))
    monkeypatch.setattr(onnxruntime, "get_ep_devices", lambda: [SimpleNamespace(ep_name="cpu"), *devices])
    monkeypatch.setattr(Session, "get_providers", lambda self: [ort_providers.PROVIDERS["tensorrt_rtx"]])
    ort_providers._register_rtx.cache_clear()
    options = SimpleNamespace(add_provider_for_devices=lambda found, wanted: calls.append((found, wanted)))
    ort_providers.open_on_gpu(NET, options, with_options(provider="tensorrt_rtx"))
    assert calls[0] == ("NvTensorRTRTXExecutionProvider", "/lib.so")
    assert calls[1] == ([devices[1]], {"enable_cuda_graph": "0"})
    profile = replace(with_options(provider="tensorrt_rtx"), device="cuda:5")
    with pytest.raises(DeviceError, match="finds no such GPU") as told:
        ort_providers.open_on_gpu(NET, options, profile)
    assert "nvidia-smi -L" in told.value.do
    ort_providers._register_rtx.cache_clear()


def test_what_is_missing_comes_with_a_command(monkeypatch):
    assert RUNTIME.missing() is None
    assert RUNTIME.missing(TargetProfile(name="cpu")) is None
    what, do = RUNTIME.missing(GPU)  # the onnxruntime here is the one for CPUs
    assert "CUDAExecutionProvider" in what
    assert "onnxruntime-gpu" in do
    rtx = with_options(provider="tensorrt_rtx")
    assert "onnxruntime-ep-nv-tensorrt-rtx" in RUNTIME.missing(rtx)[1]
    monkeypatch.setattr(ort_providers.importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(ort_providers, "gpus", lambda: [{}, {"gpu_capability": "9.0"}])
    assert "compute capability 9.0" in RUNTIME.missing(rtx)[0]
    monkeypatch.setattr(ort_providers, "gpus", lambda: [{}, {"gpu_capability": "8.9"}])
    assert RUNTIME.missing(rtx) is None
    monkeypatch.setattr(ort_providers, "gpus", lambda: [{}])
    assert RUNTIME.missing(rtx)[0] == "There is no GPU cuda:1."
    monkeypatch.setattr(ort_providers, "gpus", list)
    monkeypatch.setattr(
        onnxruntime, "get_available_providers", lambda: list(ort_providers.PROVIDERS.values())
    )
    for profile in (rtx, GPU):
        what, do = RUNTIME.missing(profile)
        assert "no driver" in what
        assert "nvidia-driver" in do
    monkeypatch.setattr(ort_providers, "nvml_installed", lambda: False)
    assert RUNTIME.missing(GPU) is None  # nobody can tell


@pytest.mark.parametrize(
    ("capability", "takes"), [("8.0", 0), ("8.6", 1), ("9.0", 0), ("10.0", 0), ("12.0", 1)]
)
def test_which_gpus_tensorrt_rtx_serves(capability, takes):
    assert takes_rtx(capability) == bool(takes)


def test_options_of_cpus_and_gpus_are_not_mixed(monkeypatch):
    for profile in (
        with_options(spinning="off"),
        with_options(provider="cpu"),
        with_options(provider="rocm"),
    ):
        with pytest.raises(ConfigError, match=r"provider|spinning"):
            RUNTIME.check(profile)
    with pytest.raises(ConfigError, match="provider"):
        RUNTIME.check(TargetProfile(name="cpu", options={"provider": "cuda"}))
    with pytest.raises(ConfigError, match="tf32"):  # they have no option for it
        RUNTIME.check(with_options(provider="tensorrt", tf32=False))
    assert RUNTIME.settings(with_options(provider="tensorrt"))["tf32"] == "provider's default"
    assert RUNTIME.settings(GPU)["tf32"] is False
    assert RUNTIME.settings(GPU)["provider"] == "cuda"
    assert RUNTIME.settings(GPU)["gpu"] == "unknown"
    facts = DriverFacts("NVIDIA A", "9.0", 50 * 2**20)
    monkeypatch.setattr(ort_providers, "driver_facts", {1: facts}.get)
    assert RUNTIME.settings(GPU)["gpu"] == "NVIDIA A"
    assert RUNTIME.settings(GPU)["capability"] == "9.0"
    assert "spinning" not in RUNTIME.settings(GPU)


def test_inputs_lie_where_the_provider_reads_them():
    assert ort_providers.memory_of(GPU) == ("cuda", 1)
    assert ort_providers.memory_of(with_options(provider="tensorrt")) == ("cuda", 1)
    assert ort_providers.memory_of(with_options(provider="tensorrt_rtx")) == ("cpu", 0)
    assert ort_providers.memory_of(TargetProfile(name="cpu")) == ("cpu", 0)


def test_rotating_buffers_take_turns_among_sessions(monkeypatch):
    ran, opened = [], []
    monkeypatch.setattr(ort_providers, "missing", lambda profile: None)
    monkeypatch.setattr("hwprune.runtimes.cold.replicas", lambda network, cache: 3)

    class Bound(Session):
        def run_with_iobinding(self, binding):
            ran.append(self)

    monkeypatch.setattr(
        "hwprune.runtimes.onnxruntime._open", lambda *given: opened.append(Bound()) or opened[-1]
    )
    monkeypatch.setattr("hwprune.runtimes.onnxruntime._bind", lambda session, profile: None)
    with RUNTIME.compile(NET, with_options(buffers="rotating")) as session:
        session.time_runs(4)
        session.time_runs(2)
    assert ran == opened * 2
    assert len(opened) == 3
    opened.clear()
    RUNTIME.compile(NET, GPU).close()
    assert len(opened) == 1
    assert RUNTIME.settings(with_options(buffers="rotating"))["buffers"] == "rotating"
    assert RUNTIME.settings(GPU)["buffers"] == "hot"
    with pytest.raises(ConfigError, match="buffers"):
        RUNTIME.check(TargetProfile(name="cpu", options={"buffers": "hot"}))


def test_tensorrt_providers_have_no_kernels_and_say_so(monkeypatch):
    monkeypatch.setattr(ort_providers, "missing", lambda profile: None)
    for profile in map(load_profile, ("cuda-ort-trt-fp32", "cuda-ort-rtx-fp32")):
        for refused in (
            lambda p=profile: RUNTIME.profile_kernels(NET, p),
            lambda p=profile: RUNTIME.check_table(p),
        ):
            with pytest.raises(DeviceError, match="single kernel") as told:
                refused()
            assert "--profile cuda-trt-fp32" in told.value.do
    RUNTIME.check_table(GPU)
    RUNTIME.check_table(load_profile("cpu-1t"))


def test_a_profile_that_can_time_files_only_is_refused_before_anything_is_measured(
    monkeypatch, tmp_path, capsys
):
    monkeypatch.setattr(ort_providers, "missing", lambda profile: None)
    monkeypatch.setattr("hwprune.verbs.profile.traced", lambda *given: pytest.fail("too late"))
    command = ["profile", "--project", str(tmp_path), "--model", "resnet20", "--profile", "cuda-ort-trt-fp32"]
    assert main(command) == 1
    assert "single kernel" in capsys.readouterr().err


def test_files_are_timed_with_the_tensorrt_provider(sessions, monkeypatch, tmp_path, capsys):
    """The whole of `hwprune bench`, which needs no table, above sessions that are only noted."""
    monkeypatch.setattr(ort_providers, "missing", lambda profile: None)
    monkeypatch.setattr(Session, "run_with_iobinding", lambda self, bound: sum(range(1000)), raising=False)
    monkeypatch.setattr("hwprune.runtimes.onnxruntime._bind", lambda session, profile: None)
    monkeypatch.chdir(tmp_path)  # a longer path is broken where the terminal ends
    (tmp_path / "model.onnx").write_bytes(NET)
    command = ["bench", "model.onnx", "--max-time", "1s"]
    assert main([*command, "--profile", "cuda-ort-trt-fp32"]) in (0, 3)
    assert sessions[0].more["providers"][0][0] == "TensorrtExecutionProvider"
    assert "model.onnx" in capsys.readouterr().out


def test_kernels_are_profiled_without_a_graph(monkeypatch):
    asked = []
    monkeypatch.setattr(ort_providers, "missing", lambda profile: None)
    monkeypatch.setattr(
        "hwprune.runtimes.onnxruntime.profiled_blocking",
        lambda onnx, profile, runs: asked.append(profile) or [],
    )
    RUNTIME.profile_kernels(NET, with_options(cuda_graph=True, tf32=True, buffers="rotating"))
    assert dict(asked[0].options) == {"tf32": True}


def test_kernels_are_profiled_in_a_process_that_waits_for_each(monkeypatch):
    """The other process, run for real with the CPU's provider."""
    seen = {}
    real = ort_blocking.subprocess.run

    def run(command, **more):
        seen.update(more["env"])
        return real(command, **more)

    monkeypatch.setattr(ort_blocking.subprocess, "run", run)
    kernels = ort_blocking.profiled_blocking(NET, TargetProfile(name="cpu"), runs=3)
    assert seen["CUDA_LAUNCH_BLOCKING"] == "1"
    here = RUNTIME.profile_kernels(NET, TargetProfile(name="cpu"), runs=3)
    assert [(k.tensor, k.op, k.runs) for k in kernels] == [(k.tensor, k.op, k.runs) for k in here]
    assert all(kernel.time_us > 0 for kernel in kernels)
    with pytest.raises(DeviceError, match="failed while its kernels were timed") as told:
        ort_blocking.profiled_blocking(NET, GPU, runs=3)
    assert "CUDA" in str(told.value)


def test_a_process_that_hangs_or_dies_is_told_with_what_to_do(monkeypatch):
    def hangs(command, **more):
        raise ort_blocking.subprocess.TimeoutExpired(command, more["timeout"])

    monkeypatch.setattr(ort_blocking.subprocess, "run", hangs)
    with pytest.raises(DeviceError, match="did not end") as told:
        ort_blocking.profiled_blocking(NET, GPU, runs=3)
    assert "nvidia-smi" in told.value.do
    died = SimpleNamespace(returncode=1, stderr="CUDA failure 2: out of memory ; GPU=1")
    monkeypatch.setattr(ort_blocking.subprocess, "run", lambda *given, **more: died)
    with pytest.raises(DeviceError, match="too little memory") as told:
        ort_blocking.profiled_blocking(NET, replace(GPU, batch=8), runs=3)
    assert "batch = 1" in told.value.do


def test_failures_on_a_gpu_say_what_to_do(sessions, monkeypatch):
    monkeypatch.setattr(ort_providers, "missing", lambda profile: None)
    monkeypatch.setattr(Session, "run_with_iobinding", lambda self, bound: None, raising=False)

    def full(session, profile):
        raise RuntimeError("CUDA failure 2: out of memory ; GPU=1 ; hostname=h")

    monkeypatch.setattr("hwprune.runtimes.onnxruntime._bind", full)
    with pytest.raises(DeviceError, match="too little memory") as told:
        RUNTIME.compile(NET, replace(GPU, batch=8))
    assert "batch = 1" in told.value.do
    monkeypatch.setattr("hwprune.runtimes.onnxruntime._bind", lambda session, profile: None)
    for words, do in (("CUDA failure 700: an illegal memory access", "dmesg"), ("Non-zero status", "doctor")):

        def fails(self, bound, words=words):
            raise RuntimeError(words)

        monkeypatch.setattr(Session, "run_with_iobinding", fails)
        with RUNTIME.compile(NET, GPU) as session, pytest.raises(DeviceError, match="while it ran") as told:
            session.time_runs(1)
        assert do in told.value.do
    with OrtSession([Session()], TargetProfile(name="cpu")) as session, pytest.raises(DeviceError) as told:
        session.time_runs(1)
    assert "batch" in told.value.do


def test_a_host_that_sleeps_while_the_gpu_computes_was_not_robbed(monkeypatch):
    monkeypatch.setattr("hwprune.runtimes.onnxruntime._bind", lambda session, profile: None)
    wall_ms, core_ms = np.array([5.0, 5.0]), np.array([5.0, 0.1])
    assert OrtSession([], GPU)._undisturbed(wall_ms, core_ms).tolist() == [5.0, 5.0]
    assert OrtSession([], TargetProfile(name="cpu"))._undisturbed(wall_ms, core_ms).tolist() == [5.0, 0.1]
