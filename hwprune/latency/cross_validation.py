"""What cross-validation says of a table, kept with it: a later fit needs not do it again."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from hwprune.latency.calibration import Calibration
from hwprune.latency.wave_quantisation import GPU_REGRESSORS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from hwprune.latency.table import LatencyTable

_KEY = "judgement"  # its name in the files of tables


@dataclass(frozen=True, eq=False)
class CrossValidation:
    """How well kernels, and networks, are predicted that a model did not see.

    Attributes:
        regressors: Family of kernels -> the regressor to use.
        kernel_errors: Family -> regressor -> sum of absolute errors over sum of times; the best first.
        spreads: Family -> spread of the logarithm of its predictions, a robust standard deviation.
        calibration: From sums of kernels to networks.
        judged_ms: Networks that were predicted unseen: (N, 3), predicted, measured, one standard error of it.
    """

    regressors: Mapping[str, str] = field(default_factory=dict)
    kernel_errors: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    spreads: Mapping[str, float] = field(default_factory=dict)
    calibration: Calibration = field(default_factory=Calibration)
    judged_ms: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 3)))

    @property
    def errors(self) -> NDArray[np.float64]:
        """Absolute relative errors of the networks, (N,)."""
        predicted_ms, measured_ms, _ = self.judged_ms.T
        missed: NDArray[np.float64] = np.abs(predicted_ms / measured_ms - 1)
        return missed

    def to_provenance(self, table: LatencyTable) -> dict[str, Any]:
        """What a table keeps."""
        one = self.calibration
        kept = {
            "of": [len(table.networks), len(table.kernels)],
            "spreads": dict(self.spreads),
            "calibration": [one.scale, one.offset_ms, one.spread],
            "judged_ms": self.judged_ms.tolist(),
        }
        return {"regressors": dict(self.regressors), "regressor_errors": dict(self.kernel_errors), _KEY: kept}

    @classmethod
    def of(cls, table: LatencyTable) -> Self | None:
        """What a table keeps; None when it keeps nothing that serves."""
        where = table.provenance
        try:
            kept = where[_KEY]
            if kept["of"] != [len(table.networks), len(table.kernels)]:
                return None
            scale, offset_ms, spread = map(float, kept["calibration"])
            found = cls(
                regressors={str(family): str(name) for family, name in where["regressors"].items()},
                kernel_errors={str(family): dict(row) for family, row in where["regressor_errors"].items()},
                spreads={str(family): float(spread) for family, spread in kept["spreads"].items()},
                calibration=Calibration(scale, offset_ms, spread),
                judged_ms=np.array(kept["judged_ms"], dtype=np.float64).reshape(-1, 3),
            )
        except (KeyError, TypeError, ValueError, AttributeError):
            return None
        return found if found._sound() else None

    def _sound(self) -> bool:
        numbers = [*self.spreads.values(), *self.judged_ms.ravel().tolist(), self.calibration.scale]
        return (
            self.regressors.keys() == self.spreads.keys()
            and set(self.regressors.values()) <= set(GPU_REGRESSORS)
            and bool(np.isfinite([*numbers, self.calibration.offset_ms, self.calibration.spread]).all())
            and min(numbers) >= 0
            and bool((self.judged_ms[:, 1] > 0).all())
        )
