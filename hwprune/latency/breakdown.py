"""Where the time of networks goes: predicted kernels, summed for each layer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from hwprune.latency.model import TableModel
    from hwprune.structure.space import Widths


def layer_times(model: TableModel, networks: Sequence[Widths]) -> dict[str, tuple[float, ...]]:
    """Predicted microseconds of each layer in some networks, in the order of the layers.

    A kernel without weights is no layer: those of one operation are summed under its name, such as `(add)`.
    What the network needs beyond its kernels is `(run)`.

    Args:
        model: The latency model.
        networks: Widths of each network.

    Returns:
        Layer -> one figure for each network; they add up to `model.predict`.
    """
    widths = np.array(networks, dtype=np.int64)
    times: dict[str, NDArray[np.float64]] = {}
    for slot in sorted(model.kernels.slots, key=lambda slot: not slot.layer):
        name = slot.layer or f"({slot.full.family})"
        times[name] = times.get(name, np.zeros(len(widths))) + model.kernel_us(slot, widths)
    times["(run)"] = 1e3 * model.predict(widths) - np.sum([*times.values()], axis=0)
    return {name: tuple(us.tolist()) for name, us in times.items()}
