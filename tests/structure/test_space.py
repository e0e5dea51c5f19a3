from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwprune import artifacts
from hwprune.errors import ArtifactError, MismatchError, MissingArtifactError, UsageError
from hwprune.structure.space import (
    FROZEN,
    PAPER_RATIOS,
    Attribute,
    ChannelGroup,
    ChannelMap,
    Layer,
    Product,
    Run,
    SearchSpace,
    Tensor,
    make_choices,
)


def follows(group: int, width: int, repeat: int = 1) -> ChannelMap:
    return ChannelMap((Run(group, 0, width, repeat),))


def conv(name, inputs, outputs, kernel, groups=1):
    shape = (outputs.size, inputs.size // groups, kernel, kernel)
    axes = ((0, outputs),) if groups > 1 else ((0, outputs), (1, inputs))
    tensors = (Tensor(f"{name}.weight", shape, axes), Tensor(f"{name}.bias", shape[:1], ((0, outputs),)))
    return Layer(name, "conv", inputs, outputs, tensors)


@pytest.fixture
def space():
    """stem 3->8, depthwise 8, pointwise 8->16, concat of both (24), and a linear layer on 2x2 maps to 10."""
    image, stem, wide, labels = ChannelMap.frozen(3), follows(0, 8), follows(1, 16), ChannelMap.frozen(10)
    flat = ChannelMap((Run(0, 0, 8, 4), Run(1, 0, 16, 4)))
    statistics = Tensor("norm.running_mean", (8,), ((0, stem),), buffer=True)
    norm = Layer("norm", "norm", stem, stem, tensors=(Tensor("norm.weight", (8,), ((0, stem),)), statistics))
    weight = Tensor("head.weight", (10, 96), ((1, flat),))
    head = Layer("head", "linear", flat, labels, tensors=(weight, Tensor("head.bias", (10,), ())))
    layers = (
        conv("stem", image, stem, 3),
        norm,
        conv("depthwise", stem, stem, 3, groups=8),
        conv("pointwise", stem, wide, 1),
        head,
    )
    groups = (ChannelGroup("stem", 8, 1, (2, 4, 8)), ChannelGroup("pointwise", 16, 4, (4, 8, 16)))
    products = (
        Product("stem", stem, image, 9 * 64),
        Product("depthwise", stem, ChannelMap.frozen(1), 9 * 64),
        Product("pointwise", wide, stem, 64),
        Product("head", labels, flat, 1),
    )
    attributes = (Attribute("", "width", -1, stem), Attribute("neck", "sizes", 1, wide))
    frozen = {"head": "it makes the model's outputs"}
    return SearchSpace("toy", (1, 3, 8, 8), groups, layers, frozen, products, attributes)


def test_macs_and_params_are_those_counted_by_hand(space):
    # stem 3*9*64 per channel, depthwise 9*64 per channel, pointwise stem*wide*64, head 4*(stem+wide)*10
    assert space.macs((8, 16)) == 8 * 1728 + 8 * 576 + 8 * 16 * 64 + 960
    assert space.macs((2, 4)) == 2 * 1728 + 2 * 576 + 2 * 4 * 64 + 240
    assert space.params((8, 16)) == 8 * 28 + 8 + 8 * 10 + 16 * 9 + 96 * 10 + 10
    assert space.params((2, 4)) == 2 * 28 + 2 + 2 * 10 + 4 * 3 + 24 * 10 + 10


def test_macs_of_layers_that_follow_a_part_of_a_group(space):
    first, last = ChannelMap((Run(1, 0, 6),)), ChannelMap((Run(1, 6, 10, 3), Run(-1, 0, 2)))
    odd = ChannelMap((Run(1, 1, 8, step=2),))
    halves = (
        Product("first", follows(0, 8), first, 36),
        Product("last", follows(1, 16), last, 4),
        Product("odd", odd, odd, 7),
    )
    split = dataclasses.replace(space, products=halves)
    for stem, wide in ((8, 16), (4, 8), (2, 4), (3, 7)):
        read = min(wide, 6), 3 * max(wide - 6, 0) + 2
        assert split.macs((stem, wide)) == read[0] * stem * 36 + read[1] * wide * 4 + (wide // 2) ** 2 * 7


def test_many_networks_are_counted_at_once(space):
    table = np.array([[[8, 16], [2, 4]], [[4, 8], [8, 4]]])
    for count in (space.macs, space.params):
        figures = count(table)
        assert figures.shape == (2, 2)
        assert [[count(row) for row in block] for block in table] == figures.tolist()


runs = st.tuples(
    st.integers(-1, 2), st.integers(0, 6), st.integers(1, 6), st.integers(1, 3), st.integers(1, 3)
)
maps = st.lists(runs, max_size=5).map(lambda found: ChannelMap(tuple(Run(*run) for run in found)))


@given(maps, st.tuples(*[st.integers(1, 12)] * 3))
def test_a_channel_map_keeps_what_a_look_at_each_channel_keeps(channels, widths):
    kept = []
    for run in channels.runs:
        for channel in range(run.start, run.start + run.length * run.step, run.step):
            kept += [run.group == FROZEN or channel < widths[run.group]] * run.repeat
    assert channels.kept(widths).tolist() == np.flatnonzero(kept).tolist()
    assert channels.count(widths) == sum(kept)
    assert channels.size == len(kept)
    assert channels.groups == tuple(dict.fromkeys(run.group for run in channels.runs if run.group >= 0))


@given(maps, st.lists(st.tuples(*[st.integers(1, 12)] * 3), min_size=1, max_size=5))
def test_counting_many_networks_equals_counting_each(channels, table):
    assert channels.count(table).tolist() == [len(channels.kept(widths)) for widths in table]


@given(maps, maps, st.lists(st.tuples(*[st.integers(1, 26)] * 3), min_size=1, max_size=5))
def test_macs_are_the_product_of_what_each_side_keeps(outputs, reads, table):
    groups = tuple(ChannelGroup(f"g{index}", 26, 1, (26,)) for index in range(3))
    space = SearchSpace("any", (1, 3, 8, 8), groups, (), products=(Product("", outputs, reads, 5),))
    expected = [5 * len(outputs.kept(widths)) * len(reads.kept(widths)) for widths in table]
    assert space.macs(table).tolist() == expected


@given(st.lists(st.tuples(st.integers(-1, 2), st.integers(0, 5)), max_size=24))
def test_a_map_can_be_made_of_any_channels(local):
    groups, channels = np.array(local, dtype=np.int64).reshape(-1, 2).T
    made = ChannelMap.of(groups, channels)
    for widths in ((1, 3, 6), (6, 2, 4), (5, 5, 1)):
        expected = [i for i, (group, one) in enumerate(local) if group == FROZEN or one < widths[group]]
        assert made.kept(widths).tolist() == expected


@given(maps)
def test_a_map_made_of_its_own_channels_is_the_same(channels):
    made = ChannelMap.of(channels.group_of, channels.channel_of)
    assert made.group_of.tolist() == channels.group_of.tolist()
    follows_group = made.group_of != FROZEN
    assert made.channel_of[follows_group].tolist() == channels.channel_of[follows_group].tolist()


@pytest.mark.parametrize(
    "run", [Run(0, 0, 8), Run(1, 3, 5), Run(0, 1, 4, step=2), Run(0, 0, 4, repeat=9), Run(1, 2, 3, 4, 5)]
)
def test_channels_at_equal_distances_are_one_run(run):
    channels = ChannelMap((run,))
    assert ChannelMap.of(channels.group_of, channels.channel_of).runs == (run,)


def test_the_papers_choices():
    assert len(PAPER_RATIOS) == 31
    assert (PAPER_RATIOS[0], PAPER_RATIOS[-1]) == (0.1, 1.0)
    assert make_choices(100, 1, 1, PAPER_RATIOS) == tuple(range(10, 101, 3))
    assert make_choices(64, 1, 1, PAPER_RATIOS) == tuple(
        sorted({64 * (10 + 3 * i) // 100 for i in range(31)})
    )


@given(st.integers(1, 600), st.sampled_from([1, 2, 4]), st.sampled_from([1, 4, 8, 16]))
def test_choices_ascend_to_the_full_width_in_common_multiples(width, group_multiple, multiple):
    width *= group_multiple
    choices = make_choices(width, group_multiple, multiple, PAPER_RATIOS)
    assert list(choices) == sorted(set(choices))
    assert choices[-1] == width
    assert choices[0] >= 1
    assert all(choice % group_multiple == 0 for choice in choices)
    if width >= 4 * multiple:
        assert all(choice % math.lcm(group_multiple, multiple) == 0 for choice in choices[:-1])


def test_a_group_too_narrow_for_the_devices_multiple_takes_a_finer_one():
    assert make_choices(16, 1, 16, PAPER_RATIOS) == (4, 8, 12, 16)
    assert make_choices(16, 16, 16, PAPER_RATIOS) == (16,), "its own multiple stays"
    assert make_choices(64, 1, 16, PAPER_RATIOS) == (16, 32, 48, 64)


def test_named_networks_of_a_space(space):
    assert space.full() == (8, 16)
    assert space.smallest() == (2, 4)
    assert space.uniform(0.5) == (4, 8)
    assert space.uniform(0.75) == (4, 8), "of two choices equally near, the narrower"
    assert space.with_choices(multiple=4).groups[0].choices == (4, 8)
    assert space.groups[0].choices == (2, 4, 8), "the original is untouched"


def test_samples_cover_every_choice_and_follow_the_seed(space):
    rng = np.random.default_rng(0)
    drawn = {space.sample(rng) for _ in range(300)}
    assert drawn == {(a, b) for a in (2, 4, 8) for b in (4, 8, 16)}
    assert space.sample(np.random.default_rng(1)) == space.sample(np.random.default_rng(1))
    assert all(type(width) is int for widths in drawn for width in widths)


@pytest.mark.parametrize("widths", [(3, 12), (1, 4), (8, 16), np.array([8, 16])])
def test_check_allows_any_width_that_the_layers_can_have(space, widths):
    assert space.check(widths) == tuple(int(w) for w in widths)


@pytest.mark.parametrize(
    ("widths", "where"),
    [((0, 4), "stem"), ((9, 4), "stem"), ((4, 6), "pointwise"), ((-1, 4), "stem"), ((2.5, 4), "stem")],
)
def test_check_names_the_group_that_cannot_have_its_width(space, widths, where):
    with pytest.raises(UsageError, match="width") as caught:
        space.check(widths)
    assert caught.value.where == where


def test_check_counts_the_groups(space):
    with pytest.raises(UsageError, match="one width for each"):
        space.check((8,))


def test_a_space_comes_back_whole(space, tmp_path):
    space.save(tmp_path / "space.json")
    assert SearchSpace.load(tmp_path / "space.json") == space


def test_a_missing_damaged_or_foreign_file_is_refused(space, tmp_path):
    path = tmp_path / "space.json"
    with pytest.raises(MissingArtifactError):
        SearchSpace.load(path)
    space.save(path)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ArtifactError, match="damaged"):
        SearchSpace.load(path)
    artifacts.write_json(path, "search-space", 99, {})
    with pytest.raises(MismatchError):
        SearchSpace.load(path)


def test_a_file_of_the_first_version_is_refused_with_what_to_do(tmp_path):
    path = tmp_path / "space.json"
    artifacts.write_json(path, "search-space", 1, {"model": "old", "groups": [], "layers": []})
    with pytest.raises(MismatchError, match="another schema version") as caught:
        SearchSpace.load(path)
    assert (caught.value.got, caught.value.allowed) == (1, 2)
    assert caught.value.do == "make it again with `hwprune profile`"


def _set(payload, keys, value):
    for key in keys[:-1]:
        payload = payload[key]
    payload[keys[-1]] = value


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        (["groups", 0, 1], -8),
        (["groups", 0, 1], "8"),
        (["groups", 0, 1], True),
        (["groups", 0, 3], []),
        (["groups", 0, 3], [8, 4]),
        (["groups", 0, 3], [4]),
        (["groups", 1, 3], [3, 16]),
        (["groups"], None),
        (["groups"], []),
        (["layers", 0, "op"], "shell"),
        (["layers", 0, "outputs"], [[0, 0, 8, 1]]),
        (["layers", 0, "outputs"], [[7, 0, 8, 1, 1]]),
        (["layers", 0, "outputs"], [[-2, 0, 8, 1, 1]]),
        (["layers", 0, "outputs"], [[0, 4, 8, 1, 1]]),
        (["layers", 0, "outputs"], [[0, 0, 8, 1, 2]]),
        (["layers", 0, "outputs"], [[0, 0, 8, 1, 0]]),
        (["layers", 0, "outputs"], [[-1, 0, 2**20, 2**20, 1]]),
        (["layers", 0, "tensors", 0, 2], [[9, [[0, 0, 8, 1, 1]]]]),
        (["layers", 0, "tensors", 0, 1], [9, 3, 3, 3]),
        (["layers"], {"a": 1}),
        (["products", 0, 1], [[7, 0, 8, 1, 1]]),
        (["products", 0, 3], 1e300),
        (["products", 0, 3], 0),
        (["products", 0], ["stem"]),
        (["attributes", 0, 1], "__class__"),
        (["attributes", 0, 1], "a.b"),
        (["attributes", 0, 2], -2),
        (["attributes", 0, 3], [[9, 0, 8, 1, 1]]),
        (["frozen"], []),
        (["input_shape"], "1388"),
    ],
)
def test_a_file_with_a_right_checksum_but_wrong_content_is_refused(space, tmp_path, keys, value):
    path = tmp_path / "space.json"
    space.save(path)
    payload = artifacts.read_json(path, "search-space", 2)
    _set(payload, keys, value)
    artifacts.write_json(path, "search-space", 2, payload)
    with pytest.raises(ArtifactError, match="not consistent") as caught:
        SearchSpace.load(path)
    assert caught.value.where == path


def test_a_space_without_groups_has_one_network():
    space = SearchSpace("frozen", (1, 3, 8, 8), (), ())
    assert space.full() == space.smallest() == space.sample(np.random.default_rng(0)) == ()
    assert space.macs(()) == 0
