"""The three worked tasks of docs/tasks.md, from training to a measured file, beside networks trained alike.

Each runs as the page has it; what takes long is kept in runs/tasks/, so that a run that was stopped goes on.
Beside the pruned network stands the unpruned one, trained on for as many epochs with the same teacher. At the
end both files are timed in turns.
"""

from __future__ import annotations

import argparse
import copy
import functools
import importlib
import json
import re
import sys
from pathlib import Path
from typing import Any

import torch
from common import RESULTS, finish

import hwprune
from hwprune.pruningnet.fit import fit
from hwprune.searching.library import search
from hwprune.searching.target import Target

ROOT = Path(__file__).parents[1]
PAGE, RUNS = ROOT / "docs" / "tasks.md", ROOT / "runs" / "tasks"
TASKS = ("segmentation", "detection", "regression")


def main() -> None:
    """Run a task up to some step, or to its end."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("--until", default="", help="stop before the first line with this text")
    parser.add_argument("--measure", action="store_true", help="time the files of a finished run")
    options = parser.parse_args()
    torch.set_num_threads(1)
    folder = RUNS / options.task
    folder.mkdir(parents=True, exist_ok=True)
    if options.measure:
        measured(options.task, folder)
        return
    names = run(options.task, folder, options.until)
    if "pruned" in names and not options.until:
        compared(options.task, folder, names)


def run(task: str, folder: Path, until: str) -> dict[str, Any]:
    """Run the code of the page in a folder; gives what it defines."""
    for name, code in examples(task):
        (folder / name).write_text(code)
    sys.path.insert(0, str(folder))
    fits = iter(("base", "pruned"))

    def kept_fit(net: Any, *arguments: Any, **options: Any) -> Any:
        path = folder / f"{next(fits)}.safetensors"
        return fit(net, *arguments, checkpoint=path, progress=told, **options)

    hwprune.fit = kept_fit
    hwprune.search = functools.partial(search, state=folder / "search")
    plain = Target.profile
    Target.profile = functools.partialmethod(plain, folder=folder / "table")  # type: ignore[assignment]
    code = (folder / f"{task}.py").read_text()
    if until:
        code = code[: code.rindex("\n", 0, code.index(until)) + 1]
    names: dict[str, Any] = {}
    exec(compile(code.replace('"pruned.onnx"', repr(str(folder / "pruned.onnx"))), task, "exec"), names)
    return names


def examples(task: str) -> list[tuple[str, str]]:
    """Files of a task on the page: (name, code)."""
    blocks = re.findall(r"```python\n# (\w+\.py)[^\n]*\n(.*?)```", PAGE.read_text(), flags=re.S)
    return [(name, code) for name, code in blocks if name.startswith(task)]


def told(done: float, total: int, /, **figures: float) -> None:
    """Print an epoch."""
    if done == int(done):
        print(f"{done:g}/{total}", {name: round(value, 4) for name, value in figures.items()}, flush=True)


def compared(task: str, folder: Path, names: dict[str, Any]) -> None:
    """Scores on test: unpruned, unpruned and trained alike, pruned and not trained yet, pruned."""
    net, train, test, own = (names[one] for one in ("net", "train", "test", "task"))
    tuning = next(line for line in examples(task)[1][1].splitlines() if line.startswith("hwprune.fit(pruned"))
    epochs, lr = (float(re.findall(rf"{name}=([\d.]+)", tuning)[0]) for name in ("epochs", "lr"))
    alike = copy.deepcopy(net)
    fit(
        alike,
        train,
        own,
        epochs=epochs,
        lr=lr,
        teacher=net,
        checkpoint=folder / "alike.safetensors",
        progress=told,
    )
    hwprune.export(net, names["example"], folder / "unpruned.onnx")
    score = functools.partial(hwprune.evaluate, task=own)
    found = names["found"]
    untrained = hwprune.Scorer(names["weights"], own, names["val"]).network(found.widths)
    figures = {
        "metric": hwprune.Scorer(names["weights"], own, names["val"]).name,
        "unpruned": score(net, test),
        "unpruned_trained_alike": score(alike, test),
        "pruned_untrained": score(untrained, test),
        "pruned": score(names["pruned"], test),
        "macs_share": found.result.figures[1].value / found.result.figures[1].base,
        "epochs": epochs,
        "widths": list(found.widths),
    }
    figures["points_lost"] = 100 * (figures["unpruned_trained_alike"] - figures["pruned"])
    (folder / "scores.json").write_text(json.dumps(figures))
    print(json.dumps(figures))


def measured(task: str, folder: Path) -> None:
    """Time the pruned file in turns with the unpruned one, and keep all figures."""
    target = importlib.import_module("hwprune").Target("cpu-1t")
    found = target.measure(
        folder / "pruned.onnx", folder / "unpruned.onnx", relative_error=0.003, max_seconds=40.0
    )
    figures = json.loads((folder / "scores.json").read_text())
    figures |= {
        "ms": found.ms,
        "unpruned_ms": found.reference_ms,
        "ratio": found.ratio,
        "error": found.relative_error,
        "within_budget": found.ratio <= 0.5,
    }
    path = RESULTS / "tasks.json"
    kept = json.loads(path.read_text()) if path.exists() else {}
    kept.pop("provenance", None)
    finish("tasks", {**kept, task: figures})


if __name__ == "__main__":
    main()
