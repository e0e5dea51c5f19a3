"""What a search hands to those who measure its answer, made up."""

from __future__ import annotations

from hwprune.evolution.problem import Candidate
from hwprune.evolution.search import Limit, SearchOutcome

LIMIT = 100.0


def outcome(*use: float) -> SearchOutcome:
    """Networks of one group, best first, with what the search took their sizes for."""
    candidates = tuple(
        Candidate(widths=(number,), score=1.0 - number / 100, values=(one * LIMIT,), generation=0)
        for number, one in enumerate(use)
    )
    limit = Limit(name="size", limit=LIMIT, unit="bytes", factor=1.0)
    return SearchOutcome(
        best=candidates[0],
        limits=(limit,),
        binding="size",
        history=(),
        candidates=candidates,
        corrections=(),
        seed=0,
    )
