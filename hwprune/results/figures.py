"""What both networks need of each thing: time on a device, MACs, parameters, bytes."""

from __future__ import annotations

from dataclasses import dataclass

from hwprune.payloads import is_file_name
from hwprune.results import acceptance
from hwprune.units import format_value

LEAST = 1e-9  # in any unit; nothing real is smaller, and what is divided by it stays finite
_COUNTS = {"macs": "MACs", "params": "parameters", "size": "ONNX file"}  # figures that need no device


@dataclass(frozen=True, kw_only=True)
class Figure:
    """What both networks need of one thing: time on a device, MACs, parameters, bytes.

    Attributes:
        name: The target profile whose device it is, or `macs`, `params`, `size`.
        unit: `ms`, `MACs`, `params` or `bytes`.
        base: The unpruned network's figure; for latencies as it was measured.
        predicted: The chosen network's, as the search predicted it.
        measured: The same as it was measured; None when the device was not at hand. Counts are exact.
        error: One standard error of `measured`.
        budget: The budget as the user wrote it; "" when there was none.
        limit: The budget in `unit`.
    """

    name: str
    unit: str
    base: float
    predicted: float
    measured: float | None = None
    error: float | None = None
    budget: str = ""
    limit: float | None = None

    def __post_init__(self) -> None:
        if self.unit != "ms" and self.name not in _COUNTS:
            raise ValueError(f"a figure of {self.name!r} in {self.unit!r}")
        if self.unit == "ms" and not is_file_name(self.name):
            raise ValueError(f"{self.name!r} is not the name of a target profile")
        known = (self.base, self.predicted, self.measured, self.limit)
        if wrong := [one for one in known if one is not None and one < LEAST]:
            raise ValueError(f"a figure of {wrong[0]}")

    @property
    def value(self) -> float:
        """The measured figure, or the predicted one where nothing was measured."""
        return self.predicted if self.measured is None else self.measured

    @property
    def is_measured(self) -> bool:
        """Whether the figure is a fact and not a prediction."""
        return self.measured is not None

    @property
    def use(self) -> float:
        """The part of the budget that is used; 0 without a budget."""
        return 0.0 if self.limit is None else acceptance.use(self.value, self.limit)

    @property
    def high_use(self) -> float:
        """The same with the error on top: what a search keeps below 1."""
        if self.limit is None:
            return 0.0
        return acceptance.use(self.value, self.limit, self.error or 0.0, acceptance.SEARCH)

    def keeps(self, errors: float, margin: float = 0.0) -> bool:
        """Whether the figure keeps its budget, if it has one; see `acceptance.keeps`."""
        limit = self.limit
        return limit is None or acceptance.keeps(self.value, limit, self.error or 0.0, errors, margin)

    @property
    def met(self) -> bool:
        """Whether the figure as it stands keeps the budget."""
        return self.keeps(acceptance.EXPORT)

    @property
    def title(self) -> str:
        """What the figure is, for a reader."""
        return f"latency on {self.name}" if self.unit == "ms" else _COUNTS[self.name]

    def text(self, value: float) -> str:
        """A value of this figure with its unit."""
        return format_value(value, self.unit)


class WithFigures:
    """What results with figures have in common; one latency, the MACs and one budget are always there."""

    figures: tuple[Figure, ...]

    def __post_init__(self) -> None:
        made = tuple(one if isinstance(one, Figure) else Figure(**one) for one in self.figures)
        object.__setattr__(self, "figures", made)  # JSON gives plain tables
        wanted = {
            "latency": any(one.unit == "ms" for one in made),
            "macs": any(one.name == "macs" for one in made),
            "budget": any(one.budget for one in made),
        }
        if missing := [name for name, there in wanted.items() if not there]:
            raise ValueError(f"no {missing[0]} among the figures")

    @property
    def latency(self) -> Figure:
        """The latency on the first device."""
        return next(one for one in self.figures if one.unit == "ms")

    @property
    def budgets(self) -> tuple[Figure, ...]:
        """The figures that have a budget."""
        return tuple(one for one in self.figures if one.budget)

    @property
    def budget(self) -> str:
        """All budgets as one text: `60% on cpu-1t, 300M MACs`."""
        return ", ".join(_budget_text(one) for one in self.budgets)

    @property
    def unmeasured(self) -> tuple[str, ...]:
        """Devices that were not at hand: their latencies are predicted, not measured."""
        return tuple(one.name for one in self.figures if not one.is_measured)

    def figure(self, name: str) -> Figure:
        """The figure of a name.

        Raises:
            KeyError: There is none.
        """
        return {one.name: one for one in self.figures}[name]


def _budget_text(figure: Figure) -> str:
    if figure.unit == "ms":
        return f"{figure.budget} on {figure.name}"
    return f"{figure.budget} {'of the ' if figure.budget.endswith('%') else ''}{figure.title}"
