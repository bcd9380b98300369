"""F6 on histograms: paired differences of any size, counted in buckets that invent no evidence."""

from __future__ import annotations

import doctest
import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hotswap.stats import differences, pairs
from hotswap.stats.differences import (
    BETS,
    bucket,
    buckets,
    interval,
    mean,
    merge,
    promotion_evidence,
    rollback_evidence,
)
from hotswap.stats.mixture import log_mean
from hotswap.stats.pairs import Pairs

FOUND = math.log(20)
VALUES = st.floats(-1, 1)
COUNTS = st.dictionaries(st.integers(-500, 500), st.integers(1, 5000), max_size=30)
MARGINS = st.floats(-0.9, 0.8)


def test_the_examples_hold() -> None:
    """Every example in the docstrings gives what it says."""
    assert doctest.testmod(differences).failed == 0


def test_golden_values() -> None:
    """Written out: the mean over the stakes of the product of every row's factor."""
    values = [0.3, -0.2, 0.1, 1.0, 0.0, -1.0]
    counts = buckets(values)
    for margin in (0.0, 0.05, -0.1):
        rollback = log_mean(
            math.fsum(math.log1p(bet * (d - margin)) for d in values) for bet in BETS
        )
        promotion = log_mean(
            math.fsum(math.log1p(-bet * (d - margin)) for d in values) for bet in BETS
        )
        assert rollback_evidence(counts, margin) == pytest.approx(rollback, abs=1e-9)
        assert promotion_evidence(counts, margin) == pytest.approx(promotion, abs=1e-9)
    assert rollback_evidence({-500: 20, 0: 950, 500: 30}) == pytest.approx(0.348504, abs=1e-5)


@given(st.integers(0, 5000), st.integers(0, 5000), st.integers(0, 50_000), MARGINS)
def test_verdicts_agree_with_pairs(worse: int, better: int, ties: int, margin: float) -> None:
    """Of -1, 0 and 1 it is the evidence of counted pairs, but for the stake that those lack."""
    counts = {-500: better, 0: ties, 500: worse}
    counted = Pairs(worse, better, ties)
    least = math.log(5 / 6) - 1e-6 * (1 + sum(counted) / 1e4)
    assert rollback_evidence(counts, margin) >= pairs.evidence(counted, margin) + least
    assert promotion_evidence(counts, -margin) >= (
        pairs.promotion_evidence(counted, -margin) + least
    )


def test_verdicts_agree_with_pairs_to_the_digit(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the same stakes both are the same number."""
    monkeypatch.setattr(differences, "BETS", BETS[:-1])
    counts, counted = {-500: 150, 0: 9000, 500: 210}, Pairs(210, 150, 9000)
    for margin in (-0.02, 0.0, 0.01):
        assert rollback_evidence(counts, margin) == pytest.approx(pairs.evidence(counted, margin))
        assert promotion_evidence(counts, margin) == pytest.approx(
            pairs.promotion_evidence(counted, margin)
        )


@given(VALUES)
def test_a_bucket_holds_its_value(d: float) -> None:
    """An even bucket is its value, an odd one's ends enclose it, and the sign only mirrors."""
    at = bucket(d)
    if at % 2:
        assert (at - 1) / 500 < d < (at + 1) / 500
    else:
        assert at / 500 == pytest.approx(d, abs=1e-11)
    assert bucket(-d) == -at
    assert buckets([d, d]) == {at: 2}


@given(VALUES, st.floats(0, 1, exclude_max=True))
def test_a_chance_moves_to_a_neighbour_without_bias(d: float, chance: float) -> None:
    """It only ever gives one of the exact buckets around a value, and their mean is the value."""
    at = bucket(d, chance)
    assert at % 2 == 0
    assert abs(at / 500 - d) <= 1 / 250 + 1e-11
    even = (np.arange(4000) + 0.5) / 4000
    drawn = mean(buckets(np.full(4000, d), even))
    assert drawn == pytest.approx(d, abs=1e-6)


@given(st.lists(VALUES, min_size=1, max_size=40), MARGINS)
def test_buckets_never_add_evidence(values: list[float], margin: float) -> None:
    """On either side the evidence of the buckets is at most that of the values themselves."""
    counts, d = buckets(values), np.array(values)
    for side, counted in ((1, rollback_evidence), (-1, promotion_evidence)):
        own = side * margin
        exact = log_mean(
            float(np.log1p(min(bet, 0.95 / (1 + own)) * (side * d - own)).sum()) for bet in BETS
        )
        assert counted(counts, margin) <= exact + 1e-12
        assert counted(counts, margin) >= exact - 0.02 * len(values)


@given(st.lists(COUNTS, max_size=4), MARGINS)
def test_order_and_splitting_change_no_bit(parts: list[dict[int, int]], margin: float) -> None:
    """However the rows were divided, one histogram and one evidence come out."""
    whole, turned = merge(*parts), merge(*reversed(parts))
    backwards = dict(reversed(whole.items()))
    assert whole == turned
    assert rollback_evidence(whole, margin) == rollback_evidence(backwards, margin)
    assert promotion_evidence(whole, margin) == promotion_evidence(backwards, margin)
    assert mean(whole) == pytest.approx(mean(backwards))


@given(st.lists(VALUES, max_size=30), st.integers(1, 7))
def test_batches_change_nothing(values: list[float], size: int) -> None:
    """Counted at once or in batches: the same rows in the same buckets."""
    batches = [buckets(values[at : at + size]) for at in range(0, len(values), size)]
    assert merge(*batches) == buckets(values)


@given(COUNTS, MARGINS, st.floats(0, 0.2))
def test_a_wider_margin_is_harder_to_break_and_easier_to_keep(
    counts: dict[int, int], margin: float, more: float
) -> None:
    """Rollback evidence falls with the margin, promotion evidence rises."""
    assert rollback_evidence(counts, margin + more) <= rollback_evidence(counts, margin) + 1e-6
    assert promotion_evidence(counts, margin + more) >= promotion_evidence(counts, margin) - 1e-6


@given(COUNTS, MARGINS)
def test_the_sides_mirror(counts: dict[int, int], margin: float) -> None:
    """With the versions swapped, what spoke for rollback speaks for promotion."""
    mirrored = {-at: n for at, n in counts.items()}
    assert rollback_evidence(counts, margin) == pytest.approx(
        promotion_evidence(mirrored, -margin), rel=1e-9, abs=1e-9
    )


@given(COUNTS)
def test_the_interval_holds_the_mean(counts: dict[int, int]) -> None:
    """The observed mean is between its bounds, and at them a side has its evidence."""
    low, high = interval(counts)
    assert -1 <= low <= mean(counts) <= high <= 1
    if low > -1:
        assert rollback_evidence(counts, low) >= math.log(40) - 1e-6
    if high < 1:
        assert promotion_evidence(counts, high) >= math.log(40) - 1e-6


Found = Callable[[dict[int, int]], bool]


def _first(
    rng: np.random.Generator, places: list[int], chances: list[float], found: Found, looks: int
) -> int | None:
    """Rows (looked at by twenties) until it is found."""
    steps: npt.NDArray[np.int64] = rng.multinomial(20, chances, looks).cumsum(axis=0)
    for row in steps.tolist():
        if found(dict(zip(places, row, strict=True))):
            return int(sum(row))
    return None


def test_at_the_margin_either_verdict_is_seldom_false() -> None:
    """Looked at a hundred times with the mean exactly at the margin: each is found in under 5 %."""
    rng = np.random.default_rng(2)
    limit = 0.05 + 3 * math.sqrt(0.05 * 0.95 / 150)
    skewed = [-20, 0, 400]
    chances = [0.25, 0.7375, 0.0125]  # a mean of 0: many small gains, few great losses
    cases: list[tuple[list[int], list[float], Found]] = [
        ([-500, 0, 500], [0.1, 0.79, 0.11], lambda c: rollback_evidence(c, 0.01) >= FOUND),
        ([-500, 0, 500], [0.1, 0.79, 0.11], lambda c: promotion_evidence(c, 0.01) >= FOUND),
        (skewed, chances, lambda c: rollback_evidence(c) >= FOUND),
        (skewed, chances, lambda c: promotion_evidence(c, 0.0) >= FOUND),
    ]
    for places, shares, found in cases:
        flagged = sum(_first(rng, places, shares, found, 100) is not None for _ in range(150))
        assert flagged / 150 <= limit


def test_a_tiny_difference_between_buckets_is_no_evidence() -> None:
    """Values that a plain rounding would move over the margin never make a million rows speak."""
    within = buckets(np.full(10**6, 0.0099))
    assert rollback_evidence(within, 0.01) < 0
    assert promotion_evidence(buckets(np.full(10**6, 0.0101)), 0.01) < 0
    chance = np.random.default_rng(5).random(10**6)
    assert rollback_evidence(buckets(np.full(10**6, 0.0099), chance), 0.01) < FOUND
    assert promotion_evidence(buckets(np.full(10**6, 0.0099), chance), 0.01) > FOUND


def test_a_point_of_accuracy_is_found_soon() -> None:
    """One point lost with 5 % disagreement: McNemar's test within 4,200 labels, this soon after."""
    rng = np.random.default_rng(1)
    chances, places = [0.02, 0.95, 0.03], [-500, 0, 500]

    def mcnemar(counts: dict[int, int]) -> bool:
        return pairs.mcnemar_evidence(Pairs(counts[500], counts[-500], 0)) >= FOUND

    for found, most in ((mcnemar, 4200), (lambda c: rollback_evidence(c) >= FOUND, 5000)):
        delays = [_first(rng, places, chances, found, 1500) for _ in range(80)]
        assert None not in delays
        assert 2000 < float(np.mean([d for d in delays if d])) < most


def test_nothing_known() -> None:
    """Without rows there is no evidence, and every difference is possible."""
    for nothing in ({}, {0: 0, 3: 0}):
        assert rollback_evidence(nothing, 0.1) == promotion_evidence(nothing, 0.1) == 0.0
        assert interval(nothing) == (-1.0, 1.0)
        assert mean(nothing) == 0.0
    assert merge() == {} == buckets([])


def test_huge_counts_stay_finite() -> None:
    """A trillion rows in every bucket overflow nothing, at any margin."""
    everywhere = dict.fromkeys(range(-500, 501), 10**12)
    for counts in ({500: 10**12}, {-500: 10**12}, everywhere):
        for margin in (-1.0, 0.0, 0.01, 1.0):
            assert math.isfinite(rollback_evidence(counts, margin))
            assert math.isfinite(promotion_evidence(counts, margin))
        assert all(map(math.isfinite, interval(counts)))


def test_impossible_values_are_refused() -> None:
    """Differences out of range, counts below 0, chances of 1 and margins beyond 1 are errors."""
    for d in (1.5, -1.0000001, math.nan, math.inf):
        with pytest.raises(ValueError, match="scale it"):
            bucket(d)
    with pytest.raises(ValueError, match="between 0 and 1, not at -0"):
        buckets([0.5, -0.5], low=0.0)
    for chance in ([1.0], [math.nan], [0.5, 0.5]):
        with pytest.raises(ValueError, match="one chance"):
            buckets([0.5], chance)
    for counts in ({0: -1}, {501: 1}, {-501: 1}):
        with pytest.raises(ValueError, match="never negative"):
            rollback_evidence(counts)
    with pytest.raises(ValueError, match="margin of losses"):
        promotion_evidence({}, 1.5)
    with pytest.raises(ValueError, match="error probability"):
        interval({}, 0.0)
