"""The paper's evolution under hard constraints. Knows neither torch nor any runtime."""

from __future__ import annotations

from hwprune.evolution.algorithm import Evolution, SearchSettings
from hwprune.evolution.pareto import pareto_front
from hwprune.evolution.problem import (
    AccuracyScore,
    Candidate,
    Constraint,
    Correction,
    Problem,
)
from hwprune.evolution.sampling import Sampler
from hwprune.evolution.search import GenerationSummary, SearchOutcome, search

__all__ = [
    "AccuracyScore",
    "Candidate",
    "Constraint",
    "Correction",
    "Evolution",
    "GenerationSummary",
    "Problem",
    "Sampler",
    "SearchOutcome",
    "SearchSettings",
    "pareto_front",
    "search",
]
