from __future__ import annotations

import json
import subprocess
import sys

import numpy as np

from hwprune import environment


def test_fingerprint_is_stable_json_and_names_this_cpu():
    one, two = environment.device_fingerprint(), environment.device_fingerprint("cpu")
    assert one == two == json.loads(json.dumps(one))
    assert one["cores"] >= one["physical_cores"] >= 1
    assert one["memory_gib"] > 0
    assert set(environment.IDENTITY) <= set(one)
    assert environment.device_differences(one, two) == []


def test_differences_name_what_identifies_a_device_and_nothing_else():
    here = environment.device_fingerprint()
    grown = {**here, "memory_gib": 1.0, "cores": 999, "system": "Other 1"}
    assert environment.device_differences(here, grown) == []
    other = {**here, "model": "Other CPU", "features": ["avx2"]}
    found = environment.device_differences(here, other)
    assert [text.split(":")[0] for text in found] == ["features", "model"]
    assert "Other CPU" in found[1]


def test_gpu_fingerprints_are_never_equal_to_a_cpu():
    gpu = environment.device_fingerprint("cuda:0")
    assert gpu["device"] == "cuda:0"
    assert environment.device_differences(environment.device_fingerprint(), gpu)


def test_library_versions_are_those_installed():
    versions = environment.library_versions()
    assert versions["numpy"] == np.__version__
    assert "onnxruntime" in versions
    assert all(versions.values())


def test_load_is_plain_data():
    load = environment.machine_load()
    assert json.loads(json.dumps(load)) == load
    assert load["cores"] >= 1
    assert load["load_1m"] is None or load["load_1m"] >= 0


def test_container_quota_is_read_in_both_versions(tmp_path, monkeypatch):
    monkeypatch.setattr(environment, "_CGROUP", tmp_path)
    assert environment._cgroup_cpu() == (None, None)
    (tmp_path / "cpu.max").write_text("150000 100000\n")
    (tmp_path / "cpu.stat").write_text("nr_periods 9\nnr_throttled 4\n")
    assert environment._cgroup_cpu() == (1.5, 4)
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert environment._cgroup_cpu() == (None, 4)
    (tmp_path / "cpu.max").unlink()
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("200000")
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000")
    assert environment._cgroup_cpu() == (2.0, 4)


def test_a_machine_that_tells_nothing_is_no_error(tmp_path, monkeypatch):
    monkeypatch.setattr(environment, "_read", lambda path: "")
    monkeypatch.setattr(environment, "_cpuinfo", dict)
    assert environment.device_fingerprint()["features"] == []
    assert environment.machine_load()["steal_s"] is None


def test_no_torch_is_imported():
    code = "import hwprune.environment as e, sys; e.library_versions(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
