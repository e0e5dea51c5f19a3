"""Networks of a project on its device: measured end to end, against the unpruned network."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING

from hwprune.latency.measure import (
    BLOCK_MS,
    MIN_BLOCKS,
    MIN_RUNS,
    Measurement,
    measure,
    measure_many,
)
from hwprune.runtimes.registry import get_runtime
from hwprune.structure.onnx_slice import OnnxSlicer

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from hwprune.runtimes.base import Session, TargetProfile
    from hwprune.structure.space import SearchSpace, Widths

BASE_SECONDS, NEIGHBOUR_SECONDS = 8.0, 12.0  # at most, for the unpruned network and for neighbours


class Device:
    """Measures networks of one space on one target.

    The unpruned network is the reference that every measurement is interleaved with, so a budget in percent
    is the measured ratio itself, and a drift of the machine cancels.

    Args:
        base_onnx: The unpruned network.
        space: Its search space.
        target: Where to measure.
        base_ms: The unpruned network's latency, once it is known: the unit of all measurements.
        neighbour_seconds: Time for networks that differ by one step only.
    """

    def __init__(
        self,
        base_onnx: bytes,
        space: SearchSpace,
        target: TargetProfile,
        base_ms: float | None = None,
        neighbour_seconds: float = NEIGHBOUR_SECONDS,
    ) -> None:
        self.space, self.target, self.base_ms = space, target, base_ms
        self._neighbour_seconds = neighbour_seconds
        self.runtime = get_runtime(target)
        self._slicer = OnnxSlicer(base_onnx, space)

    def base(self, max_seconds: float = BASE_SECONDS) -> Measurement:
        """Measure the unpruned network against a twin of itself.

        Raises:
            DeviceError: The machine is too noisy to trust.
        """
        with self._session(self.space.full()) as base, self._session(self.space.full()) as twin:
            return measure(base, twin, relative_error=0.005, max_seconds=max_seconds).trusted()

    def networks(
        self, widths: Sequence[Widths], *, relative_error: float, max_seconds: float, always: int = 0
    ) -> list[Measurement]:
        """Measure several networks in one interleaved session, in the unit of `base`; see `measure_many`."""
        with contextlib.ExitStack() as stack:
            reference = stack.enter_context(self._session(self.space.full()))
            sessions = [stack.enter_context(self._session(w)) for w in widths]
            return measure_many(
                sessions,
                reference,
                relative_error=relative_error,
                max_seconds=max_seconds,
                units_ms=() if self.base_ms is None else (self.base_ms,),
                always=always,
            )

    def neighbours(self, widths: Sequence[Widths], always: int = 0) -> list[Measurement]:
        """Measure networks that differ by one step only, as closely as a few seconds allow.

        Args:
            widths: The networks.
            always: So many of the first are visited over the whole time.
        """
        return self.networks(widths, relative_error=0.003, max_seconds=self._neighbour_seconds, always=always)

    def affordable_pairs(self, base_ms: float, others: int = 0) -> int:
        """How many pairs of networks, beside others, `neighbours` can visit often enough in its time."""
        visit_s = max(BLOCK_MS, (MIN_RUNS + 1) * base_ms) / 1e3  # the reference is visited after each
        return max(0, int((self._neighbour_seconds / (2 * MIN_BLOCKS * visit_s) - others) / 2))

    def onnx(
        self, model: bytes, *, precision: str, relative_error: float, max_seconds: float
    ) -> tuple[Measurement, float]:
        """Measure an exported file against the unpruned network.

        Args:
            model: The file.
            precision: Its number format, which need not be the target's.
            relative_error: Standard error to reach, as a fraction.
            max_seconds: Time for it.

        Returns:
            The file's measurement, and the unpruned network's latency in the same session (ms).
        """
        own = replace(self.target, precision=precision)
        with self._session(self.space.full()) as base, self.runtime.compile(model, own) as session:
            result = measure(session, base, relative_error=relative_error, max_seconds=max_seconds)
        return result.trusted(), result.reference_ms

    @contextlib.contextmanager
    def _session(self, widths: Widths) -> Iterator[Session]:
        with self.runtime.compile(self._slicer.slice(widths), self.target) as session:
            yield session
