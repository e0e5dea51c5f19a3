from __future__ import annotations

from dataclasses import replace

import pytest

from hwprune.errors import ConfigError, DeviceError, UsageError
from hwprune.runtimes import (
    TargetProfile,
    default_profile,
    get_runtime,
    load_profile,
    profile_names,
    torch_cuda,
)
from hwprune.runtimes.base import physical_cores
from hwprune.runtimes.fake import FakeRuntime
from hwprune.runtimes.onnxruntime import OnnxRuntime
from hwprune.runtimes.profiles import gpu_choice
from hwprune.runtimes.registry import all_runtimes
from hwprune.runtimes.torch_cuda import TorchCudaRuntime


def test_every_shipped_profile_loads_and_has_its_runtime():
    names = profile_names()
    assert {"cpu", "cpu-1t", "cpu-1t-b8", "cpu-b8"} <= set(names)
    for name in names:
        profile = load_profile(name)
        assert profile.name == name
        if profile.device == "cpu":
            assert get_runtime(profile).name == profile.runtime


def test_profiles_of_gpus_have_options_that_their_runtimes_know(monkeypatch):
    """What a GPU would have to check is left out; the names of options are not."""
    monkeypatch.setattr(torch_cuda, "_check_gpu", lambda profile: None)
    names = {name for name in profile_names() if name.startswith(("cuda-torch", "cuda-ort"))}
    assert {"cuda-torch-fp32", "cuda-torch-fp16", "cuda-torch-fp32-b32", "cuda-ort-fp32"} <= names
    assert {"cuda-ort-trt-fp32", "cuda-ort-rtx-fp32"} <= names
    for name in names:
        profile = load_profile(name)
        assert profile.device == "cuda:0"
        (runtime,) = [one for one in all_runtimes() if one.name == profile.runtime]
        runtime._check(profile)


def without(problem):
    return lambda self, profile=None: problem


def test_a_gpu_is_measured_by_the_best_runtime_that_works_and_says_why(monkeypatch):
    monkeypatch.setattr(TorchCudaRuntime, "missing", without(None))
    monkeypatch.setattr(torch_cuda, "_check_gpu", lambda profile: None)
    profile, why = gpu_choice("cuda:0")
    assert profile == load_profile("cuda-torch-fp32") == default_profile("cuda:0") == default_profile("cuda")
    assert "measured by torch_cuda" in why
    other = default_profile("cuda:2")
    assert (other.device, other.name) == ("cuda:2", "cuda-torch-fp32-gpu2")
    monkeypatch.setattr(TorchCudaRuntime, "missing", without(("No driver.", "install one")))
    monkeypatch.setattr(OnnxRuntime, "missing", without(None))
    profile, why = gpu_choice("cuda:0")
    assert profile == load_profile("cuda-ort-fp32")
    assert "First would come torch_cuda: No driver. -> install one" in why
    monkeypatch.setattr(OnnxRuntime, "missing", without(("No provider.", "pip install x")))
    with pytest.raises(DeviceError, match="No runtime can use a GPU here") as none:
        gpu_choice("cuda:0")
    assert "pip install x" in str(none.value)
    assert "install one" in str(none.value)


def test_a_gpu_that_one_runtime_does_not_serve_is_left_to_the_next(monkeypatch):
    def too_old(profile):
        raise DeviceError("There is no code for this GPU.", do="install an older torch")

    monkeypatch.setattr(TorchCudaRuntime, "missing", without(None))
    monkeypatch.setattr(OnnxRuntime, "missing", without(None))
    monkeypatch.setattr(torch_cuda, "_check_gpu", too_old)
    profile, why = gpu_choice("cuda:0")
    assert profile.runtime == "onnxruntime"
    assert "torch_cuda: There is no code for this GPU. -> install an older torch" in why


def test_device_cpu_means_one_thread():
    assert default_profile("cpu") == load_profile("cpu-1t")
    assert default_profile("cpu").thread_count == 1


def test_zero_threads_mean_all_physical_cores():
    assert load_profile("cpu").thread_count == physical_cores() >= 1


def test_unknown_devices_name_the_known_ones():
    with pytest.raises(DeviceError, match="cpu") as unknown:
        default_profile("npu")
    assert "npu" in str(unknown.value)
    with pytest.raises(DeviceError, match="does not serve that device"):
        get_runtime(TargetProfile(name="gpu", device="cuda:1", runtime="fake"))
    with pytest.raises(DeviceError, match="does not serve that device"):
        get_runtime(TargetProfile(name="cpu", runtime="torch_cuda"))


def test_unknown_runtime_suggests_the_nearest():
    with pytest.raises(DeviceError, match="did you mean onnxruntime"):
        get_runtime(TargetProfile(name="x", runtime="onnxruntim"))


def test_profile_names_every_wrong_value():
    with pytest.raises(ConfigError) as wrong:
        TargetProfile(name="a b", device="gpu", precision="fp64", batch=0, threads=-1)
    assert all(word in str(wrong.value) for word in ("a b", "gpu", "fp64", "batch: 0", "threads: -1"))


def test_local_folder_wins_and_unknown_keys_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles" / "cpu-1t.toml").write_text("threads = 3\n")
    assert load_profile("cpu-1t").threads == 3
    (tmp_path / "mine.toml").write_text('device = "cpu"\nthread = 1\nbatch = "8"\n')
    with pytest.raises(ConfigError, match="thread, batch"):
        load_profile(tmp_path / "mine.toml")
    (tmp_path / "broken.toml").write_text("= 1")
    with pytest.raises(ConfigError, match="not a TOML file"):
        load_profile("broken.toml")
    with pytest.raises(UsageError, match="did you mean"):
        load_profile("cpu-1")


def test_options_are_checked_by_their_runtime():
    profile = TargetProfile(name="x", options={"spinnin": "off", "graph_optimization": "most"})
    with pytest.raises(ConfigError) as wrong:
        get_runtime(profile)
    assert "spinnin" in str(wrong.value)
    assert "extended" in str(wrong.value)
    with pytest.raises(ConfigError, match="precision"):
        get_runtime(TargetProfile(name="x", precision="bf16"))
    with pytest.raises(ConfigError, match="stepp"):
        get_runtime(TargetProfile(name="x", runtime="fake", options={"stepp": 8}))


def test_payload_round_trip_and_equality():
    profile = load_profile("cpu")
    assert TargetProfile.from_payload(profile.to_payload()) == profile
    assert replace(profile, batch=2) != profile


def test_fake_runtime_comes_from_the_registry():
    profile = TargetProfile(name="x", runtime="fake", options={"step": 8})
    assert isinstance(get_runtime(profile), FakeRuntime)
