"""Quantiles of histograms, and bounds that hold however often they are looked at."""

from __future__ import annotations

import doctest
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hotswap.stats import quantiles
from hotswap.stats.buckets import BUCKETS, TIMEOUT, lower_bound
from hotswap.stats.quantiles import p_value, quantile, quantile_interval

HISTOGRAMS = st.dictionaries(
    st.integers(0, TIMEOUT), st.integers(1, 10_000), min_size=1, max_size=30
)
LEVELS = st.sampled_from([0.01, 0.5, 0.9, 0.99, 0.999])


def test_the_examples_hold() -> None:
    """Every example in the docstrings gives what it says."""
    assert doctest.testmod(quantiles).failed == 0


@given(HISTOGRAMS, LEVELS)
def test_a_quantile_agrees_with_the_sorted_requests(counts: dict[int, int], p: float) -> None:
    """It is the upper bound of the bucket of the request of that rank."""
    order = np.repeat(sorted(counts), [counts[at] for at in sorted(counts)])
    at = int(order[math.ceil(p * len(order)) - 1])
    assert quantile(counts, p) == lower_bound(at + 1)


@given(HISTOGRAMS, LEVELS)
def test_the_interval_holds_the_estimate(counts: dict[int, int], p: float) -> None:
    """The observed quantile is never outside its own bounds."""
    low, high = quantile_interval(counts, p)
    assert low <= quantile(counts, p) <= high


@given(HISTOGRAMS, LEVELS)
def test_a_smaller_alpha_is_wider(counts: dict[int, int], p: float) -> None:
    """Asking for more certainty never narrows the bounds."""
    low, high = quantile_interval(counts, p, 0.05)
    wider = quantile_interval(counts, p, 0.001)
    assert wider[0] <= low
    assert high <= wider[1]


def test_bounds_hold_at_all_times() -> None:
    """Looking after every 20 requests, the true p90 leaves its bounds in fewer than 5 % of runs."""
    rng = np.random.default_rng(3)
    true, missed = 90, 0  # uniform over buckets 1 to 100: p90 is at the top of bucket 90
    for _ in range(300):
        counts: dict[int, int] = {}
        out = False
        for batch in rng.integers(1, 101, (40, 20)).tolist():
            for at in batch:
                counts[at] = counts.get(at, 0) + 1
            low, high = quantile_interval(counts, 0.9)
            out |= not low <= lower_bound(true + 1) <= high
        missed += out
    assert missed / 300 <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 300)


def test_bounds_close_in() -> None:
    """With ten thousand requests a p50 is known to a few buckets."""
    low, high = quantile_interval(dict.fromkeys(range(100, 200), 100), 0.5)
    assert lower_bound(145) <= low < lower_bound(150) < high <= lower_bound(155)


def test_few_requests_bound_nothing() -> None:
    """A p99 has no bounds from five requests."""
    assert quantile_interval({50: 5}, 0.99)[1] == math.inf
    assert quantile_interval({}, 0.5) == (0.0, math.inf)
    assert math.isnan(quantile({}, 0.5))


def test_timeouts_are_longer_than_any_time() -> None:
    """When one request in ten times out, p99 and its bounds are infinite."""
    counts = {50: 9000, TIMEOUT: 1000}
    assert quantile(counts, 0.99) == math.inf
    assert quantile_interval(counts, 0.99) == (math.inf, math.inf)
    assert quantile(counts, 0.5) == lower_bound(51)


def test_equal_arms_are_seldom_told_apart() -> None:
    """Looking ten times at two equal arms, p is below 5 % in fewer than 5 % of runs."""
    rng = np.random.default_rng(5)
    found = 0
    for _ in range(200):
        arms = np.zeros((2, BUCKETS), int)
        least = 1.0
        for _look in range(10):
            for arm in arms:
                arm += np.bincount(rng.integers(1, 60, 100), minlength=BUCKETS)
            stable, candidate = ({at: int(c) for at, c in enumerate(arm) if c} for arm in arms)
            least = min(least, p_value(stable, candidate, 0.5))
        found += least <= 0.05
    assert found / 200 <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 200)


def test_a_shifted_quantile_is_found() -> None:
    """Two arms apart by ten buckets of sixty are told apart within a thousand requests each."""
    stable, candidate = dict.fromkeys(range(60), 17), {at + 10: 17 for at in range(60)}
    assert p_value(stable, candidate, 0.5) < 0.001
    assert p_value({}, candidate, 0.5) == 1.0


def test_huge_counts_stay_finite() -> None:
    """A trillion requests overflow nothing."""
    counts = {10: 10**12, 20: 10**12}
    assert math.isfinite(quantile_interval(counts, 0.9)[1])
    assert 0.0 <= p_value(counts, {10: 10**12, 30: 1}, 0.5) <= 1.0


@pytest.mark.parametrize("p", [0.0, 1.0, 99.0])
def test_a_level_outside_is_refused(p: float) -> None:
    """A quantile level that is no fraction says what to give."""
    with pytest.raises(ValueError, match=r"give 0\.99 for p99"):
        quantile({1: 1}, p)
