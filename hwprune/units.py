"""Quantities as the user writes them (`15ms`, `60%`, `300M`) and as the tool prints them."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hwprune.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

_NUMBER = r"(?P<number>\d+(?:\.\d*)?|\.\d+)\s*"
# The micro sign and the Greek mu look the same; keyboards give either.
_LATENCY = re.compile(_NUMBER + r"(?P<unit>us|\u00b5s|\u03bcs|ms|s|%)")
_PERCENT = re.compile(_NUMBER + r"(?P<unit>%)")
_DURATION = re.compile(_NUMBER + r"(?P<unit>s|m|min|h)?")
_COUNT = re.compile(_NUMBER + r"(?:(?P<unit>k|M|G|%)(?:MACs|params)?|MACs|params)")
_BYTES = re.compile(_NUMBER + r"(?P<unit>kB|MB|GB|KiB|MiB|GiB|B|%)")

_MS: dict[str | None, float] = {"us": 1e-3, "\u00b5s": 1e-3, "\u03bcs": 1e-3, "ms": 1.0, "s": 1e3}
_SECONDS: dict[str | None, float] = {None: 1.0, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}
_BYTE_SCALE: dict[str | None, float] = {
    "B": 1.0,
    "kB": 1e3,
    "MB": 1e6,
    "GB": 1e9,
    "KiB": 2.0**10,
    "MiB": 2.0**20,
    "GiB": 2.0**30,
}
_SCALE: dict[str | None, float] = {None: 1.0, "k": 1e3, "M": 1e6, "G": 1e9}


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


def _parse(
    pattern: re.Pattern[str], text: str, scales: Mapping[str | None, float], option: str, allowed: str
) -> Quantity:
    """Read a number with a unit; in base units too it must be a finite number above zero."""
    match = pattern.fullmatch(text.strip())
    if match is not None:
        number, relative = float(match["number"]), match["unit"] == "%"
        value = number / 100 if relative else number * scales[match["unit"]]
        if 0.0 < value < math.inf:
            return Quantity(value, relative, text.strip())
    bare = re.fullmatch(_NUMBER, text.strip()) is not None and match is None
    what = f"{option} has no unit." if bare else f"{option} is not a quantity above zero with a known unit."
    raise UsageError(what, got=repr(text), allowed=allowed)


def parse_latency(
    text: str,
    option: str = "--latency",
    allowed: str = "15ms, 800us, 0.015s, or 60% of the unpruned network",
) -> Quantity:
    """Parse a latency budget such as `15ms`, `800us`, `0.015s` or `60%` (of the unpruned network).

    Args:
        text: What the user wrote.
        option: Where.
        allowed: Examples for the message of the error.

    Raises:
        UsageError: The text is not such a quantity.
    """
    return _parse(_LATENCY, text, _MS, option, allowed)


def parse_percent(text: str, option: str) -> Quantity:
    """Parse a share such as `5%` or `0.5%`.

    Raises:
        UsageError: The text is not such a quantity.
    """
    return _parse(_PERCENT, text, {}, option, "5%, 0.5%")


def parse_count(text: str, option: str) -> Quantity:
    """Parse a number of MACs or parameters such as `300M`, `1.2G`, `12345 MACs` or `60%`.

    Raises:
        UsageError: The text is not such a quantity.
    """
    own = "MACs" if "macs" in option else "params"
    allowed = f"300M, 1.2G, 300{own}, or 60% of the unpruned network"
    return _parse(_COUNT, text, _SCALE, option, allowed)


def parse_bytes(text: str, option: str) -> Quantity:
    """Parse the size of a file such as `4MB`, `500kB`, `2MiB` or `60%`.

    Raises:
        UsageError: The text is not such a quantity.
    """
    return _parse(_BYTES, text, _BYTE_SCALE, option, "4MB, 500kB, 2MiB, or 60% of the unpruned network")


def parse_seconds(text: str, option: str) -> float:
    """Parse a time such as `120s`, `2m` or `1.5h` into seconds.

    Raises:
        UsageError: The text is not such a quantity.
    """
    return _parse(_DURATION, text, _SECONDS, option, "90s, 2m or 1.5h").value


def format_ms(value_ms: float) -> str:
    """A latency with three significant digits and a unit that keeps it readable."""
    return _scaled(value_ms, ((1e3, " s"), (1.0, " ms"), (1e-3, " µs")))


def format_count(value: float) -> str:
    """A count with three significant digits: `41.2 M`."""
    return _scaled(value, ((1e9, " G"), (1e6, " M"), (1e3, " k"), (1.0, "")))


def format_value(value: float, unit: str) -> str:
    """A figure with its unit: `14.2 ms`, `300 M MACs`, `4.1 MB`.

    Args:
        value: The figure, in `unit`.
        unit: `ms`, `MACs`, `params` or `bytes`.
    """
    if unit == "ms":
        return format_ms(value)
    if unit == "bytes":
        return _scaled(value, ((1e9, " GB"), (1e6, " MB"), (1e3, " kB"), (1.0, " bytes")))
    return f"{format_count(value)} {unit}" if unit == "MACs" else format_count(value)


def _scaled(value: float, units: tuple[tuple[float, str], ...]) -> str:
    """`value` in the largest unit that leaves at least one before the point; never in powers of ten."""
    digits = float(f"{value:.3g}") if math.isfinite(value) else value  # rounded first: 999.9 k is 1 M
    scale, unit = next((pair for pair in units if digits >= pair[0]), units[-1])
    return f"{digits / scale:.0f}{unit}" if digits >= 1000 * scale else f"{digits / scale:.3g}{unit}"


def format_seconds(seconds: float) -> str:
    """A time as a person says it: `3 m 05 s`."""
    if round(seconds) < 60:
        return f"{seconds:.1f} s" if round(seconds, 1) < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} m" if hours else f"{minutes} m {rest:02d} s"
