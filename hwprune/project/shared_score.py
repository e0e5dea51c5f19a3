"""A score of networks whose work all workers share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from hwprune.project.jobs import together
from hwprune.training import workers

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from hwprune.pruningnet.race import Racer
    from hwprune.structure.space import Widths

_AT_ONCE = 4  # networks that each worker scores before worker 0 keeps what all found


class SharedScore:
    """A score whose networks all workers share out; one worker alone scores all of them itself.

    Args:
        racer: This worker's own score.
    """

    def __init__(self, racer: Racer) -> None:
        self.racer = racer

    def __call__(self, widths: Widths, /) -> float:
        """Score one network, on this worker."""
        return self.racer(widths)

    def images(self, networks: Iterable[Widths]) -> int:
        """Images that some networks were run on, those for batch normalisation included."""
        judge, outcomes = self.racer.judge, self.racer.outcomes
        each = judge.images // judge.stops[-1]  # of a metric over a set, one figure stands for all
        seen = [each * outcomes.of(net).size for net in networks]
        return sum(seen) + judge.settings.recalibration_images * sum(count > 0 for count in seen)

    def race(self, networks: Sequence[Widths], incumbent: Widths | None, /) -> Iterator[float]:
        """Score networks; see `evolution.problem.RacingScore`."""
        if workers.world() == 1:
            yield from self.racer.race(networks, incumbent)
            return
        step = _AT_ONCE * workers.world()
        for first in range(0, len(networks), step):  # what a kill can lose
            part = networks[first : first + step]
            known = self.racer.outcomes.told([*part, *([incumbent] if incumbent else [])])
            with together("scores", networks=part, incumbent=incumbent, known=known):
                scores = self.share(part, incumbent, known)
            yield from scores

    def share(
        self, networks: Sequence[Widths], incumbent: Widths | None, known: Mapping[str, Sequence[Any]]
    ) -> list[float]:
        """This worker's part of a `race`, which all workers take part in; worker 0 learns all outcomes.

        Args:
            networks: What all of them score.
            incumbent: As in `race`.
            known: What worker 0 knows of these networks.
        """
        outcomes, own = self.racer.outcomes, workers.mine(networks)
        outcomes.learn(known)
        scores = workers.gather(list(self.racer.race(own, incumbent)), len(networks))
        figures = self.racer.judge.stops[-1]
        # What was not looked at travels as NaN.
        rows = [
            np.pad(outcomes.of(net), (0, figures - outcomes.of(net).size), constant_values=np.nan).tobytes()
            for net in own
        ]
        for net, row in zip(networks, workers.gather_bytes(rows, len(networks), 4 * figures), strict=True):
            found = np.frombuffer(row, dtype=np.float32)
            found = found[~np.isnan(found)]
            if workers.is_main() and found.size > (seen := outcomes.of(net).size):
                outcomes.add(net, found[seen:])
        return scores
