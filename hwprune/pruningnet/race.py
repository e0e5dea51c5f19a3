"""Racing: candidates that will not be among the best are scored on a part of sub-val only.

Two networks are compared on the same images: most images, being right or wrong for both, say nothing.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy as np
    from numpy.typing import NDArray
    from torch import nn

    from hwprune.pruningnet.evaluate import Evaluator
    from hwprune.pruningnet.outcomes import Outcomes
    from hwprune.structure.space import Widths

CHANCE = 0.05  # of passing the bar on all images, below which a candidate is dropped


class Racer:
    """A `RacingScore` for the search: an `Evaluator` that remembers, and stops early on weak candidates.

    Args:
        judge: What gives the outcomes on each part of sub-val.
        outcomes: What is known already, perhaps from an earlier search; filled on the way.
        chance: Of passing the bar on all images, below which a candidate is dropped; 0 scores all in full.

    Attributes:
        images: Images that candidates were evaluated on by this object, known ones not counted.
    """

    def __init__(self, judge: Evaluator, outcomes: Outcomes, *, chance: float = CHANCE) -> None:
        self.judge, self.outcomes, self.images = judge, outcomes, 0
        self._chance = chance
        self._last: tuple[Widths, nn.Module] | None = None  # the network that was made last

    def __call__(self, widths: Widths, /) -> float:
        """Top-1 accuracy of one network on all of sub-val, 0 to 1."""
        return self._score(widths, None)

    def race(self, networks: Sequence[Widths], bar: Widths | None, /) -> Iterator[float]:
        """Score networks one after the other; see `evolution.problem.RacingScore`.

        A candidate that is dropped gets the bar's accuracy on all of sub-val less the distance between the
        two on the images seen. The answer depends on the arguments alone, never on what is known already.
        """
        for widths in networks:
            yield self._score(widths, bar if self._chance else None)

    def _score(self, widths: Widths, bar: Widths | None) -> float:
        *stops, total = self.judge.stops
        if bar is not None:
            against = self.right(bar, total)
            for stop in stops:
                ours = self.right(widths, stop)
                if behind(ours, against[:stop], total, self._chance):
                    return float(against.mean() - (against[:stop].mean() - ours.mean()))
        return float(self.right(widths, total).mean())

    def right(self, widths: Widths, stop: int) -> NDArray[np.bool_]:
        """Which of the first `stop` images, the end of a part of sub-val, a network has right: (stop,)."""
        while (known := self.outcomes.of(widths)).size < stop:
            if self._last is None or self._last[0] != widths:
                self._last = (widths, self.judge.folded(widths))
            part = self.judge.stops.index(known.size) + 1 if known.size else 0
            fresh = self.judge.right(self._last[1], part)
            self.images += fresh.size
            self.outcomes.add(widths, fresh)
        return known[:stop]


def behind(ours: NDArray[np.bool_], bar: NDArray[np.bool_], total: int, chance: float = CHANCE) -> bool:
    """Whether a network will hardly pass the bar on `total` images, by both outcomes (n,) on n of them.

    Of the images that only one of the two has right, `lost` are the bar's and `won` are ours. Each image adds
    (won - lost) / n to our lead, give or take sqrt((won + lost) / n); with that drift, itself known from n
    images only, the chance of a lead after all of them is that of a normal variable above
    (lost - won) / sqrt(lost + won) * sqrt(total / (total - n)).
    """
    seen = ours.size
    lost, won = int((bar & ~ours).sum()), int((ours & ~bar).sum())
    if lost <= won or seen >= total:
        return False
    deviations = (lost - won) / math.sqrt(lost + won) * math.sqrt(total / (total - seen))
    return deviations > NormalDist().inv_cdf(1 - chance)
