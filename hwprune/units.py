"""Quantities as the user writes them (`15ms`, `60%`, `300M`) and as the tool prints them."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from hwprune.errors import UsageError

_NUMBER = r"(?P<number>\d+(?:\.\d*)?|\.\d+)\s*"
_LATENCY = re.compile(_NUMBER + r"(?P<unit>us|µs|ms|s|%)")
_DURATION = re.compile(_NUMBER + r"(?P<unit>s|m|min|h)?")
_COUNT = re.compile(_NUMBER + r"(?P<unit>k|M|G|%)?(?:MACs|params)?")

_MS = {"us": 1e-3, "µs": 1e-3, "ms": 1.0, "s": 1e3}
_SECONDS = {None: 1.0, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}
_SCALE = {None: 1.0, "k": 1e3, "M": 1e6, "G": 1e9}


@dataclass(frozen=True, slots=True)
class Quantity:
    """A limit: `value` in the quantity's base unit, or a fraction of the unpruned network's.

    Attributes:
        value: Milliseconds for latencies, a plain count for MACs, or a fraction when `relative`.
        relative: Whether `value` is a fraction of the unpruned network's figure.
        text: What the user wrote.
    """

    value: float
    relative: bool
    text: str

    def of(self, base: float) -> float:
        """The limit in base units, given the unpruned network's figure `base`."""
        return self.value * base if self.relative else self.value


def _parse(pattern: re.Pattern[str], text: str, option: str, allowed: str) -> tuple[float, str | None]:
    match = pattern.fullmatch(text.strip())
    if match is None or not 0.0 < float(match["number"]) < math.inf:
        raise UsageError(f"{option} is not a quantity above zero.", got=repr(text), allowed=allowed)
    return float(match["number"]), match["unit"]


def parse_latency(text: str, option: str = "--latency") -> Quantity:
    """Parse a latency budget such as `15ms`, `800us`, `0.015s` or `60%` (of the unpruned network).

    Raises:
        UsageError: The text is not such a quantity.
    """
    number, unit = _parse(_LATENCY, text, option, "15ms, 800us, 0.015s, or 60% of the unpruned network")
    if unit == "%":
        return Quantity(number / 100, True, text.strip())
    return Quantity(number * _MS[str(unit)], False, text.strip())


def parse_count(text: str, option: str) -> Quantity:
    """Parse a number of MACs or parameters such as `300M`, `1.2G` or `60%`.

    Raises:
        UsageError: The text is not such a quantity.
    """
    number, unit = _parse(_COUNT, text, option, "300M, 1.2G, or 60% of the unpruned network")
    return Quantity(number / 100, True, text) if unit == "%" else Quantity(number * _SCALE[unit], False, text)


def parse_seconds(text: str, option: str) -> float:
    """Parse a time such as `120s`, `2m` or `1.5h` into seconds.

    Raises:
        UsageError: The text is not such a quantity.
    """
    number, unit = _parse(_DURATION, text, option, "90s, 2m or 1.5h")
    return number * _SECONDS[unit]


def format_ms(value_ms: float) -> str:
    """A latency with three significant digits and a unit that keeps it readable."""
    if value_ms >= 1000:
        return f"{value_ms / 1000:.3g} s"
    return f"{value_ms:.3g} ms" if value_ms >= 1 else f"{value_ms * 1000:.3g} µs"


def format_count(value: float) -> str:
    """A count with three significant digits: `41.2 M`."""
    for scale, unit in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if value >= scale:
            return f"{value / scale:.3g}{unit}"
    return f"{value:.3g}"


def format_seconds(seconds: float) -> str:
    """A time as a person says it: `3 m 05 s`."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} m" if hours else f"{minutes} m {rest:02d} s"
