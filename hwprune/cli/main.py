"""The command `hwprune`: each verb is a function of `hwprune.verbs`, whose signature makes the flags."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import os
import signal
import sys
import threading
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from hwprune import __version__
from hwprune.errors import HwpruneError, HwpruneWarning, UsageError, WorkerError, nearest, steps_in
from hwprune.training import workers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

VERBS = {
    "quickstart": "the whole job on bundled images, in minutes",
    "init": "write hwprune.toml: model, data, target, recipe",
    "check": "what of a network can be pruned, and how fast it can get, in seconds",
    "profile": "measure the device, build its latency table",
    "predict": "ask the latency table about any widths",
    "lut": "show, validate, merge and compare latency tables",
    "search": "find the best network within a latency budget",
    "train": "train the network that search chose",
    "export": "write the ONNX file, check and measure it",
    "report": "base versus pruned, as text, HTML, Markdown and JSON",
    "compare": "several results, devices or runs side by side",
    "bench": "the gate for CI: is a network fast enough, against a baseline or a budget",
    "doctor": "devices, runtimes, noise of this machine, what is missing",
}
_EXIT_CODES = {
    "0": "done",
    "1": "an error that the message explains, or a result that misses its limit",
    "2": "wrong usage; of bench also wrong input, such as a missing file",
    "3": "bench: too noisy to tell",
    "130": "stopped by Ctrl-C; 143 by SIGTERM",
}
_REPEATED = ("latency",)  # options that are given once for each value
_NO_READER = 141  # what shells use for a program whose pipe was closed
_TERMINATED = 143  # what shells use for a program stopped by SIGTERM
_INTERRUPTED = 130  # what shells use for a program stopped by Ctrl-C


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: Arguments without the program's name; those of the process by default.

    Returns:
        The exit code: 0 done, 1 an error that the message explains, 2 wrong usage, 130 interrupted; a result
        may have one of its own. A SIGTERM exits with 143.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_overview())
        return 0
    if arguments[0] in ("-V", "--version"):
        print(f"hwprune {__version__}")
        return 0
    try:
        with _terminable():
            return _run(arguments[0], arguments[1:])
    except HwpruneError as error:
        _tell(error)
        return error.exit_code
    except BrokenPipeError:  # the reader of our output has enough, as `head` does
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - kept to the end: nothing more can be printed
        return _NO_READER
    except OSError as error:
        _tell(f"The operating system refused.\n  got:     {error}")
        return 1
    except KeyboardInterrupt as error:
        _tell_stopped("Stopped.", error)
        return _INTERRUPTED
    except SystemExit as error:
        if error.code == _TERMINATED:
            _tell_stopped("Terminated.", error)
        raise


def _tell_stopped(how: str, error: BaseException) -> None:
    """Say that the command was stopped, with what is kept of its work as `_stopped` noted it."""
    if workers.is_main():
        print("\n" + " ".join([how, *getattr(error, "__notes__", ())]), file=sys.stderr)


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Let a SIGTERM end a verb as Ctrl-C does: locks are released, temporary files removed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(_TERMINATED))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _tell(error: HwpruneError | str) -> None:
    """Print an error. Not all say that a worker is gone: 0 does, and 1 in case it is 0 that is gone."""
    rank = workers.rank()
    if rank < 2 or not isinstance(error, WorkerError):
        print(f"error{f' (worker {rank})' if rank else ''}: {error}", file=sys.stderr)


def _overview() -> str:
    lines = ["usage: hwprune VERB [OPTIONS]      hwprune VERB --help explains a verb's options", ""]
    lines += ["Prune a CNN to a latency budget that is measured on the device it will run on.", "", "verbs:"]
    lines += [f"  {name:11} {summary}" for name, summary in VERBS.items()]
    lines += ["", "options:", "  --version   the version", "  --help      this text", "", "exit codes:"]
    return "\n".join([*lines, *(f"  {code:<11} {meaning}" for code, meaning in _EXIT_CODES.items())])


def _run(verb: str, arguments: list[str]) -> int:
    if verb not in VERBS:
        raise UsageError(
            "There is no such verb.", got=verb, allowed=nearest(verb, VERBS), do="see hwprune --help"
        )
    import tyro

    from hwprune.cli import flags
    from hwprune.cli.console import Console
    from hwprune.project import jobs

    function = getattr(importlib.import_module(f"hwprune.verbs.{verb}"), verb)
    arguments = flags.Words(verb, _parameters(function), _REPEATED).checked(arguments)
    options = tyro.cli(_options_of(function), args=arguments, prog=f"hwprune {verb}")
    folder = options.get("project", Path("."))
    console = Console(json=options.pop("json"), project=folder)
    leading = _take_positional(function, options)
    printing = _stdout_to_stderr() if console.json else contextlib.nullcontext()
    with _warnings_to(console), _stopped(function, folder), workers.group(), steps_in(folder), printing:
        result = jobs.run(lambda: function(*leading, **options, reporter=console), folder)
    if result is not None:
        console.show(verb, result)
    return getattr(result, "exit_code", 0)


def _options_of(function: Callable[..., Any]) -> Callable[..., dict[str, Any]]:
    """A function that returns its own arguments: those of a verb, with --json for the reporter."""
    from tyro.conf import UseAppendAction

    from hwprune.cli.flags import typed

    repeated = Annotated[tuple[str, ...], UseAppendAction]
    parameters = [
        typed(
            item.replace(annotation=repeated)
            if item.name in _REPEATED and item.annotation is not str
            else item
        )
        for item in _parameters(function)
    ]
    positional = [item.name for item in parameters if item.kind is inspect.Parameter.POSITIONAL_ONLY]

    def options(*leading: Any, **values: Any) -> dict[str, Any]:
        return {**dict(zip(positional, leading, strict=True)), **values}

    options.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    options.__annotations__ = {item.name: item.annotation for item in parameters}
    options.__doc__ = _help_text(function)
    return options


def _parameters(function: Callable[..., Any]) -> list[inspect.Parameter]:
    """What the command line takes for a verb: its function's parameters but the reporter, and `--json`."""
    signature = inspect.signature(function, eval_str=True)
    flag = inspect.Parameter("json", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=bool)
    return [*(item for name, item in signature.parameters.items() if name != "reporter"), flag]


def _take_positional(function: Callable[..., Any], options: dict[str, Any]) -> list[Any]:
    """Take a verb's positional arguments out of its options."""
    parameters = inspect.signature(function).parameters.values()
    return [options.pop(item.name) for item in parameters if item.kind is inspect.Parameter.POSITIONAL_ONLY]


def _help_text(function: Callable[..., Any]) -> str:
    """The verb's docstring up to its results, with the flag that the command line adds."""
    text = inspect.cleandoc(function.__doc__ or "")
    for section in ("\n\nReturns:", "\n\nRaises:"):
        text = text.partition(section)[0]
    return text + "\n    json: Print the result as JSON and nothing else."


@contextlib.contextmanager
def _stopped(function: Callable[..., Any], folder: Path) -> Iterator[None]:
    """Note at what stops a verb whether anything of its work is kept."""
    from hwprune.project.lock import holds_work

    try:
        yield
    except (KeyboardInterrupt, SystemExit) as error:
        if inspect.unwrap(function) is not function:  # a verb that writes into its project
            kept = "What was finished is kept; the same command goes on from there."
            error.add_note(kept if holds_work(folder) else "Nothing was finished yet.")
        raise


@contextlib.contextmanager
def _stdout_to_stderr() -> Iterator[None]:
    """Send to stderr what a model's code, or a library, prints: stdout is for the result alone."""
    sys.stdout.flush()
    kept = os.dup(1)
    try:
        os.dup2(2, 1)
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


@contextlib.contextmanager
def _warnings_to(console: Any) -> Iterator[None]:
    """Show hwprune's warnings as notes; those of libraries stay silent."""

    def show(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
        if issubclass(category, HwpruneWarning):
            console.warn(str(message))

    with warnings.catch_warnings():
        warnings.simplefilter("always", HwpruneWarning)
        warnings.showwarning = show
        yield


if __name__ == "__main__":
    sys.exit(main())
