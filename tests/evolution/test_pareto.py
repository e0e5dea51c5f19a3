from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hwprune.evolution import pareto_front

networks = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=40)


def dominates(one, other):
    return one[0] >= other[0] and one[1] <= other[1] and one != other


@given(networks)
def test_front_is_what_brute_force_finds(points):
    front = pareto_front([p[0] for p in points], [p[1] for p in points]).tolist()
    expected = {p for p in points if not any(dominates(q, p) for q in points)}
    assert {points[i] for i in front} == expected
    assert len(front) == len(expected), "equal networks appear once"
    assert [points[i][1] for i in front] == sorted(points[i][1] for i in front), "cheapest first"


def test_of_equal_networks_the_first_is_kept():
    assert pareto_front([0.5, 0.5, 0.4], [2.0, 2.0, 1.0]).tolist() == [2, 0]
