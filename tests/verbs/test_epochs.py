"""One budget of epochs, what scores networks, and what their training starts from."""

from __future__ import annotations

import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from projects import new_project

from hwprune.cli.main import main
from hwprune.config import Config, load_config, resolved, save_config
from hwprune.project import estimators
from hwprune.project.epochs import SCORING, within_epochs
from hwprune.project.folder import Project
from hwprune.searching.initial import initial_population
from hwprune.verbs.search import search
from hwprune.verbs.train import train


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished project, whose unpruned network is trained."""
    folder = tmp_path / "copy"
    shutil.copytree(finished, folder)
    return folder


def test_search_takes_its_part_of_the_epochs_and_train_the_rest(copied: Path) -> None:
    found = search(project=copied, latency="55%", epochs=3)
    assert found.epochs == 3
    assert 0 < found.spent["scoring"] < 3 * SCORING * 2
    assert found.epochs_left == pytest.approx(3 - found.spent["scoring"])
    assert "--epochs 3" in found.command
    trained = train(project=copied)
    assert trained.start == "inherited"
    assert found.epochs_left - 1.5 < trained.epochs <= found.epochs_left, "the test of rates is paid for too"


def test_a_search_that_took_all_epochs_leaves_no_more_than_a_part_of_one(copied: Path) -> None:
    found = search(project=copied, latency="55%", epochs=0.1)
    assert found.epochs_left == 0, "at least one generation is scored"
    assert train(project=copied).epochs < 1, "not the epochs of the settings"


def test_more_epochs_allow_more_networks(opened: Project) -> None:
    few, many = (within_epochs(opened, epochs).config for epochs in (0.5, 200))
    assert few.search.population * few.search.generations <= many.search.population * many.search.generations
    assert few.search.generations == 1
    assert many.search == opened.config.search, "never more than the settings say"
    assert many.pruningnet.epochs > few.pruningnet.epochs


@pytest.mark.parametrize("epochs", ["-1", "nan", "inf"])
def test_what_is_no_number_of_epochs_is_told(
    copied: Path, capsys: pytest.CaptureFixture[str], epochs: str
) -> None:
    assert main(["search", "--latency", "60%", "--epochs", epochs, "--project", str(copied)]) in (1, 2)
    assert "epochs" in capsys.readouterr().err


def test_epochs_without_images_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = new_project(tmp_path / "p", images=False)
    assert main(["search", "--latency", "60%", "--epochs", "2", "--project", str(folder)]) == 1
    assert "no images" in capsys.readouterr().err


IMAGES = 1000


def tells_apart(scores: tuple[float, ...], whole: float, floor: float) -> bool:
    noise = math.sqrt(sum(one * (1 - one) for one in scores) / len(scores) / IMAGES)
    return estimators.tells_apart(scores, whole, floor, noise, 1 / IMAGES)


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ((0.6, 0.5, 0.3), True),
        ((0.12, 0.11, 0.10), False),  # hardly above one class of ten
        ((0.22, 0.15, 0.10), False),  # beyond doubt, but next to nothing of what the whole network knows
        ((0.6, 0.6, 0.6), False),  # which of them is better is not said
    ],
)
def test_a_score_that_has_collapsed_tells_no_networks_apart(
    scores: tuple[float, ...], expected: bool
) -> None:
    assert tells_apart(scores, 0.95, 0.1) is expected


def test_the_most_frequent_class_is_no_knowledge() -> None:
    assert not tells_apart((0.81, 0.80, 0.78), 0.95, 0.8)
    assert tells_apart((0.93, 0.90, 0.85), 0.95, 0.8)


def test_auto_trains_a_pruningnet_where_inherited_weights_do_not_tell(copied: Path) -> None:
    config = load_config(copied / "hwprune.toml")
    settings = replace(config.search, score="auto", generations=1)
    save_config(copied / "hwprune.toml", replace(config, search=settings))
    patch = pytest.MonkeyPatch()
    with patch.context() as one:
        one.setattr(estimators, "tells_apart", lambda scores, *_: not [*scores])
        one.setattr(estimators, "sanity", lambda *_: None)  # four epochs are few
        one.setattr("hwprune.project.scoring.PRUNINGNET_FROM", 6)
        few = search(project=copied, latency="50%", epochs=5)
        found = search(project=copied, latency="50%", epochs=6)
    assert few.score_kind == "macs", "the final training needs so few epochs more"
    assert 0 < few.spent["scoring"] < 1, "the look at the weights is paid for"
    assert found.score_kind == "pruningnet"
    assert (copied / "hwprune-work" / found.pruningnet).is_file()
    assert len(found.pruningnet_history) == found.spent["PruningNet"] == 2, "a third of the epochs"
    trained = train(project=copied)
    assert trained.start == "generated"
    assert trained.epochs <= found.epochs_left


def test_the_paper_is_one_setting_away() -> None:
    config = resolved(replace(Config(), recipe="paper"))
    assert not config.model.depth
    assert (config.pruningnet.generator, config.search.score) == ("fc", "pruningnet")
    assert (config.training.start, config.training.distill) == ("scratch", "off")
    assert resolved(Config()) == Config()


def test_the_floor_is_among_the_first_networks(opened: Project) -> None:
    from hwprune.progress import QUIET
    from hwprune.project.budgets import parse_budgets, resolve
    from hwprune.project.scoring import searcher_of

    budgets = resolve(opened, parse_budgets(("75%",), "", "", ""), "", "", QUIET)
    searcher = searcher_of(opened, budgets, 0, QUIET)
    (problem,) = searcher.scoring.problems
    space, groups = problem.space, len(problem.space.groups)
    first = np.array(initial_population(problem)[:3])
    assert problem.feasible(first).all()
    widths, depth = first[:, :groups], first[:, groups:]
    full = np.array(space.full())
    assert (depth[0] == 1).all(), "widths alone"
    deeper = [np.array(space.uniform(1.0, share)) for share in np.linspace(0, 1, 101).tolist()]
    best = max(int(space.macs(net)) for net in deeper if problem.feasible(net[None])[0])
    assert any(int(space.macs(net)) == best for net in first), "depth alone, dropped evenly"
    assert (widths[1] == full[:groups]).any(), "full widths where their block is there"


def test_a_time_is_turned_into_epochs_once(copied: Path) -> None:
    first = search(project=copied, latency="55%", time="20s", generations=1)
    assert first.epochs > 0
    assert "--time 20s" in first.command or f"--epochs {first.epochs:g}" in first.command
    again = search(project=copied, latency="55%", time="40s", generations=1)
    assert again.epochs == pytest.approx(2 * first.epochs, rel=0.1), "the step is not timed again"
