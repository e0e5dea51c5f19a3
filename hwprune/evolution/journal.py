"""The state file of a search: what was asked and scored, so that a killed search loses little.

Widths are written as text, `"16 32 64"`, one line for each network. Randomness needs no place in the file,
for it depends on the seed and the number of the generation alone.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from hwprune import artifacts
from hwprune.errors import ArtifactError, MismatchError
from hwprune.evolution.problem import Correction

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from hwprune.evolution.algorithm import SearchSettings
    from hwprune.evolution.problem import Problem
    from hwprune.structure.space import Widths

_KIND, _SCHEMA = "search-state", 1


@dataclass
class Record:
    """One generation: the networks asked for, the scores so far, and what measuring leaders taught.

    Attributes:
        widths: The networks asked for.
        scores: Their scores; shorter than `widths` while the generation is under way.
        closed: Whether `on_generation` has been asked about this generation.
        correction: What it answered.
    """

    widths: list[Widths]
    scores: list[float] = field(default_factory=list)
    closed: bool = False
    correction: Correction | None = None


def fingerprint(
    problem: Problem, settings: SearchSettings, seed: int, starts: Sequence[Widths], identity: str
) -> dict[str, Any]:
    """Everything that a search depends on, as JSON-able data."""
    return {
        "identity": identity,
        "seed": seed,
        "settings": asdict(settings),
        "constraints": [[c.name, c.limit, c.unit, c.factor] for c in problem.constraints],
        "groups": [[g.name, _text(g.choices)] for g in problem.space.groups],
        "starts": [_text(widths) for widths in starts],
    }


class Journal:
    """Reads and writes the state file; without a path it only keeps the records in memory.

    Args:
        path: The state file, or None.
        search: The search's `fingerprint`.

    Attributes:
        records: One for each generation begun.

    Raises:
        MismatchError: The file belongs to another search.
        ArtifactError: The file is damaged.
    """

    def __init__(self, path: Path | None, search: dict[str, Any]) -> None:
        self.records: list[Record] = []
        self._path, self._search = path, search
        self._pace, self._dirty = artifacts.Pace(), False
        if path is not None and path.exists():
            self._read(path)

    def save(self, *, now: bool = True) -> None:
        """Write the file; with `now` False only when that keeps writing to a small share of the time."""
        self._dirty = True
        if self._path is None or not (now or self._pace.due()):
            return
        with self._pace:
            records = [_record_payload(record) for record in self.records]
            artifacts.write_json(self._path, _KIND, _SCHEMA, {"search": self._search, "generations": records})
        self._dirty = False

    def flush(self) -> None:
        """Write what `save` put off."""
        if self._dirty:
            self.save()

    def _read(self, path: Path) -> None:
        payload = artifacts.read_json(path, _KIND, _SCHEMA)
        found = payload.get("search")
        if found != self._search:
            known = found if isinstance(found, dict) else {}
            other = [key for key, value in self._search.items() if known.get(key) != value]
            raise MismatchError(
                "This search state belongs to another search.",
                where=path,
                got=f"another {', '.join(other)}",
                do="delete the file to start this search anew, or repeat the options of that search",
            )
        try:
            choices = [set(map(int, text.split())) for _, text in self._search["groups"]]
            self.records = [_record(entry, choices) for entry in payload["generations"]]
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ArtifactError(
                "The search state in this file is not consistent.",
                where=path,
                got=f"{type(error).__name__}: {error}",
                do="delete the file and search again",
            ) from error


def _text(widths: Sequence[int]) -> str:
    return " ".join(map(str, widths))


def _widths(text: str, choices: Sequence[set[int]]) -> Widths:
    widths = tuple(map(int, text.split()))
    if any(width not in allowed for width, allowed in zip(widths, choices, strict=True)):
        raise ValueError(f"{text!r} is not a network of this space")
    return widths


def _record_payload(record: Record) -> dict[str, Any]:
    payload: dict[str, Any] = {
        "widths": [_text(widths) for widths in record.widths],
        "scores": record.scores,
        "closed": record.closed,
    }
    if record.correction is not None:
        measured, errors = (
            {_text(net): dict(figures) for net, figures in found.items()}
            for found in (record.correction.measured, record.correction.errors)
        )
        factors = dict(record.correction.factors)
        payload["correction"] = {"factors": factors, "measured": measured, "errors": errors}
    return payload


def _record(entry: dict[str, Any], choices: Sequence[set[int]]) -> Record:
    record = Record(
        widths=[_widths(text, choices) for text in entry["widths"]],
        scores=_numbers(entry["scores"]),
        closed=bool(entry["closed"]),
    )
    if len(record.scores) > len(record.widths):
        raise ValueError("more scores than networks")
    if "correction" in entry:
        found = entry["correction"]
        measured, errors = (
            {_widths(text, choices): _figures(row) for text, row in rows.items()}
            for rows in (found["measured"], found.get("errors", {}))  # earlier states have no errors
        )
        record.correction = Correction(factors=_figures(found["factors"]), measured=measured, errors=errors)
    return record


def _figures(found: dict[str, Any]) -> dict[str, float]:
    return dict(zip(found.keys(), _numbers(list(found.values())), strict=True))


def _numbers(found: Any) -> list[float]:
    numbers = [float(number) for number in found]
    if not all(map(math.isfinite, numbers)):
        raise ValueError("a figure is not a finite number")
    return numbers
