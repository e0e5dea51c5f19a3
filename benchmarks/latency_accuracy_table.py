"""Put the results of `latency_accuracy.py` side by side, as docs/latency-accuracy.md.

python benchmarks/latency_accuracy_table.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from common import RESULTS

PAGE = Path(__file__).parents[1] / "docs" / "latency-accuracy.md"
INTRODUCTION = """# How far latency predictions can be trusted

Made by `benchmarks/latency_accuracy_table.py` from `benchmarks/results/latency_accuracy_*.json`, which name
command, hardware and versions. Each row is one latency table, built as `hwprune profile` does, and 60
networks that had no part in it: 40 spread evenly over the whole range of latencies and 20 of equal MACs,
drawn with another seed and measured end to end in two sessions, interleaved with the table's two reference
networks.

- *error*: mean absolute error of the predictions; *repeat*: mean difference of the two sessions, the noise
  of the truth.
- *tau*: Kendall's rank correlation of predicted and measured, over the range and among equal MACs.
- *MACs*, *alone*, *forest*: errors on the same networks of a line in the MACs, of the sum of layers timed
  alone (as OFA, NetAdapt and HALP add them up), and of a random forest per kind of kernel without our
  features (as nn-Meter).
- *raw*: the paper's 31 ratios of each width; *aligned*: the same, snapped to the device's channel multiple.
- *alone* is judged on every sixth of the networks, the others on all.
- *disturbed*: another process loaded one core in bursts while the table was built.
- *depth*: blocks may go too; a network then has a random share of its blocks. The 60 networks reach from the
  unpruned one to a few percent of its latency. That of MobileNetV2 was measured beside other programs, as its
  *repeat* shows, and has to be measured again; of ResNet-56 *alone* and *forest* were not, for at that time
  they still counted layers of blocks that are not there.

Goals: error at most 2 % (MobileNetV2, depth) or 3 %, at least 97 % of networks within 5 % and all within 10 %
(raw: 90 % and 99 %), disturbed at most 1.5 times the quiet error, tau at least 0.95 and 0.7. A figure that
misses its goal is **bold**.
"""
DISTURBED = 1.5
HEAD = (
    "network", "processor", "threads", "widths", "error, %", "within 5 %", "within 10 %", "tau",
    "tau, equal MACs", "repeat, %", "table, s", "MACs, %", "alone, %", "forest, %",
)  # fmt: skip


def main() -> None:
    """Write the page."""
    found = [json.loads(path.read_text()) for path in sorted(RESULTS.glob("latency_accuracy_*.json"))]
    lines = [INTRODUCTION, "| " + " | ".join(HEAD) + " |", "|---" * len(HEAD) + "|"]
    pairs = [(options(one), one["mape_percent"]) for one in found]
    quiet = {key(given): error for given, error in pairs if "--disturb" not in given}
    lines += ["| " + " | ".join(row(one, quiet)) + " |" for one in sorted(found, key=order)]
    PAGE.write_text("\n".join([*lines, "", *footer(found)]))


def options(result: dict[str, Any]) -> dict[str, str]:
    """The options of the command behind a result."""
    words = result["provenance"]["command"].split()[2:]
    given = {"--model": "torchvision:mobilenet_v2", "--threads": "1", "--widths": "aligned"}
    for name, value in zip(words, [*words[1:], ""], strict=True):
        if name.startswith("--"):
            given[name] = value
    return given


def order(result: dict[str, Any]) -> tuple[bool, str, str, str]:
    """One thread first, then by network."""
    given = options(result)
    name = given["--model"].rpartition(":")[2]
    return len(remarks(given)) > 0, given["--threads"], name, given["--widths"]


def key(given: dict[str, str]) -> tuple[str, ...]:
    """What a disturbed run has in common with its quiet one."""
    others = {name: value for name, value in given.items() if name != "--disturb"}
    return given["--model"], given["--threads"], given["--widths"], *remarks(others)


def row(result: dict[str, Any], quiet: dict[tuple[str, ...], float]) -> list[str]:
    """One result; misses are bold."""
    given = options(result)
    raw, name = given["--widths"] == "raw", given["--model"].rpartition(":")[2]
    baselines = result["baselines"]
    limit = 2.0 if "--depth" in given or (name == "mobilenet_v2" and not raw) else 3.0
    if "--disturb" in given:
        limit = min(limit, DISTURBED * quiet.get(key(given), float("inf")))
    return [
        name,
        " ".join(result["provenance"]["cpu"].replace("(R)", "").split()[:2]),
        given["--threads"],
        given["--widths"] + "".join(f", {word}" for word in remarks(given)),
        judged(result["mape_percent"], raw or result["mape_percent"] <= limit),
        judged(result["within_5_percent"], result["within_5_percent"] >= (90 if raw else 97)),
        judged(result["within_10_percent"], result["within_10_percent"] >= (99 if raw else 100)),
        judged(result["kendall_tau"], result["kendall_tau"] >= 0.95),
        judged(result["kendall_tau_equal_macs"], result["kendall_tau_equal_macs"] >= 0.7),
        str(result["truth_repeat_error_percent"]),
        str(result["device_seconds"]),
        *(
            judged(baselines[key], baselines[key] > result["mape_percent"]) if key in baselines else "-"
            for key in ("macs", "isolated_layers", "random_forest")
        ),
    ]


def remarks(given: dict[str, str]) -> list[str]:
    """What is special about a run."""
    found = [given["--precision"]] if given.get("--precision", "fp32") != "fp32" else []
    return found + [word for word in ("depth", "disturbed") if f"--{word.removesuffix('ed')}" in given]


def judged(value: float, good: bool) -> str:
    """The figure, bold when it misses its goal."""
    return f"{value:g}" if good else f"**{value:g}**"


def footer(found: list[dict[str, Any]]) -> list[str]:
    """Where and when."""
    machines = sorted({f"{one['provenance']['cpu']}, {one['provenance']['cores']} cores" for one in found})
    dates = sorted({one["provenance"]["date"] for one in found})
    speeds = [one["predictions_per_second"] for one in found]
    return [
        f"Measured on {'; '.join(machines)}, {' to '.join(sorted({dates[0], dates[-1]}))}. "
        f"Prediction speed on one core: {min(speeds):,} to {max(speeds):,} networks a second.",
        "",
    ]


if __name__ == "__main__":
    main()
