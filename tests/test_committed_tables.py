"""The latency tables of the repository: each must load and say where it comes from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hwprune.latency.compare import problems
from hwprune.latency.folder import TableFolder
from hwprune.results import ProfileResult

LUT = Path(__file__).parents[1] / "lut"
TABLES = sorted(path.parent for path in LUT.rglob("table.json"))


def test_there_are_tables() -> None:
    names = {folder.name for folder in TABLES}
    assert {"resnet20_32", "mobilenet_v2_224", "resnet50_224"} <= names


@pytest.mark.parametrize("folder", TABLES, ids=lambda folder: str(folder.relative_to(LUT)))
def test_a_committed_table_loads_and_says_where_it_comes_from(folder: Path) -> None:
    loaded = TableFolder.load(folder)
    table, space = loaded.table, loaded.space
    assert problems(loaded) == []
    result = ProfileResult.load(folder / "profile.json")
    assert table.provenance["model"] == space.model == result.model
    assert table.widths.shape == (result.networks, len(space.genes))
    assert {"device", "runtime", "profile", "seed", "date", "libraries"} <= set(table.provenance)
    assert (table.networks["latency_ms"] > 0).all()
    assert (table.kernels["time_us"] >= 0).all()
    sums = table.kernels.groupby("network")["time_us"].sum().to_numpy() / 1e3
    np.testing.assert_allclose(sums + table.run_ms, table.networks["latency_ms"], rtol=0.02)
    assert result.error_percent is not None
    assert result.error_percent < 5
