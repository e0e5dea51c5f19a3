"""A result of `hwprune bench` in words and rows, the same on the terminal, in Markdown and in JUnit XML."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hwprune.gate.verdict import Check, Verdict
from hwprune.units import format_ms

if TYPE_CHECKING:
    from hwprune.gate.result import BenchResult, Timed

NETWORKS_HEAD = ("network", "latency", "of the baseline")
CHECKS_HEAD = ("limit", "measured", "interval", "allowed", "verdict")
NOTHING_LIMITED = "Measured. Nothing was limited: --baseline FILE or --budget 15ms gives a verdict."


def title(result: BenchResult) -> str:
    """What was measured where."""
    return f"{result.model.file} on {result.conditions['profile'].get('name', '?')}"


def network_rows(result: BenchResult) -> list[tuple[str, ...]]:
    """The networks, in the columns of `NETWORKS_HEAD`."""
    ratio = "" if result.ratio is None else f"{100 * result.ratio:.1f} %"
    rows: list[tuple[str, ...]] = [(result.model.file, _latency(result.model), ratio)]
    if result.baseline is not None:
        stored = " (stored figures)" if result.compared_with == "figures" else ""
        rows.append((f"{result.baseline.file}, the baseline{stored}", _latency(result.baseline), "100 %"))
    return rows


def check_rows(result: BenchResult) -> list[tuple[str, ...]]:
    """The limits, in the columns of `CHECKS_HEAD`."""
    return [
        (
            name(check),
            _figure(check, check.found.value),
            f"{_figure(check, check.found.low)} to {_figure(check, check.found.high)}",
            _figure(check, check.limit.most),
            check.verdict.value,
        )
        for check in result.checks
    ]


def name(check: Check) -> str:
    """What a limit is about."""
    if check.limit.breach == Verdict.REGRESSION:
        return "against the baseline"
    return "share of the baseline" if check.limit.unit == "ratio" else "latency"


def headline(result: BenchResult) -> str:
    """The verdict in a sentence or two."""
    check = result.deciding
    if check is None:
        return NOTHING_LIMITED
    low, high = _figure(check, check.found.low), _figure(check, check.found.high)
    found = f"{_figure(check, check.found.value)} ({low} to {high})"
    what = name(check) if check.limit.unit == "ms" else f"latency, {name(check)},"
    text = f"{result.verdict.value.capitalize()}: {what} {found}, allowed {_figure(check, check.limit.most)}."
    if result.verdict != Verdict.TOO_NOISY:
        return text
    if not result.trusted:
        return f"{text} The machine is too noisy: the reference alone spread by {result.noise:.0%}."
    return (
        f"{text} The limit lies inside the interval: measure longer (--max-time 2m), or on a quieter machine."
    )


def footnote(result: BenchResult) -> str:
    """How it was measured."""
    how = {
        "model": "interleaved with the baseline in one run",
        "figures": "compared with figures stored by an earlier run on this kind of machine",
        "": "interleaved with a twin of itself",
    }[result.compared_with]
    device, runtime = result.conditions["device"], result.conditions["runtime"]
    stolen = f", {result.stolen:.0%} of the time taken by other programs" if result.stolen >= 0.01 else ""
    return (
        f"{result.blocks} blocks, {how}; the machine's speed spread by {result.noise:.1%}{stolen}. "
        f"{device.get('model', 'unknown device')}, {runtime['runtime']} {runtime['version']}, {result.date}."
    )


def _latency(timed: Timed) -> str:
    return f"{format_ms(timed.ms)} ± {format_ms(timed.error * timed.ms)}"


def _figure(check: Check, value: float) -> str:
    """A figure as its limit is written: a change, a share, or a time."""
    if check.limit.unit == "ms":
        return format_ms(value)
    if check.limit.breach == Verdict.REGRESSION:
        return f"{100 * (value - 1):+.1f} %"
    return f"{100 * value:.1f} %"
