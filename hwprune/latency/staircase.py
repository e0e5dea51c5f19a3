"""The staircase of a device: latency over width, and the multiple of channels that widths should keep to.

Devices compute whole blocks of channels, so a width inside a block costs as much as the whole block, and
some widths fall off a fast path and cost more. The *channel multiple* is the coarsest step to which widths
can be rounded up without (nearly) any of them getting slower. It is measured; only where a device is so fast
that the probe takes the same time at all widths, nothing can be seen and a usual multiple is taken.
"""

from __future__ import annotations

import contextlib
import math
import warnings
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Self

import numpy as np

from hwprune import artifacts
from hwprune.environment import IDENTITY, device_fingerprint
from hwprune.errors import ArtifactError, HwpruneWarning
from hwprune.latency.measure import measure_many
from hwprune.runtimes.probes import conv_chain

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import ArrayLike

    from hwprune.runtimes.base import Runtime, TargetProfile

KIND, SCHEMA_VERSION = "staircase", 3
STEPS = (2, 4, 8, 16, 32, 64)
PROBE_SECONDS = 6.0
CHANNELS = (*range(32, 65), *range(72, 129, 8))
_ENDS = 64  # channels before and after the probed layer, aligned for any device
_SIZE = 14
_REAL = 0.5  # share of the saving promised by fewer channels from which on it counts as real
_FLAT = 0.05  # relative spread over all widths, the widest four times the narrowest, that tells nothing
USUAL_MULTIPLE = 8  # what tensor cores and vector units ask for at least
_DOUBT = 2.0  # standard errors by which a fine step must fail before a coarser one is given up


@dataclass(frozen=True)
class Staircase:
    """Measured latency over the width of one layer.

    Attributes:
        channels: Widths.
        latency_ms: Latency of a probe with that many channels between two convolutions.
        error_ms: Its standard error.
        multiple: The channel multiple found.
    """

    channels: tuple[int, ...]
    latency_ms: tuple[float, ...]
    error_ms: tuple[float, ...]
    multiple: int

    def inversions(self) -> list[tuple[int, int, float]]:
        """(narrower, wider, percent) of neighbouring multiples of which the narrower was measured slower."""
        curve = dict(zip(self.channels, zip(self.latency_ms, self.error_ms, strict=True), strict=True))
        steps = [(c, c + self.multiple) for c in self.channels if c % self.multiple == 0]
        found = []
        for narrow, wide in steps:
            if wide in curve:
                (low, low_error), (high, high_error) = curve[narrow], curve[wide]
                if low - high > _DOUBT * math.hypot(low_error, high_error):
                    found.append((narrow, wide, 100 * (low / high - 1)))
        return found

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read the curve that `known_multiple` kept.

        Raises:
            ArtifactError: Missing, damaged, or written by another schema version.
        """
        kept = artifacts.read_json(path, KIND, SCHEMA_VERSION, "hwprune profile")
        try:
            found = cls(
                channels=tuple(map(int, kept["channels"])),
                latency_ms=tuple(map(float, kept["latency_ms"])),
                error_ms=tuple(map(float, kept["error_ms"])),
                multiple=int(kept["multiple"]),
            )
            if not len(found.channels) == len(found.latency_ms) == len(found.error_ms):
                raise ValueError("a curve has other points than channels")
            if found.multiple < 1 or min(found.channels + found.latency_ms, default=0) <= 0:
                raise ValueError("a channel count or latency of zero")
            return found
        except (KeyError, TypeError, ValueError) as error:
            raise artifacts.broken(path, f"{type(error).__name__}: {error}", "hwprune profile") from error


def channel_multiple(runtime: Runtime, profile: TargetProfile, *, seconds: float = PROBE_SECONDS) -> int:
    """The step in channels at which this device's latency changes, such as 16; 1 when it changes at each.

    Args:
        runtime: What runs the probes.
        profile: The conditions.
        seconds: Time to spend.

    Raises:
        DeviceError: The runtime fails.
    """
    return probe_staircase(runtime, profile, seconds=seconds).multiple


def known_multiple(
    path: Path, runtime: Runtime, profile: TargetProfile, *, seconds: float = PROBE_SECONDS
) -> int:
    """The channel multiple of a device, measured once and kept with the curve it was read from.

    Args:
        path: The file that keeps it; another device's or runtime's is measured anew.
        runtime: What runs the probes.
        profile: The conditions.
        seconds: Time to spend.

    Raises:
        DeviceError: The runtime fails.
        StorageError: The file cannot be written.
    """
    device = device_fingerprint(profile.device)
    here = {
        "device": {key: value for key, value in device.items() if key in IDENTITY or key.startswith("gpu_")},
        "runtime": runtime.describe(),
        "settings": runtime.settings(profile),
    }
    with contextlib.suppress(ArtifactError):  # missing, damaged or old: look again
        kept = artifacts.read_json(path, KIND, SCHEMA_VERSION)
        if {key: kept.get(key) for key in here} == here:
            return int(kept["multiple"])
    found = probe_staircase(runtime, profile, seconds=seconds)
    artifacts.write_json(path, KIND, SCHEMA_VERSION, {**here, **asdict(found)})
    return found.multiple


def probe_staircase(
    runtime: Runtime,
    profile: TargetProfile,
    *,
    channels: Sequence[int] = CHANNELS,
    seconds: float = PROBE_SECONDS,
) -> Staircase:
    """Time a layer at each of several widths, interleaved.

    Args:
        runtime: What runs the probes.
        profile: The conditions.
        channels: Widths to probe.
        seconds: Time to spend.

    Raises:
        DeviceError: The runtime fails.

    Warns:
        HwpruneWarning: The latency is the same at all widths.
    """
    widths, profile = sorted(channels), runtime.for_probes(profile)

    def probe(width: int) -> bytes:
        content = conv_chain((_ENDS, width, _ENDS), size=_SIZE, batch=profile.batch)
        return runtime.lower(content, profile)

    with contextlib.ExitStack() as stack:
        reference = stack.enter_context(runtime.compile(probe(_ENDS), profile))
        sessions = [stack.enter_context(runtime.compile(probe(width), profile)) for width in widths]
        results = measure_many(sessions, reference, relative_error=0.01, max_seconds=seconds, block_ms=3.0)
    latency_ms = tuple(result.ms for result in results)
    error_ms = tuple(result.error_ms for result in results)
    if is_flat(latency_ms, error_ms):
        warnings.warn(
            f"A layer takes as long with {widths[0]} channels as with {widths[-1]} on this device, so its "
            f"steps cannot be seen. Widths are kept to multiples of {USUAL_MULTIPLE}; set channel_multiple "
            "under [profiling] to choose another.",
            HwpruneWarning,
            stacklevel=2,
        )
        return Staircase(tuple(widths), latency_ms, error_ms, USUAL_MULTIPLE)
    return Staircase(tuple(widths), latency_ms, error_ms, multiple_of(widths, latency_ms))


def is_flat(latency: ArrayLike, error: ArrayLike) -> bool:
    """Whether latencies at different widths are the same, within noise.

    Args:
        latency: One at each width: (N,).
        error: Their standard errors: (N,).
    """
    low, middle, high = np.percentile(np.asarray(latency, dtype=float), (5, 50, 95))
    noise = _DOUBT * math.sqrt(2) * float(np.median(np.asarray(error, dtype=float)))
    return bool(high - low <= max(_FLAT * middle, noise))


def multiple_of(channels: ArrayLike, latency: ArrayLike) -> int:
    """The channel multiple that a curve of latency over channels shows.

    Step by step (2, 4, 8 ...): the widths half-way between two multiples of the step are compared with the
    multiple above them. If latency followed the channels they would save in proportion; inside a block they
    save nothing, and beside an alignment they even cost more. A step holds when less than half of the
    promised saving is real, on average over all such widths; the largest step is taken that holds and has no
    smaller one that clearly fails. Being averages, this stands noise of several percent.

    Args:
        channels: Different widths: (N,).
        latency: Latency at each, in any unit: (N,).
    """
    curve = dict(zip(np.asarray(channels).tolist(), np.asarray(latency, dtype=float).tolist(), strict=True))
    multiple = 1
    for step in STEPS:
        real, doubt = _real_saving(curve, step)
        if real <= _REAL:
            multiple = step
        elif real - _DOUBT * doubt > _REAL:
            break
    return multiple


def _real_saving(curve: dict[int, float], step: int) -> tuple[float, float]:
    """Share of the promised saving that is real half-way below the multiples of a step, and its error."""
    pairs = [(c, c + step // 2) for c in curve if c % step == step // 2 and c + step // 2 in curve]
    if not pairs:
        return math.inf, 0.0
    promised = np.array([1 - low / high for low, high in pairs])
    saved = np.array([1 - curve[low] / curve[high] for low, high in pairs])
    real = float(saved.sum() / promised.sum())
    scatter = math.sqrt(float(np.sum((saved - real * promised) ** 2)) * len(pairs) / max(len(pairs) - 1, 1))
    return real, scatter / float(promised.sum())
