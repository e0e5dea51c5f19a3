"""`hwprune bench` on a pretended device of known latencies: verdicts, exit codes, files, wrong inputs."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from xml.etree import ElementTree

import onnx
import pytest
from benches import command, counted_looks, noisy, true_ms

import hwprune
from hwprune import artifacts
from hwprune.cli.main import main
from hwprune.errors import UsageError
from hwprune.gate.result import BenchResult
from hwprune.gate.verdict import Verdict
from hwprune.project.folder import WORK
from hwprune.results import ExportResult, Figure, ProfileResult
from hwprune.runtimes.probes import conv_chain
from hwprune.verbs import bench as module


def test_the_python_example_of_the_page_runs(work: Path, repository: Path) -> None:
    (work / "profiles").mkdir()
    shutil.copy("fake.toml", work / "profiles" / "cpu-1t.toml")  # the default profile
    shutil.copy("slim.onnx", "model.onnx")
    shutil.copy("base.onnx", "old.onnx")
    page = (repository / "docs" / "ci.md").read_text()
    (block,) = re.findall(r"```python\n(.*?)```", page, flags=re.S)
    names: dict[str, object] = {}
    exec(compile(block, "docs/ci.md", "exec"), names)
    found = names["found"]
    assert isinstance(found, BenchResult)
    assert found.verdict == Verdict.PASS


@pytest.fixture
def exported(work: Path) -> Path:
    """A project folder as `export` leaves it: the file, and what it says about it."""
    folder, content = work / "project", (work / "slim.onnx").read_bytes()
    target = {"name": "fake", "device": "cpu", "runtime": "fake", "threads": 2}
    ExportResult(
        file="pruned.onnx",
        bytes=len(content),
        precision="fp32",
        max_difference=0.0,
        tolerance=1e-3,
        widths=(64,),
        profile="fake",
        figures=(
            Figure(name="fake", unit="ms", base=1.0, predicted=0.5, budget="60%", limit=0.6),
            Figure(name="macs", unit="MACs", base=2e6, predicted=1e6),
        ),
        within_budget=True,
        weights="random",
        top1=None,
        trained_top1=None,
        digest=artifacts.sha256(content),
        structure="",
    ).save(folder / WORK / "export.json")
    ProfileResult(
        model="chain",
        profile="fake",
        groups=1,
        frozen={},
        networks=1,
        kernels=1,
        channel_multiple=1,
        base_ms=1.0,
        base_error_ms=0.0,
        base_digest="",
        target=target,
        structure="",
        error_percent=None,
        seconds=1.0,
    ).save(folder / WORK / "latency" / "fake" / "profile.json")
    (folder / "pruned.onnx").write_bytes(content)
    return folder


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("slim.onnx",), 0, "Nothing was limited"),
        (("base.onnx", "--baseline", "base.onnx"), 0, "Pass: latency against the baseline +0.0 %"),
        (("slim.onnx", "--baseline", "base.onnx"), 0, "Pass"),
        (("slow.onnx", "--baseline", "base.onnx"), 1, "Regression"),
        (("slow.onnx", "--baseline", "base.onnx", "--max-regression", "60%"), 0, "Pass"),
        (("slim.onnx", "--baseline", "base.onnx", "--budget", "60%"), 0, "Pass: share of the baseline's"),
        (("slim.onnx", "--baseline", "base.onnx", "--budget", "10%"), 1, "Over budget"),
        (("slow.onnx", "--baseline", "base.onnx", "--budget", "400%"), 0, "Pass"),
        (("base.onnx", "--budget", "1s"), 0, "Pass: latency"),
        (("base.onnx", "--budget", "1us"), 1, "Over budget"),
        (("base.onnx", "--baseline", "slow.onnx", "--budget", "1us"), 1, "Over budget"),
    ],
)
def test_verdicts_and_exit_codes(
    work: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], code: int, words: str
) -> None:
    assert command(*arguments) == code
    assert words in capsys.readouterr().out


def test_at_the_limit_there_is_no_telling(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    share = f"{100 * true_ms('slim') / true_ms('base'):.4f}%"
    assert command("slim.onnx", "--baseline", "base.onnx", "--budget", share) == 3
    assert "Too noisy to tell" in capsys.readouterr().out


def test_a_machine_in_turmoil_tells_nothing(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noisy(monkeypatch, drift=0.8, drift_period_ms=700.0)
    found = hwprune.bench(Path("fat.onnx"), baseline=Path("slim.onnx"), profile="fake.toml", max_time="2s")
    assert found.verdict == Verdict.TOO_NOISY
    assert not found.trusted


def test_a_second_longer_look_follows_only_where_the_first_cannot_tell(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = counted_looks(monkeypatch)
    assert command("slow.onnx", "--baseline", "base.onnx") == 1
    assert len(looks) == 1
    share = f"{100 * true_ms('slim') / true_ms('base'):.4f}%"
    command("slim.onnx", "--baseline", "base.onnx", "--budget", share)
    assert len(looks) == 3
    assert looks[2] < looks[1]


def test_the_python_function_gives_what_json_prints(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = hwprune.bench(Path("slow.onnx"), baseline=Path("base.onnx"), profile="fake.toml")
    assert found.ratio is not None
    assert found.ratio.value == pytest.approx(true_ms("slow") / true_ms("base"))
    assert found.model.ms == pytest.approx(true_ms("slow"))
    assert command("slow.onnx", "--baseline", "base.onnx", "--json") == 1
    printed = json.loads(capsys.readouterr().out)
    assert printed["verdict"] == "regression"
    assert printed["ratio"]["value"] == pytest.approx(found.ratio.value)


def test_all_files_are_written_whatever_the_verdict(work: Path) -> None:
    summary = work / "summary.md"
    summary.write_text("# What another step wrote\n")
    files = ("--output", "out/b.json", "--markdown", "summary.md", "--junit", "j.xml")
    assert command("slow.onnx", "--baseline", "base.onnx", *files) == 1
    assert command("slim.onnx", "--baseline", "base.onnx", "--markdown", "summary.md") == 0
    text = summary.read_text()
    assert text.startswith("# What another step wrote\n")
    assert [line[:4] for line in text.splitlines() if line.startswith("## ")] == ["## ❌", "## ✅"]
    assert ElementTree.parse(work / "j.xml").getroot().attrib["failures"] == "1"
    assert BenchResult.load(work / "out/b.json").verdict == Verdict.REGRESSION
    assert not list(work.rglob(f"*{artifacts.PART}"))


def test_a_link_is_written_through(work: Path) -> None:
    (work / "real.md").write_text("")
    (work / "link.md").symlink_to("real.md")
    assert command("slim.onnx", "--markdown", "link.md") == 0
    assert (work / "link.md").is_symlink()
    assert "slim.onnx" in (work / "real.md").read_text()


def test_a_project_is_measured_by_its_exported_file_under_its_profile(exported: Path) -> None:
    found = hwprune.bench(exported, baseline=Path("base.onnx"), budget="70%")
    assert found.conditions["profile"]["threads"] == 2
    assert Path(found.model.file) == exported / "pruned.onnx"
    assert found.verdict == Verdict.PASS
    assert hwprune.bench(exported / WORK).model.sha256 == found.model.sha256


@pytest.mark.parametrize(
    "file", ["pruned.onnx", f"{WORK}/export.json", f"{WORK}/latency/fake/profile.json", "report.json"]
)
@pytest.mark.parametrize("named", [".", WORK])
@pytest.mark.parametrize("role", ["MODEL", "--baseline"])
def test_what_a_project_folder_holds_is_never_overwritten(
    exported: Path, capsys: pytest.CaptureFixture[str], file: str, named: str, role: str
) -> None:
    models = {
        "MODEL": [str(exported / named)],
        "--baseline": ["base.onnx", "--baseline", str(exported / named)],
    }
    before = {path: path.read_bytes() for path in exported.rglob("*") if path.is_file()}
    for option in ("--output", "--markdown", "--junit"):
        assert main(["bench", *models[role], option, str(exported / file)]) == 2
        assert role in capsys.readouterr().err
    assert {path: path.read_bytes() for path in exported.rglob("*") if path.is_file()} == before


def test_an_exported_file_that_was_replaced_is_refused(
    exported: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy("fat.onnx", exported / "pruned.onnx")
    assert main(["bench", str(exported)]) == 2
    assert "not the one that was exported" in capsys.readouterr().err


def onnx_file(name: str, sizes: list[object]) -> None:
    """A chain whose input has other sizes: numbers, or names for those that are open."""
    model = onnx.load_model_from_string(conv_chain([16, 16]))
    for dim, size in zip(model.graph.input[0].type.tensor_type.shape.dim, sizes, strict=True):
        dim.Clear()
        if size is not None:
            setattr(dim, "dim_param" if isinstance(size, str) else "dim_value", size)
    onnx.save(model, name)


@pytest.fixture
def spoilt(work: Path) -> Path:
    """The same folder with files that cannot be measured."""
    (work / "text.onnx").write_text("hello\n")
    (work / "empty.onnx").write_bytes(b"")
    (work / "other.json").write_text('{"a": 1}')
    (work / "folder").mkdir()
    assert command("base.onnx", "--output", "kept/b.json") == 0
    shutil.copy("base.onnx", "kept/old.onnx")  # found beside its figures
    payload = artifacts.read_json(work / "kept/b.json", BenchResult.kind, BenchResult.schema_version)
    payload["model"]["file"] = "elsewhere/old.onnx"
    artifacts.write_json(work / "kept/b.json", BenchResult.kind, BenchResult.schema_version, payload)
    onnx_file("batch.onnx", ["batch", 16, 14, 14])
    onnx_file("open.onnx", [1, 16, None, 14])
    onnx_file("huge.onnx", [1, 16, 10**6, 10**6])
    onnx_file("small.onnx", [1, 16, 7, 7])
    ranks = onnx.load_model_from_string(conv_chain([16, 16]))
    ranks.graph.input[0].type.tensor_type.ClearField("shape")
    onnx.save(ranks, "ranks.onnx")
    weights = onnx.load_model_from_string(conv_chain([16, 16]))
    strange = onnx.load_model_from_string(conv_chain([16, 16]))
    strange.graph.input[0].type.tensor_type.elem_type = 4711
    onnx.save(strange, "strange.onnx")
    onnx.save(weights, "outside.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    return work


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("nowhere.onnx",), 2, ("no such file", "nowhere.onnx")),
        (("text.onnx",), 2, ("not an ONNX model", "text.onnx")),
        (("empty.onnx",), 2, ("not an ONNX model", "empty.onnx")),
        (("other.json",), 2, ("damaged", "other.json")),
        (("folder",), 2, ("hwprune export",)),
        (("batch.onnx",), 2, ("static shapes", "[batch, 16, 14, 14]", "batch.onnx")),
        (("open.onnx",), 2, ("static shapes", "[1, 16, ?, 14]")),
        (("ranks.onnx",), 2, ("static shapes", "not known")),
        (("huge.onnx",), 2, ("larger than can be timed", "huge.onnx")),
        (("outside.onnx",), 2, ("another file", "outside.onnx")),
        (("base.onnx", "--baseline", "small.onnx"), 2, ("different inputs", "[1, 16, 7, 7]")),
        (("base.onnx", "--baseline", "strange.onnx"), 2, ("different inputs", "type 4711")),
        (("base.onnx", "--baseline", "nowhere.json"), 2, ("no such file",)),
        (("base.onnx", "--baseline", "text.onnx"), 2, ("not an ONNX model", "text.onnx")),
        (("base.onnx", "--max-regression", "5%"), 2, ("--baseline",)),
        (("base.onnx", "--budget", "60%"), 2, ("--baseline",)),
        (("base.onnx", "--budget", "15"), 2, ("no unit", "15ms", "60% of the baseline's")),
        (("base.onnx", "--max-time", "soon"), 2, ("--max-time",)),
        (("base.onnx", "--device", "gpu"), 2, ("cpu",)),
        (("base.onnx", "--output", "base.onnx"), 2, ("overwrite MODEL",)),
        (("base.onnx", "--output", "folder"), 2, ("not a file",)),
        (("base.onnx", "--markdown", "a.txt", "--junit", "./a.txt"), 2, ("overwrite", "--markdown")),
        (
            ("slow.onnx", "--baseline", "kept/b.json", "--output", "kept/old.onnx"),
            2,
            ("network of --baseline",),
        ),
        (("kept/b.json", "--junit", "kept/old.onnx"), 2, ("network of MODEL",)),
    ],
)
def test_wrong_inputs_are_told_before_anything_is_measured(
    spoilt: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    code: int,
    words: tuple[str, ...],
) -> None:
    monkeypatch.setattr(module, "measure", lambda *_, **__: pytest.fail("something was measured"))
    before = sorted(spoilt.iterdir())
    assert command(*arguments) == code
    text = capsys.readouterr().err
    assert text.startswith("error: ")
    assert all(word in text for word in words), text
    assert sorted(spoilt.iterdir()) == before


@pytest.mark.parametrize("percent", ["5", "-5%", "0%", "five", "5 %%", "1e400%", "nan%", "15ms"])
def test_a_wrong_percentage_is_a_usage_error(work: Path, percent: str) -> None:
    with pytest.raises(UsageError, match="--max-regression"):
        hwprune.bench(Path("base.onnx"), baseline=Path("base.onnx"), max_regression=percent)


def test_what_the_system_refuses_is_no_verdict(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(module, "find_model", refuse)
    assert command("slim.onnx", "--budget", "1s") == 2
