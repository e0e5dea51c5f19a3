"""The networks and kinds of fault of `../shared/cases`, which lies beside the repository they were made for.

`cases_reports.py` has a network of its own for each of these networks, under the same name, with what is
right for it.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from cases import CASES
from oracle import assert_right
from test_cases import check_reasons, traced

import hwprune

if TYPE_CHECKING:
    from collections.abc import Callable

FOLDER = Path(__file__).parents[2].parent / "shared" / "cases"
pytestmark = [
    pytest.mark.skipif(not FOLDER.is_dir(), reason="../shared/cases is not there"),
    pytest.mark.filterwarnings("ignore"),
]


def held(name: str, attribute: str) -> Any:
    """What a file of the folder holds; nothing where there is no folder."""
    if not FOLDER.is_dir():
        return {}
    spec = importlib.util.spec_from_file_location(f"shared_{name}", FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, attribute)


STRUCTURES, KINDS, HEAD = held("structures", "CASES"), held("faults", "KINDS"), held("faults", "HEAD")


@pytest.mark.parametrize("name", STRUCTURES)
def test_a_network_from_a_public_report_is_pruned_as_our_own_of_its_name(name: str) -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    factory, inputs, _, _ = STRUCTURES[name]
    model, images, own = factory().eval(), inputs(), CASES[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        space = hwprune.trace(model, images)
    check_reasons(space, model)
    assert bool(space.groups) == bool(traced(own, own.build()).groups), "ours have other widths"
    rng = np.random.default_rng(0)
    assert_right(model, images, space, rng=rng, mixes=own.mixes, uncounted=own.uncounted)


def last_number(printed: str) -> float:
    return float(re.findall(r"[\d.e+-]+", printed)[-1])


def integers(printed: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", printed.partition(":")[2] or printed)]


MENDED: list[Callable[[str], bool]] = [  # what each kind prints where it is mended, in their order
    lambda printed: last_number(printed) < 1e-4,
    lambda printed: last_number(printed) < 1e-4,
    lambda printed: integers(printed) == [2, 5, 16, 16],
    lambda printed: np.bincount(np.array(integers(printed)) // 4).tolist() == [2] * 8,
    lambda printed: integers(printed) == [4, 5, 14, 14],
    lambda printed: integers(printed)[0] >= 3,
    lambda printed: "16" in printed and "24" in printed and "torch.Size([2, 5, 10, 10])" in printed,
    lambda printed: len(set(integers(printed))) == 1,
    lambda printed: integers(printed) == [16],
    lambda printed: integers(printed) == [16, 24, 32],
]


@pytest.mark.parametrize("place", range(len(KINDS)))
def test_a_kind_of_fault_is_mended(place: int) -> None:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(HEAD + list(KINDS.values())[place].strip(), {"__name__": "case"})
    assert MENDED[place](printed.getvalue().strip()), printed.getvalue()
