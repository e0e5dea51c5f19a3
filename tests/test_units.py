from __future__ import annotations

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwprune.errors import UsageError
from hwprune.units import (
    format_count,
    format_ms,
    format_seconds,
    parse_count,
    parse_latency,
    parse_seconds,
)


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("15ms", 15),
        ("800us", 0.8),
        ("800\u00b5s", 0.8),
        ("800\u03bcs", 0.8),
        ("0.015s", 15),
        (" 2.5 ms ", 2.5),
    ],
)
def test_latencies_are_milliseconds(text, ms):
    quantity = parse_latency(text)
    assert quantity.value == pytest.approx(ms)
    assert not quantity.relative
    assert quantity.of(1000.0) == quantity.value
    assert quantity.text == text.strip()


def test_a_percentage_is_relative_to_the_unpruned_network():
    quantity = parse_latency("60%")
    assert (quantity.value, quantity.relative) == (0.6, True)
    assert quantity.of(25.0) == 15.0
    assert parse_count("60%", "--macs").of(200.0) == 120.0


BAD = [
    "",
    "ms",
    "15",
    "fast",
    "-3ms",
    "0ms",
    "0%",
    "1e3ms",
    "nan",
    "inf ms",
    "15 minutes",
    "1,5ms",
    "15msms",
    "٠ms",
]


@pytest.mark.parametrize("text", [*BAD, "9" * 400 + "ms", "9" * 308 + "s", "0." + "0" * 330 + "1us"])
def test_a_malformed_latency_is_refused_with_examples(text):
    with pytest.raises(UsageError, match=r"quantity above zero|no unit") as caught:
        parse_latency(text, "--latency")
    assert caught.value.got == repr(text)
    assert "15ms" in str(caught.value.allowed)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("300M", 3e8),
        ("300MMACs", 3e8),
        ("1.2G", 1.2e9),
        ("500k", 5e5),
        ("12345MACs", 12345),
        ("12345 params", 12345),
        (" 2 Gparams", 2e9),
    ],
)
def test_counts(text, count):
    assert parse_count(text, "--macs").value == pytest.approx(count)


@pytest.mark.parametrize("text", ["", "M", "-1M", "0M", "300", "1T", "300m", "300MFLOPs"])
def test_a_malformed_count_names_its_option(text):
    with pytest.raises(UsageError, match="--macs"):
        parse_count(text, "--macs")


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("2m", 120), ("2min", 120), ("1.5h", 5400)]
)
def test_times(text, seconds):
    assert parse_seconds(text, "--time") == seconds


@pytest.mark.parametrize("text", ["soon", "-1s", "0", "2d", "10ms"])
def test_a_malformed_time_is_refused(text):
    with pytest.raises(UsageError, match="--time"):
        parse_seconds(text, "--time")


@pytest.mark.parametrize(
    ("ms", "text"),
    [
        *[(15, "15 ms"), (1.234, "1.23 ms"), (0.25, "250 µs"), (1500, "1.5 s"), (0, "0 µs")],
        *[(999.9, "1 s"), (0.9999, "1 ms"), (999.4, "999 ms"), (5e6, "5000 s"), (1e-5, "0.01 µs")],
    ],
)
def test_latencies_are_printed_in_a_readable_unit(ms, text):
    assert format_ms(ms) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (41.2e6, "41.2 M"),
        (4.1e9, "4.1 G"),
        (999, "999"),
        (999.9e6, "1 G"),
        (1234, "1.23 k"),
        (0, "0"),
        (5e12, "5000 G"),
    ],
)
def test_counts_are_printed_with_three_digits(count, text):
    assert format_count(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (3.14, "3.1 s"),
        (9.97, "10 s"),
        (42.4, "42 s"),
        (59.7, "1 m 00 s"),
        (185, "3 m 05 s"),
        (3599.9, "1 h 00 m"),
    ],
)
def test_times_are_printed_as_people_say_them(seconds, text):
    assert format_seconds(seconds) == text


@given(st.floats(1e-4, 1e7))
def test_a_printed_latency_can_be_read_again(ms):
    text = format_ms(ms)
    assert not re.search(r"\de[+-]?\d", text)
    assert parse_latency(text).value == pytest.approx(ms, rel=6e-3)


@given(st.text(max_size=12))
def test_no_text_is_accepted_as_anything_but_a_positive_number(text):
    try:
        value = parse_latency(text).value
    except UsageError:
        return
    assert 0 < value < math.inf
