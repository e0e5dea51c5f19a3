"""Racing: candidates that will not be among the best are scored on a part of sub-val only.

Two networks are compared on the same images: where both do alike, as on most, an image says nothing.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray
    from torch import nn

    from hwprune.pruningnet.evaluate import Evaluator
    from hwprune.pruningnet.outcomes import Outcomes
    from hwprune.structure.space import Widths

CHANCE = 0.05  # of passing the incumbent on all images, below which a candidate is dropped


class Racer:
    """A `RacingScore` for the search: an `Evaluator` that remembers, and stops early on weak candidates.

    Args:
        judge: What gives the outcomes on each part of sub-val.
        outcomes: What is known already, perhaps from an earlier search; filled on the way.
        chance: Of passing the incumbent on all images, below which a candidate is dropped; 0 scores all.

    Attributes:
        images: Images that candidates were evaluated on by this object, known ones not counted.
    """

    def __init__(self, judge: Evaluator, outcomes: Outcomes, *, chance: float = CHANCE) -> None:
        self.judge, self.outcomes, self.images = judge, outcomes, 0
        self._chance = chance
        self._last: tuple[Widths, nn.Module] | None = None  # the network that was made last

    def __call__(self, widths: Widths, /) -> float:
        """The mean figure of one network on all of sub-val: of classification top-1 accuracy, 0 to 1."""
        return self._score(widths, None)

    def race(self, networks: Sequence[Widths], incumbent: Widths | None, /) -> Iterator[float]:
        """Score networks one after the other; see `evolution.problem.RacingScore`.

        A candidate that is dropped gets the incumbent's score on all of sub-val less the distance between the
        two on the images seen. The answer depends on the arguments alone, never on what is known already.
        """
        for widths in networks:
            yield self._score(widths, incumbent if self._chance else None)

    def _score(self, widths: Widths, incumbent: Widths | None) -> float:
        *stops, total = self.judge.stops
        if incumbent is not None:
            against = self.figures(incumbent, total)
            for stop in stops:
                ours = self.figures(widths, stop)
                if behind(ours, against[:stop], total, self._chance):
                    return _mean(against) - (_mean(against[:stop]) - _mean(ours))
        return _mean(self.figures(widths, total))

    def error(self, widths: Widths) -> float:
        """One standard error of a score by the number of images; 0 of a metric over a set."""
        found = self.figures(widths, self.judge.stops[-1])
        return float(found.std(dtype=np.float64)) / math.sqrt(found.size)

    def figures(self, widths: Widths, stop: int) -> NDArray[np.float32]:
        """A network's figures on the first `stop` images, the end of a part of sub-val: (stop,)."""
        while (known := self.outcomes.of(widths)).size < stop:
            if self._last is None or self._last[0] != widths:
                self._last = (widths, self.judge.folded(widths))
            part = self.judge.stops.index(known.size) + 1 if known.size else 0
            fresh = self.judge.figures(self._last[1], part)
            self.images += fresh.size
            self.outcomes.add(widths, fresh)
        return known[:stop]


def _mean(figures: NDArray[np.float32]) -> float:
    return float(figures.mean(dtype=np.float64))


def behind(
    ours: NDArray[np.float32], incumbent: NDArray[np.float32], total: int, chance: float = CHANCE
) -> bool:
    """Whether a network will hardly pass the incumbent on `total` images, by figures (n,) of both.

    Each image adds the difference of the two to our lead, which after n of them is `lead`, give or take the
    root of the sum of squared differences. With that drift, itself known from n images only, the chance of a
    lead after all of them is that of a normal variable above -lead / root * sqrt(total / (total - n)). Of
    figures that are 0 or 1, an image that only one of the two has right counts, and no other.
    """
    seen = ours.size
    difference = ours.astype(np.float64) - incumbent.astype(np.float64)
    lead, root = float(difference.sum()), math.sqrt(float(np.square(difference).sum()))
    if lead >= 0 or seen >= total:
        return False
    return -lead / root * math.sqrt(total / (total - seen)) > NormalDist().inv_cdf(1 - chance)
