"""What a search asks of whatever scores its networks."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hwprune.evolution.problem import AccuracyScore, Problem
    from hwprune.evolution.search import SearchOutcome
    from hwprune.structure.space import SearchSpace, Widths


class Scoring(Protocol):
    """What scores the networks of a search; `OneScore` where that is one given score.

    Attributes:
        space: The search space.
        problems: What is searched for, with any score: one for each budget, the loosest first. The search
            sets it before anything else is asked for.
    """

    space: SearchSpace
    problems: Sequence[Problem]

    @property
    def score(self) -> AccuracyScore:
        """Scores one network, or several in a race; made, and trained, when it is asked for."""

    @property
    def made(self) -> dict[str, Any]:
        """What a result tells about it."""

    def figures(self, widths: Widths) -> dict[str, Any]:
        """The score of a network, how close it is, and that of the unpruned one."""

    def with_ties(self, outcome: SearchOutcome) -> SearchOutcome:
        """The outcome with networks that the score does not tell from the best one ranked by their MACs."""

    def spent(self, outcome: SearchOutcome) -> dict[str, float]:
        """What the search took of the epochs."""

    def fingerprint(self) -> str:
        """Stands for the score: the weights behind it, once they are trained."""


class OneScore:
    """A score that was given, for `Searcher`.

    Args:
        space: The search space.
        score: Any callable network -> number, higher is better; one with `race` may stop early on networks.
            Of its attributes `error` (network -> one standard error) and `fingerprint` are used, if it has
            them.
    """

    def __init__(self, space: SearchSpace, score: AccuracyScore) -> None:
        self.space, self.score = space, score
        self.problems: Sequence[Problem] = ()
        self.made: dict[str, Any] = {"score_kind": "own"}

    def figures(self, widths: Widths) -> dict[str, Any]:
        """The score of a network, how close it is, and that of the unpruned one."""
        value = float(self.score(widths))
        whole = float(self.score(self.space.full()))
        return {"score": value, "score_error": self._error(widths), "base_score": whole}

    def _error(self, widths: Widths) -> float:
        error = getattr(self.score, "error", None)
        return float(error(widths)) if callable(error) else 0.0

    def with_ties(self, outcome: SearchOutcome) -> SearchOutcome:
        """The outcome with networks within the score's error of the best one ranked by their MACs."""
        if not (ranked := outcome.ranked()) or not (noise := self._error(ranked[0].widths)):
            return outcome
        tied = [one.widths for one in outcome.candidates if one.score >= ranked[0].score - noise]
        capacity = dict(zip(tied, self.space.macs(np.array(tied)).tolist(), strict=True))
        return replace(outcome, noise=noise, capacity=capacity)

    def spent(self, outcome: SearchOutcome) -> dict[str, float]:
        """Nothing: the score's cost is the caller's."""
        return {}

    def fingerprint(self) -> str:
        """Stands for the score, as far as it says what it is."""
        found = getattr(self.score, "fingerprint", "")
        return str(found() if callable(found) else found)
