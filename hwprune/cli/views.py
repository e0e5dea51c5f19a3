"""How each verb's result looks on a terminal."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from hwprune.cli.lut_view import lut
from hwprune.cli.parts import Next, facts, table
from hwprune.gate.words import (
    CHECKS_HEAD,
    check_rows,
    footnote,
    headline,
    networks,
    title,
)
from hwprune.report import side_by_side
from hwprune.report.standing import Standing
from hwprune.report.words import (
    FRONT_HEAD,
    SCORE_WORDS,
    START_WORDS,
    change,
    epochs_words,
    error_words,
    floats_words,
    front_line,
    front_rows,
)
from hwprune.results import FrontResult, ProfileResult
from hwprune.results.metrics import change_text, is_share, text_of
from hwprune.runtimes.profiles import default_profile, profile_names
from hwprune.structure.remedies import remedy
from hwprune.units import format_count, format_ms, format_seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from rich.console import RenderableType

    from hwprune.gate.result import BenchResult
    from hwprune.report.compare import Comparison
    from hwprune.report.facts import Report
    from hwprune.results import ExportResult, Figure, SearchResult, TrainResult
    from hwprune.verbs.check import CheckResult
    from hwprune.verbs.doctor import DoctorResult
    from hwprune.verbs.init import InitResult
    from hwprune.verbs.predict import PredictResult
    from hwprune.verbs.profile import PlanResult


_MARKS = {True: ("ok", "green"), False: ("!!", "bold red"), None: ("--", "dim")}  # None: not here, not needed
_STYLES = {
    Standing.GOOD: "bold green",
    Standing.COSTLY: "bold yellow",
    Standing.LOST: "bold red",
    Standing.MISSED: "bold red",
}
_ROUGH_PERCENT = 10.0  # error of a table from which on a user should know


def view(verb: str, result: Any) -> Iterable[RenderableType | Next]:
    """The parts to print for the result of a verb."""
    return _VIEWS[verb](result)


def _init(result: InitResult) -> Iterable[RenderableType | Next]:
    images = f"{result.train_images} training images, " if result.train_images else "no images, "
    yield Text(
        f"Wrote {result.path}: {result.model}, {images}{result.classes} classes, {result.image_size} px, "
        f"{result.groups} channel groups that can be pruned, {result.blocks} blocks that may go."
    )
    if result.mean:
        mean, std = (", ".join(f"{value:.4g}" for value in values) for values in (result.mean, result.std))
        yield Text(
            f"Images are normalised by {result.normalisation} mean ({mean}) and deviation ({std}) of pixels "
            "in 0..1; others are set by `mean` and `std` under [data]."
        )
    yield Next("profile")


def _check(result: CheckResult) -> Iterable[RenderableType | Next]:
    sizes = " x ".join(map(str, result.input_shape))
    least = result.smallest_ms / result.base_ms
    kernels = ", ".join(f"{count} {family}" for family, count in result.kernels.items())
    yield facts(
        f"{result.model}, input {sizes}, on {result.profile}",
        ("channel groups that can be pruned", str(result.groups)),
        ("blocks that may go", ": ".join(filter(None, [str(len(result.blocks)), ", ".join(result.blocks)]))),
        ("MACs", f"{format_count(result.macs)}, {result.removable_macs:.1%} of them can go"),
        ("unpruned network", format_ms(result.base_ms)),
        ("at the narrowest", f"{format_ms(result.smallest_ms)}, {least:.1%} of the latency"),
        ("kernels", kernels),
        ("latency model", f"{result.networks} networks, error {error_words(result.error_percent)}"),
        ("proved", f"{', '.join(result.checks)} ({format_seconds(result.proof_seconds)})"),
        ("traced in", format_seconds(result.trace_seconds)),
    )
    if result.frozen:
        rows = [(layer, why, remedy(why)) for layer, why in result.frozen.items()]
        yield table("Layers that keep channels", ("layer", "why", "what would free them"), rows)
    if result.kept_blocks:
        by_reason: dict[str, list[str]] = {}
        for module, why in result.kept_blocks.items():
            by_reason.setdefault(why, []).append(module)
        told = [(why, ", ".join(modules)) for why, modules in by_reason.items()]
        yield table("Modules that look like blocks but stay", ("why", "modules"), told)
    if result.budget_ms is not None:
        within = "within reach" if result.reachable else "OUT OF REACH: no network of this space is as fast"
        yield Text(
            f"The budget of {result.budget} ({format_ms(result.budget_ms)}) is {within}.", style="bold"
        )
    model = shlex.quote(result.model)
    if not result.reachable:
        yield Next(f"check {model} --latency BUDGET")
    else:
        yield Next("profile" if result.own else f"init --model {model}")


def _profile(result: ProfileResult | PlanResult) -> Iterable[RenderableType | Next]:
    if isinstance(result, ProfileResult):
        yield from _table_made(result)
    else:
        yield Text(
            f"Wrote {result.file}: {result.networks} networks of {result.model} for {result.profile}, "
            f"{result.bytes / 2**20:.1f} MiB.\n"
            f"On the target: python -m hwprune.probe {Path(result.file).name}"
        )


def _table_made(result: ProfileResult) -> Iterable[RenderableType | Next]:
    yield facts(
        f"{result.model} on {result.profile}",
        ("unpruned network", f"{format_ms(result.base_ms)} ± {format_ms(result.base_error_ms)}"),
        ("channel groups", str(result.groups)),
        ("blocks that may go", str(result.blocks)),
        ("latency table", f"{result.kernels} kernels from {result.networks} networks"),
        ("error on held-out networks", error_words(result.error_percent)),
        ("channel multiple", str(result.channel_multiple)),
        ("device time", format_seconds(result.seconds)),
    )
    error = result.error_percent
    if error is not None and error > _ROUGH_PERCENT:
        yield Text(
            f"The table is {error:.0f} % off on networks it has not seen. A search measures its answer all "
            "the same; to have better predictions, measure longer: --max-time 5m.",
            style="bold",
        )
    named = (
        result.profile in profile_names() and result.profile != default_profile(result.target["device"]).name
    )
    yield Next(f"search {f'--profile {result.profile} ' if named else ''}--latency 60%")


def _predict(result: PredictResult) -> Iterable[RenderableType | Next]:
    rows = []
    for (name, _, ms, macs, params), error_ms in zip(result.rows, result.errors_ms, strict=True):
        share, latency = f"{ms / result.base_ms:.1%}", f"{format_ms(ms)} ± {format_ms(error_ms)}"
        rows.append((name, latency, share, format_count(macs), format_count(params)))
    head = ("network", "latency", "of the unpruned", "MACs", "parameters")
    yield table(f"Predicted from the table of {result.profile}, not measured", head, rows)


def _search(result: SearchResult | FrontResult) -> Iterable[RenderableType | Next]:
    if isinstance(result, FrontResult):
        yield from _front(result)
        return
    if result.base_meets_budget:
        yield Text(f"The unpruned network meets the budget already: {result.budget}. Nothing was pruned.")
    rows = []
    for one in result.figures:
        limit = f"{one.text(one.limit)} ({one.budget})" if one.limit is not None else ""
        rows.append((one.title, one.text(one.base), _value(one), limit))
        if one.unit == "ms" and one.is_measured:
            rows.append(("  predicted", "", one.text(one.predicted), ""))
    if result.score_kind == "macs":
        rows.append(("share of MACs kept", f"{result.base_score:.1%}", f"{result.score:.1%}", ""))
    else:
        base, score = result.base_score, result.score
        error = f"{result.score_error:.1%}" if is_share(base, score) else f"{result.score_error:.2g}"
        told = f"{text_of(score, base, digits=1)} ± {error}"
        rows.append(
            (f"{result.metric} on sub-val, not trained yet", text_of(base, score, digits=1), told, "")
        )
    head = ("", "unpruned", "chosen", "budget")
    yield table(f"{result.model} under {result.budget}", head, rows)
    yield from _unmeasured(result)
    if len(result.budgets) > 1 and result.binding:
        yield Text(f"nearest to its budget: {result.figure(result.binding).title}")
    widths = zip(result.groups, result.widths, strict=False)
    yield Text("widths: " + ", ".join(f"{name} {width}" for name, width in widths))
    yield from _left_out(result)
    yield Text(f"for hwprune predict: --widths {','.join(map(str, result.widths))}")
    if result.images and not result.base_meets_budget:
        yield Text(f"scored by {SCORE_WORDS[result.score_kind]}.{epochs_words(result)}")
    if result.score_kind == "macs" and not result.base_meets_budget:
        why = "Scored by MACs" if result.images else "No images"
        yield Text(f"{why}: the network with the most MACs in the budget was chosen, not the most accurate.")
    yield Next("train" if result.images else "export --onnx")


def _left_out(search: SearchResult) -> Iterable[Text]:
    if search.blocks:
        yield Text(f"blocks left out: {', '.join(search.left_out) or 'none'}")


def _value(figure: Figure) -> str:
    """A figure of the chosen network, with its error, or the word that it is no measurement."""
    if not figure.is_measured:
        return f"{figure.text(figure.value)} (predicted)"
    error = f" ± {figure.text(figure.error)}" if figure.error else ""
    return f"{figure.text(figure.value)}{error}"


def _unmeasured(result: SearchResult | ExportResult) -> Iterable[Text]:
    for name in result.unmeasured:
        yield Text(f"Predicted, not measured: {name} is not at hand.", style="bold")


def _front(result: FrontResult) -> Iterable[RenderableType | Next]:
    first = result.points[0]
    yield Text(front_line(result))
    yield table(f"{first.model} on {first.profile}", FRONT_HEAD, front_rows(result))
    yield from _unmeasured(first)
    verb = "train" if first.images else "export --onnx"
    yield Next(f"{verb} --point {len(result.points) // 2 + 1}")


def _train(result: TrainResult) -> Iterable[RenderableType | Next]:
    base, top1 = result.base_top1, result.top1
    yield facts(
        f"{'Top-1' if result.metric == 'top-1' else result.metric} on {result.test_images} test images",
        ("unpruned network", f"{text_of(base, top1)}  ({result.base_source})"),
        (
            "pruned network",
            f"{text_of(top1, base)}  ({change_text(base, top1)}, from {START_WORDS[result.start]})",
        ),
    )
    yield Next("export --onnx")


def _export(result: ExportResult) -> Iterable[RenderableType | Next]:
    yield facts(
        f"{result.file}, {result.bytes / 2**20:.2f} MiB",
        *(fact for one in result.figures for fact in _export_facts(one)),
        ("all budgets", _kept(result)),
        *_compared(result),
        ("weights", f"{result.weights}{': for timing only' if result.weights == 'random' else ''}"),
        *_accuracy(result),
    )
    yield from _unmeasured(result)
    if words := floats_words(result):
        yield Text(words)
    yield from _slow(result.slow)
    yield Next("report")


def _compared(result: ExportResult) -> Iterable[tuple[str, str]]:
    if result.weights != "of the file":  # cut out of an ONNX file: there is no torch model
        yield "difference from torch", f"{result.max_difference:.1e} (allowed {result.tolerance:.0e})"


def _kept(result: ExportResult) -> str:
    if not result.within_budget:
        return "NOT KEPT"
    return "kept, as predicted; not measured" if result.unmeasured else "kept"


def _export_facts(figure: Figure) -> Iterable[tuple[str, str]]:
    """A figure of the file beside its budget."""
    if figure.unit != "ms" and figure.limit is None:
        return
    limit = f", the budget is {figure.text(figure.limit)}" if figure.limit is not None else ""
    yield figure.title, _value(figure) + limit
    if figure.unit == "ms" and figure.is_measured:
        yield "  unpruned network, same session", figure.text(figure.base)


def _accuracy(result: ExportResult) -> Iterable[tuple[str, str]]:
    """The metric of the file; rounding to an integer format makes it another than that of the weights."""
    if result.top1 is None or result.trained_top1 is None:
        return
    text = text_of(result.top1, result.trained_top1)
    if result.precision != "fp32":
        text += f"  ({change_text(result.trained_top1, result.top1)} by {result.precision})"
    yield f"test {result.metric} of the file", text


def _bench(result: BenchResult) -> Iterable[RenderableType | Next]:
    yield table(title(result), *networks(result))
    if result.checks:
        yield table("", CHECKS_HEAD, check_rows(result))
    yield from _slow(result.slow)
    yield Text(footnote(result))
    yield Text(headline(result), style="bold")


def _slow(causes: Iterable[str]) -> Iterable[RenderableType]:
    """What makes a file slow for no reason."""
    for text in causes:
        yield Text(f"! {text}", style="yellow")


def _doctor(result: DoctorResult) -> Iterable[RenderableType | Next]:
    shown = Table(show_header=False)
    for finding in result.findings:
        mark = Text(*_MARKS[finding.good])
        text = finding.value + (f"\n-> {finding.do}" if finding.do else "")
        shown.add_row(mark, Text(finding.name), Text(text))
    yield shown


def _report(result: Report) -> Iterable[RenderableType | Next]:
    search = result.search
    rows = [(row.name, row.base, row.pruned, row.change) for row in result.rows]
    yield table(f"{search.model} under {search.budget}", ("", "unpruned", "pruned", ""), rows)
    yield from _left_out(search)
    layers = [(one.name, change(one.inputs), change(one.outputs)) for one in result.layers]
    yield table("Layers, unpruned -> pruned", ("layer", "channels read", "channels made"), layers)
    yield Text(result.verdict, style=_STYLES[result.standing])
    for line in result.advice:
        yield Text(f"- {line}")


def _compare(result: Comparison) -> Iterable[RenderableType | Next]:
    both = side_by_side.table(result)
    yield table(both.title, both.head, both.rows)
    yield Text(side_by_side.summary(result), style="bold")
    for line in side_by_side.lines(result):
        yield Text(line)
    for file in result.files:
        yield Text(f"Wrote {file}.")


def _quickstart(result: Report) -> Iterable[RenderableType | Next]:
    yield from _report(result)
    yield Text(
        "In the project folder, hwprune-quickstart unless you named another: pruned.onnx, and report.html to "
        "open in a browser. For your own model and images see the tutorial, docs/tutorial.md."
    )


_VIEWS: dict[str, Callable[[Any], Iterable[RenderableType | Next]]] = {
    "quickstart": _quickstart,
    "init": _init,
    "check": _check,
    "profile": _profile,
    "predict": _predict,
    "lut": lut,
    "search": _search,
    "train": _train,
    "export": _export,
    "report": _report,
    "bench": _bench,
    "compare": _compare,
    "doctor": _doctor,
}
