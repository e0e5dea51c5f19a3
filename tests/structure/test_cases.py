"""Every small network of `cases` is pruned rightly, or frozen or refused with a reason."""

from __future__ import annotations

import re
import warnings
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from cases import CASES, Case
from oracle import assert_right, run, shake, tensors

import hwprune
from hwprune.errors import HwpruneError, HwpruneWarning
from hwprune.structure.layers import FROZEN, ChannelMap, Run
from hwprune.structure.space import SearchSpace

pytestmark = pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated")
RUNNING = [case for case in CASES.values() if not case.refuses]


def by_name(cases: list[Case]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", cases, ids=[case.name for case in cases])


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def traced(case: Case, model: torch.nn.Module) -> SearchSpace:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", HwpruneWarning)
        return hwprune.trace(model, case.inputs())


@by_name(RUNNING)
def test_a_case_is_no_trivial_network(case: Case) -> None:
    """Its outputs are finite, depend on its inputs, and are the same again."""
    model, inputs = case.build(), case.inputs()
    shake(model, inputs, np.random.default_rng(0))
    found, again = tensors(run(model, inputs)), tensors(run(model, inputs))
    other = tensors(run(model, tuple(x.flip(0) * 0.7 for x in inputs)))
    assert all(bool(y.isfinite().all()) and torch.equal(y, z) for y, z in zip(found, again, strict=True))
    assert any(
        float((y - z).abs().max()) > 1e-3 * float(y.abs().max()) for y, z in zip(found, other, strict=True)
    )


@by_name(RUNNING)
def test_the_space_is_right(case: Case) -> None:
    model = case.build()
    try:
        space = traced(case, model)
    except HwpruneError as error:
        if case.prunable and not case.may_refuse:
            raise
        check_error(error)
        return
    check_reasons(space, model)
    check_expected(case, space)
    rng = np.random.default_rng(0)
    assert_right(model, case.inputs(), space, rng=rng, mixes=case.mixes, uncounted=case.uncounted)


@by_name([case for case in CASES.values() if case.refuses])
def test_what_cannot_be_pruned_is_refused(case: Case) -> None:
    with pytest.raises(HwpruneError) as caught:
        traced(case, case.build())
    check_error(caught.value)


NORM_GROUPS = {
    "group_norm": {"c1": (4,), "c2": (3,)},
    "group_norm_without_scale": {"a": (3,)},
    "two_group_norms_in_a_row": {"a": (2, 3)},
}


@pytest.mark.parametrize("name", NORM_GROUPS)
def test_every_norm_group_loses_the_same_number_of_channels(name: str) -> None:
    space = traced(CASES[name], CASES[name].build())
    outputs = {layer.name: layer.outputs for layer in space.layers}
    rng = np.random.default_rng(0)
    for widths in (space.smallest(), *(space.sample(rng) for _ in range(5))):
        for layer, counts in NORM_GROUPS[name].items():
            for count in counts:
                kept = outputs[layer].kept(widths) // (outputs[layer].size // count)
                assert len(set(np.bincount(kept, minlength=count))) == 1


def test_a_wrong_space_is_seen() -> None:
    """The image is behind the features; this space says that it is in front."""
    case = CASES["image_behind"]
    model = case.build()
    space = traced(case, model)
    wrong = ChannelMap((Run(FROZEN, 0, 3), Run(0, 0, 16)))
    layers = [
        replace(one, tensors=tuple(replace(t, axes=((1, wrong),)) for t in one.tensors if t.shape[1:]))
        if one.name == "b"
        else one
        for one in space.layers
    ]
    with pytest.raises(AssertionError):
        assert_right(model, case.inputs(), replace(space, layers=tuple(layers)), rng=np.random.default_rng(0))


def check_error(error: HwpruneError) -> None:
    """A documented error says more than that something went wrong."""
    assert error.what
    assert error.where or error.got or error.do


def check_expected(case: Case, space: SearchSpace) -> None:
    """Compare a space with what the case says of it."""
    outputs = {layer.name: layer.outputs for layer in space.layers}
    free = {name for name, channels in outputs.items() if all(run.group != FROZEN for run in channels.runs)}
    touched = {name for name, channels in outputs.items() if channels.groups}
    assert case.prunable <= outputs.keys()
    stuck = case.prunable - free
    assert not stuck, f"{sorted(stuck)} could be pruned; frozen: {space.frozen}"
    assert not case.frozen & touched, "these must keep their width"
    if case.groups is not None:
        assert {group.name: group.width for group in space.groups} == case.groups


def check_reasons(space: SearchSpace, model: torch.nn.Module) -> None:
    """Every reason names an operator or a layer, or says that the channels are the model's outputs."""
    operators = {schema.name for schema in onnx.defs.get_all_schemas()}
    kinds = {type(module).__name__ for module in model.modules()}
    layers = {name for name, _ in model.named_modules() if name not in ("", "a")}  # "a" is a word too
    known = operators | kinds | layers | set(model.state_dict())
    for layer, reason in space.frozen.items():
        words = {word.strip(".") for word in re.findall(r"[\w.]+", reason)}
        assert words & known or "output" in reason, f"{layer}: {reason!r} names no operator or layer"
