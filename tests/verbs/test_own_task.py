"""A project on a task of the user's own: every verb, its loss, its metric, its loaders."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import onnx
import onnxruntime
import pytest
import torch
from projects import FAKE
from squares import Task

from hwprune.cli.main import main
from hwprune.config import load_config, save_config
from hwprune.errors import ConfigError, ModelError, UsageError
from hwprune.project.folder import Project
from hwprune.project.own_task import digest_of_test
from hwprune.results import ExportResult, SearchResult, TrainResult
from hwprune.verbs.export import export
from hwprune.verbs.init import init
from hwprune.verbs.profile import profile
from hwprune.verbs.report import report
from hwprune.verbs.search import search
from hwprune.verbs.train import train

FILE = Path(__file__).with_name("squares.py")


def project(folder: Path, task: str = "Task") -> Path:
    """A folder made by `init`, with the settings made shorter."""
    folder.mkdir(exist_ok=True)
    (folder / "fake.toml").write_text(FAKE + "options = { step = 8 }\n")
    shutil.copy(FILE, folder / "squares.py")
    own = f"{folder / 'squares.py'}"
    made = init(project=folder, model=f"{own}:Net", task=f"{own}:{task}", profile=str(folder / "fake.toml"))
    assert made.image_size == 16
    assert made.train_images == 512
    config = load_config(folder / "hwprune.toml")
    assert config.data.task == f"{own}:{task}"
    assert config.training.optimiser == "adamw"
    few = replace(config.search, population=8, parents=4, mutants=4, crossovers=4, generations=2)
    shorter = replace(
        config,
        profiling=replace(config.profiling, max_seconds=20.0),
        pruningnet=replace(config.pruningnet, epochs=4, recalibration_images=100),
        search=few,
        training=replace(config.training, epochs=10, lr=0.005),
    )
    save_config(folder / "hwprune.toml", shorter)
    return folder


@pytest.fixture(scope="session")
def own(made_once) -> Path:
    """A project on the task that went through every verb; not to be modified."""

    def fill(folder: Path) -> None:
        project(folder)
        profile(project=folder)
        search(project=folder, latency="60%")
        train(project=folder)
        export(project=folder)
        report(project=folder)

    return made_once("own-task", fill)


def test_search_scores_by_the_metric_of_the_task(own):
    found = SearchResult.load(own / "hwprune-work" / "search.json")
    assert found.metric == "found"
    assert found.score_kind == "inherited"
    assert found.images
    assert found.score <= found.base_score
    assert found.score_error > 0


def test_both_networks_are_scored_on_the_test_loader(own):
    trained = TrainResult.load(own / "hwprune-work" / "train.json")
    assert trained.metric == "found"
    assert trained.test_images == 96
    assert trained.base_top1 > 0.8
    assert trained.top1 > 0.8
    assert trained.mean == ()


def test_the_file_computes_what_was_scored(own):
    exported = ExportResult.load(own / "hwprune-work" / "export.json")
    assert exported.within_budget
    assert exported.max_difference < 1e-4
    session = onnxruntime.InferenceSession(own / "pruned.onnx")
    task, figures = Task(), []
    for batch in task.test_loader():
        for number in range(len(batch["image"])):
            row = {name: value[number : number + 1] for name, value in batch.items()}
            outputs = session.run(None, {"input": row["image"].numpy()})
            named = {"down": torch.tensor(outputs[0]), "right": torch.tensor(outputs[1])}
            figures.append(task.metric(named, row))
    assert float(torch.cat(figures).mean()) == pytest.approx(exported.top1, abs=0.02)
    facts = {one.key: one.value for one in onnx.load(own / "pruned.onnx").metadata_props}
    assert facts["hwprune.metric"] == "found"
    assert "hwprune.top1" not in facts


def test_reports_and_messages_call_the_metric_by_its_name(own, capsys):
    text = (own / "report.md").read_text()
    assert "test found" in text
    assert "test top-1" not in text
    assert main(["train", "--project", str(own)]) == 0
    assert "found on 96 test images" in capsys.readouterr().out


def test_a_file_in_integers_is_scored_by_the_metric_too(own, tmp_path):
    folder = Path(shutil.copytree(own, tmp_path / "integers"))
    exported = export(project=folder, int8=True, output=Path("int8.onnx"))
    assert exported.metric == "found"
    assert 0 < exported.top1 <= 1


def test_another_task_is_another_project(own, tmp_path):
    first = Project(own)
    folder = Path(shutil.copytree(own, tmp_path / "other"))
    config = load_config(folder / "hwprune.toml")
    changed = config.data.task.replace(str(own), str(folder))
    (folder / "squares.py").write_text((folder / "squares.py").read_text() + "\n# changed\n")
    other = Project(folder, replace(config, data=replace(config.data, task=changed)))
    assert other.structure() != first.structure()
    assert digest_of_test(other) != digest_of_test(first)


def test_a_metric_over_a_set_takes_every_step_too(tmp_path):
    folder = project(tmp_path, "OverASet")
    profile(project=folder)
    found = search(project=folder, latency="60%")
    assert found.score_error == 0
    assert found.score_kind == "inherited"
    trained = train(project=folder, epochs=1)
    assert trained.metric == "found"
    assert trained.history[0]["top1"] is None
    assert trained.top1 > 0.3


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Lacking", ["no train_loader, val_loader, test_loader, metric"]),
        ("Tsk", ["no 'Tsk'", "Task"]),
        ("3", ["path/to/file.py:Task"]),
    ],
)
def test_a_task_that_is_none_is_told(tmp_path, name, words):
    with pytest.raises((ModelError, UsageError)) as error:
        init(project=tmp_path / "p", model=f"{FILE}:Net", task=f"{FILE}:{name}")
    assert all(word in str(error.value) for word in words)


def test_images_and_a_task_are_one_too_many(tmp_path):
    with pytest.raises(ConfigError, match="twice"):
        init(project=tmp_path / "p", model=f"{FILE}:Net", task=f"{FILE}:Task", data="imagefolder:x")
