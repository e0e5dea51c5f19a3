"""The command line: help, JSON, progress. The commands of the pages: tests/docs."""

from __future__ import annotations

import inspect
import io
import json
import re
import shutil
import time
import warnings
from dataclasses import asdict
from pathlib import Path

import pytest
from rich.console import Console as RichConsole

from hwprune.cli.console import Console
from hwprune.cli.main import VERBS, _warnings_to, main
from hwprune.errors import HwpruneWarning
from hwprune.verbs.init import InitResult


def verb_function(verb: str):
    import importlib

    return getattr(importlib.import_module(f"hwprune.verbs.{verb}"), verb)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_each_of_its_options(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([verb, "--help"])
    assert caught.value.code == 0
    text = " ".join(re.sub("[│╭╮╰╯─]", " ", capsys.readouterr().out).split())
    for option, words in documented_options(verb).items():
        if option not in positional_names(verb):
            assert f"--{option.replace('_', '-')}" in text
        assert words in text, f"{option} is not explained"
    assert "reporter" not in text


def documented_options(verb: str) -> dict[str, str]:
    """Option -> the first words of its explanation in the function's docstring."""
    text = verb_function(verb).__doc__ or ""
    entries = dict(re.findall(r"^ {8}(\w+): (.+)$", text, flags=re.M))
    return {name: " ".join(entries[name].split()[:2]) for name in asdict_keys(verb)}


def asdict_keys(verb: str) -> list[str]:
    return [name for name in inspect.signature(verb_function(verb)).parameters if name != "reporter"]


def positional_names(verb: str) -> list[str]:
    parameters = inspect.signature(verb_function(verb)).parameters.values()
    return [item.name for item in parameters if item.kind is item.POSITIONAL_ONLY]


def test_json_is_the_only_output_and_holds_the_result(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["init", "--project", str(tmp_path / "p"), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["classes"] == 10
    assert set(result) == set(asdict(InitResult(path="", model="", classes=1, image_size=1, train_images=1)))


CHATTY = """
import os
from torch import nn

def net(num_classes):
    print("building")
    os.system("echo from a program")
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                         nn.Linear(8, num_classes))
"""


def test_what_a_model_prints_is_no_part_of_the_json(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "net.py").write_text(CHATTY)
    arguments = ["--project", str(tmp_path / "p"), "--model", f"{tmp_path}/net.py:net"]
    assert main(["init", *arguments, "--json"]) == 0
    printed = capfd.readouterr()
    assert json.loads(printed.out)["groups"] == 1
    assert "building" in printed.err
    assert "from a program" in printed.err
    main(["init", *arguments, "--force"])
    assert "Wrote" in capfd.readouterr().out, "the next command prints where it did"


def test_a_verb_that_is_stopped_before_it_finished_anything_promises_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("hwprune.verbs.profile.traced", stopped)
    assert main(["profile", "--project", str(tmp_path)]) == 130
    assert capsys.readouterr().err.endswith("Stopped. Nothing was finished yet.\n")
    monkeypatch.setattr("hwprune.verbs.check.traced", stopped)
    assert main(["check", "resnet20", "--project", str(tmp_path)]) == 130
    assert capsys.readouterr().err.endswith("Stopped.\n")


def test_the_next_command_names_the_project(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "p"
    main(["init", "--project", str(folder)])
    assert f"Next: hwprune profile --project {folder}" in capsys.readouterr().out
    shutil.rmtree(folder)


def test_an_error_names_the_missing_step_with_the_project(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "a project"
    assert main(["init", "--project", str(folder), "--model", "resnet20"]) == 0
    assert main(["search", "--latency", "50%", "--project", str(folder)]) == 1
    assert f"run `hwprune profile --project '{folder}'` first" in capsys.readouterr().err


def test_an_error_about_a_named_folder_names_the_missing_step_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "p"
    assert main(["init", "--project", str(folder), "--model", "resnet20"]) == 0
    for command, verb, code in (
        (["compare", str(folder), str(folder)], "search", 1),
        (["bench", str(folder), "--budget", "5ms"], "export", 2),
    ):
        assert main(command) == code
        assert f"`hwprune {verb} --project {folder}" in capsys.readouterr().err


def test_progress_without_a_terminal_is_plain_lines_with_rate_and_time_left(
    capsys: pytest.CaptureFixture[str],
) -> None:
    console = Console()
    with console.stage("Training", "epochs") as progress:
        for done in range(1, 4):
            progress(done, 3, loss=0.5)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "Training ..."
    assert re.match(r"Training: 1/3 epochs, .*/s, .* left  loss 0.5", lines[1])
    assert lines[-2].startswith("Training: 3/3 epochs")
    assert lines[-1].startswith("Training: done in")


def test_progress_inside_an_epoch_counts_its_tenths_and_what_was_done_before(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with Console().stage("Training", "epochs") as progress:
        time.sleep(0.1)
        progress(2.25, 4, loss=0.5)  # two were finished by an earlier run
        progress(4, 4, loss=0.4)
    lines = capsys.readouterr().err.splitlines()
    found = re.match(r"Training: 2\.2/4 epochs, ([\d.]+)/s, .* left  loss 0\.5", lines[1])
    assert found
    assert float(found[1]) <= 0.25 / 0.1
    assert lines[2].startswith("Training: 4/4 epochs")


def test_a_stage_says_where_it_goes_on_and_how_long_it_takes(capsys: pytest.CaptureFixture[str]) -> None:
    with Console().stage("Training", "epochs") as progress:
        time.sleep(0.2)  # getting ready does not count
        progress(2.001, 4)
        time.sleep(0.1)
        progress(2.003, 4, loss=0.5)
    lines = capsys.readouterr().err.splitlines()
    assert lines[1] == "Training: goes on after 2 of 4 epochs."
    found = re.match(r"Training: about 1 m (\d+) s for the other 2 epochs", lines[2])
    assert found, lines
    assert int(found[1]) >= 39  # 1.997 epochs, of which 0.002 took 0.1 s


@pytest.mark.parametrize("width", [60, 80])
def test_a_narrow_terminal_shows_what_is_done_and_the_time_left(width: int) -> None:
    console = Console()
    console.err = RichConsole(file=io.StringIO(), force_terminal=True, width=width)
    with console.stage("Training the unpruned network", "epochs") as progress:
        for done in range(1, 4):
            progress(done, 40, loss=1.2345, top1=0.5)
            time.sleep(0.15)
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "\r", console.err.file.getvalue()).split("\r")
    assert any(re.match(r"Training the unpruned network 3/40 epochs, .* left  loss", line) for line in shown)
    assert all(len(line.strip()) <= width for line in shown)


def test_warnings_of_hwprune_are_shown_and_those_of_libraries_are_not(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with _warnings_to(Console()):
        warnings.warn("stem keeps its width", HwpruneWarning, stacklevel=1)
        warnings.warn("some library will change", UserWarning, stacklevel=1)
    text = capsys.readouterr().err
    assert "warning: stem keeps its width" in text
    assert "library" not in text


def test_without_arguments_it_lists_the_verbs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    text = capsys.readouterr().out
    assert all(verb in text for verb in VERBS)
    assert re.search(r"exit codes:\n  0 +done\n  1 .*\n  2 .*\n  3 +bench", text)
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("hwprune ")
