"""Every mistake gets: what, where, got, allowed, what to do; exit 1, or 2 for usage; nothing lost."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from projects import MODEL, new_project

from hwprune.cli.main import main
from hwprune.results import ProfileResult


def run(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str]:
    """Run a command; exit code and what it said on stderr."""
    code = main([str(argument) for argument in arguments])
    return code, capsys.readouterr().err


@pytest.fixture
def copy(profiled: Path, tmp_path: Path) -> Path:
    """A profiled project that a test may spoil."""
    folder = tmp_path / "copy"
    shutil.copytree(profiled, folder)
    return folder


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--model", "resnet2", ("resnet20",)),
        ("--model", "torchvision:resnet5", ("resnet50",)),
        ("--model", "nowhere.py:make", ("nowhere.py",)),
        ("--data", "parket:x", ("parquet",)),
        ("--data", "imagefolder:/nowhere", ("/nowhere",)),
        ("--device", "gpu", ("cpu",)),
        ("--device", "cuda:0", ("GPU", "torch_cuda", "onnxruntime-gpu", "driver")),
        ("--profile", "cpu-2t", ("cpu-1t",)),
        ("--weights", "nowhere.pt", ("nowhere.pt",)),
    ],
)
def test_init_says_what_is_wrong_and_writes_nothing(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, option: str, value: str, words: tuple[str, ...]
) -> None:
    code, text = run(capsys, "init", "--project", tmp_path / "p", option, value)
    assert code in (1, 2)
    assert text.removeprefix(f"Tracing {value if option == '--model' else 'resnet20'}.\n").startswith(
        "error: "
    )
    assert all(word in text for word in words), text
    assert not (tmp_path / "p").exists()


@pytest.mark.parametrize("budget", ["15", "ms", "-3ms", "0%", "fast", "1e400ms", "15 parsecs"])
def test_malformed_budgets_are_usage_errors(
    capsys: pytest.CaptureFixture[str], copy: Path, budget: str
) -> None:
    code, text = run(capsys, "search", "--project", copy, f"--latency={budget}")
    assert code == 2
    assert "15ms, 800us, 0.015s, or 60%" in text


def test_an_impossible_budget_tells_the_fastest_network(
    capsys: pytest.CaptureFixture[str], copy: Path
) -> None:
    code, text = run(capsys, "search", "--project", copy, "--latency", "1us")
    assert code == 1
    assert "network that needs least" in text
    assert "ms" in text or "µs" in text
    assert not list((copy / "hwprune-work").glob("pruningnet*")), (
        "nothing is trained for an impossible budget"
    )


@pytest.mark.parametrize(
    ("verb", "first"),
    [
        (("search", "--latency", "50%"), "hwprune profile"),
        (("predict",), "hwprune profile"),
        (("train",), "hwprune search"),
        (("export", "--onnx"), "hwprune search"),
        (("report",), "hwprune search"),
    ],
)
def test_a_verb_that_lacks_its_input_names_the_command_that_makes_it(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, verb: tuple[str, ...], first: str
) -> None:
    code, text = run(capsys, *verb, "--project", tmp_path)
    assert code == 1
    assert f"`{first}" in text
    assert not list(tmp_path.iterdir())


def test_unknown_verbs_and_options_are_usage_errors(capsys: pytest.CaptureFixture[str]) -> None:
    code, text = run(capsys, "serch")
    assert code == 2
    assert "search" in text
    code, text = run(capsys, "search", "--latncy", "5ms")
    assert code == 2
    assert "--latency" in text


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("search", "--seed", "x"), ("--seed", "x", "a whole number")),
        (("doctor", "--seconds", "soon"), ("--seconds", "soon", "a number")),
        (("train", "--start", "generatd"), ("--start", "generatd", "did you mean generated or inherited?")),
        (("lut", "a", "--outptu=b"), ("--outptu=b", "--output", "hwprune lut --help")),
        (("bench", "a", "-v"), ("-v", "--budget")),
        (("bench",), ("lacks its MODEL", "hwprune bench MODEL")),
        (("bench", "a", "b", "c"), ("hwprune bench MODEL", "b c")),
        (("search", "60%"), ("hwprune search [OPTIONS]", "60%")),
        (("search", "--points"), ("--points", "lacks its value")),
        (("search", "--points", "--json"), ("--points", "lacks its value")),
        (("search", "--points", "2", "--points", "3"), ("--points", "twice")),
        (("search", "--json=true"), ("--json=true", "no value")),
        (("search", "--latency", "-5ms"), ("-5ms",)),
        (("doctor", "--seconds", "nan"), ("--seconds", "nan", "a number")),
        (("lut", "foo"), ("ACTION", "foo")),
    ],
)
def test_values_and_options_of_the_wrong_kind_are_told_in_one_style(
    capsys: pytest.CaptureFixture[str], words: tuple[str, ...], told: tuple[str, ...]
) -> None:
    code, text = run(capsys, *words)
    assert code == 2
    assert text.startswith("error: ")
    for part in told:
        assert part in text


@pytest.mark.parametrize("spelling", [("--max_time", "soon"), ("--max-time=soon",), ("--max-time", "soon")])
def test_options_may_be_spelt_in_any_way_that_help_or_python_shows(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, spelling: tuple[str, ...]
) -> None:
    code, text = run(capsys, "profile", "--project", tmp_path / "none", *spelling)
    assert code == 2
    assert "no such option" not in text
    assert "soon" in text


def test_help_wins_over_whatever_else_is_typed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["search", "--bogus", "-h"])
    assert caught.value.code == 0
    assert "--latency" in capsys.readouterr().out


def test_numbers_below_zero_are_values_not_options(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    _, text = run(capsys, "search", "--latency", "60%", "--seed", "-1", "--project", tmp_path)
    assert "no such option" not in text


def test_help_shows_no_name_of_python_for_a_value_that_is_not_given(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for verb in ("search", "bench", "train", "lut"):
        with pytest.raises(SystemExit):
            main([verb, "--help"])
        assert "None" not in capsys.readouterr().out


def test_every_problem_of_a_configuration_is_told_at_once(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "hwprune.toml").write_text('[model]\nnam = "x"\n[training]\nepochs = "many"\n')
    code, text = run(capsys, "profile", "--project", tmp_path)
    assert code == 1
    assert "model.nam" in text
    assert "training.epochs" in text


@pytest.mark.parametrize("spoil", ["truncate", "alter", "empty", "text"])
@pytest.mark.parametrize("name", ["space.json", "table.json", "kernels.csv", "networks.csv", "profile.json"])
def test_damaged_files_are_refused(
    capsys: pytest.CaptureFixture[str], copy: Path, name: str, spoil: str
) -> None:
    (path,) = (copy / "hwprune-work").rglob(name)
    content = path.read_bytes()
    middle = len(content) // 2
    digit = next(i for i in range(middle, len(content)) if content[i : i + 1].isdigit())
    other = b"1" if content[digit : digit + 1] != b"1" else b"2"
    path.write_bytes(
        {
            "truncate": content[:middle],
            "alter": content[:digit] + other + content[digit + 1 :],
            "empty": b"",
            "text": b"hello",
        }[spoil]
    )
    code, text = run(capsys, "search", "--project", copy, "--latency", "50%", "--score", "macs")
    assert code == 1
    assert name in text
    assert "Traceback" not in text


def test_a_table_of_another_model_is_refused(capsys: pytest.CaptureFixture[str], copy: Path) -> None:
    config = copy / "hwprune.toml"
    config.write_text(config.read_text().replace(MODEL, "resnet56"))
    code, text = run(capsys, "search", "--project", copy, "--latency", "50%")
    assert code == 1
    assert "resnet56" in text
    assert "hwprune profile" in text


def test_a_table_of_another_device_is_refused(
    capsys: pytest.CaptureFixture[str], copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hwprune.latency import table

    monkeypatch.setattr(table, "device_fingerprint", lambda _: {"device": "cpu", "model": "abacus"})
    code, text = run(capsys, "search", "--project", copy, "--latency", "50%", "--score", "macs")
    assert code == 1
    assert "abacus" in text
    assert "hwprune profile" in text


def test_a_folder_that_may_not_be_written_is_named(
    capsys: pytest.CaptureFixture[str], read_only_folder: Path
) -> None:
    code, text = run(capsys, "init", "--project", read_only_folder)
    assert code == 1
    assert str(read_only_folder) in text


def test_a_profile_that_cannot_work_leaves_no_project_behind(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    profile = tmp_path / "half.toml"
    profile.write_text('device = "cpu"\nprecision = "fp16"\n')
    arguments = ["--project", str(tmp_path / "p"), "--model", "resnet20", "--profile", str(profile)]
    assert main(["profile", *arguments]) == 1
    assert "allowed: fp32, int8" in capsys.readouterr().err
    assert not (tmp_path / "p" / "hwprune.toml").exists()


def test_init_does_not_replace_a_project(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    new_project(tmp_path)
    before = (tmp_path / "hwprune.toml").read_bytes()
    code, text = run(capsys, "init", "--project", tmp_path)
    assert code == 2
    assert "--force" in text
    assert (tmp_path / "hwprune.toml").read_bytes() == before


def test_ctrl_c_says_that_nothing_is_lost(
    capsys: pytest.CaptureFixture[str], copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("hwprune.searching.searcher.evolve", interrupt)
    code, text = run(capsys, "search", "--project", copy, "--latency", "50%", "--score", "macs")
    assert code == 130
    assert "goes on" in text
    assert ProfileResult.load(next(copy.rglob("profile.json"))).base_ms > 0


def test_quickstart_refuses_a_budget_before_it_measures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, text = run(capsys, "quickstart", "--project", tmp_path / "q", "--latency", "15")
    assert code == 2
    assert "unit" in text
    assert not (tmp_path / "q" / "hwprune-work" / "latency").exists()


def test_doctor_refuses_no_time(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "doctor", "--seconds", "-1")[0] == 2


def test_a_profile_that_was_not_run_is_named(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, text = run(capsys, "predict", "--project", copy, "--profile", "cpu-b8")
    assert code == 1
    assert f"hwprune profile --project {copy} --profile cpu-b8" in text


@pytest.mark.parametrize(
    "arguments",
    [
        ("train", "--epochs"),
        ("search", "--latency", "60%", "--population"),
        ("search", "--latency", "60%", "--generations"),
    ],
)
def test_numbers_below_zero_are_refused_by_the_name_of_their_option(
    arguments: tuple[str, ...], copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, text = run(capsys, *arguments, "-1", "--project", copy)
    assert code == 2
    assert text.startswith(f"error: {arguments[-1]} is not a number of")
