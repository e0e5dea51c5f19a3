"""A result of `hwprune bench` in words and rows, the same on the terminal, in Markdown and in JUnit XML."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hwprune.gate.verdict import Check, Verdict
from hwprune.plain import xml_text
from hwprune.units import format_ms

if TYPE_CHECKING:
    from hwprune.gate.result import BenchResult, Elsewhere, Timed

CHECKS_HEAD = ("limit", "measured", "interval", "allowed", "verdict")
_NAMES = {"ms": "latency", "errors": "test top-1", "points": "test top-1 lost against the baseline"}
NOTHING_LIMITED = "Measured. Nothing was limited: --baseline FILE or --budget 15ms gives a verdict."
_TURMOIL = "The machine was too noisy to be trusted; `hwprune doctor` shows what disturbs."


def title(result: BenchResult) -> str:
    """What was measured where."""
    return f"{xml_text(result.model.file)} on {result.conditions['profile'].get('name', '?')}"


def networks(result: BenchResult) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """The networks as a table: its head and its rows."""
    own, other = result.model, result.baseline
    elsewhere = [
        (f"{xml_text(own.file)} under {one.profile} ({one.runtime}), {100 * one.ratio:.1f} %", _latency(one))
        for one in result.elsewhere
    ]
    if other is None or result.ratio is None:
        return ("network", "latency"), [(xml_text(own.file), _latency(own)), *elsewhere]
    stored = " (stored figures)" if result.compared_with == "figures" else ""
    return ("network", "latency", "of the baseline"), [
        (xml_text(own.file), _latency(own), f"{100 * result.ratio.value:.1f} %"),
        (f"{xml_text(other.file)}, the baseline{stored}", _latency(other), "100 %"),
        *((*one, "") for one in elsewhere),
    ]


def check_rows(result: BenchResult) -> list[tuple[str, ...]]:
    """The limits, in the columns of `CHECKS_HEAD`."""
    return [check_row(check) for check in result.checks]


def check_row(check: Check) -> tuple[str, ...]:
    """One limit: what it is about, the figure, its interval, what is allowed, the verdict."""
    found, most = check.found, check.limit.most
    value, low, high, allowed = (_figure(check, one) for one in (found.value, found.low, found.high, most))
    interval = "exact" if found.low == found.high else f"{low} to {high}"
    return name(check), value, interval, allowed, check.verdict.value


def name(check: Check) -> str:
    """What a limit is about."""
    if check.limit.unit in _NAMES:
        return _NAMES[check.limit.unit]
    regression = check.limit.breach == Verdict.REGRESSION
    return "latency against the baseline" if regression else "share of the baseline's latency"


def headline(result: BenchResult) -> str:
    """The verdict in a sentence or two."""
    check = result.deciding
    if check is None:
        return NOTHING_LIMITED if result.trusted else f"{NOTHING_LIMITED} {_TURMOIL}"
    what, value, interval, allowed, verdict = check_row(check)
    text = f"{verdict.capitalize()}: {what} {value} ({interval}), allowed {allowed}."
    if result.verdict != Verdict.TOO_NOISY:
        return text
    if not result.trusted:
        return f"{text} {_TURMOIL}"
    if not result.baseline_trusted:
        return (
            f"{text} The baseline's figures were taken on a machine that was too noisy to be trusted: "
            "measure it again (hwprune bench BASELINE.onnx --output FILE)."
        )
    return f"{text} The limit is inside the interval: measure longer (--max-time 2m) or on a quieter machine."


def footnote(result: BenchResult) -> str:
    """How it was measured."""
    how = {
        "model": "interleaved with the baseline in one run",
        "figures": "compared with stored figures of this kind of machine, by way of a reference workload",
        "": "interleaved with a reference workload",
    }[result.compared_with]
    scored = f"Test top-1 {accuracy_words(result)}. " if result.accuracy else ""
    device, runtime = result.conditions["device"], result.conditions["runtime"]
    stolen = f", {result.stolen:.0%} of the time taken by other programs" if result.stolen >= 0.01 else ""
    return (
        f"{scored}{result.blocks} blocks, {how}; the machine's speed spread by {result.noise:.1%}{stolen}. "
        f"{device.get('model', 'unknown device')}, {runtime['runtime']} {runtime['version']}, {result.date}."
    )


def accuracy_words(result: BenchResult) -> str:
    """Top-1 of the network, and of its baseline; "" where no images were named."""
    scored = result.accuracy
    if scored is None:
        return ""
    beside = f", the baseline {scored.baseline_top1:.2%}" if scored.baseline_top1 is not None else ""
    return f"{scored.top1:.2%}{beside}, on {scored.images} images of {xml_text(scored.data)}"


def at_bound(check: Check) -> str:
    """What a limit asks for, as `at most 15ms`."""
    return f"at {'least' if check.limit.unit == 'errors' else 'most'} {check.limit.text}"


def _latency(timed: Timed | Elsewhere) -> str:
    return f"{format_ms(timed.ms)} ± {format_ms(timed.error * timed.ms)}"


def _figure(check: Check, value: float) -> str:
    """A figure as its limit is written: a change, a share, or a time."""
    if check.limit.unit == "ms":
        return format_ms(value)
    if check.limit.unit == "errors":
        return f"{100 * (1 - value):.2f} %"
    if check.limit.unit == "points":
        return f"{value:.2f} points"
    if check.limit.breach == Verdict.REGRESSION:
        return f"{100 * (value - 1):+.1f} %"
    return f"{100 * value:.1f} %"
