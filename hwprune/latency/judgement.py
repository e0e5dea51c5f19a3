"""What cross-validation says of a table, kept with it: a later fit needs not do it again."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from hwprune.latency.calibration import Calibration
from hwprune.latency.tiles import GPU_REGRESSORS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from hwprune.latency.table import LatencyTable

_KEY = "judgement"


@dataclass(frozen=True, eq=False)
class Judgement:
    """How well kernels, and networks, are predicted that a model did not see.

    Attributes:
        regressors: Family of kernels -> the regressor to use.
        kernel_errors: Family -> regressor -> sum of absolute errors over sum of times; the best first.
        spreads: Family -> spread of the logarithm of its predictions, a robust standard deviation.
        calibration: From sums of kernels to networks.
        errors: Absolute relative errors of networks, (N,).
    """

    regressors: Mapping[str, str] = field(default_factory=dict)
    kernel_errors: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    spreads: Mapping[str, float] = field(default_factory=dict)
    calibration: Calibration = field(default_factory=Calibration)
    errors: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))

    def to_provenance(self, table: LatencyTable) -> dict[str, Any]:
        """What a table keeps."""
        one = self.calibration
        kept = {
            "of": [len(table.networks), len(table.kernels)],
            "spreads": dict(self.spreads),
            "calibration": [one.scale, one.offset_ms, one.spread],
            "errors": self.errors.tolist(),
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
                errors=np.array(kept["errors"], dtype=np.float64).reshape(-1),
            )
        except (KeyError, TypeError, ValueError, AttributeError):
            return None
        return found if found._sound() else None

    def _sound(self) -> bool:
        numbers = [*self.spreads.values(), *self.errors.tolist(), self.calibration.scale]
        return (
            self.regressors.keys() == self.spreads.keys()
            and set(self.regressors.values()) <= set(GPU_REGRESSORS)
            and bool(np.isfinite([*numbers, self.calibration.offset_ms, self.calibration.spread]).all())
            and min(numbers) >= 0
        )
