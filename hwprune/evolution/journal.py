"""The state file of a search: what was asked and scored, so that a kill loses nothing that was finished.

Its entries: `{"asked": ["16 32 64", ...]}` for a generation begun, `{"score": 0.71}` for a network scored,
`{"closed": ...}` with what measuring taught for a generation ended. Randomness needs no place in the file,
for it depends on the seed and the number of the generation alone.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from hwprune.errors import ArtifactError
from hwprune.evolution.problem import Correction
from hwprune.logbook import Logbook

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from hwprune.evolution.algorithm import SearchSettings
    from hwprune.evolution.problem import Problem
    from hwprune.structure.space import Widths

_KIND, _SCHEMA = "search-state", 2


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
    problem: Problem, settings: SearchSettings, seed: int, initial: Sequence[Widths], identity: str
) -> dict[str, Any]:
    """Everything that a search depends on, as JSON-able data."""
    return {
        "identity": identity,
        "seed": seed,
        "settings": asdict(settings),
        "constraints": [[c.name, c.limit, c.unit, c.factor] for c in problem.constraints],
        "groups": [[g.name, _text(g.choices)] for g in problem.space.genes],
        "starts": [_text(widths) for widths in initial],
    }


class Journal:
    """Keeps the state file; without a path the records are in memory only.

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
        self._book = Logbook(path, _KIND, _SCHEMA, search)
        try:
            choices = [set(map(int, text.split())) for _, text in search["groups"]]
            for entry in self._book.entries:
                self._replay(entry, choices)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            raise ArtifactError(
                "The search state in this file is not consistent.",
                where=path,
                got=f"{type(error).__name__}: {error}",
                do="delete the file and search again",
            ) from error

    def begin(self, widths: list[Widths]) -> Record:
        """A new generation that asks for these networks."""
        self._book.add({"asked": [_text(net) for net in widths]})
        self.records.append(Record(widths))
        return self.records[-1]

    def score(self, score: float) -> None:
        """The score of the next network of the last generation."""
        self._book.add({"score": score})
        self.records[-1].scores.append(score)

    def close(self, correction: Correction | None) -> None:
        """The end of the last generation, and what measuring its leaders taught."""
        self._book.add({"closed": None if correction is None else _correction_facts(correction)})
        self.records[-1].correction, self.records[-1].closed = correction, True

    def _replay(self, entry: dict[str, Any], choices: Sequence[set[int]]) -> None:
        ((what, found),) = entry.items()
        if what == "asked":
            self.records.append(Record([_widths(text, choices) for text in found]))
            return
        record = self.records[-1]
        if what == "score" and len(record.scores) < len(record.widths):
            record.scores += _numbers([found])
        elif what == "closed" and len(record.scores) == len(record.widths) and not record.closed:
            record.closed, record.correction = True, None if found is None else _correction(found, choices)
        else:
            raise ValueError(f"{what!r} does not fit here")


def _text(widths: Sequence[int]) -> str:
    return " ".join(map(str, widths))


def _widths(text: str, choices: Sequence[set[int]]) -> Widths:
    widths = tuple(map(int, text.split()))
    if any(width not in allowed for width, allowed in zip(widths, choices, strict=True)):
        raise ValueError(f"{text!r} is not a network of this space")
    return widths


def _correction_facts(correction: Correction) -> dict[str, Any]:
    measured, errors = (
        {_text(net): dict(figures) for net, figures in found.items()}
        for found in (correction.measured, correction.errors)
    )
    factors, refitted = dict(correction.factors), list(correction.refitted)
    return {"factors": factors, "measured": measured, "errors": errors, "refitted": refitted}


def _correction(found: dict[str, Any], choices: Sequence[set[int]]) -> Correction:
    measured, errors = (
        {_widths(text, choices): _figures(row) for text, row in rows.items()}
        for rows in (found["measured"], found["errors"])
    )
    return Correction(
        factors=_figures(found["factors"]),
        measured=measured,
        errors=errors,
        refitted=tuple(map(str, found["refitted"])),
    )


def _figures(found: dict[str, Any]) -> dict[str, float]:
    return dict(zip(found.keys(), _numbers(list(found.values())), strict=True))


def _numbers(found: Any) -> list[float]:
    numbers = [float(number) for number in found]
    if not all(map(math.isfinite, numbers)):
        raise ValueError("a figure is not a finite number")
    return numbers
