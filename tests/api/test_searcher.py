"""What a search tells about its answer."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from outcomes import outcome

from hwprune.api.searcher import Searcher


@pytest.mark.parametrize(
    ("place", "told"), [(0, []), (1, ["The answer scores 0.99. The best of the search, 1,"])]
)
def test_a_better_score_than_the_answer_is_explained(place: int, told: list[str]) -> None:
    notes: list[str] = []
    searcher = SimpleNamespace(reporter=SimpleNamespace(note=notes.append))
    found = outcome(0.99, 0.9)
    Searcher._tell_better(searcher, found, found.candidates[place].score)  # type: ignore[arg-type]
    assert [note[: len(told[0])] for note in notes] == told
