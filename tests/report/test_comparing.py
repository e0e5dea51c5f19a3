"""Several results side by side, and what is said where they cannot be compared."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from examples import DEVICE, export, figures, finished, latency_only, report, search, table_only, train

from hwprune import artifacts
from hwprune.cli.main import main
from hwprune.errors import ArtifactError, MissingArtifactError, UsageError
from hwprune.project.folder import WORK
from hwprune.report.compare import Comparison
from hwprune.report.facts import KIND, SCHEMA_VERSION, Report
from hwprune.verbs.compare import compare


def written(folder: Path, **reports: Report) -> list[Path]:
    """The report.json of each, without the pages."""
    files = [folder / name / "report.json" for name in reports]
    for file, made in zip(files, reports.values(), strict=True):
        artifacts.write_json(file, KIND, SCHEMA_VERSION, asdict(made))
    return files


def compared(folder: Path, **reports: Report) -> Comparison:
    return compare(tuple(written(folder, **reports)))


def test_figures_of_two_results_stand_side_by_side(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    faster = replace(export(), figures=(replace(figures()[0], measured=0.5), figures()[1]), top1=0.88)
    files = written(tmp_path, a=finished(), b=report(trained=train(), exported=faster))
    assert main(["compare", *map(str, files)]) == 0
    lines = capsys.readouterr().out.splitlines()
    cells = {
        line.split("│")[1].strip(): [c.strip() for c in line.split("│")[2:4]] for line in lines if "│" in line
    }
    assert cells["speed-up"] == ["1.72x", "2.00x"]
    assert cells["test top-1, pruned"] == ["90.00%", "88.00%"]
    assert cells["latency on cpu-1t, pruned"] == ["580 µs ± 4 µs", "500 µs ± 4 µs"]
    assert any("can be compared" in line for line in lines)


def test_json_holds_the_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = written(tmp_path, a=finished(), b=table_only())
    assert main(["compare", *map(str, files), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert [one["name"] for one in printed["entries"]] == ["a", "b"]
    assert printed["entries"][0]["top1"] == 0.9
    assert printed["entries"][1]["figures"][0]["measured"] is None
    assert len(printed["latency_differs"]) == 1


def test_equal_conditions_are_comparable(tmp_path: Path) -> None:
    found = compared(tmp_path, a=finished(), b=finished())
    assert found.latency_differs == found.accuracy_differs == found.remarks == ()


def test_predicted_against_measured_is_not_comparable(tmp_path: Path) -> None:
    found = compared(tmp_path, a=finished(), b=table_only())
    assert found.latency_differs == ("b is predicted, a is measured",)
    assert found.accuracy_differs == ("b was not trained, so its accuracy is not known",)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"device": {**DEVICE["device"], "model": "Another CPU"}}, "Another CPU"),
        ({"runtime": {"runtime": "fake", "version": "2.0"}}, "fake 2.0"),
        ({"profile": {**DEVICE["profile"], "threads": 4}}, "threads"),
    ],
)
def test_another_device_runtime_or_profile_is_not_comparable(
    tmp_path: Path, changed: dict[str, object], words: str
) -> None:
    found = compared(
        tmp_path, a=finished(), b=report(search(devices=({**DEVICE, **changed},)), trained=train())
    )
    (why,) = found.latency_differs
    assert words in why
    assert found.accuracy_differs == ()


def test_other_images_are_not_comparable_and_other_training_is_told(tmp_path: Path) -> None:
    other = replace(train(), data="imagefolder:photos", test_digest="other", epochs=50)
    found = compared(tmp_path, a=finished(), b=report(trained=other, exported=export()))
    assert found.latency_differs == ()
    assert "other images (500 of imagefolder:photos)" in found.accuracy_differs[0]
    assert "50 epochs" in found.remarks[0]


def test_another_mood_of_the_machine_is_told(tmp_path: Path) -> None:
    slow = replace(figures()[0], base=1.2, measured=0.7)
    found = compared(tmp_path, a=latency_only(), b=report(search(figures=(slow, figures()[1]))))
    assert "another speed" in found.remarks[0]


def test_a_page_and_markdown_are_written(tmp_path: Path) -> None:
    files = written(tmp_path, a=finished(), b=table_only(), c=latency_only())
    html, text = tmp_path / "compared.html", tmp_path / "compared.md"
    found = compare(tuple(files), html=html, markdown=text)
    assert found.files == (str(html), str(text))
    assert "NOT COMPARABLE in their latencies and accuracies" in html.read_text()
    assert "| test top-1, pruned | 90.00% | – | – |" in text.read_text()


def test_two_results_of_one_name_are_told_apart(tmp_path: Path) -> None:
    first, second = written(tmp_path / "x", run=finished())[0], written(tmp_path / "y", run=finished())[0]
    names = [one.name for one in compare((first, second)).entries]
    assert names == [str(first), str(second)]


def test_what_is_no_result_is_refused(tmp_path: Path) -> None:
    (good,) = written(tmp_path, a=finished())
    with pytest.raises(UsageError, match="two results"):
        compare((good,))
    with pytest.raises(MissingArtifactError, match="no such folder or file"):
        compare((good, tmp_path / "nothing.json"))
    with pytest.raises(MissingArtifactError):
        compare((good, tmp_path))
    bad = tmp_path / "bad.json"
    bad.write_text(good.read_text().replace('"model": "example"', '"model": "else"', 1))
    with pytest.raises(ArtifactError, match="damaged"):
        compare((good, bad))


def test_no_result_is_overwritten(tmp_path: Path) -> None:
    a, b = written(tmp_path, a=finished(), b=latency_only())
    before = (a.read_bytes(), b.read_bytes())
    for outputs in (
        {"html": b},
        {"markdown": tmp_path / "a" / ".." / "a" / "report.json"},
        {"html": tmp_path / "x", "markdown": tmp_path / "x"},
    ):
        with pytest.raises(UsageError, match="would overwrite"):
            compare((a, b), **outputs)
    for name in ("report.json", f"{WORK}/search.json", "hwprune.toml"):
        with pytest.raises(UsageError, match="would overwrite"):
            compare((a, b.parent), html=b.parent / name)
    assert (a.read_bytes(), b.read_bytes()) == before
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("part", "changed"),
    [
        ("search", {"model": 3}),
        ("search", {"devices": []}),
        ("search", {"devices": [{"name": "cpu-1t"}]}),
        ("search", {"devices": [{**DEVICE, "name": "another"}]}),
        ("search", {"figures": []}),
        ("search", {"figures": [asdict(figures()[0])]}),
        ("search", {"figures": [{**asdict(figures()[0]), "base": 0}, asdict(figures()[1])]}),
        ("search", {"figures": [{**asdict(figures()[0]), "measured": 0.0}, asdict(figures()[1])]}),
        ("search", {"figures": [asdict(figures()[0]), {**asdict(figures()[1]), "base": 0}]}),
        ("search", {"figures": [{**asdict(figures()[0]), "base": True}, asdict(figures()[1])]}),
        ("train", []),
        ("train", {"top1": "high"}),
        ("export", {"figures": [asdict(figures()[1])]}),
        ("export", {"profile": "../../x"}),
        ("search", None),
    ],
)
def test_a_sealed_report_of_nonsense_is_refused(tmp_path: Path, part: str, changed: object) -> None:
    """Whoever can write a checksum can write anything."""
    good, bad = written(tmp_path, good=finished(), bad=finished())
    payload = artifacts.read_json(bad, KIND, SCHEMA_VERSION)
    payload[part] = {**payload[part], **changed} if isinstance(changed, dict) else changed
    artifacts.write_json(bad, KIND, SCHEMA_VERSION, payload)
    with pytest.raises(ArtifactError, match="damaged"):
        compare((good, bad))


def test_a_runtime_without_a_name_is_another_runtime(tmp_path: Path) -> None:
    nameless = report(search(devices=({**DEVICE, "runtime": {}},)), trained=train())
    for results in ({"a": finished(), "b": nameless}, {"a": nameless, "b": finished()}):
        (why,) = compared(tmp_path, **results).latency_differs
        assert "runtime" in why
