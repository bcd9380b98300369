"""Latency buckets: consistent bounds, a bounded error, exact sums."""

from __future__ import annotations

import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hotswap.core.histogram import BUCKETS, bucket, quantile, upper_bound

#: From the first bucket that has a lower bound to the last that has an upper one.
IN_RANGE = st.integers(1 << 14, (1 << 36) - 1)


@given(st.integers(0, 1 << 62))
def test_a_time_lies_below_its_buckets_bound_and_not_below_the_one_before(ns: int) -> None:
    """`bucket` and `upper_bound` agree on where every time belongs."""
    index = bucket(ns)
    assert 0 <= index < BUCKETS
    assert ns < upper_bound(index)
    if index:
        assert ns >= upper_bound(index - 1)


def test_bounds_grow() -> None:
    """Upper bounds are strictly increasing over all buckets."""
    bounds = [upper_bound(index) for index in range(BUCKETS)]
    assert bounds == sorted(set(bounds))


@given(IN_RANGE)
def test_a_bucket_is_at_most_an_eighth_wide(ns: int) -> None:
    """The upper bound is at most 12.5 % above any time in its bucket."""
    assert upper_bound(bucket(ns)) <= ns * 1.125


def _counts(times: list[int]) -> Counter[int]:
    return Counter(upper_bound(bucket(ns)) for ns in times)


@given(st.lists(IN_RANGE, min_size=1, max_size=200), st.floats(0.01, 1.0))
def test_a_quantile_is_at_most_an_eighth_too_high(times: list[int], q: float) -> None:
    """The estimate is never below the true quantile, and at most 12.5 % above it."""
    true = sorted(times)[max(0, math.ceil(q * len(times)) - 1)]
    estimate = quantile(_counts(times), q)
    assert estimate is not None
    assert true < estimate <= true * 1.125


@given(st.lists(IN_RANGE), st.lists(IN_RANGE))
def test_merging_is_adding(left: list[int], right: list[int]) -> None:
    """Counts of two workers added are the counts of all their times."""
    assert _counts(left) + _counts(right) == _counts(left + right)


@pytest.mark.parametrize("q", [0.0, 0.5, 1.0])
def test_nothing_has_no_quantile(q: float) -> None:
    """An empty histogram gives None rather than zero."""
    assert quantile({}, q) is None
