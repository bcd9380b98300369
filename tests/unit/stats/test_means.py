"""F2 on histograms: margins on the means of bounded outcomes, one arm a request."""

from __future__ import annotations

import doctest
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hotswap.stats import differences, margin, means
from hotswap.stats.margin import MeanCell
from hotswap.stats.means import (
    ValueCell,
    buckets,
    difference_interval,
    promotion_evidence,
    rollback_evidence,
)

FOUND = math.log(20)
COUNT = st.integers(0, 5000)
RHOS = st.sampled_from((0.01, 0.1, 0.5, 0.9))
COUNTS = st.dictionaries(st.integers(0, 500), st.integers(1, 500), max_size=12)
CELLS = st.builds(ValueCell, RHOS, COUNTS, COUNTS)


def test_the_examples_hold() -> None:
    """Every example in the docstrings gives what it says."""
    assert doctest.testmod(means).failed == 0


@given(RHOS, COUNT, COUNT, COUNT, COUNT, st.floats(0, 1), st.floats(-0.9, 0.9))
def test_events_agree_with_the_counted_ones(
    rho: float, c11: int, c10: int, c01: int, c00: int, mean: float, delta: float
) -> None:
    """Of 0 and 1 it is the evidence of `margin`."""
    events = MeanCell(rho, c11, c10, c01, c00)
    values = ValueCell(rho, {0: c10, 500: c11}, {0: c00, 500: c01})
    for ours, theirs in (
        (rollback_evidence, margin.rollback_evidence),
        (promotion_evidence, margin.promotion_evidence),
    ):
        expected = theirs([events], mean, delta)
        assert ours([values], mean, delta) == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_the_interval_agrees_with_the_counted_one() -> None:
    """Of 0 and 1 the bounds are those of `margin`."""
    events = MeanCell(0.5, 400, 9_600, 200, 9_800)
    values = ValueCell(0.5, {0: 9_600, 500: 400}, {0: 9_800, 500: 200})
    expected = margin.difference_interval([events], 0.02)
    assert difference_interval([values], 0.02) == pytest.approx(expected, abs=1e-8)


@given(
    st.lists(st.floats(0, 1), max_size=15),
    st.lists(st.floats(0, 1), max_size=15),
    RHOS,
    st.floats(0, 1),
    st.floats(-0.5, 0.5),
)
def test_buckets_never_add_evidence(
    candidate: list[float], stable: list[float], rho: float, mean: float, delta: float
) -> None:
    """On either side the evidence of the buckets is at most that of the values one by one."""
    worse, better = margin.Sums(), margin.Sums()
    for values, ours in ((candidate, True), (stable, False)):
        for y in values:
            worse = margin.update(worse, y, ours, rho, mean, delta)
            better = margin.update(better, 1.0 - y, ours, rho, 1.0 - mean, -delta)
    cell = ValueCell(rho, buckets(candidate), buckets(stable))
    assert rollback_evidence([cell], mean, delta) <= margin.evidence(worse) + 1e-8
    assert promotion_evidence([cell], mean, delta) <= margin.evidence(better) + 1e-8


@given(st.lists(CELLS, max_size=5), st.floats(0, 1))
def test_order_and_splitting_change_no_bit(stages: list[ValueCell], mean: float) -> None:
    """Stages in any order, arms apart, buckets in any order: the same evidence."""
    parts = [ValueCell(each.rho, {}, dict(reversed(list(each.stable.items())))) for each in stages]
    parts += [ValueCell(each.rho, each.candidate, {}) for each in reversed(stages)]
    assert rollback_evidence(parts, mean, 0.01) == rollback_evidence(stages, mean, 0.01)
    assert promotion_evidence(parts, mean, 0.01) == promotion_evidence(stages, mean, 0.01)


@given(CELLS, st.floats(0, 1), st.floats(-0.9, 0.9), st.floats(0.001, 0.09))
def test_monotone_in_the_margin(cell: ValueCell, mean: float, low: float, more: float) -> None:
    """A wider margin is harder to break and easier to prove."""
    wide = low + more
    assert rollback_evidence([cell], mean, wide) <= rollback_evidence([cell], mean, low) + 1e-6
    assert promotion_evidence([cell], mean, wide) >= promotion_evidence([cell], mean, low) - 1e-6


def _rewards(rng: np.random.Generator, of: int, mean: float) -> dict[int, int]:
    """Skewed ones, most of them 0, at any value between the buckets."""
    values = np.where(rng.random(of) < 2 * mean, rng.random(of), 0.0)
    return buckets(values, rng.random(of))


def _share_found(seed: int, ours: float, stable: float, delta: float, *, promote: bool) -> float:
    """Of 80 rollouts at 30 % with 20 looks, those in which it is found."""
    rng = np.random.default_rng(seed)
    found, test = 0, promotion_evidence if promote else rollback_evidence
    for _ in range(80):
        candidate: dict[int, int] = {}
        baseline: dict[int, int] = {}
        for _ in range(20):
            candidate = differences.merge(candidate, _rewards(rng, rng.binomial(200, 0.3), ours))
            baseline = differences.merge(baseline, _rewards(rng, rng.binomial(200, 0.7), stable))
            cell = ValueCell(0.3, candidate, baseline)
            if test([cell], 0.2, delta) >= FOUND:
                found += 1
                break
    return found / 80


def test_at_the_margin_either_verdict_is_seldom_false() -> None:
    """Equal arms, and arms exactly at the margin, with a frozen mean that is twice the true one."""
    limit = 0.05 + 3 * math.sqrt(0.05 * 0.95 / 80)
    assert _share_found(1, 0.1, 0.1, 0.0, promote=False) <= limit
    assert _share_found(2, 0.12, 0.1, 0.02, promote=False) <= limit
    assert _share_found(3, 0.12, 0.1, 0.02, promote=True) <= limit


def test_a_worse_candidate_is_found() -> None:
    """A mean half as large again is nearly always found in 4,000 requests."""
    assert _share_found(4, 0.15, 0.1, 0.0, promote=False) > 0.9


def test_nothing_known() -> None:
    """Without rows or without a coin there is no evidence, and every difference is possible."""
    for nothing in ([], [ValueCell(0.5, {}, {})], [ValueCell(1.0, {5: 9}, {})]):
        assert rollback_evidence(nothing, 0.1) == promotion_evidence(nothing, 0.1, 0.05) == 0.0
        assert difference_interval(nothing, 0.1) == (-1.0, 1.0)


@pytest.mark.parametrize("mean", [0.0, 1e-6, 0.5, 1.0])
@pytest.mark.parametrize("rho", [1e-4, 0.5, 0.9999])
def test_extreme_counts_stay_finite(rho: float, mean: float) -> None:
    """A billion rows overflow nothing."""
    for cell in (
        ValueCell(rho, {500: 10**9}, {0: 10**9}),
        ValueCell(rho, {0: 10**9, 251: 10**9}, {500: 10**9, 1: 10**9}),
    ):
        low, high = difference_interval([cell], mean)
        assert math.isfinite(rollback_evidence([cell], mean, 0.005))
        assert math.isfinite(promotion_evidence([cell], mean, 0.005))
        assert -1.0 <= low <= high <= 1.0


def test_impossible_values_are_refused() -> None:
    """A sentence that says what is wrong."""
    for cell in (ValueCell(0.5, {-1: 1}, {}), ValueCell(0.5, {}, {501: 1})):
        with pytest.raises(ValueError, match="buckets from 0"):
            rollback_evidence([cell], 0.1)
    with pytest.raises(ValueError, match="never negative"):
        rollback_evidence([ValueCell(0.5, {3: -1}, {})], 0.1)
    with pytest.raises(ValueError, match="probability lies"):
        rollback_evidence([ValueCell(1.5, {}, {})], 0.1)
    for mean, delta in ((1.5, 0.0), (math.nan, 0.0), (0.5, 1.0), (0.5, math.nan)):
        with pytest.raises(ValueError, match="the mean lies in"):
            promotion_evidence([], mean, delta)
    with pytest.raises(ValueError, match="between 0 and 1, not at -0"):
        buckets([-0.5])
    with pytest.raises(ValueError, match="error probability"):
        difference_interval([], 0.5, 1.0)
