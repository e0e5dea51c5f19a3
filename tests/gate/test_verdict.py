"""The verdict against figures that are made up, and against pretended devices whose latencies are known."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwprune.gate.verdict import (
    LEAST_ERROR,
    Check,
    Estimate,
    Limit,
    Verdict,
    estimate,
    judge,
    judge_all,
    overall,
)
from hwprune.latency.measure import Measurement, measure
from hwprune.results.acceptance import BENCH
from hwprune.runtimes.fake import FakeDevice, FakeRuntime, FakeSession

REGRESSION = Limit(breach=Verdict.REGRESSION, text="5%", most=1.05, unit="ratio")
BUDGET = Limit(breach=Verdict.OVER_BUDGET, text="15ms", most=15.0, unit="ms")

values = st.floats(0.01, 100.0)
errors = st.floats(0.0, 0.5)
limits = st.floats(0.01, 100.0).map(
    lambda most: Limit(breach=Verdict.REGRESSION, text="x", most=most, unit="ratio")
)
GRAVITY = [Verdict.PASS, Verdict.TOO_NOISY, Verdict.REGRESSION]


@given(values, errors, errors)
def test_the_interval_holds_the_value_and_is_never_narrower_than_what_sessions_differ_by(
    value: float, one: float, other: float
) -> None:
    found = estimate(value, one, other)
    assert 0 <= found.low < value < found.high
    assert found.high - value >= BENCH * max(LEAST_ERROR, one, other) * value * (1 - 1e-9)
    assert found == estimate(value, other, one)


@given(limits, values, errors)
def test_beyond_the_limit_by_more_than_the_interval_always_fails(
    limit: Limit, value: float, error: float
) -> None:
    found = estimate(value, error)
    beyond = value - limit.most > found.high - value
    assert (judge(limit, found).verdict == limit.breach) == (beyond or found.low > limit.most)
    if beyond:
        assert judge(limit, found).verdict == limit.breach


@given(limits, values, errors)
def test_noise_wider_than_the_margin_is_too_noisy_to_tell(limit: Limit, value: float, error: float) -> None:
    found = estimate(value, error)
    margin, noise = abs(limit.most - value), found.high - value
    verdict = judge(limit, found).verdict
    if noise > margin:
        assert verdict == Verdict.TOO_NOISY
    if noise < margin:
        assert verdict == (Verdict.PASS if value < limit.most else limit.breach)


@given(limits, values, errors)
def test_a_machine_that_cannot_be_trusted_never_passes_and_never_fails(
    limit: Limit, value: float, error: float
) -> None:
    assert judge(limit, estimate(value, error), trusted=False).verdict == Verdict.TOO_NOISY


@given(limits, values, values, errors)
def test_a_slower_network_never_has_the_better_verdict(
    limit: Limit, one: float, other: float, error: float
) -> None:
    fast, slow = (judge(limit, estimate(value, error)).verdict for value in sorted((one, other)))
    assert GRAVITY.index(fast) <= GRAVITY.index(slow)


@given(limits, values, errors, errors)
def test_more_noise_never_turns_one_clear_verdict_into_another(
    limit: Limit, value: float, one: float, other: float
) -> None:
    quiet, noisy = (judge(limit, estimate(value, error)).verdict for error in sorted((one, other)))
    assert noisy in (quiet, Verdict.TOO_NOISY)


def check(verdict: Verdict) -> Check:
    return Check(limit=BUDGET, found=Estimate(1.0, 1.0, 1.0), verdict=verdict)


@given(st.lists(st.sampled_from(list(Verdict)[:4])))
def test_the_gravest_check_decides(verdicts: list[Verdict]) -> None:
    result = overall(map(check, verdicts))
    broken = [v for v in verdicts if v.exit_code == 1]
    if broken:
        assert result in broken
    elif Verdict.TOO_NOISY in verdicts:
        assert result == Verdict.TOO_NOISY
    else:
        assert result == (Verdict.PASS if verdicts else Verdict.MEASURED)


def test_exit_codes() -> None:
    codes = {verdict.value: verdict.exit_code for verdict in Verdict}
    assert codes == {
        "pass": 0,
        "measured": 0,
        "regression": 1,
        "over budget": 1,
        "accuracy too low": 1,
        "too noisy to tell": 3,
    }


def test_each_limit_is_compared_with_the_figure_of_its_unit() -> None:
    latency, ratio = estimate(10.0), estimate(1.2)
    checks = judge_all((REGRESSION, BUDGET), latency, ratio, trusted=True)
    assert [one.verdict for one in checks] == [Verdict.REGRESSION, Verdict.PASS]
    assert [one.found for one in checks] == [ratio, latency]
    assert judge_all((REGRESSION,), latency, None, trusted=True) == ()


DEVICES = (
    {"noise": 0.02},
    {"noise": 0.05, "burst": 0.02},
    {"noise": 0.1, "burst": 0.1},
    {"noise": 0.05, "burst": 0.05, "drift": 0.2},
)


def measured(true_ratio: float, seed: int, *, base_ms: float = 3.0, **device: float) -> Measurement:
    """A network of known latency, measured beside its baseline on a pretended device."""
    runtime = FakeRuntime(FakeDevice(seed=seed, **device))
    network, baseline = FakeSession(runtime, true_ratio * base_ms), FakeSession(runtime, base_ms)
    return measure(network, baseline, relative_error=0.005, max_seconds=60.0)


def verdict_on(found: Measurement) -> Verdict:
    estimated = estimate(found.ratio, found.relative_error)
    return judge(REGRESSION, estimated, trusted=not found.too_noisy).verdict


@pytest.mark.parametrize("device", DEVICES)
def test_intervals_hold_the_true_ratio_as_often_as_is_said(device: dict[str, float]) -> None:
    hits = []
    for true_ratio, seed in itertools.product((0.3, 0.9, 1.05), range(34)):
        found = measured(true_ratio, seed, **device)
        interval = estimate(found.ratio, found.relative_error)
        hits.append(interval.low <= true_ratio <= interval.high)
    assert sum(hits) / len(hits) >= 0.95


@given(st.floats(1.12, 4.0), st.integers(0, 10**6), st.sampled_from(DEVICES[:2]), st.floats(0.2, 40.0))
def test_a_real_regression_never_passes(
    true_ratio: float, seed: int, device: dict[str, float], base_ms: float
) -> None:
    assert verdict_on(measured(true_ratio, seed, base_ms=base_ms, **device)) == Verdict.REGRESSION


@given(st.floats(0.1, 0.99), st.integers(0, 10**6), st.sampled_from(DEVICES[:2]), st.floats(0.2, 40.0))
def test_a_network_that_is_no_slower_passes(
    true_ratio: float, seed: int, device: dict[str, float], base_ms: float
) -> None:
    assert verdict_on(measured(true_ratio, seed, base_ms=base_ms, **device)) == Verdict.PASS


def test_right_at_the_limit_there_is_no_telling() -> None:
    verdicts = [verdict_on(measured(1.05, seed, noise=0.02)) for seed in range(30)]
    assert verdicts.count(Verdict.TOO_NOISY) >= 28


def test_a_machine_in_turmoil_is_not_trusted() -> None:
    found = measured(0.9, 1, noise=0.02, drift=0.8, drift_period_ms=700.0)
    assert found.too_noisy
    assert verdict_on(found) == Verdict.TOO_NOISY
