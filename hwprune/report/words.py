"""Facts of a report as lines of text, the same in Markdown and on the page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hwprune.results.metrics import change_text, is_share, text_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hwprune.latency.width_sweep import Inversion
    from hwprune.report.facts import Report
    from hwprune.results import ExportResult, FrontResult, SearchResult


_MOST_LINES = 20
FRONT_HEAD = ("point", "budget", "latency", "MACs", "score")


def change(channels: tuple[int, int]) -> str:
    """Channels before and after, as `64 -> 48`, or one number when they are the same."""
    before, after = channels
    return str(before) if before == after else f"{before} -> {after}"


def error_words(percent: float | None) -> str:
    """How far a latency table is off on networks it has not seen."""
    return "not known: too few networks" if percent is None else f"{percent:.1f} %"


def inversion_lines(report: Report) -> list[str]:
    """Where a narrower network is not the faster one, and which networks were looked at for that."""
    return [*_device_lines(report), *_network_lines(report)]


SCORE_WORDS = {
    "inherited": "the trained network's own weights",
    "pruningnet": "a PruningNet's weights",
    "macs": "their MACs",
    "own": "a score of the caller's",
}
START_WORDS = {
    "inherited": "inherited weights",
    "generated": "generated weights",
    "scratch": "scratch",
    "base": "the unpruned network",
}


def epochs_words(search: SearchResult) -> str:
    """How a budget of epochs was shared out; "" where there was none."""
    if not search.epochs:
        return ""
    parts = [f"{name} {epochs:.2g}" for name, epochs in search.spent.items()]
    taken = f" {', '.join(parts)}," if parts else ""
    return f" Of {search.epochs:g} epochs in all:{taken} {search.epochs_left:.3g} for the final training."


def floats_words(export: ExportResult) -> str:
    """What a file in another number format won and lost against 32-bit floats; "" for a file in these."""
    beside = export.floats
    if beside is None:
        return ""
    here, there = (f"{size / 2**20:.2f} MiB" for size in (export.bytes, beside["bytes"]))
    won = []
    if (ratio := beside["ratio"]) is not None:
        latency, error = export.latency, f"{100 * (beside['error'] or 0.0):.1f}"
        faster = f"{latency.text(latency.value)} in place of {latency.text(latency.value / ratio)}"
        won.append(f"{faster} on {latency.name} ({100 * ratio:.1f} ± {error} %)")
    won.append(f"{here} in place of {there}")
    if export.top1 is not None and export.trained_top1 is not None:
        won.append(f"test {export.metric} {change_text(export.trained_top1, export.top1)}")
    scales = f", scales from {export.calibration}" if export.calibration else ""
    return f"{export.precision} against 32-bit floats{scales}: {', '.join(won)}."


def score_scale(search: SearchResult) -> tuple[int, str]:
    """What scores are multiplied with on an axis, and the unit behind them: percent where they are shares."""
    return (100, " %") if is_share(search.score, search.base_score) else (1, "")


def on_axis(what: str, search: SearchResult) -> str:
    """The title of an axis of scores."""
    return f"{what}, %" if score_scale(search)[1] else what


def score_words(search: SearchResult) -> str:
    """What a search's score is."""
    return f"{search.metric} on sub-val" if search.score_kind != "macs" else "MACs kept"


def tradeoff_title(search: SearchResult) -> str:
    """The heading over scores and latencies."""
    return "Accuracy against latency" if search.score_kind != "macs" else "MACs against latency"


def front_line(front: FrontResult) -> str:
    """How the networks of a front were found."""
    first, count = front.points[0], len(front.points)
    return (
        f"{count} network{'' if count == 1 else 's'} that no other one beats in both latency and score, from "
        f"one search at {front.searched} budgets in {front.budget} on {first.profile}."
    )


def front_rows(front: FrontResult) -> list[tuple[str, ...]]:
    """The networks of a front, in the columns of `FRONT_HEAD`."""
    rows: list[tuple[str, ...]] = []
    for number, one in enumerate(front.points, start=1):
        latency, macs = one.latency, one.figure("macs")
        value = latency.text(latency.value) + ("" if latency.is_measured else " (predicted)")
        score = f"{text_of(one.score, one.base_score, digits=1)} {score_words(one)}"
        rows.append((str(number), latency.budget, value, macs.text(macs.value), score))
    return rows


def _device_lines(report: Report) -> list[str]:
    steps = report.staircase
    if steps is None:
        return []
    return [
        f"The device: a layer of {narrow} channels was measured {percent:.1f} % slower than one of {wide}."
        for narrow, wide, percent in steps.inversions()
    ]


def _network_lines(report: Report) -> list[str]:
    where = ["the chosen network"] if not report.search.base_meets_budget else []
    where += ["the unpruned and the middle network"] if report.curves else []
    if not where:
        return ["Neighbouring widths were not compared."]
    looked = f"Around {' and '.join(where)}, every group one step at a time:"
    found = report.inversions
    if not found:
        return [f"{looked} no narrower network is slower than its next wider neighbour."]
    lines = [_line(one) for one in found[:_MOST_LINES]]
    if len(found) > _MOST_LINES:
        lines.append(f"and {len(found) - _MOST_LINES} more, in report.json")
    are = "1 narrower network is" if len(found) == 1 else f"{len(found)} narrower networks are"
    told = f"{are} predicted or measured to be slower than the next wider neighbour"
    return [f"{looked} {told}; {_measured_words(found)}.", *lines]


def _measured_words(found: Sequence[Inversion]) -> str:
    """How many of the narrower networks were measured, and what came out."""
    confirmed = [one.confirmed for one in found if one.confirmed is not None]
    if not confirmed:
        return "none of them was measured"
    right = sum(confirmed)
    slower = {0: "and none is slower", 1: "and 1 is slower"}.get(right, f"and {right} are slower")
    return f"{len(confirmed)} of them {'was' if len(confirmed) == 1 else 'were'} measured, {slower}"


def _line(one: Inversion) -> str:
    text = (
        f"{one.group}: {one.narrow} channels instead of {one.wide}, in the {one.around} network: predicted "
    )
    text += _slower(one.predicted_percent)
    if one.measured_percent is None or one.error_percent is None:
        return f"{text}, not measured"
    return f"{text}, measured {_slower(one.measured_percent)} (± {one.error_percent:.2f} %)"


def _slower(percent: float) -> str:
    return f"{abs(percent):.2f} % {'slower' if percent >= 0 else 'faster'}"
