"""What a CI system reads: JUnit XML and Markdown, whatever the names of files are."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwprune import artifacts
from hwprune.errors import ArtifactError, MismatchError
from hwprune.gate.files import junit, markdown
from hwprune.gate.result import BenchResult, Ratio, Timed
from hwprune.gate.verdict import Limit, Verdict, estimate, judge, overall
from hwprune.gate.words import headline, networks

REGRESSION = Limit(breach=Verdict.REGRESSION, text="5%", most=1.05, unit="ratio")
SHARE = Limit(breach=Verdict.OVER_BUDGET, text="60%", most=0.6, unit="ratio")
BUDGET = Limit(breach=Verdict.OVER_BUDGET, text="15ms", most=15.0, unit="ms")
CONDITIONS = {
    "profile": {"name": "cpu-1t", "threads": 1},
    "device": {"device": "cpu", "model": "Some CPU", "features": ["avx"], "physical_cores": 2},
    "runtime": {"runtime": "onnxruntime", "version": "1.30.0"},
}


def timed(file: str, ms: float) -> Timed:
    return Timed(file=file, sha256="0" * 64, inputs=("float[1, 3, 8, 8]",), ms=ms, error=0.01)


def result(file: str = "new.onnx", ms: float = 10.0, *limits: Limit, **changed: object) -> BenchResult:
    """A network of `ms` beside a baseline of 10 ms."""
    figures = {"ms": estimate(ms, 0.01), "ratio": estimate(ms / 10, 0.005)}
    checks = tuple(judge(limit, figures[limit.unit]) for limit in limits)
    fields = {
        "verdict": overall(checks),
        "model": timed(file, ms),
        "baseline": timed("old.onnx", 10.0),
        "compared_with": "model",
        "ratio": Ratio(value=ms / 10, error=0.005),
        "workload": Ratio(value=ms / 2, error=0.01),
        "workload_sha256": "y",
        "checks": checks,
        "noise": 0.01,
        "stolen": 0.0,
        "blocks": 9,
        "trusted": True,
        "baseline_trusted": True,
        "percentiles_ms": {"median": ms},
        "conditions": CONDITIONS,
        "libraries": {},
        "date": "2026-01-01T00:00:00+00:00",
    }
    return BenchResult(**{**fields, **changed})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("ms", "limits", "failures", "errors"),
    [
        (10.0, (REGRESSION,), 0, 0),
        (12.0, (REGRESSION, BUDGET), 1, 0),
        (10.5, (REGRESSION, SHARE), 1, 1),
        (15.0, (BUDGET,), 0, 1),
        (10.0, (), 0, 0),
    ],
)
def test_junit_has_a_case_for_each_limit(
    ms: float, limits: tuple[Limit, ...], failures: int, errors: int
) -> None:
    root = ElementTree.fromstring(junit(result("new.onnx", ms, *limits)).encode())
    suite = root.find("testsuite")
    assert suite is not None
    cases = suite.findall("testcase")
    assert len(cases) == max(len(limits), 1)
    assert all({"classname", "name", "time"} <= set(case.attrib) for case in cases)
    for element in (root, suite):
        counts = [int(element.attrib[key]) for key in ("tests", "failures", "errors", "skipped")]
        assert counts == [len(cases), failures, errors, 0]
    assert len(suite.findall("testcase/failure")) == failures
    assert len(suite.findall("testcase/error")) == errors


@given(st.text(st.characters(exclude_categories=()), min_size=1))
def test_any_file_name_makes_valid_xml_and_unbroken_markdown(name: str) -> None:
    found = result(name, 12.0, REGRESSION)
    root = ElementTree.fromstring(junit(found).encode())
    assert root.find("testsuite/testcase/failure") is not None
    text = markdown(found)
    text.encode()
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) == 4 + 3
    bars = [len(re.findall(r"(?<!\\)(?:\\\\)*\|", row)) for row in rows]
    assert bars == [4] * 4 + [6] * 3
    assert "<" not in text.replace("&lt;", "")
    assert text.count("\n## ") + text.startswith("## ") == 1


def test_markdown_says_the_verdict_first() -> None:
    text = markdown(result("new.onnx", 12.0, REGRESSION))
    assert text.startswith("## ❌ hwprune bench: new.onnx on cpu-1t\n\n**Regression: latency against the ")
    assert "| latency against the baseline | +20.0 % | +17.9 % to +22.1 % | +5.0 % | regression |" in text
    assert "| new.onnx | 12 ms ± 120 µs | 120.0 % |" in text


def test_headlines() -> None:
    assert headline(result()).startswith("Measured. Nothing was limited")
    assert headline(result("a", 5.0, SHARE)) == (
        "Pass: share of the baseline's latency 50.0 % (49.1 % to 50.9 %), allowed 60.0 %."
    )
    assert "Over budget: latency 20 ms (" in headline(result("a", 20.0, BUDGET))
    assert "--max-time" in headline(result("a", 10.5, REGRESSION))
    noisy = result("a", 10.5, REGRESSION, trusted=False)
    assert "hwprune doctor" in headline(noisy)
    assert "hwprune doctor" in headline(result(trusted=False))
    stored = result("a", 10.5, REGRESSION, baseline_trusted=False, compared_with="figures")
    assert "The baseline's figures were taken on a machine that was too noisy" in headline(stored)


def test_without_a_baseline_there_is_no_column_for_it() -> None:
    head, rows = networks(result(baseline=None, ratio=None, compared_with=""))
    assert head == ("network", "latency")
    assert len(rows) == 1


def test_what_was_saved_is_read_again(tmp_path: Path) -> None:
    found = result("new.onnx", 12.0, REGRESSION, BUDGET, conditions={**CONDITIONS})
    found.save(tmp_path / "b.json")
    again = BenchResult.load(tmp_path / "b.json")
    assert again.checks == found.checks
    assert (again.verdict, again.model, again.baseline) == (found.verdict, found.model, found.baseline)
    assert again.workload == found.workload
    assert again.exit_code == 1
    again.check_comparable(CONDITIONS, "y", tmp_path / "b.json")


def test_a_file_of_version_0_1_is_read(tmp_path: Path) -> None:
    found = result("new.onnx", 12.0, REGRESSION, BUDGET, conditions={**CONDITIONS})
    found.save(tmp_path / "b.json")
    payload = artifacts.read_json(tmp_path / "b.json", "bench-result", 2)
    older = {name.replace("workload", "yardstick"): value for name, value in payload.items()}
    artifacts.write_json(tmp_path / "old.json", "bench-result", 2, older)
    assert BenchResult.load(tmp_path / "old.json").workload == found.workload


@pytest.mark.parametrize(
    "changed",
    [
        {"verdict": "fine"},
        {"verdict": "pass"},
        {"model": {"file": "x"}},
        {"model": 3},
        {"baseline": []},
        {"ratio": {"value": -1.0, "error": 0.0}},
        {"workload": {"value": "fast", "error": 0.0}},
        {"checks": [3]},
        {"checks": None},
        {"trusted": "yes"},
        {"conditions": {}},
        {"conditions": {**CONDITIONS, "runtime": {"runtime": "onnxruntime", "version": 3}}},
        {"conditions": {**CONDITIONS, "device": "cpu"}},
        {"extra": 1},
    ],
)
def test_figures_that_make_no_sense_are_refused(tmp_path: Path, changed: dict[str, object]) -> None:
    """Whoever can write a checksum can write anything."""
    path = tmp_path / "b.json"
    result("new.onnx", 12.0, REGRESSION).save(path)
    payload = artifacts.read_json(path, BenchResult.kind, BenchResult.schema_version)
    artifacts.write_json(path, BenchResult.kind, BenchResult.schema_version, {**payload, **changed})
    with pytest.raises(ArtifactError, match="damaged"):
        BenchResult.load(path)


@pytest.mark.parametrize(
    ("part", "facts", "words"),
    [
        ("device", {"model": "Another CPU"}, "model: Some CPU, not Another CPU"),
        ("device", {"features": []}, "features"),
        ("runtime", {"version": "1.29.9"}, "onnxruntime 1.30.0, not onnxruntime 1.29.9"),
        ("profile", {"threads": 2}, "threads: 1, not 2"),
    ],
)
def test_figures_of_another_machine_are_refused_with_what_differs(
    tmp_path: Path, part: str, facts: dict[str, object], words: str
) -> None:
    found = result(conditions={**CONDITIONS, part: {**CONDITIONS[part], **facts}})
    with pytest.raises(MismatchError) as caught:
        found.check_comparable(CONDITIONS, "y", tmp_path / "b.json")
    assert words in str(caught.value)
    assert "beside its figures" in str(caught.value)


def test_another_release_of_the_runtime_with_the_same_kernels_may_be_compared() -> None:
    runtime = {"runtime": "onnxruntime", "version": "1.30.2"}
    result(conditions={**CONDITIONS, "runtime": runtime}).check_comparable(CONDITIONS, "y", Path("b.json"))


def test_figures_related_to_another_workload_are_refused() -> None:
    with pytest.raises(MismatchError, match="another reference workload"):
        result().check_comparable(CONDITIONS, "z", Path("b.json"))
