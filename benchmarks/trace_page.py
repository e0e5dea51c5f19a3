"""The page of `trace_zoo.py`: docs/networks.md."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trace_networks import Network

PAGE = Path(__file__).parents[1] / "docs" / "networks.md"
INTRODUCTION = """# Networks that are traced

Made by `benchmarks/trace_zoo.py` from the networks of `benchmarks/trace_networks.py`; command, hardware and
versions are in [the result file](../benchmarks/results/trace_zoo.json). Each network is traced and checked
in a process of its own, with one thread and a limit of {limit} s for each part. Weights are random, no two
channels alike.

- *groups*: channel groups that can be pruned. *can go*: share of the MACs that is gone with every group at
  its narrowest and all blocks in place. *blocks*: modules that may be left out as a whole, proved likewise.
- *seconds*: of `trace`, its proof included, at the image size given with blocks{at_size}.
- *proof*: *proved* where `trace` has proved its space itself; *traced* without that; *refused* with a
  documented error; *traceback*, *crash* and *timeout* as they say.
- *checked*: independently of that proof, networks of the space (full, narrowest, two at random; where there
  are blocks also one without every second of them and one without any) run in torch and give the outputs of
  their sliced ONNX files within 1e-3, and their MACs and parameters are what torch counts; a network of half
  of the widths, with all blocks and with none, is the unpruned one whose removed channels nobody reads and
  whose blocks return their input. This last comparison is not made where the model's own code takes
  statistics over channels.
- *reasons*: why layers other than the model's outputs keep their width, each with the number of layers.
"""
RIVALS = """
## Beside other pruners

Each prunes the same networks. *Right*: the pruned network runs, its outputs have the same shapes, and they
are those of the unpruned network with nobody reading the removed channels; for hwprune also the checks
above. *Removed*: the median share of parameters that went from networks pruned rightly.

Torch-Pruning takes half of the channels, drawn at random, and is told the last layers and the heads of
attention. onnxsim (`apply_structured_pruning`) gets the exported file with every other channel zero and is
asked for 40 %; nothing may change. It cuts only chains that it knows, so most networks lose little, which
counts as right. Where weights are standardised, and for onnxsim where a norm takes its statistics over
channels, only shapes can be compared.
"""
SHOWN = 4


def write(networks: list[Network], content: dict[str, Any]) -> None:
    """Write the page from what `trace_zoo.py` found."""
    rows, timed = content["by_network"], content["at_size"]["by_network"]
    size = content["at_size"]["size"]
    limit = next(iter(rows.values()))["key"]["limit"]
    at_size = f", and at {size} x {size} for widths alone" if timed else ""
    parts = [INTRODUCTION.format(limit=limit, at_size=at_size), *overview(content)]
    if content["rivals_by_network"]:
        parts += [RIVALS, *rivals(rows, content["rivals"])]
    head = ["network", "family", "image", "groups", "can go, %", "blocks", "seconds"]
    head += [f"at {size}"] if timed else []
    head += ["proof", "checked", "reasons"]
    parts += ["", "## Network by network", "", *table(head)]
    parts += [line(row_of(one, rows[one.name], timed)) for one in networks]
    PAGE.write_text("\n".join(parts) + "\n")


def overview(content: dict[str, Any]) -> list[str]:
    """The figures of the whole zoo."""
    names = {
        "listed": "networks listed", "networks": "of these, run so far",
        "codes": "states of the code that the records come from", "families": "families",
        "traced": "traced", "proved": "of these, proved",
        "wrong": "wrong", "tracebacks": "tracebacks and crashes", "refused": "refused",
        "timeouts": "over the limit of time",
        "removable_80_share": "share of the networks without attention of which 80 % of the MACs can go",
        "median_seconds": "median seconds of trace", "max_seconds": "largest",
        "time_ratio": "time beside the tracer before, on its 24 networks",
    }  # fmt: skip
    shown = [(text, content[key]) for key, text in names.items()]
    blocks = content["blocks_found"]
    shown += [("blocks that may go", f"{blocks['blocks']} in {blocks['networks']} networks")]
    shown += [("networks wrong without blocks", blocks["wrong"])]
    lines = [line([text, "not measured" if value is None else value]) for text, value in shown]
    return ["", *table(["figure", "value"]), *lines]


def rivals(rows: dict[str, Any], found: dict[str, Any]) -> list[str]:
    """How each pruner did."""
    outcomes = Counter(row["outcome"] for row in rows.values())
    traced = [row for row in rows.values() if row["outcome"] in ("traced", "proved")]
    wrong = sum(bool(row.get("wrong")) for row in traced)
    right = sum(not row.get("wrong") and row.get("part") == "done" for row in traced)
    crashed = outcomes["traceback"] + outcomes["crash"]
    other = len(rows) - right - wrong - crashed
    head = ["pruner", "networks", "right", "wrong", "result does not run", "crashed"]
    lines = table([*head, "refused, too slow or not exported", "removed, %"])
    broken = sum("not run" in "".join(row.get("wrong", [])) for row in traced)
    gone = [row["removed"] for row in traced if "removed" in row and not row["wrong"]]
    removed = f"{100 * median(gone):.0f}" if gone else ""
    lines.append(line(["hwprune", len(rows), right, wrong - broken, broken, crashed, other, removed]))
    for name, one in found.items():
        if isinstance(one, str):
            lines.append(line([name, "", one, "", "", "", "", ""]))
            continue
        middle = one["median_removed_of_right"]
        removed = "" if middle is None else f"{100 * middle:.0f}"
        other = one["timeouts"] + one["not_exported"]
        counts = [one[key] for key in ("networks", "right", "wrong", "does_not_run", "crashed")]
        lines.append(line([name, *counts, other, removed]))
    return lines


def row_of(network: Network, row: dict[str, Any], timed: dict[str, Any]) -> list[Any]:
    """One network's line of the table."""
    removable = f"{100 * row['removable']:.0f}" if "removable" in row else ""
    wrong = row.get("wrong")
    checked = "**wrong**" if wrong else "right" if row.get("part") == "done" else "not all"
    cells = [network.name, network.family + (", attention" if network.attention else ""), network.size]
    cells += [row.get("groups", ""), removable, row.get("blocks", ""), row.get("seconds", "")]
    cells += [timed[network.name].get("seconds", "-")] if timed else []
    told = wrong or ([row["message"]] if row.get("message") else [])
    return [*cells, row["outcome"], checked, "; ".join([*told, *reasons(row.get("frozen", {}))])]


def reasons(frozen: dict[str, str]) -> list[str]:
    """The most frequent reasons, short, with how many layers have each."""
    counted = Counter(shorten(one) for one in frozen.values() if "outputs" not in one)
    told = [f"{count} x {reason}" for reason, count in counted.most_common(SHOWN)]
    rest = len(counted) - SHOWN
    return [*told, f"{rest} more reasons"] if rest > 0 else told


def shorten(text: str) -> str:
    """A reason of one line."""
    text = " ".join(text.split())
    return text if len(text) <= 110 else text[:107] + "..."


def table(head: list[str]) -> list[str]:
    """The first two lines of a table."""
    return [line(head), "|---" * len(head) + "|"]


def line(cells: list[Any]) -> str:
    """One line of a table."""
    return "| " + " | ".join(str(cell).replace("|", "/") for cell in cells) + " |"
