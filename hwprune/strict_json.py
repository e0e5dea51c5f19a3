"""JSON as this project writes it, and nothing beyond: what is read may come from anybody."""

from __future__ import annotations

import json
import math
from typing import Any

_DEEPEST = 40  # levels of a JSON file; ours have a dozen
_LARGEST = 2**63  # no count or time of ours is near it, and not every reader could hold more


def parse(content: bytes | str) -> Any:
    """What a JSON text says, when it is what we write: numbers are finite and fit 64 bits, texts are Unicode.

    Raises:
        ValueError, RecursionError: It is not.
    """
    found = json.loads(content, parse_float=_finite, parse_int=_whole, parse_constant=_finite)
    _check_depth(found, _DEEPEST)
    text = content if isinstance(content, str) else content.decode(json.detect_encoding(content))
    if "\\ud" in text or "\\uD" in text:
        json.dumps(found, ensure_ascii=False).encode()  # half a surrogate pair could not be written again
    return found


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:20]} is not a finite number")
    return number


def _whole(text: str) -> int:
    number = int(text)
    if not -_LARGEST <= number < _LARGEST:
        raise ValueError(f"{text[:20]}... has more than 64 bits")
    return number


def _check_depth(found: Any, left: int) -> None:
    if isinstance(found, dict | list):
        if not left:
            raise ValueError(f"it is nested more than {_DEEPEST} deep")
        for item in found.values() if isinstance(found, dict) else found:
            _check_depth(item, left - 1)
