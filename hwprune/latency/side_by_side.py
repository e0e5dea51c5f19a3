"""One network under several target profiles, timed interleaved: which runtime is the fastest on a machine."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from hwprune.latency.measure import measure_many

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hwprune.latency.measure import Measurement
    from hwprune.runtimes.base import Runtime, TargetProfile

_ERROR = 0.005  # relative; runtimes that differ by less are equally fast


def side_by_side(
    networks: Sequence[tuple[bytes, Runtime, TargetProfile]], max_seconds: float
) -> list[Measurement]:
    """Time networks round-robin against the first of them.

    Args:
        networks: Content, runtime and conditions of each; the first is what the others' `ratio` refers to.
        max_seconds: Time for all of them together.

    Returns:
        One measurement for each network.

    Raises:
        ModelError: A runtime refuses the network.
        DeviceError: A device failed.
    """
    with contextlib.ExitStack() as stack:
        sessions = [stack.enter_context(runtime.compile(content, on)) for content, runtime, on in networks]
        return measure_many(sessions, sessions[0], relative_error=_ERROR, max_seconds=max_seconds)
