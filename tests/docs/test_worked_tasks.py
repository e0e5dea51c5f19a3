"""The worked tasks of docs/tasks.md run as they stand, on a pretended device and on fewer images."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import onnx
import pytest
import torch

import hwprune

PAGE = Path(__file__).parents[2] / "docs" / "tasks.md"
MOST_LINES = 60  # of a user's own code
TASKS = ("segmentation", "detection", "regression")
FEW = "FEW = SearchSettings(population=6, parents=3, mutants=2, crossovers=2, generations=1)"
SHORTER = (
    (r"epochs=\d+", "epochs=1"),
    (r"drawings\(\d{3,4}, ", "drawings(64, "),
    (r"loader\(\d{3}, ", "loader(48, "),
    (r'"cpu-1t"', '"fake.toml"'),
    (r'limits=latency.limit\("50%"\)', 'limits=latency.limit("80%"), settings=FEW'),
    (
        r"import hwprune\n",
        f"import hwprune\nfrom hwprune.evolution import SearchSettings\n{FEW}\n",
    ),
)


def files(task: str) -> dict[str, str]:
    """Name -> code of the files of a task on the page."""
    found = re.findall(r"```python\n# (\w+\.py)[^\n]*\n(.*?)```", PAGE.read_text(), flags=re.S)
    return {name: code for name, code in found if name.startswith(task)}


@pytest.mark.parametrize("task", TASKS)
def test_the_users_part_is_short(task: str) -> None:
    code = files(task)[f"{task}.py"]
    assert sum(bool(line.strip()) for line in code.splitlines()) <= MOST_LINES


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
@pytest.mark.filterwarnings("ignore::hwprune.errors.HwpruneWarning")
def test_a_worked_task_runs(task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "fake.toml").write_text('runtime = "fake"\ndevice = "cpu"\n')
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    for name, code in files(task).items():
        for long, short in SHORTER:
            code = re.sub(long, short, code)
        (tmp_path / name).write_text(code)
    names = runpy.run_path(str(tmp_path / f"{task}.py"))
    torch.set_num_threads(before)
    found, own = names["found"], names["task"]
    assert found.latency.value <= found.latency.limit
    assert found.result.metric == own.name
    onnx.checker.check_model(onnx.load(tmp_path / "pruned.onnx"))
    assert -1 <= hwprune.evaluate(names["pruned"], names["test"], task=own) <= 1
    parameters = [sum(p.numel() for p in names[net].parameters()) for net in ("pruned", "net")]
    assert parameters[0] < parameters[1]
