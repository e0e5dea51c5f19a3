"""Labels and groups, against what a look at each label says."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from hwprune.structure.flow import Flow
from hwprune.structure.groups import Groups, find_groups
from hwprune.structure.labels import FIXED, axes_of, components, compress, distinct, spread

LABELS = 12
label = st.integers(0, LABELS - 1)
pairs = st.lists(st.tuples(label, label), max_size=20)


@given(st.lists(pairs, max_size=4))
def test_a_class_is_named_by_the_smallest_label_that_can_be_reached(ties):
    arrays_of = [tuple(np.array(tie, dtype=np.int64).reshape(-1, 2).T) for tie in ties]
    reached = [{one} for one in range(LABELS)]
    for _ in range(LABELS):
        for one, other in (pair for tie in ties for pair in tie):
            reached[one] = reached[other] = reached[one] | reached[other]
    assert components(LABELS, arrays_of).tolist() == [min(labels) for labels in reached]


factors = array_shapes(max_dims=4, max_side=3).flatmap(
    lambda shape: arrays(np.int64, shape, elements=st.integers(0, 2))
)


@given(factors, st.integers(0, 3), st.integers(1, 3))
def test_compressing_drops_the_axes_that_say_nothing_and_no_others(factor, axis, times):
    wide = np.repeat(factor, times, axis % factor.ndim) if factor.shape[axis % factor.ndim] == 1 else factor
    small = compress(wide)
    assert np.array_equal(np.broadcast_to(small, wide.shape), wide)
    for place in axes_of(small):
        assert not (small == small.take([0], place)).all()


@given(st.lists(arrays(np.int64, (2, 3), elements=st.integers(0, 1)), max_size=6))
def test_distinct_factors_say_all_that_was_said_and_each_thing_once(found):
    kept = distinct(found)
    wide = [np.broadcast_to(factor, (2, 3)).tolist() for factor in kept]
    assert all(wide.count(factor) == 1 and np.any(factor) for factor in wide)
    assert all(factor.tolist() in wide for factor in found if factor.any())


def test_labels_of_an_axis_are_spread_over_it_alone():
    assert spread(np.arange(3), 4, 1).shape == (1, 3, 1, 1)


def groups_of(sizes: dict[str, int], ties=(), steps=(), frozen=()) -> Groups:
    """The groups of weights with one prunable axis each, whose labels begin at 1 in order.

    Args:
        sizes: Weight -> size of that axis.
        ties: Pairs of labels of one channel.
        steps: Matrices of labels whose rows lose equally many.
        frozen: Labels that stay.
    """
    flow = Flow(SimpleNamespace(weights={name: (size,) for name, size in sizes.items()}))
    for name, size in sizes.items():
        flow.labels(name, 0, size)
    ties = [(np.array([one]), np.array([other])) for one, other in (*ties, *((n, FIXED) for n in frozen))]
    flow.canonical = components(1 + sum(sizes.values()), ties)
    flow.steps = [(flow.canonical[np.array(rows)], "keeps its parts equal") for rows in steps]
    return find_groups(flow, [(name, 0) for name in sizes])


def test_tied_channels_are_one_group_and_others_another():
    groups = groups_of({"a": 4, "b": 3, "c": 4}, ties=[(1 + i, 8 + i) for i in range(4)])
    assert (groups.names, groups.widths, groups.multiples) == ([("a", 0), ("b", 0)], [4, 3], [1, 1])
    assert groups.axis(("c", 0)) == groups.axis(("a", 0))
    assert groups.axis(("b", 0)).groups == (1,)


def kept_in_rows(channels, width: int, parts: int) -> list[int]:
    kept = channels.kept((width,))
    return np.bincount(kept // (channels.size // parts), minlength=parts).tolist()


@pytest.mark.parametrize("parts", [2, 3, 4, 6])
def test_of_each_part_in_step_equally_many_channels_go(parts):
    groups = groups_of({"a": 12}, steps=[np.arange(1, 13).reshape(parts, -1)])
    assert (groups.widths, groups.multiples) == ([12], [parts])
    channels = groups.axis(("a", 0))
    for width in range(parts, 13, parts):
        assert kept_in_rows(channels, width, parts) == [width // parts] * parts
    assert channels.kept((parts,)).tolist() == list(range(0, 12, 12 // parts)), "the first of each"


def test_two_partings_in_step_hold_both():
    rows = np.arange(1, 13)
    groups = groups_of({"a": 12}, steps=[rows.reshape(2, -1), rows.reshape(3, -1)])
    assert groups.widths == [12]
    assert groups.multiples[0] % 6 == 0
    channels = groups.axis(("a", 0))
    for width in range(groups.multiples[0], 13, groups.multiples[0]):
        for parts in (2, 3):
            assert len(set(kept_in_rows(channels, width, parts))) == 1


def test_what_is_tied_to_channels_in_step_goes_with_them():
    groups = groups_of(
        {"a": 6, "b": 6}, ties=[(1 + i, 7 + i) for i in range(6)], steps=[np.arange(1, 7).reshape(2, 3)]
    )
    assert (groups.widths, groups.multiples) == ([6], [2])
    assert groups.axis(("b", 0)).kept((4,)).tolist() == [0, 1, 3, 4]


def test_a_part_that_keeps_a_channel_keeps_all_parts_with_a_reason():
    groups = groups_of({"a": 6}, steps=[np.arange(1, 7).reshape(2, 3)], frozen=[5])
    assert groups.widths == []
    assert groups.why_frozen(np.arange(1, 5)) == "keeps its parts equal"


def test_channels_that_all_go_together_are_no_group():
    groups = groups_of({"a": 4}, ties=[(1, 2), (2, 3), (3, 4)])
    assert groups.widths == []
    assert groups.why_frozen(np.arange(1, 5)) == "all channels of a go together"
