"""Every command and option that the pages name is held against the programs: a stale one fails here.

What can run without special hardware or data also runs, in `test_typed_commands.py`.
"""

from __future__ import annotations

import importlib
import itertools
import re
import shlex
import subprocess
import sys
import tomllib
from functools import cache

import pytest
import tyro
from pages import PAGES, ROOT, Command, blocks, commands, fences, mentions

from hwprune.cli.main import VERBS, _options_of
from hwprune.errors import UsageError

LANGUAGES = {"sh", "python", "py", "toml", "yaml", "text"}
COMMANDS = [command for page in PAGES for command in commands(page)]
# Options of others than the verbs that sentences may name.
OTHER_OPTIONS = {"--nproc-per-node", "--reference", "--output", "--check", "--help", "--version", "--json"}
# Of scripts in benchmarks/:
OTHER_OPTIONS |= {"--measure", "--profiles", "--models", "--seconds", "--minutes", "--fresh"}


@pytest.mark.parametrize("page", PAGES)
def test_every_block_says_what_it_holds(page: str) -> None:
    assert {language for language, _ in fences(page)} <= LANGUAGES


def verb_options(verb: str):
    return _options_of(getattr(importlib.import_module(f"hwprune.verbs.{verb}"), verb))


@cache
def flags(verb: str) -> frozenset[str]:
    """The options of a verb."""
    return frozenset(f"--{name.replace('_', '-')}" for name in verb_options(verb).__annotations__)


def check_hwprune(arguments: list[str]) -> None:
    """A verb with options and values that it takes."""
    verb, *rest = arguments
    if verb in ("--help", "--version"):
        return
    assert verb in VERBS
    if rest != ["--help"]:
        tyro.cli(verb_options(verb), args=rest, console_outputs=False)


def check_module(arguments: list[str]) -> None:
    """`python -m hwprune ...` and `python -m hwprune.probe ...`."""
    module, *rest = arguments
    if module == "hwprune":
        check_hwprune(rest)
    else:
        asked = subprocess.run(
            [sys.executable, "-m", module, "--help"], capture_output=True, text=True, check=True
        )
        assert all(word in asked.stdout for word in rest if word.startswith("--"))


def check_python(arguments: list[str]) -> None:
    """A module, a script of this repository with options it knows, or a file that a page tells to write."""
    if arguments[0] == "-m":
        check_module(arguments[1:])
        return
    script, *rest = arguments
    if (ROOT / script).is_file():
        source = (ROOT / script).read_text()
        assert all(f'"{word}"' in source for word in rest if word.startswith("--"))
    else:
        assert any(f"# {script}\n" in block for page in PAGES for block in blocks(page, "python"))


def check_make(arguments: list[str]) -> None:
    """A target of the Makefile."""
    subprocess.run(["make", "-n", *arguments], cwd=ROOT, check=True, capture_output=True)


def check_torchrun(arguments: list[str]) -> None:
    """torchrun's own options, and then `-m hwprune`."""
    from torch.distributed.run import get_args_parser

    options = get_args_parser().parse_args(arguments)
    assert options.module
    assert options.training_script == "hwprune"
    check_hwprune(options.training_script_args)


def check_pip(arguments: list[str]) -> None:
    """Packages that hwprune itself depends on, its own wheel, or this repository with some of its extras."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = {re.split(r"[<>=]", one)[0] for one in project["dependencies"]}
    assert arguments[0] == "install"
    extras = [re.fullmatch(r"\.\[(.+)\]", one) for one in arguments[1:]]
    asked = {name for one in extras if one for name in one[1].split(",")}
    assert asked <= project["optional-dependencies"].keys()
    others = {one for one, extra in zip(arguments[1:], extras, strict=True) if not extra}
    assert others <= {*names, "-e", "dist/*.whl"}


def check_cp(arguments: list[str]) -> None:
    """A file of the repository, copied."""
    assert (ROOT / arguments[0]).is_file()


def check_pytest(arguments: list[str]) -> None:
    """Tests and a marker that exist."""
    assert all((ROOT / word).exists() for word in arguments if word.startswith("tests/"))
    options = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]
    markers = {text.partition(":")[0] for text in options["markers"]}
    asked = {marker for option, marker in itertools.pairwise(arguments) if option == "-m"}
    assert asked <= markers


RULES = {
    "hwprune": check_hwprune,
    "python": check_python,
    ".venv/bin/python": check_python,
    "make": check_make,
    "torchrun": check_torchrun,
    "pip": check_pip,
    "cp": check_cp,
    ".venv/bin/pytest": check_pytest,
    "pytest": check_pytest,
    "mkdir": lambda arguments: None,
    "source": lambda arguments: None,
}


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: f"{command.page}: {command.text}")
def test_a_command_is_one_that_the_program_understands(command: Command) -> None:
    program, *arguments = shlex.split(command.text)
    assert program in RULES, "no rule says how to check this program"
    RULES[program](arguments)


@pytest.mark.parametrize("page", PAGES)
def test_no_command_hides_in_a_block_of_text(page: str) -> None:
    for block in blocks(page, "text"):
        programs = {line.split()[0] for line in block.splitlines() if line.strip()} & RULES.keys()
        assert not programs, "make it a block of sh: its commands are checked"


def test_the_pages_do_name_commands() -> None:
    assert len(COMMANDS) > 30
    assert {command.text.split()[1] for command in COMMANDS if command.text.startswith("hwprune ")} >= set(
        VERBS
    )


@pytest.mark.parametrize("page", PAGES)
def test_options_in_sentences_exist(page: str) -> None:
    known = OTHER_OPTIONS.union(*(flags(verb) for verb in VERBS))
    for code in mentions(page):
        words = code.split()
        whose = words[1] if words[0] == "hwprune" and len(words) > 1 and words[1] in VERBS else ""
        for option in re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", code):
            allowed = flags(whose) | {"--help"} if whose else known
            assert option in allowed, f"{code!r} in {page}"


def test_a_stale_command_would_be_found() -> None:
    for words in (
        ["search", "--latncy", "60%"],
        ["serch"],
        ["lut", "explode", "x"],
        ["train", "--point", "many"],
    ):
        with pytest.raises((SystemExit, UsageError, AssertionError)):
            check_hwprune(words)
    with pytest.raises(subprocess.CalledProcessError):
        check_make(["quickest"])
