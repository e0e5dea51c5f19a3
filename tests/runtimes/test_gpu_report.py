"""`benchmarks/gpu_report.py` with hardly any time, on a CPU and above TensorRT's stand-in: that it runs."""

from __future__ import annotations

import json
import sys

import pytest
from tensorrt_standin import Machine, install

from hwprune.runtimes import load_profile, tensorrt_cuda


@pytest.fixture
def report(repository, monkeypatch):
    monkeypatch.syspath_prepend(repository / "benchmarks")
    import gpu_report

    return gpu_report


SMALL = ["--models", "resnet20", "--seconds", "0.1", "--networks", "4", "--steps", "1"]


def run(report, monkeypatch, out):
    monkeypatch.setattr(sys, "argv", ["gpu_report.py", "--profiles", "cpu-1t", *SMALL, "--out", str(out)])
    with pytest.raises(SystemExit) as ended:
        report.main()
    return ended.value.code


@pytest.mark.slow
def test_every_part_runs_and_none_is_mixed_with_another_devices(report, monkeypatch, tmp_path, capsys):
    out = tmp_path / "report.json"
    assert run(report, monkeypatch, out) == 0
    found = json.loads(out.read_text())
    assert set(found["parts"]) == {
        "machine/cpu",
        "staircase/cpu/cpu-1t",
        "unpruned/cpu/resnet20/cpu-1t",
        "table/cpu/resnet20/cpu-1t",
        "pruningnet/cpu/resnet20",
        "candidate/cpu/resnet20",
    }
    assert "torch" in found["libraries"]
    (row,) = found["runtimes"]["resnet20 on cpu, batch 1"]
    assert (row["runtime"], row["times_the_fastest"]) == ("onnxruntime", 1.0)
    table = found["parts"]["table/cpu/resnet20/cpu-1t"]
    met = table["mean_error"] <= 0.03 and table["within_5_percent"] >= 0.95
    assert found["goals"]["tables"] == {"table/cpu/resnet20/cpu-1t": met}
    capsys.readouterr()
    assert run(report, monkeypatch, out) == 0  # nothing is left to do
    assert capsys.readouterr().out.count("kept from an earlier run") == 6
    out.write_text(json.dumps({**found, "devices": {"cuda:0": {"gpu_name": "Pretended"}}}))
    assert run(report, monkeypatch, out) == 2
    assert "made with other devices" in capsys.readouterr().out
    assert json.loads(out.read_text())["devices"] != found["devices"]  # left as it was


@pytest.mark.slow
def test_parts_of_tensorrt_run_above_the_stand_in(report, monkeypatch, tmp_path):
    from argparse import Namespace

    import gpu_report_file

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    tensorrt_cuda._retained.cache_clear()
    machine = install(monkeypatch, Machine())
    target = load_profile("cuda-trt-fp32")
    kept = gpu_report_file.Report(tmp_path / "report.json", gpu_report_file.identity([target.device]))
    kept.parts["staircase/cuda:0/cuda-trt-fp32"] = {"multiple": 8}
    options = Namespace(seconds=0.1, networks=4, out=tmp_path / "report.json")
    report.run_case(kept, "resnet20", target, options)
    tensorrt_cuda._retained.cache_clear()
    tag = "cuda:0/resnet20/cuda-trt-fp32"
    assert not [name for name, part in kept.parts.items() if "error" in part]
    assert len(kept.parts[f"builds/{tag}"]["median_ms"]) == 5
    assert kept.parts[f"table/{tag}"]["networks"] >= 8
    assert machine.contexts == 0


def test_another_device_or_library_begins_anew_only_when_asked(report, tmp_path):
    import gpu_report_file

    out = tmp_path / "report.json"
    who = {"devices": {"cuda:0": {"gpu_name": "A"}}, "libraries": {"torch": "1"}}
    gpu_report_file.Report(out, who).part("machine/cuda:0", dict)
    assert set(gpu_report_file.Report(out, who).parts) == {"machine/cuda:0"}
    for other in ({**who, "libraries": {"torch": "2"}}, {**who, "devices": {"cpu": {}}}):
        with pytest.raises(ValueError, match="made with other"):
            gpu_report_file.Report(out, other)
        assert gpu_report_file.Report(out, other, fresh=True).parts == {}


def test_large_batches_of_all_runtimes_are_timed_with_cold_caches(report, monkeypatch):
    monkeypatch.setattr(report, "get_runtime", lambda profile: None)
    found = report.usable([])
    large = [profile for profile in found if profile.batch == 32]
    assert {profile.runtime for profile in large} == {"tensorrt", "torch_cuda", "onnxruntime"}
    assert {report.buffers(profile) for profile in large} == {"rotating"}
    assert {report.buffers(profile) for profile in found if profile.batch == 1} == {"hot"}
    assert len(set(map(report.conditions, found))) == len(found)  # none twice


def test_runtimes_are_compared_and_tables_judged(report):
    import gpu_report_file

    shared = {"model": "m", "device": "cuda:0", "batch": 1, "precision": "fp32", "error_ms": 0.0}
    parts = {
        "unpruned/a": {**shared, "profile": "a", "runtime": "torch_cuda", "ms": 3.0},
        "unpruned/b": {**shared, "profile": "b", "runtime": "tensorrt", "ms": 2.0},
        "unpruned/c": {"error": "OSError: none"},
        "unpruned/d": {**shared, "profile": "d", "runtime": "tensorrt", "ms": 9.0, "buffers": "rotating"},
        "table/a": {"mean_error": 0.03, "within_5_percent": 0.95},
        "table/b": {"mean_error": 0.01, "within_5_percent": 0.94},
        "table/c": {"error": "OSError: none"},
    }
    rows, cold = gpu_report_file.compared(parts).values()
    assert [(row["profile"], row["times_the_fastest"]) for row in rows] == [("b", 1.0), ("a", 1.5)]
    assert [(row["profile"], row["times_the_fastest"]) for row in cold] == [("d", 1.0)]
    assert gpu_report_file.judged(parts) == {"table/a": True, "table/b": False}
