"""Facts of a report as lines of text, the same in Markdown and on the page."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hwprune.latency.curves import Inversion
    from hwprune.report.facts import Report


def change(channels: tuple[int, int]) -> str:
    """Channels before and after, as `64 -> 48`, or one number when they are the same."""
    before, after = channels
    return str(before) if before == after else f"{before} -> {after}"


def inversion_lines(report: Report) -> list[str]:
    """Where a narrower network is not the faster one."""
    found = report.inversions
    if not found:
        return ["No narrower network is predicted to be slower than its next wider neighbour."]
    measured = [one for one in found if one.confirmed is not None]
    right = sum(bool(one.confirmed) for one in measured)
    return [
        f"{len(found)} narrower networks are predicted to be slower than their next wider neighbour; "
        f"of the {len(measured)} that were measured, {right} are.",
        *(_line(one) for one in found),
    ]


def _line(one: Inversion) -> str:
    text = (
        f"{one.group}: {one.narrow} channels instead of {one.wide}, in the {one.around} network: predicted "
        f"{one.predicted_percent:.2f} % slower"
    )
    if one.measured_percent is None or one.error_percent is None:
        return f"{text}, not measured"
    slower = "slower" if one.measured_percent >= 0 else "faster"
    return f"{text}, measured {abs(one.measured_percent):.2f} ± {one.error_percent:.2f} % {slower}"
