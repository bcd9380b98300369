"""Evidence from requests that both versions answered, and of a rate against a limit."""

from __future__ import annotations

import doctest
import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hotswap.stats import pairs as module
from hotswap.stats.pairs import (
    Pairs,
    PairSums,
    add,
    difference_interval,
    evidence,
    limit_evidence,
    limit_promotion_evidence,
    mcnemar_evidence,
    merge,
    promotion_evidence,
    rate_interval,
)

FOUND = math.log(20)
COUNTS = st.integers(0, 10_000)
PAIRS = st.builds(Pairs, COUNTS, COUNTS, COUNTS)
MARGINS = st.floats(-0.9, 0.9)


def test_the_examples_hold() -> None:
    """Every example in the docstrings gives what it says."""
    assert doctest.testmod(module).failed == 0


@pytest.mark.parametrize(("worse", "n", "golden"), [(60, 100, 1.441783), (30, 40, 3.588749)])
def test_the_golden_mcnemar_values(worse: int, n: int, golden: float) -> None:
    """The mixture over the discordant pairs has its known values."""
    assert mcnemar_evidence(Pairs(worse, n - worse, 5)) == pytest.approx(golden, abs=1e-5)


@given(st.integers(0, 300), st.integers(0, 300))
def test_mcnemar_is_the_mixture_it_says(worse: int, better: int) -> None:
    """It is the average likelihood ratio over a Beta(10, 10) cut at a half, summed on a grid."""
    theta = 0.5 + (np.arange(20_000) + 0.5) / 40_000
    log_prior = 9 * (np.log(theta) + np.log1p(-theta))
    log_ratio = worse * np.log(2 * theta) + better * np.log(2 - 2 * theta) + log_prior
    top = log_ratio.max()
    direct = top + math.log(np.exp(log_ratio - top).sum() / np.exp(log_prior).sum())
    assert mcnemar_evidence(Pairs(worse, better, 0)) == pytest.approx(direct, abs=2e-3)


@given(PAIRS, MARGINS)
def test_a_wider_margin_is_harder_to_break_and_easier_to_keep(pairs: Pairs, margin: float) -> None:
    """Rollback evidence falls with the margin, promotion evidence rises."""
    assert evidence(pairs, margin + 0.1) <= evidence(pairs, margin) + 1e-9
    assert promotion_evidence(pairs, margin + 0.1) >= promotion_evidence(pairs, margin) - 1e-9


@given(PAIRS)
def test_the_interval_holds_the_estimate(pairs: Pairs) -> None:
    """The observed difference is between its bounds, and outside them each side has evidence."""
    estimate, low, high = difference_interval(pairs)
    assert -1 <= low <= estimate <= high <= 1
    if low > -1:
        assert evidence(pairs, low) >= math.log(40) - 1e-6
    if high < 1:
        assert promotion_evidence(pairs, high) >= math.log(40) - 1e-6


@given(st.lists(st.floats(-1, 1), max_size=20))
def test_sums_do_not_depend_on_the_order(differences: list[float]) -> None:
    """However the differences are split and merged, the state is the same to the last bit."""
    whole = PairSums(0.05)
    for d in differences:
        whole = add(whole, d)
    parts = [PairSums(0.05), PairSums(0.05)]
    for at, d in enumerate(reversed(differences)):
        parts[at % 2] = add(parts[at % 2], d)
    assert merge(*parts) == whole == merge(*reversed(parts))


@given(st.integers(0, 50), st.integers(0, 50), st.integers(0, 50))
def test_sums_and_counts_agree(worse: int, better: int, ties: int) -> None:
    """Differences of -1, 0 and 1 give the same evidence summed or counted."""
    sums = PairSums(0.02)
    for d in [1.0] * worse + [-1.0] * better + [0.0] * ties:
        sums = add(sums, d)
    counted = Pairs(worse, better, ties)
    assert evidence(sums) == pytest.approx(evidence(counted, 0.02), abs=1e-8)
    assert promotion_evidence(sums) == pytest.approx(promotion_evidence(counted, 0.02), abs=1e-8)


def _first(
    rng: np.random.Generator, chances: list[float], found: Callable[[Pairs], bool], looks: int
) -> int | None:
    """How many pairs (looked at by twenties) until it is found."""
    steps: npt.NDArray[np.int64] = rng.multinomial(20, chances, looks).cumsum(axis=0)
    for row in steps.tolist():
        if found(Pairs(*row)):
            return sum(map(int, row))
    return None


def test_a_point_of_accuracy_is_found_soon() -> None:
    """One point lost with 5 % disagreement takes about 4,000 labels, not 30,000."""
    rng = np.random.default_rng(1)
    chances = [0.03, 0.02, 0.95]
    tests: list[Callable[[Pairs], bool]] = [
        lambda pairs: mcnemar_evidence(pairs) >= FOUND,
        lambda pairs: evidence(pairs) >= FOUND,
    ]
    for found in tests:
        delays = [_first(rng, chances, found, 1500) for _ in range(60)]
        assert None not in delays
        assert 2000 < float(np.mean([d for d in delays if d])) < 5500


def test_equal_versions_are_seldom_flagged() -> None:
    """Looked at a hundred times, equal versions and ones at the margin are flagged in under 5 %."""
    rng = np.random.default_rng(2)
    limit = 0.05 + 3 * math.sqrt(0.05 * 0.95 / 400)
    for chances, found in (
        ([0.1, 0.1, 0.8], lambda pairs: mcnemar_evidence(pairs) >= FOUND),
        ([0.11, 0.1, 0.79], lambda pairs: evidence(pairs, 0.01) >= FOUND),
        ([0.11, 0.1, 0.79], lambda pairs: promotion_evidence(pairs, 0.01) >= FOUND),
    ):
        flagged = sum(_first(rng, chances, found, 100) is not None for _ in range(400))
        assert flagged / 400 <= limit


def test_less_than_a_point_lost_is_proved() -> None:
    """Equal versions with 4 % disagreement prove it within about 3,400 labels."""
    rng = np.random.default_rng(3)
    delays = [
        _first(rng, [0.02, 0.02, 0.96], lambda p: promotion_evidence(p, 0.01) >= FOUND, 1500)
        for _ in range(60)
    ]
    assert float(np.mean([d for d in delays if d])) == pytest.approx(3355, rel=0.3)


def test_a_rate_over_its_limit_is_found() -> None:
    """Double the limit is found, the limit itself is not, and half the limit proves its promise."""
    assert limit_evidence(200, 2000, 0.05) > FOUND
    assert limit_evidence(100, 2000, 0.05) < 0
    assert limit_promotion_evidence(50, 2000, 0.05) > FOUND
    assert limit_promotion_evidence(100, 2000, 0.05) < 0


def test_a_rate_at_its_limit_is_seldom_flagged() -> None:
    """Looked at a hundred times, a rate at its limit is flagged on either side in under 5 %."""
    rng = np.random.default_rng(4)
    counts = rng.binomial(20, 0.1, (1000, 100)).cumsum(axis=1).tolist()
    for test in (limit_evidence, limit_promotion_evidence):
        flagged = sum(
            any(test(k, 20 * (at + 1), 0.1) >= FOUND for at, k in enumerate(run)) for run in counts
        )
        assert flagged / 1000 <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 1000)


def test_limits_at_the_ends() -> None:
    """No rate is over 1, none is surely under 0, and two events break a limit of none."""
    assert limit_evidence(10, 10, 1.0) == 0.0
    assert limit_promotion_evidence(0, 10**9, 0.0) == 0.0
    assert FOUND < limit_evidence(2, 1000, 0.0) < math.inf


@given(st.integers(0, 1000), st.integers(0, 1000))
def test_the_rate_is_inside_its_bounds(events: int, others: int) -> None:
    """The observed rate is between its bounds, which more certainty widens."""
    low, high = rate_interval(events, events + others)
    assert 0 <= low <= high <= 1
    if events + others:
        assert low <= events / (events + others) <= high
    wider = rate_interval(events, events + others, 0.001)
    assert wider[0] <= low
    assert high <= wider[1]


def test_rate_bounds_hold_at_all_times() -> None:
    """Looked at two hundred times, the true rate is outside in under 5 % of runs."""
    rng = np.random.default_rng(5)
    counts = rng.binomial(10, 0.2, (300, 100)).cumsum(axis=1).tolist()
    missed = 0
    for run in counts:
        bounds = [rate_interval(k, 10 * (at + 1)) for at, k in enumerate(run)]
        missed += any(not low <= 0.2 <= high for low, high in bounds)
    assert missed / 300 <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 300)


def test_no_data_is_no_evidence() -> None:
    """Before the first pair or request, every evidence is exactly 0."""
    none = Pairs(0, 0, 0)
    assert mcnemar_evidence(none) == mcnemar_evidence(Pairs(0, 0, 7)) == 0.0
    assert evidence(none, 0.1) == promotion_evidence(none, 0.1) == evidence(PairSums(0.1)) == 0.0
    assert limit_evidence(0, 0, 0.1) == limit_promotion_evidence(0, 0, 0.1) == 0.0
    assert difference_interval(none) == (0.0, -1.0, 1.0)
    assert rate_interval(0, 0) == (0.0, 1.0)


def test_huge_counts_stay_finite() -> None:
    """A trillion of anything overflows nothing."""
    huge = 10**12
    for pairs in (Pairs(huge, 0, 0), Pairs(0, huge, 0), Pairs(huge, huge, huge)):
        assert math.isfinite(mcnemar_evidence(pairs))
        assert math.isfinite(evidence(pairs, 0.01))
        assert math.isfinite(promotion_evidence(pairs, 0.01))
        assert all(map(math.isfinite, difference_interval(pairs)))
    assert math.isfinite(limit_evidence(huge, huge, 0.0))
    assert math.isfinite(limit_promotion_evidence(0, huge, 1.0))
    assert all(map(math.isfinite, rate_interval(1, huge)))


def test_bad_numbers_are_refused() -> None:
    """Differences out of range, unequal margins and impossible counts are errors that say so."""
    with pytest.raises(ValueError, match="scale it"):
        add(PairSums(0.0), 1.5)
    with pytest.raises(ValueError, match="scale it"):
        add(PairSums(0.0), math.nan)
    with pytest.raises(ValueError, match="do not add"):
        merge(PairSums(0.0), PairSums(0.1))
    with pytest.raises(ValueError, match="never negative"):
        evidence(Pairs(-1, 0, 0))
    with pytest.raises(ValueError, match="not a rate"):
        limit_evidence(3, 2, 0.1)
    with pytest.raises(ValueError, match="between 0 and 1"):
        limit_evidence(1, 2, 1.5)
