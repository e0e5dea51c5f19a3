"""The Python examples of the pages are run, block after block, as a reader would."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from hwprune.models.registry import build

ROOT = Path(__file__).parents[2]
# A reader waits for PruningNet's 12 epochs; here two show that the example runs.
SHORTER = {"epochs=12": "epochs=2", "generations=5": "generations=2"}


def blocks(page: str) -> list[str]:
    """The Python blocks of a page, made shorter where training takes long."""
    found = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), flags=re.S)
    for long, short in SHORTER.items():
        found = [block.replace(long, short) for block in found]
    return found


@pytest.mark.slow
@pytest.mark.parametrize("page", ["docs/python-api.md"])
@pytest.mark.filterwarnings("ignore::hwprune.errors.HwpruneWarning")
def test_python_examples_run(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    assert len(blocks(page)) >= 1
    for block in blocks(page):
        if "search.json" not in block:  # that one reads the result of a finished project
            exec(compile(block, page, "exec"), names)
    assert names


@pytest.mark.parametrize("page", ["README.md", "docs/python-api.md"])
@pytest.mark.filterwarnings("ignore::hwprune.errors.HwpruneWarning")
def test_the_script_from_a_module_to_a_file_runs(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "fake.toml").write_text('runtime = "fake"\ndevice = "cpu"\n')
    script = next(one for one in re.findall(r"```py\n(.*?)```", (ROOT / page).read_text(), flags=re.S))
    assert len(script.strip().splitlines()) <= 12
    for long, short in {
        '"cpu-1t"': '"fake.toml"',
        "224, 224": "32, 32",
        "64, 64": "32, 32",
        "epochs=6": "epochs=1",
    }.items():
        script = script.replace(long, short)
    draw = torch.Generator().manual_seed(0)
    batches = [
        (torch.randn(8, 3, 32, 32, generator=draw), torch.randint(10, (8,), generator=draw)) for _ in range(4)
    ]
    names = {
        "model": build("resnet20", num_classes=10),
        "loader": batches,
        "held_out": batches,
        "torch": torch,
    }
    exec(compile(script, page, "exec"), names)
    assert (tmp_path / "pruned.onnx").is_file()
    found = names["found"]
    assert found.latency.measured <= 0.6 * found.latency.base


def test_the_model_of_the_tutorial_is_a_model(tmp_path: Path) -> None:
    source = next(block for block in blocks("docs/tutorial.md") if block.startswith("# my_model.py"))
    names: dict[str, object] = {"__name__": "my_model"}
    exec(compile(source, "my_model.py", "exec"), names)
    outputs = names["make_net"](num_classes=4)(torch.zeros(2, 3, 32, 32))
    assert tuple(outputs.shape) == (2, 4)
