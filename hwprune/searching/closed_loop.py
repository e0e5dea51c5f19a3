"""The closed loop: networks are measured on every device that is at hand, and correct the predictions."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from hwprune.evolution.problem import Correction
from hwprune.latency.drift import drifted
from hwprune.progress import QUIET

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from hwprune.evolution.problem import Candidate
    from hwprune.progress import Reporter
    from hwprune.searching.limits import Budget
    from hwprune.structure.space import Widths

    _Figures = dict[Widths, dict[str, float]]

_QUICK: dict[str, Any] = {"relative_error": 0.02, "max_seconds": 2.0}  # for leaders during the search
_AT_ONCE = 8  # networks in memory at a time; the leaders of a front may be many
_MOST_ERROR = 0.04  # relative: leaders that are known less closely teach nothing
_WORTH_TELLING = 0.005  # change of a correction


class Loop:
    """Measures the leaders of a generation and corrects the predictions by them: a `GenerationHook`.

    Args:
        budgets: What is limited.
        reporter: Told by how much predictions are off, for a correction may put the best network outside.
    """

    def __init__(self, budgets: Sequence[Budget], reporter: Reporter = QUIET) -> None:
        self._reporter = reporter
        self._budgets = [one for one in budgets if one.quantity is not None and (one.device or one.exact)]

    def __call__(self, leaders: Sequence[Candidate], earlier: Sequence[Correction], /) -> Correction | None:
        """Measure the leaders that were not measured before; None when that taught nothing."""
        known = _together(one.measured for one in earlier)
        fresh: dict[Widths, dict[str, float]] = {}
        errors: dict[Widths, dict[str, float]] = {}
        for budget in self._budgets:
            new = [leader.widths for leader in leaders if budget.name not in known.get(leader.widths, {})]
            for net, (value, error) in _quickly(budget, new).items():
                fresh.setdefault(net, {})[budget.name] = value
                errors.setdefault(net, {})[budget.name] = error
        if not fresh:
            return None
        this = Correction(measured=fresh, errors=errors)
        known = _together((known, fresh))
        before = {name for one in earlier for name in one.refitted}
        factors, refitted = self._corrections(
            known, _together(one.errors for one in (*earlier, this)), before
        )
        self._tell(factors, set(refitted) - before, earlier[-1].factors if earlier else {})
        return replace(this, factors=factors, refitted=refitted)

    def _tell(self, factors: Mapping[str, float], refitted: set[str], before: Mapping[str, float]) -> None:
        for name, factor in factors.items():
            if abs(factor / before.get(name, 1.0) - 1) > _WORTH_TELLING:
                self._reporter.note(
                    f"{name}: measured {factor:.3f} times what was predicted; predictions follow."
                )
        for name in sorted(refitted):
            self._reporter.note(
                f"{name}: one factor does not explain what was measured; the model is refitted."
            )

    def _corrections(
        self, known: _Figures, errors: _Figures, before: set[str]
    ) -> tuple[dict[str, float], tuple[str, ...]]:
        """A factor for each budget's predictions, by all that was measured; a refit where none does."""
        factors, refitted = {}, []
        for budget in self._budgets:
            name = budget.name
            rows = {net: figures[name] for net, figures in known.items() if name in figures}
            if not rows:
                continue
            networks, figures = np.array([*rows], dtype=np.int64), np.array([*rows.values()])
            noise = np.array([errors.get(net, {}).get(name, 0.0) for net in rows])
            if name in before or _has_drifted(budget, networks, figures, noise):
                refitted.append(name)
            else:
                factors[name] = float(np.median(figures / budget.predict(networks)))
        return factors, tuple(refitted)


def _together(found: Iterable[Mapping[Widths, Mapping[str, float]]]) -> _Figures:
    """Figures of networks from several measurements in one; the last one of a figure counts."""
    whole: _Figures = {}
    for one in found:
        for net, figures in one.items():
            whole.setdefault(net, {}).update(figures)
    return whole


def _has_drifted(
    budget: Budget, networks: NDArray[np.int64], measured: NDArray[np.float64], errors: NDArray[np.float64]
) -> bool:
    """Whether the device of a latency is seen to have changed in more than its speed."""
    if budget.target is None or budget.device is None:
        return False
    return drifted(budget.target.model, networks, measured, errors)


def _quickly(budget: Budget, networks: Sequence[Widths]) -> dict[Widths, tuple[float, float]]:
    """Figures of networks, and their errors, as a few seconds give them; too noisy ones are left out."""
    if not networks:
        return {}
    if budget.exact is not None:
        return {net: (budget.exact(net), 0.0) for net in networks}
    if budget.device is None:
        return {}
    parts = [networks[first : first + _AT_ONCE] for first in range(0, len(networks), _AT_ONCE)]
    results = [result for part in parts for result in budget.device.networks(part, **_QUICK)]
    # a burst of another program must not steer the search
    return {
        net: (result.ms, result.error_ms)
        for net, result in zip(networks, results, strict=True)
        if not result.too_noisy and result.error_ms <= _MOST_ERROR * result.ms
    }
