from __future__ import annotations

import numpy as np

from hwprune.latency.sampling import draw, planned, pool


def test_plans_are_the_same_every_time_and_begin_with_the_extremes(chain):
    _, space = chain
    first = [planned(space, index, seed=3) for index in range(20)]
    assert first == [planned(space, index, seed=3) for index in range(20)]
    assert first != [planned(space, index, seed=4) for index in range(20)]
    assert first[:3] == [space.full(), space.smallest(), space.uniform(0.5)]


def test_networks_are_of_the_space_and_cover_the_whole_range(chain):
    _, space = chain
    networks = [planned(space, index, seed=0) for index in range(3, 203)]
    for widths in networks:
        assert space.check(widths) == widths
        assert all(width in group.choices for width, group in zip(widths, space.groups, strict=True))
    macs = space.macs(np.array(networks)) / space.macs(space.full())
    counts, _ = np.histogram(macs, bins=5, range=(0, 1))
    assert (counts >= 8).all()  # uniformly random widths leave the ends empty


def test_every_choice_of_every_group_turns_up(chain):
    _, space = chain
    networks = pool(space, 400, np.random.default_rng(0))
    for column, group in zip(networks.T, space.groups, strict=True):
        assert set(column.tolist()) == set(group.choices)


def test_kinds_differ_in_how_far_groups_scatter(chain):
    _, space = chain

    def scatter(kind):
        rng = np.random.default_rng(1)
        ratios = np.array([draw(space, rng, kind) for _ in range(200)]) / space.full()
        return ratios.std(axis=1).mean()

    assert scatter(0) < scatter(1) < scatter(2)
