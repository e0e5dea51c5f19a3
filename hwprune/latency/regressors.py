"""Regressors from kernel features to microseconds; small, seeded, refitted whenever a table is loaded.

All of them learn the logarithm of the time, so that small kernels count as much as large ones, and all run
on one thread: on a busy machine OpenMP's waiting threads made a fit of seconds last minutes.
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from dataclasses import replace
from typing import TYPE_CHECKING, Self

import numpy as np
from sklearn.ensemble import ExtraTreesRegressor, HistGradientBoostingRegressor
from sklearn.linear_model import LinearRegression
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from hwprune.latency.features import Vocabulary, columns, features, macs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from hwprune.structure.kernels import KernelSpec

_FLOOR_US = 0.05  # added before the logarithm: reorders that were not needed took 0
_TREES = 40
MIN_KIND_ROWS = 6  # fewer rows of one kind than this cannot carry a line of their own
_IRLS_ROUNDS = 3
_RIDGE = 1e-3


class Regressor(ABC):
    """Learns how long kernels of one family take."""

    name: str

    def fit(
        self, specs: Sequence[KernelSpec], time_us: NDArray[np.float64], weights: NDArray[np.float64]
    ) -> Self:
        """Learn from measured kernels; `weights` say how much each row can be trusted."""
        self.words_ = Vocabulary(specs)
        with threadpool_limits(limits=1):
            self._fit(specs, np.log(time_us + _FLOOR_US), weights)
        return self

    def predict(self, specs: Sequence[KernelSpec]) -> NDArray[np.float64]:
        """Microseconds of kernels: (N,), never negative."""
        with threadpool_limits(limits=1):
            return np.maximum(np.exp(self._predict(specs)) - _FLOOR_US, 0.0)

    @abstractmethod
    def _fit(
        self, specs: Sequence[KernelSpec], log_us: NDArray[np.float64], weights: NDArray[np.float64]
    ) -> None: ...

    @abstractmethod
    def _predict(self, specs: Sequence[KernelSpec]) -> NDArray[np.float64]: ...


class Trees(Regressor):
    """Extremely randomised trees on the staircase features."""

    name = "trees"
    leaf = 2

    def _fit(
        self, specs: Sequence[KernelSpec], log_us: NDArray[np.float64], weights: NDArray[np.float64]
    ) -> None:
        leaf = self.leaf if len(specs) >= 10 * self.leaf else 1
        self.model_ = ExtraTreesRegressor(_TREES, min_samples_leaf=leaf, random_state=0, n_jobs=1)
        self.model_.fit(features(specs, self.words_), log_us, sample_weight=weights)

    def _predict(self, specs: Sequence[KernelSpec]) -> NDArray[np.float64]:
        return np.asarray(self.model_.predict(features(specs, self.words_)))


class Boosting(Regressor):
    """Gradient boosting on the staircase features."""

    name = "boosting"

    def _fit(
        self, specs: Sequence[KernelSpec], log_us: NDArray[np.float64], weights: NDArray[np.float64]
    ) -> None:
        self.model_ = HistGradientBoostingRegressor(
            max_iter=150, learning_rate=0.1, min_samples_leaf=5, early_stopping=False, random_state=0
        )
        self.model_.fit(features(specs, self.words_), log_us, sample_weight=weights)

    def _predict(self, specs: Sequence[KernelSpec]) -> NDArray[np.float64]:
        return np.asarray(self.model_.predict(features(specs, self.words_)))


class Shaped(Regressor):
    """A line in block counts for each kind of kernel, as the hardware works, and trees for what is left.

    Within one kind (all but the channels equal) the time is a sum of costs: a constant, per block of inputs
    and of outputs, per pair of blocks, per channel that misses an alignment; none of them negative.
    """

    name = "shaped"

    def _fit(
        self, specs: Sequence[KernelSpec], log_us: NDArray[np.float64], weights: NDArray[np.float64]
    ) -> None:
        time_us = np.exp(log_us)
        self._learn_shape(specs, time_us, weights)
        terms = self._terms(specs)
        self.rate_ = float(np.median(time_us / macs(specs)))
        self.costs_: dict[KernelSpec, NDArray[np.float64]] = {}
        for kind, rows in by_kind(specs).items():
            if len(rows) >= MIN_KIND_ROWS:
                self.costs_[kind] = _costs(terms[rows], time_us[rows], weights[rows])
        self.general_ = None
        if any(kind not in self.costs_ for kind in by_kind(specs)):
            self.general_ = Trees().fit(specs, time_us - _FLOOR_US, weights)
        self.rest_ = Trees()
        self.rest_.leaf = 5
        self.rest_.words_ = self.words_
        self.rest_._fit(specs, log_us - np.log(self._line(specs)), weights)

    def _learn_shape(
        self, specs: Sequence[KernelSpec], time_us: NDArray[np.float64], weights: NDArray[np.float64]
    ) -> None:
        """Learn what the terms themselves depend on; here they are fixed."""

    def _terms(self, specs: Sequence[KernelSpec]) -> NDArray[np.float64]:
        """What the hardware may charge for: (N, terms), none negative."""
        return _cost_terms(specs)

    def _line(self, specs: Sequence[KernelSpec]) -> NDArray[np.float64]:
        """The sum of costs of each kernel; for kinds without a line, what the trees say."""
        terms = self._terms(specs)
        line = np.full(len(specs), np.nan)
        for kind, rows in by_kind(specs).items():
            if kind in self.costs_:
                line[rows] = terms[rows] @ self.costs_[kind]
        unknown = np.flatnonzero(np.isnan(line))
        if len(unknown) and self.general_ is not None:
            line[unknown] = self.general_.predict([specs[i] for i in unknown.tolist()])
        # A kind that was never met has no line: the typical cost per operation of those that have one.
        unknown = np.flatnonzero(np.isnan(line))
        line[unknown] = self.rate_ * macs([specs[i] for i in unknown.tolist()])
        return np.asarray(np.maximum(line, _FLOOR_US))

    def _predict(self, specs: Sequence[KernelSpec]) -> NDArray[np.float64]:
        return np.log(self._line(specs)) + self.rest_._predict(specs)


REGRESSORS: dict[str, type[Regressor]] = {cls.name: cls for cls in (Shaped, Trees, Boosting)}


@functools.lru_cache(maxsize=65536)  # making a spec is slow, and the same few are asked for again and again
def kind_of(spec: KernelSpec) -> KernelSpec:
    """The spec without its channels."""
    return replace(spec, in_channels=0, out_channels=0, groups=min(spec.groups, 2))


def by_kind(specs: Sequence[KernelSpec]) -> dict[KernelSpec, NDArray[np.int64]]:
    """The rows of each kind of kernel."""
    rows: dict[KernelSpec, list[int]] = {}
    for index, spec in enumerate(specs):
        rows.setdefault(kind_of(spec), []).append(index)
    return {kind: np.array(found) for kind, found in rows.items()}


def _cost_terms(specs: Sequence[KernelSpec]) -> NDArray[np.float64]:
    """What the hardware may charge for, in channels: (N, terms)."""
    c = columns(specs)
    reads, makes = c["in_channels"], c["out_channels"]
    in_blocks, out_blocks = np.ceil(reads / 16) * 16, np.ceil(makes / 16) * 16
    missed_in, missed_out = (reads % 4 != 0).astype(float), (makes % 4 != 0).astype(float)
    partial_in, partial_out = (reads % 16 != 0).astype(float), (makes % 16 != 0).astype(float)
    return np.column_stack(
        [
            np.ones_like(reads),
            *(reads, makes, reads * makes),
            *(in_blocks, out_blocks, in_blocks * out_blocks, reads * out_blocks),
            *(missed_in, missed_in * reads, missed_in * reads * makes),
            *(missed_out, missed_out * makes),
            *(partial_in * out_blocks, partial_out * makes),
        ]
    )


def _costs(
    terms: NDArray[np.float64], time_us: NDArray[np.float64], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Non-negative costs that fit relative errors, outliers down-weighted round by round: (terms,)."""
    unit, size = np.median(time_us), np.maximum(terms.max(axis=0), 1.0)
    scaled, relative = terms / size, unit / time_us
    ridge = _RIDGE * np.sqrt(len(terms)) * np.eye(terms.shape[1])
    trust = np.sqrt(weights / weights.mean())
    model = LinearRegression(fit_intercept=False, positive=True)
    for _ in range(_IRLS_ROUNDS):
        factor = relative * trust
        model.fit(
            np.vstack([scaled * factor[:, None], ridge]),
            np.concatenate([time_us / unit * factor, np.zeros(terms.shape[1])]),
        )
        missed = np.abs(scaled @ model.coef_ * unit / time_us - 1)
        trust = np.sqrt(weights / weights.mean() / np.maximum(missed, 0.03))
    return np.asarray(model.coef_ * unit / size)
