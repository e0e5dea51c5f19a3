"""Turns good inputs into bad ones: bytes, JSON trees, lines of TOML. The same generator gives the same."""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING, Any

from hwprune import artifacts

if TYPE_CHECKING:
    from random import Random

_LONG = "x" * 20_000
_HUGE = 10**400
EXTREMES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, -0.0, 0.5, 1e-320, 1e308, float("inf"), float("-inf"), float("nan")),
    *(
        2**31,
        2**63,
        -(2**63) - 1,
        2**64,
        _HUGE,
        "",
        "0",
        "-1",
        "nan",
        "1e400",
        "../../etc/passwd",
        "/etc/passwd",
    ),
    *(
        "a\0b",
        "\ud800",
        "\U0001f600",
        _LONG,
        [],
        {},
        [[]],
        [None],
        {"": None},
        [1] * 1000,
        "__import__('os')",
    ),
)
_TEXTS = (
    b"NaN",
    b"1e400",
    b"-0",
    b"9223372036854775808",
    b"-1",
    b"[" * 5000,
    b"null",
    b'"',
    b"\xff\xfe",
    b"\0" * 64,
)
_TOML = (
    *("nan", "inf", "-inf", "-0.0", "1e400", "9" * 30, "9" * 5000, "0x7fffffffffffffff", "true", '""', "''"),
    *(
        '"\\u0000"',
        '"../../etc/passwd"',
        "[]",
        "[[]]",
        "{}",
        "{a = 1}",
        "1979-05-27",
        "[" * 3000,
        f'"{_LONG}"',
    ),
    *("25:61:61", "1979-02-30T00:00:00Z", "1_000", "'''", "[1, 2", '["a", 1]', "\\", "cpu"),
)


def bad_bytes(rng: Random, content: bytes) -> bytes:
    """One to four changes of single bytes, pieces, or the length."""
    made = bytearray(content)
    for _ in range(rng.randint(1, 4)):
        place, size = rng.randrange(len(made) + 1), rng.choice((1, 1, 2, 4, 16, 256))
        end = min(place + size, len(made))
        change = rng.randrange(7)
        if change == 0 and place < len(made):
            made[place] ^= 1 << rng.randrange(8)
        elif change == 1:
            made[place:end] = rng.randbytes(end - place)
        elif change == 2:
            made[place:end] = bytes([rng.choice((0, 0x7F, 0x80, 0xFF))]) * (end - place)
        elif change == 3:
            del made[place:end]
        elif change == 4:
            made[place:place] = made[place:end]
        elif change == 5:
            made[place:end] = rng.choice(_TEXTS)
        else:
            del made[rng.randrange(len(made) + 1) if rng.random() < 0.5 else len(made) :]
    return bytes(made)


def bad_json(rng: Random, payload: Any) -> Any:
    """A copy with one to three keys or items removed, doubled, moved, or of another type or size."""
    made = copy.deepcopy(payload)
    for _ in range(rng.randint(1, 3)):
        parent = _inner(rng, made)
        if not parent:
            continue
        keys = list(parent) if isinstance(parent, dict) else list(range(len(parent)))
        key, other = rng.choice(keys), rng.choice(keys)
        change = rng.randrange(6)
        if change == 0:
            del parent[key]
        elif change == 1 and isinstance(parent, dict):
            parent[rng.choice((f"{key} ", "__class__", "", _LONG))] = parent[key]
        elif change == 1:
            parent.append(parent[key])
        elif change == 2:
            parent[key], parent[other] = parent[other], parent[key]
        elif change == 3:
            parent[key] = _nested(rng.choice((3, 30, 300, 900)))
        else:
            parent[key] = _other(rng, parent[key])
    return made


def _inner(rng: Random, tree: Any) -> Any:
    """A container of the tree, any depth being as likely as another."""
    node = tree
    while True:
        inner = [
            one for one in (node.values() if isinstance(node, dict) else node) if isinstance(one, dict | list)
        ]
        if not inner or rng.random() < 0.25:
            return node
        node = rng.choice(inner)


def _other(rng: Random, value: Any) -> Any:
    """Something else in the place of a value: often near to it, for that gets further."""
    if rng.random() < 0.4 and isinstance(value, int | float) and abs(value) < 1e300:
        return rng.choice((value + 1, value - 1, -value, value * 2, float(value), str(value), value * 10**6))
    if rng.random() < 0.2 and isinstance(value, str):
        return rng.choice((value + "x", value[:-1], value.upper(), [value], f"../{value}", f"/{value}"))
    return copy.deepcopy(rng.choice(EXTREMES))  # else the next change would be made in EXTREMES itself


def _nested(depth: int) -> Any:
    made: Any = []
    for level in range(depth):
        made = [made] if level % 2 else {"a": made}
    return made


def sealed(kind: str, version: int, payload: Any, rng: Random | None = None) -> bytes:
    """A JSON artifact whose checksum is right, whatever is in it; infinity is also written as 1e400."""
    header = {"kind": kind, "schema_version": version, "checksum": _checksum(payload), "payload": payload}
    text = json.dumps(header)
    if rng is not None and rng.random() < 0.5:
        text = text.replace("Infinity", "1e400")
    return text.encode()


def entry_line(entry: Any, rng: Random) -> bytes:
    """A line of a logbook whose checksum is right, whatever is in it."""
    text = json.dumps(entry, separators=(",", ":"))
    if rng.random() < 0.5:
        text = text.replace("Infinity", "1e400")
    return f'{{"sum":"{artifacts.sha256(text.encode())[:16]}","entry":{text}}}\n'.encode()


def sealed_lines(content: bytes) -> bytes:
    """A logbook whose entries are the lines of `content`, each with the checksum it ought to have."""
    lines = []
    for text in content.split(b"\n"):
        try:
            entry = json.loads(text)
            sum_ = artifacts.sha256(json.dumps(entry, separators=(",", ":")).encode())[:16]
        except (ValueError, RecursionError):
            sum_ = "0" * 16
        lines.append(b'{"sum":"' + sum_.encode() + b'","entry":' + text + b"}\n")
    return b"".join(lines)


def _checksum(payload: Any) -> str:
    return artifacts.sha256(artifacts._canonical(payload))


def bad_toml(rng: Random, content: bytes) -> bytes:
    """Lines removed, doubled or moved, and values of other types and sizes; or bad bytes."""
    if rng.random() < 0.3:
        return bad_bytes(rng, content)
    lines = content.decode().splitlines()
    for _ in range(rng.randint(1, 3)):
        place = rng.randrange(len(lines))
        key = lines[place].partition("=")[0]
        change = rng.randrange(6)
        if change == 0 and len(lines) > 1:
            del lines[place]
        elif change == 1:
            lines.insert(rng.randrange(len(lines)), lines[place])
        elif change == 2:
            lines[place] = f"unknown = {rng.choice(_TOML)}"
        else:
            lines[place] = f"{key}= {rng.choice(_TOML)}"
    return "\n".join(lines).encode()
