"""A latency table with all that is needed to use it elsewhere: its search space, its network's graph."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from hwprune import artifacts
from hwprune.errors import MismatchError, MissingArtifactError, ModelError, nearest
from hwprune.latency.fingerprint import graph_fingerprint, space_fingerprint
from hwprune.latency.model import TableModel
from hwprune.latency.table import GRAPH, SPACE, LatencyTable
from hwprune.shipped import shipped_tables
from hwprune.structure.onnx_graph import read_graph
from hwprune.structure.space import SearchSpace

if TYPE_CHECKING:
    from pathlib import Path

    from hwprune.structure.onnx_graph import NetGraph

_MADE_BY = "hwprune profile"


def known_table(place: Path) -> Path | None:
    """The folder of a latency table: `place` itself, or that of a table that comes with hwprune, or None.

    Args:
        place: A folder, or the name of a shipped table, with or without `lut/` before it.
    """
    if (place / "table.json").is_file():
        return place
    return shipped_tables().get(place.as_posix().removeprefix("lut/"))


def find_table(place: Path) -> Path:
    """The folder of a latency table; see `known_table`.

    Raises:
        MissingArtifactError: There is none.
    """
    if folder := known_table(place):
        return folder
    raise MissingArtifactError(
        "There is no latency table in this folder.",
        where=place,
        allowed=nearest(place.as_posix(), shipped_tables()),
        do="name a folder that holds a table.json, such as hwprune-work/latency/cpu-1t, or a table that "
        "`hwprune lut list` names",
    )


@dataclass(frozen=True, eq=False)
class TableFolder:
    """What lies in the folder of one latency table.

    Attributes:
        table: What was measured.
        space: The search space, with the choices that suit the device.
        graph_onnx: The unpruned network without its weights.
    """

    table: LatencyTable
    space: SearchSpace
    graph_onnx: bytes

    @property
    def graph(self) -> NetGraph:
        """The unpruned network's graph."""
        return read_graph(self.graph_onnx)

    def model(self, *, anew: bool = False) -> TableModel:
        """The latency model, fitted to the table; `anew` judges it again."""
        return TableModel.fit(self.table, self.space, self.graph, anew=anew)

    def save(self, folder: Path) -> None:
        """Write everything.

        Raises:
            StorageError: Full disk, no permission.
        """
        artifacts.write_bytes(folder / GRAPH, self.graph_onnx)
        self.space.save(folder / SPACE)
        self.table.save(folder)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote.

        Raises:
            MissingArtifactError: There is no table, or one of its files is not there.
            MismatchError: The three do not belong together.
            UsageError: A network has widths that the space does not have.
            ArtifactError: Damaged.
        """
        folder = find_table(folder)
        table = LatencyTable.load(folder, _MADE_BY)
        space = SearchSpace.load(folder / SPACE)
        loaded = cls(table, space, artifacts.read_bytes(folder / GRAPH, _MADE_BY))
        try:
            found = {"space": space_fingerprint(space), "graph": graph_fingerprint(loaded.graph)}
        except ModelError as error:
            raise artifacts.broken(folder / GRAPH, error.got or error.what, _MADE_BY) from error
        for widths in table.widths:
            space.check(widths.tolist())
        if others := [name for name, value in found.items() if table.provenance[name] != value]:
            raise MismatchError(
                "The files of this latency table do not belong together.",
                where=folder,
                got=f"another {' and another '.join(others)} than the table names",
                do=f"make them again with `{_MADE_BY}`",
            )
        return loaded
