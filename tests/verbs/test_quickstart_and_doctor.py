"""The first two commands that a newcomer types."""

from __future__ import annotations

from pathlib import Path

import pytest
from projects import new_project

from hwprune.runtimes.registry import serving
from hwprune.verbs.doctor import doctor
from hwprune.verbs.quickstart import quickstart


@pytest.mark.slow
def test_quickstart_does_the_whole_job_and_a_second_run_repeats_nothing(tmp_path: Path) -> None:
    folder = new_project(tmp_path / "p")
    first = quickstart(project=folder)
    assert first.export is not None
    assert first.train is not None
    assert first.export.within_budget
    assert first.search.latency.limit == first.search.latency.base * 0.5
    assert (folder / "pruned.onnx").is_file()
    assert first.verdict.startswith("Budget met")
    again = quickstart(project=folder)
    assert again.train == first.train
    assert again.search.candidates == first.search.candidates


def test_doctor_looks_at_devices_runtimes_and_noise() -> None:
    result = doctor(seconds=0.3)
    findings = {finding.name: finding for finding in result.findings}
    assert {"cpu", "gpus", "versions", "runtime onnxruntime", "load", "noise"} <= set(findings)
    assert findings["runtime onnxruntime"].value == "ready"
    assert all(finding.do for finding in result.findings if finding.good is False)
    runtimes = [one for one in result.findings if one.name.startswith("runtime ")]
    assert all((one.value == "ready") == (one.good is True) for one in runtimes)
    assert all(one.do for one in runtimes if one.good is None), "what is absent says how to get it"
    assert set(result.facts["runtimes_ms"]) == {one.name for one in serving("cpu")} >= {"onnxruntime"}
    fastest = min(result.facts["runtimes_ms"], key=result.facts["runtimes_ms"].get)
    assert findings["fastest runtime"].value.startswith(fastest)
    assert {"drift", "error", "bias", "slowest"} == set(result.facts["noise"])
    assert {"frequency governor", "container quota"} <= set(findings)
    if result.facts["device"]["physical_cores"] > 1:
        assert result.facts["thread_speed_up"] > 0
        assert "times as fast" in findings["cores side by side"].value


def test_doctor_says_nothing_about_threads_of_a_profile_for_a_gpu() -> None:
    names = [f.name for f in doctor(profile="cuda-torch-fp32", seconds=0.3).findings]
    assert "cores side by side" not in names
    assert "noise" in names


def test_doctor_names_what_is_wrong_with_a_profile() -> None:
    (finding,) = [f for f in doctor(profile="cpu-99t", seconds=0.3).findings if f.name == "noise"]
    assert not finding.good
    assert "profile" in finding.value
