"""What a search is about: a space, an accuracy to raise, and limits that no network may exceed."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np

from hwprune.errors import UsageError
from hwprune.units import format_value

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from hwprune.structure.space import SearchSpace, Widths

    Predict = Callable[[NDArray[np.int64]], NDArray[np.float64] | NDArray[np.int64]]

# A figure may exceed its limit by this much: the last bits of a prediction depend on the size of the batch.
ROUNDING = 1e-9


class AccuracyScore(Protocol):
    """Says how good a network is; higher is better."""

    def __call__(self, widths: Widths, /) -> float:
        """Score one network, for example its top-1 accuracy on sub-val in [0, 1]."""


@runtime_checkable
class RacingScore(AccuracyScore, Protocol):
    """An accuracy score that may stop early on networks that will not be among the best."""

    def race(self, networks: Sequence[Widths], incumbent: Widths | None, /) -> Iterator[float]:
        """Score networks, one after the other.

        Args:
            networks: What to score.
            incumbent: A network that was scored before; what is missing of it is scored too. One that will
                not be better need not be scored in full: an estimate of its score does, below the
                incumbent's. None asks for all scores in full.

        Returns:
            A score for each network, in their order; they depend on the arguments alone.
        """


@dataclass(frozen=True, kw_only=True)
class Constraint:
    """One hard limit.

    Attributes:
        name: What is limited, as the user wrote it: `latency`, `cuda:0`, `macs`.
        predict: The figure of networks: widths (N, genes) -> (N,), in `unit`.
        limit: The most that a network may have, in `unit`.
        unit: `ms`, `MACs`, `params` or `bytes`.
        factor: What predictions are multiplied with; measuring leaders corrects it.
        refit: Makes a predictor that follows measured networks, for when a factor does not do, from their
            widths (N, genes), figures and standard errors (N,); None where there is none.

    Raises:
        UsageError: The limit or the factor is not a number above zero.
    """

    name: str
    predict: Predict
    limit: float
    unit: str
    factor: float = 1.0
    refit: Callable[[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]], Predict] | None = None

    def __post_init__(self) -> None:
        for what, value in (("limit", self.limit), ("factor", self.factor)):
            if not 0.0 < value < math.inf:
                raise UsageError(
                    f"The {what} of a constraint is not a number above zero.", where=self.name, got=value
                )

    def values(self, widths: NDArray[np.int64]) -> NDArray[np.float64]:
        """Corrected figures of networks: widths (N, genes) -> (N,)."""
        return np.asarray(self.predict(widths), dtype=np.float64).reshape(len(widths)) * self.factor

    def text(self, value: float) -> str:
        """A figure as the user reads it: `14.2 ms`, `300 M MACs`."""
        return format_value(value, self.unit)


@dataclass(frozen=True, kw_only=True)
class Correction:
    """What measuring some networks has taught.

    Attributes:
        factors: Constraint name -> what its predictions are to be multiplied with from now on.
        measured: Network -> constraint name -> its measured figure, which stands in place of the prediction.
        errors: The same, with one standard error of each.
        refitted: Constraints whose predictor is to follow all that was measured, for a factor does not do.
    """

    factors: Mapping[str, float] = field(default_factory=dict)
    measured: Mapping[Widths, Mapping[str, float]] = field(default_factory=dict)
    errors: Mapping[Widths, Mapping[str, float]] = field(default_factory=dict)
    refitted: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """A network that was evaluated.

    Attributes:
        widths: One width for each channel group.
        score: What `Problem.accuracy` gave.
        values: Its figure for each constraint of the problem, in their order.
        generation: The generation it was evaluated in.
    """

    widths: Widths
    score: float
    values: tuple[float, ...]
    generation: int


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Find the most accurate network of a space that keeps every limit.

    Attributes:
        space: The networks to choose from.
        constraints: The limits, at least one; all are hard.
        accuracy: The score to raise.

    Raises:
        UsageError: No constraint, or two of one name.
    """

    space: SearchSpace
    constraints: tuple[Constraint, ...]
    accuracy: AccuracyScore

    def __post_init__(self) -> None:
        names = [constraint.name for constraint in self.constraints]
        if not names:
            raise UsageError("A search needs a budget.", do="give one, for example --latency 60%")
        if len(set(names)) < len(names):
            raise UsageError("A budget is given twice.", got=", ".join(names), do="name each device once")

    def values(self, widths: NDArray[np.int64]) -> NDArray[np.float64]:
        """Figures of networks: widths (N, genes) -> (N, constraints)."""
        return np.stack([constraint.values(widths) for constraint in self.constraints], axis=1)

    def load(self, widths: NDArray[np.int64]) -> NDArray[np.float64]:
        """Use of the tightest budget, 1 at its limit: widths (N, genes) -> (N,)."""
        return self.load_of(self.values(widths))

    def load_of(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Use of the tightest budget, from figures (N, constraints) -> (N,)."""
        limits = np.array([constraint.limit for constraint in self.constraints])
        load: NDArray[np.float64] = (values / limits).max(axis=1)
        return load

    def feasible(self, widths: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which networks keep every limit: widths (N, genes) -> (N,)."""
        return within(self.load(widths))

    def use(self, candidate: Candidate) -> float:
        """Use of the tightest budget by an evaluated network, 1 at its limit."""
        return float(self.load_of(np.array([candidate.values]))[0])

    def binding(self, values: Sequence[float]) -> Constraint:
        """The constraint that a network with these figures comes nearest to."""
        return max(zip(self.constraints, values, strict=True), key=lambda pair: pair[1] / pair[0].limit)[0]

    def corrected(
        self,
        correction: Correction,
        measured: Mapping[Widths, Mapping[str, float]] | None = None,
        errors: Mapping[Widths, Mapping[str, float]] | None = None,
    ) -> Problem:
        """The same problem with the factors, and refitted predictors, of `correction`.

        Args:
            correction: What the last measurements taught.
            measured: All that was measured so far, for predictors that are refitted.
            errors: Their standard errors.

        Raises:
            UsageError: It names something that is no constraint, or one whose predictor cannot be refitted.
        """
        known = {one.name for one in self.constraints}
        fixed = {one.name for one in self.constraints if one.refit is None}
        if unknown := (set(correction.factors) - known) | (set(correction.refitted) - (known - fixed)):
            raise UsageError(
                "A correction names no constraint of this search.", got=", ".join(sorted(unknown))
            )
        constraints = (
            _refitted(one, measured or correction.measured, errors or correction.errors)
            if one.name in correction.refitted
            else one
            for one in self.constraints
        )
        factors = correction.factors
        return replace(
            self, constraints=tuple(replace(c, factor=factors.get(c.name, c.factor)) for c in constraints)
        )


def _refitted(
    constraint: Constraint,
    measured: Mapping[Widths, Mapping[str, float]],
    errors: Mapping[Widths, Mapping[str, float]],
) -> Constraint:
    name = constraint.name
    known = {net: row[name] for net, row in measured.items() if name in row}
    if constraint.refit is None or not known:
        return constraint
    error = np.array([errors.get(net, {}).get(name, 0.0) for net in known])
    predict = constraint.refit(np.array([*known], dtype=np.int64), np.array([*known.values()]), error)
    return replace(constraint, predict=predict, factor=1.0)


def within(load: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which loads keep the limit: (N,) -> (N,)."""
    result: NDArray[np.bool_] = load <= 1.0 + ROUNDING
    return result
