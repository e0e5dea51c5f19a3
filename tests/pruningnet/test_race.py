"""Racing: weak candidates are dropped early, the best never is, and nothing is evaluated twice."""

from __future__ import annotations

import numpy as np
import pytest

from hwprune.logbook import Logbook
from hwprune.pruningnet.outcomes import Outcomes
from hwprune.pruningnet.race import CHANCE, Racer, behind

STOPS = (100, 200, 400, 800, 1200, 1600)


class Judge:
    """Networks `(n,)` that classify each image rightly with a chance that grows with n; counts its work."""

    stops = STOPS

    def __init__(self) -> None:
        self.difficulty = np.random.default_rng(0).random(STOPS[-1])
        self.built, self.seen = 0, 0

    def folded(self, widths):
        self.built += 1
        return widths

    def figures(self, network, part):
        first, last = (0, *STOPS)[part], STOPS[part]
        self.seen += last - first
        own = np.random.default_rng(network[0]).random(STOPS[-1])
        right = self.difficulty + 0.2 * own < network[0] / 100
        return right[first:last].astype(np.float32)


@pytest.fixture
def racer() -> Racer:
    return Racer(Judge(), Outcomes(STOPS))


def test_without_a_bar_everything_is_scored_in_full(racer):
    assert list(racer.race([(50,), (60,)], None)) == [racer((50,)), racer((60,))]
    assert racer.images == racer.judge.seen == 2 * STOPS[-1]


def test_a_weak_candidate_is_dropped_early_and_ranks_below_the_bar(racer):
    incumbent = racer((70,))
    before = racer.images
    (score,) = racer.race([(40,)], (70,))
    assert racer.images - before == STOPS[0]
    assert score < incumbent
    assert score == pytest.approx(racer((40,)), abs=0.1), "the estimate is near the full score"


def test_a_better_candidate_is_never_dropped(racer):
    (score,) = racer.race([(75,)], (70,))
    assert score == racer((75,)) > racer((70,))


def test_the_answer_does_not_depend_on_what_is_known(racer):
    (fresh,) = racer.race([(60,)], (70,))
    racer((60,))  # now all of it is known
    assert list(racer.race([(60,)], (70,))) == [fresh]


def test_nothing_is_evaluated_twice(racer):
    racer((60,))
    seen, built = racer.judge.seen, racer.judge.built
    racer((60,))
    list(racer.race([(60,)], (60,)))
    assert (racer.judge.seen, racer.judge.built) == (seen, built)


def test_the_chance_of_a_wrong_drop_is_the_stated_one():
    """Of pairs that look as close to the limit as can be, CHANCE of them turn out the other way."""
    rng = np.random.default_rng(3)
    total, seen, wrong, dropped = 1000, 250, 0, 0
    for _ in range(4000):
        lead = rng.normal(0, 0.02)  # true differences of about the size that the limit is at
        sign = rng.random(total)
        incumbent, ours = sign < 0.06 - lead / 2, sign > 1 - 0.06 - lead / 2
        if behind(ours[:seen], incumbent[:seen], total):
            dropped += 1
            wrong += ours.sum() > incumbent.sum()
    assert dropped > 500
    assert wrong / dropped < CHANCE


def test_equal_networks_are_not_behind_one_another():
    same = np.ones(10, dtype=bool)
    assert not behind(same, same, 100)


def test_outcomes_are_kept_on_disk(tmp_path):
    path = tmp_path / "evaluations.jsonl"
    kept, judge = Outcomes(STOPS, path), Judge()
    first = Racer(judge, kept)
    scores = [first((50,)), *first.race([(20,)], (50,))]
    again = Racer(judge, Outcomes(STOPS, path))
    assert [again((50,)), *again.race([(20,)], (50,))] == scores
    assert again.images == 0
    assert len(again.outcomes) == 2


@pytest.mark.parametrize("damage", ["altered", "other parts", "no parts"])
def test_a_file_that_does_not_serve_is_begun_anew(tmp_path, damage):
    path = tmp_path / "evaluations.jsonl"
    Racer(Judge(), Outcomes(STOPS, path))((50,))
    if damage == "altered":
        path.write_bytes(path.read_bytes().replace(b"50", b"51", 1))
    if damage == "no parts":
        Logbook(path, "evaluations", 4, {"stops": STOPS}, afresh=True).add(
            {"network": "50", "images": 3, "figures": "4A=="}
        )
    stops = (800, 1600) if damage == "other parts" else STOPS
    fresh = Outcomes(stops, path)
    assert len(fresh) == 0
    fresh.add((50,), np.ones(stops[0], dtype=bool))
    assert Outcomes(stops, path).of((50,)).all()
    assert len(Outcomes(stops, path)) == 1


def test_what_was_evaluated_before_a_kill_in_the_middle_of_a_line_is_kept(tmp_path):
    path = tmp_path / "evaluations.jsonl"
    Racer(Judge(), Outcomes(STOPS, path))((50,))
    path.write_bytes(path.read_bytes()[:-7])
    assert Outcomes(STOPS, path).of((50,)).size == STOPS[-2]


def test_figures_between_0_and_1_are_kept_on_disk_too(tmp_path):
    path, figures = tmp_path / "evaluations.jsonl", np.linspace(-2, 3, STOPS[0], dtype=np.float32)
    Outcomes(STOPS, path).add((50,), figures)
    assert (Outcomes(STOPS, path).of((50,)) == figures).all()


def test_figures_that_are_not_finite_are_no_saving(tmp_path):
    path = tmp_path / "evaluations.jsonl"
    Outcomes(STOPS, path).add((50,), np.full(STOPS[0], np.inf, dtype=np.float32))
    assert len(Outcomes(STOPS, path)) == 0


def test_networks_are_raced_on_figures_of_any_size():
    rng = np.random.default_rng(0)
    bar = rng.normal(10, 3, 400).astype(np.float32)
    assert behind(bar - 1, bar, 1600)
    assert not behind(bar + rng.normal(0, 1, 400).astype(np.float32), bar, 1600)
    assert not behind(bar + 1, bar, 1600)
