"""Budgets of every kind: several devices, MACs, parameters, bytes, tables from elsewhere, and fronts."""

from __future__ import annotations

import json
import math
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from projects import new_project

from hwprune.cli.main import main
from hwprune.errors import BudgetError, MismatchError, MissingArtifactError, UsageError
from hwprune.evolution.front import FrontEvolution
from hwprune.latency.device import Device
from hwprune.latency.measure import Measurement
from hwprune.latency.table import LatencyTable
from hwprune.project.folder import Project
from hwprune.results import FrontResult, SearchResult
from hwprune.runtimes.base import TargetProfile
from hwprune.runtimes.fake import FakeDevice, FakeRuntime
from hwprune.searching import confirmation as answer
from hwprune.searching.front import span_of
from hwprune.searching.limits import Budget, common_space
from hwprune.searching.searcher import Searcher
from hwprune.structure.space import ChannelGroup, SearchSpace
from hwprune.units import parse_latency
from hwprune.verbs.export import export
from hwprune.verbs.profile import profile
from hwprune.verbs.report import report
from hwprune.verbs.search import search
from hwprune.verbs.train import train

SLOW = 'runtime = "fake"\ndevice = "cpu"\noptions = { macs_per_us = 4000.0, step = 8 }\n'
INT8 = 'runtime = "fake"\ndevice = "cpu"\nprecision = "int8"\n'


@pytest.fixture(scope="module")
def two_devices(made_once: Callable[..., Path]) -> Path:
    """A project profiled on two pretended devices, of which the second computes slowly in steps of 8."""

    def fill(folder: Path) -> None:
        new_project(folder, images=False)
        (folder / "slow.toml").write_text(SLOW)
        profile(project=folder)
        profile(project=folder, profile=str(folder / "slow.toml"))

    return made_once("devices", fill)


@pytest.fixture
def project(two_devices: Path, tmp_path: Path) -> Path:
    shutil.copytree(two_devices, tmp_path / "copy")
    for name in ("fake.toml", "hwprune.toml", "slow.toml"):
        text = (tmp_path / "copy" / name).read_text()
        (tmp_path / "copy" / name).write_text(text.replace(str(two_devices), str(tmp_path / "copy")))
    return tmp_path / "copy"


def on(project: Path, name: str, value: str) -> str:
    return f"cpu/{project / name}.toml={value}"


def found(project: Path, **budgets: object) -> SearchResult:
    result = search(project=project, **budgets)  # type: ignore[arg-type]
    assert isinstance(result, SearchResult)
    return result


def test_two_devices_are_both_measured_within_their_budgets(project: Path) -> None:
    result = found(project, latency=(on(project, "fake", "60%"), on(project, "slow", "50%")))
    latencies = [one for one in result.figures if one.unit == "ms"]
    assert [one.name for one in latencies] == ["fake", "slow"]
    assert all(one.is_measured and one.met for one in latencies)
    assert result.binding in ("fake", "slow")
    assert max(one.use for one in latencies) > 0.9, "the binding budget is used"
    assert result.budget == "60% on fake, 50% on slow"
    facts = result.corrections[0]
    assert set(facts["factors"]) == {"fake", "slow"}, "each device corrects its own predictions"
    assert all(set(figures) == {"fake", "slow"} for _, figures in facts["measured"])
    exported = export(project=project)
    assert [one.name for one in exported.budgets] == ["fake", "slow"]
    assert exported.within_budget


def test_the_space_of_two_devices_has_the_choices_that_suit_both() -> None:
    one = _space((8, 16, 24, 32))
    other = _space((16, 32))
    assert common_space([one, other]).groups[0].choices == (16, 32)
    assert common_space([one]) == one


def _space(choices: tuple[int, ...]) -> SearchSpace:
    return SearchSpace("toy", (1, 3, 8, 8), (ChannelGroup("g", choices[-1], 1, choices),), ())


@pytest.mark.parametrize("budget", [{"macs": "30%"}, {"params": "25%"}, {"size": "40%"}])
def test_counts_are_hard_limits_too(project: Path, budget: dict[str, str]) -> None:
    result = found(project, latency="95%", **budget)
    (name,) = budget
    figure = result.figure(name)
    assert figure.met
    assert figure.use > 0.8
    assert result.binding == name
    assert result.latency.is_measured


def test_a_budget_of_macs_needs_no_latency(project: Path) -> None:
    result = found(project, macs="10M")
    assert result.figure("macs").value <= 10e6
    assert result.latency.is_measured, "it is measured and reported all the same"
    assert not result.latency.budget
    assert result.budget == "10M MACs"


def test_the_size_is_that_of_the_exported_file(project: Path) -> None:
    result = found(project, size="500kB")
    exported = export(project=project)
    assert exported.bytes <= 500_000
    assert (
        exported.bytes
        == exported.figure("size").value
        == pytest.approx(result.figure("size").value, rel=0.05)
    )
    assert exported.within_budget


def test_impossible_budgets_name_the_one_that_fails(project: Path) -> None:
    with pytest.raises(BudgetError) as caught:
        found(project, latency="60%", params="0.01%")
    assert caught.value.where == "params"


def test_a_table_from_elsewhere_predicts_and_says_so(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    board = project.parent / "board"
    shutil.copytree(project / "hwprune-work/latency/slow", board)
    shutil.rmtree(project / "hwprune-work/latency")
    result = found(project, latency=f"{board}=50%")
    assert not result.latency.is_measured
    assert result.latency.met
    assert result.unmeasured == (result.latency.name,)
    exported = export(project=project)
    assert not exported.latency.is_measured
    facts = report(project=project)
    assert "PREDICTED, NOT MEASURED" in facts.verdict
    for name in ("report.md", "report.html"):
        assert "PREDICTED, NOT MEASURED" in (project / name).read_text()
    capsys.readouterr()
    assert main(["search", "--project", str(project), "--latency", f"{board}=50%"]) == 0
    assert "Predicted, not measured: slow" in capsys.readouterr().out
    for command in (["search", "--latency", f"{board}=50%"], ["export"]):
        assert main([*command, "--json", "--project", str(project)]) == 0
        assert json.loads(capsys.readouterr().out)["predicted, not measured"] == [result.latency.name]
    metadata = {entry.key: entry.value for entry in onnx.load(project / "pruned.onnx").metadata_props}
    assert metadata["hwprune.latency"] == "predicted, not measured"
    assert "hwprune.measured_ms" not in metadata


def test_a_file_over_its_budget_ends_export_with_code_1(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found(project, latency="60%")
    as_is = Device.onnx
    monkeypatch.setattr(Device, "onnx", lambda *given, **options: slower(as_is(*given, **options)))
    assert main(["export", "--project", str(project)]) == 1
    assert "NOT KEPT" in capsys.readouterr().out


def slower(found: tuple[Measurement, float]) -> tuple[Measurement, float]:
    return replace(found[0], ms=1.5 * found[0].ms), found[1]


def test_a_table_of_another_model_is_refused(project: Path) -> None:
    config = project / "hwprune.toml"
    config.write_text(config.read_text().replace("resnet20", "resnet56"))
    with pytest.raises(MismatchError, match="another model"):
        found(project, latency=f"{project / 'hwprune-work/latency/slow'}=50%")


@pytest.mark.slow
def test_devices_that_need_different_files_are_refused(project: Path) -> None:
    (project / "int8.toml").write_text(INT8)
    profile(project=project, profile=str(project / "int8.toml"))
    with pytest.raises(UsageError, match="different files"):
        found(project, latency=(on(project, "fake", "60%"), on(project, "int8", "60%")))


@pytest.mark.parametrize(
    ("budgets", "words"),
    [
        ({}, "needs a budget"),
        ({"latency": ("60%", "50%")}, "the same device"),
        ({"latency": "tpu=60%"}, "not known"),
        ({"latency": "60"}, "no unit"),
        ({"macs": "many"}, "not a quantity"),
        ({"size": "4 parrots"}, "not a quantity"),
        ({"size": "20"}, "no unit"),
        ({"latency": "60%", "points": 3}, "one range"),
        ({"latency": ("60%", "30%:50%")}, "one range"),
        ({"latency": "50%:30%"}, "not a range"),
        ({"latency": "30%:5ms"}, "not a range"),
        ({"latency": "30%:50%", "points": 1}, "number of points"),
    ],
)
def test_what_cannot_be_understood_is_explained(
    project: Path, budgets: dict[str, object], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        found(project, **budgets)


def test_a_front_has_no_dominated_points_and_one_can_be_chosen(project: Path) -> None:
    front = search(project=project, latency="30%:90%", points=4)
    assert isinstance(front, FrontResult)
    assert front == FrontResult.load(project / "hwprune-work/front.json")
    assert 2 <= len(front.points) <= 4
    latencies = [one.latency.value for one in front.points]
    scores = [one.score for one in front.points]
    assert latencies == sorted(latencies)
    assert scores == sorted(scores)
    assert len(set(scores)) == len(scores)
    assert all(one.met and one.latency.is_measured for one in front.points)
    with pytest.raises(UsageError, match="no such point"):
        Project(project).point(9)
    assert Project(project).searched() == front.points[-1], "the most accurate is the chosen one at first"
    assert export(project=project, point=1).widths == front.points[0].widths
    assert Project(project).searched() == front.points[0]
    report(project=project)
    for name in ("report.md", "report.html"):
        text = (project / name).read_text()
        assert "MACs against latency" in text
        assert front.points[0].latency.text(front.points[0].latency.value) in text


def test_the_unpruned_network_is_measured_again_before_it_is_the_answer(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base_ms = found(project, latency="100%").latency.base
    budget = f"{1.05 * base_ms:.6f}ms"
    assert found(project, latency=budget).base_meets_budget
    slower = SimpleNamespace(ms=1.1 * base_ms, error_ms=0.0)
    monkeypatch.setattr(Device, "base", lambda self: slower)
    pruned = found(project, latency=budget)
    assert not pruned.base_meets_budget
    assert pruned.latency.high_use <= 1.0


@pytest.mark.parametrize("factor", [1.3, 0.7])
def test_milliseconds_are_those_of_now_where_the_whole_device_has_changed_its_speed(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], factor: float
) -> None:
    base_ms = found(project, latency="100%").latency.base
    before = found(project, latency=f"{0.65 * base_ms:.6f}ms").latency
    assert before.base == base_ms
    as_profiled = FakeRuntime.latency_ms
    monkeypatch.setattr(FakeRuntime, "latency_ms", lambda *given: factor * as_profiled(*given))
    command = ["search", "--latency", f"{0.65 * base_ms:.6f}ms", "--project", str(project)]
    assert main(command) == 0
    now = SearchResult.load(project / "hwprune-work" / "search.json").latency
    assert now.base == pytest.approx(factor * base_ms, rel=1e-3)
    assert now.limit is not None
    assert 0.85 * now.limit < now.value <= now.limit
    assert now.predicted == pytest.approx(now.value, rel=0.05)
    assert "when it was profiled" in capsys.readouterr().err


def made_slower(monkeypatch: pytest.MonkeyPatch, factor: float) -> None:
    as_profiled = FakeRuntime.latency_ms
    monkeypatch.setattr(FakeRuntime, "latency_ms", lambda *given: factor * as_profiled(*given))


@pytest.mark.parametrize("share", [1.005, 0.72, 0.6])
def test_milliseconds_hold_where_the_device_is_a_little_slower_than_it_was_profiled(
    project: Path, monkeypatch: pytest.MonkeyPatch, share: float
) -> None:
    """By less than what predictions follow: the unit of the measurements is that of now all the same."""
    base_ms = found(project, latency="100%").latency.base
    with monkeypatch.context() as patched:
        made_slower(patched, 1.014)
        answer = found(project, latency=f"{share * base_ms:.6f}ms")
        assert answer.latency.base == pytest.approx(1.014 * base_ms, rel=2e-3)
        assert 0.9 < answer.latency.high_use <= 1.0
        assert export(project=project).within_budget


def test_a_search_in_milliseconds_goes_on_where_it_was_though_the_speed_is_measured_anew(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base_ms = found(project, latency="100%").latency.base
    budget = f"{0.8 * base_ms:.6f}ms"
    for factor in (1.3049, 1.3051, 1.31):
        with monkeypatch.context() as patched:
            made_slower(patched, factor)
            assert found(project, latency=budget).latency.high_use <= 1.0
    work = project / "hwprune-work"
    assert len(list(work.glob("search-*.jsonl"))) == 1


def test_an_answer_that_the_device_does_not_keep_any_more_is_looked_for_again(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    base_ms = found(project, latency="100%").latency.base
    loose = found(project, latency=f"{0.72 * base_ms:.6f}ms")
    budget = f"{1.004 * loose.latency.value:.6f}ms"  # so that a little slower is too slow
    before = found(project, latency=budget)
    assert before.latency.high_use > 0.985
    factor = 1.001 / before.latency.high_use
    with monkeypatch.context() as patched:
        made_slower(patched, factor)
        assert main(["search", "--latency", budget, "--project", str(project)]) == 0
    assert "looked for again" in capsys.readouterr().err
    after = SearchResult.load(project / "hwprune-work" / "search.json")
    assert after.latency.high_use <= 1.0
    assert after.widths != before.widths


def test_the_record_of_a_search_is_in_the_milliseconds_of_its_result(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base_ms = found(project, latency="100%").latency.base
    with monkeypatch.context() as patched:
        made_slower(patched, 1.3)
        answer = found(project, latency=f"{0.8 * base_ms:.6f}ms")
    checks = [check for facts in answer.corrections for check in facts["checks"]]
    assert checks
    for _, predicted, measured, _ in checks:
        assert predicted == pytest.approx(measured, rel=0.05)
    base_us = sum(base for base, _ in answer.layer_times.values())
    assert base_us / 1e3 == pytest.approx(answer.latency.base, rel=0.1)


def test_a_front_on_a_table_alone_says_in_json_that_it_was_not_measured(
    profiled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = profiled / "hwprune-work" / "latency" / "fake"
    copy = Path(shutil.copytree(profiled, tmp_path / "copy"))
    words = ["search", "--latency", f"{folder}=50%:90%", "--points", "2", "--score", "macs", "--json"]
    assert main([*words, "--project", str(copy)]) == 0
    assert json.loads(capsys.readouterr().out)["predicted, not measured"]


@pytest.mark.parametrize("text", ["5ms:20ms", "30%:80%", "cpu=0.9ms:1.1212ms", "cpu/x=33.3%:77.7%"])
def test_the_budgets_of_a_range_are_what_their_texts_say(text: str) -> None:
    span, latency = span_of(text, 7)
    assert span is not None
    assert len(span.budgets) == 7
    for quantity in span.budgets:
        assert parse_latency(quantity.text).value == quantity.value
    values = [quantity.value for quantity in span.budgets]
    assert values == sorted(values, reverse=True)
    assert latency[0].endswith(span.budgets[0].text), "the loosest stands for the range"


def test_a_front_with_the_unpruned_network_has_one_kind_of_score(judged: Path) -> None:
    front = search(project=judged, latency="60%:110%", points=2, generations=1)
    assert isinstance(front, FrontResult)
    assert {one.score_kind for one in front.points} == {"inherited"}


def test_the_points_of_a_front_share_one_evolution_that_evaluates_no_image_twice(judged: Path) -> None:
    front = search(project=judged, latency="50%:90%", points=3)
    assert isinstance(front, FrontResult)
    work = judged / "hwprune-work"
    (state,) = work.glob("search-*.jsonl")
    entries = [json.loads(line)["entry"] for line in state.open()]
    asked = [net for entry in entries for net in entry.get("asked", ())]
    config = Project(judged).config.search
    assert len(asked) == len(set(asked)) == 3 * config.population * config.generations
    images = Counter[str]()
    (evaluations,) = work.glob("evaluations-*.jsonl")
    for entry in [json.loads(line)["entry"] for line in evaluations.open()][1:]:
        images[entry["network"]] += entry["images"]
    assert set(asked) <= set(images)
    assert max(images.values()) <= len(Project(judged).splits.sub_val)
    for point in front.points:
        scores = [score for score, ms in point.candidates if ms <= 0.99 * (point.latency.limit or 0.0)]
        assert point.score >= max(scores, default=0.0) - 0.02, "the best of all that were evaluated, measured"


def test_a_device_that_changed_in_more_than_its_speed_is_followed_and_the_report_says_so(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Since it was profiled, what moves bytes became five times as slow, and what computes did not."""
    as_profiled = FakeRuntime._device

    def changed(self: FakeRuntime, profile: TargetProfile) -> FakeDevice:
        return replace(as_profiled(self, profile), bytes_per_us=2_000.0)

    monkeypatch.setattr(FakeRuntime, "_device", changed)
    answer = found(project, latency="60%", generations=6)
    assert answer.latency.high_use <= 1.0
    refitted = [facts for facts in answer.corrections if facts["refitted"]]
    assert refitted
    assert refitted[-1]["refitted"] == (answer.latency.name,)
    assert answer.latency.predicted != pytest.approx(answer.latency.value, rel=0.01), "without the refit"
    report(project=project)
    assert "a factor for each kernel" in (project / "report.md").read_text()


def test_each_point_of_a_front_keeps_the_room_of_its_own_share(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Small networks drift further from the unpruned one, so a tight budget keeps more free."""
    monkeypatch.setattr(LatencyTable, "contention", 0.03)
    asked: list[tuple[float, ...]] = []
    as_is = FrontEvolution.__init__

    def look(*given: Any, levels: tuple[float, ...], **options: Any) -> None:
        asked.append(levels)
        as_is(*given, levels=levels, **options)

    monkeypatch.setattr(FrontEvolution, "__init__", look)
    front = search(project=project, latency="60%:90%", points=2)
    assert isinstance(front, FrontResult)
    room = [1 - min(2 * 0.03 * math.log(1 / share), 0.05) for share in (0.6, 0.9)]
    assert asked[0] == pytest.approx((1, 0.6 * room[0] / (0.9 * room[1])))
    for point, free in zip(front.points, room, strict=True):
        assert 0.8 < point.latency.high_use <= free


def test_points_of_a_front_that_cannot_be_met_leave_the_others(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    front = search(project=project, latency="3%:110%", points=5)
    assert isinstance(front, FrontResult)
    assert front.points[-1].base_meets_budget
    assert len(front.points) < 5

    def fails(*given: object) -> None:
        raise BudgetError("After correction by measurements no network ...")

    monkeypatch.setattr(Searcher, "_run_evolution", fails)
    alone = search(project=project, latency="60%:110%", points=3)
    assert isinstance(alone, FrontResult)
    assert [one.base_meets_budget for one in alone.points] == [True]


def test_a_front_under_a_second_limit_that_binds(project: Path) -> None:
    front = search(project=project, latency="80%:95%", points=2, macs="20%")
    assert isinstance(front, FrontResult)
    for point in front.points:
        assert point.figure("macs").met
        assert point.binding == "macs"


def test_a_range_that_only_its_loosest_budgets_can_be_met_in(project: Path) -> None:
    """The tightest is what the fastest network is predicted at, and is measured above."""
    for seed in (0, 1):
        front = search(project=project, latency="49.92%:80%", points=2, seed=seed)
        assert isinstance(front, FrontResult)
        assert all(one.latency.high_use <= 1 for one in front.points)


def test_the_budgets_of_a_narrow_range_stay_inside_and_apart() -> None:
    span, _ = span_of("99.9996%:99.9999%", 5)
    assert span is not None
    values = [one.value for one in span.budgets]
    assert values == sorted(set(values), reverse=True)
    assert [values[0], values[-1]] == [pytest.approx(0.999999), pytest.approx(0.999996)]


def test_a_front_that_is_searched_again_measures_nothing(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = search(project=project, latency="50%:90%", points=3)
    monkeypatch.setattr(Device, "networks", None)
    assert search(project=project, latency="50%:90%", points=3) == first


def test_an_answer_of_other_weights_is_not_taken(judged: Path) -> None:
    """An unpruned network that was trained again has the same name, and another file."""
    found(judged, latency="60%", generations=1)
    work = judged / "hwprune-work"
    (net,) = work.glob("base-*.safetensors")
    (evaluations,) = work.glob("evaluations-*.jsonl")
    first = evaluations.read_text().splitlines()
    found(judged, latency="60%", generations=1)
    assert evaluations.read_text().splitlines() == first, "the answer is known"
    assert len(list(work.glob("answer-*.json"))) == 1
    net.unlink()
    found(judged, latency="60%", generations=1)
    assert len(list(work.glob("evaluations-*.jsonl"))) == 2, "what the other one judged is not taken"
    assert len(list(work.glob("answer-*.json"))) == 2


def test_a_close_measurement_is_kept_when_the_search_is_killed(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found(project, latency="100%")
    monkeypatch.setattr(SearchResult, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        found(project, latency="70%")
    monkeypatch.undo()
    monkeypatch.setattr(answer, "_figure", None)
    assert found(project, latency="70%").met


def killed(*given: object) -> None:
    raise KeyboardInterrupt


def test_an_answer_that_cannot_be_read_is_searched_for_again(project: Path) -> None:
    first = found(project, latency="70%")
    (kept,) = (project / "hwprune-work").glob("answer-*.json")
    kept.write_text("{")
    assert found(project, latency="70%").widths == first.widths
    assert SearchResult.load(kept).widths == first.widths


def test_the_same_limit_in_other_words_is_another_search(project: Path) -> None:
    relative = found(project, latency="70%")
    limit_ms = relative.latency.limit
    assert found(project, latency=f"{limit_ms!r}ms").latency.budget == f"{limit_ms!r}ms"


def test_a_search_that_fails_leaves_the_chosen_network_and_its_space(project: Path) -> None:
    found(project, latency=on(project, "fake", "60%"))
    before = {
        name: (project / "hwprune-work" / name).read_bytes() for name in ("search.json", "search-space.json")
    }
    with pytest.raises(BudgetError):
        found(project, latency=on(project, "slow", "1%"))
    assert before == {name: (project / "hwprune-work" / name).read_bytes() for name in before}


def test_a_point_that_cannot_be_exported_leaves_the_chosen_network(profiled: Path, tmp_path: Path) -> None:
    shutil.copytree(profiled, tmp_path / "copy")
    front = search(project=tmp_path / "copy", latency="50%:80%", points=2, score="macs", generations=1)
    assert isinstance(front, FrontResult)
    with pytest.raises(MissingArtifactError, match="not there"):
        export(project=tmp_path / "copy", point=1)
    assert Project(tmp_path / "copy").searched() == front.points[-1]


def test_a_report_shows_a_front_only_with_one_of_its_networks(project: Path) -> None:
    search(project=project, latency="50%:90%", points=2)
    assert report(project=project).front is not None
    found(project, latency="70%")
    assert report(project=project).front is None


def test_a_budget_just_above_the_unpruned_network_is_not_met_by_luck() -> None:
    target = SimpleNamespace(base_error_ms=0.01, drift=0.0, contention=0.0, device=None)

    def budget(text: str) -> Budget:
        return Budget("x", "ms", 1.0, np.ones_like, parse_latency(text), target)  # type: ignore[arg-type]

    assert budget("1.02ms").met_by_base
    assert not budget("1.005ms").met_by_base, "within one standard error"
    assert budget("100%").met_by_base


def test_a_share_keeps_room_for_networks_that_drift_apart() -> None:
    def margin(text: str, contention: float) -> float:
        target = SimpleNamespace(base_error_ms=0.0, drift=0.1, contention=contention, device=None)
        return Budget("x", "ms", 4.0, np.ones_like, parse_latency(text), target).margin  # type: ignore[arg-type]

    assert margin("25%", 0.0) == 0.0, "a share does not drift with the machine's own speed"
    assert margin("25%", 0.01) == pytest.approx(0.02 * math.log(4))
    assert margin("50%", 0.01) == pytest.approx(0.02 * math.log(2)), "nearer to the unpruned network"
    assert margin("100%", 0.01) == 0.0
    assert margin("25%", 0.1) == 0.05, "no more"


def test_a_point_needs_a_front(project: Path) -> None:
    with pytest.raises(MissingArtifactError):
        Project(project).point(1)


@pytest.mark.slow
def test_a_point_of_a_front_from_one_pruningnet_can_be_trained(
    judged: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hwprune.project.estimators.sanity", lambda *_: None)  # four epochs are few
    front = search(project=judged, latency="40%:70%", points=2, generations=2, score="pruningnet")
    assert isinstance(front, FrontResult)
    assert {one.score_kind for one in front.points} == {"pruningnet"}
    assert len({one.pruningnet for one in front.points}) == 1
    trained = train(project=judged, point=1, epochs=1)
    assert trained.widths == front.points[0].widths


def test_budgets_are_given_once_for_each_device(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["search", "--project", str(project), "--macs", "60%"]
    for one in (on(project, "fake", "70%"), on(project, "slow", "70%")):
        arguments += ["--latency", one]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    for words in ("latency on fake", "latency on slow", "MACs", "nearest to its budget"):
        assert words in printed
