"""F1: rate ratios from two integers a stage."""

from __future__ import annotations

import doctest
import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hotswap.stats import rate
from hotswap.stats.power import boundary, requests_to_prove
from hotswap.stats.rate import RateCell, p_value, promotion_evidence, ratio_interval
from hotswap.stats.rate import rollback_evidence as rollback

RHOS = (0.01, 0.05, 0.1, 0.25, 0.5)


@st.composite
def cells(draw: st.DrawFn, most: int = 10_000) -> RateCell:
    """One stage of a ramp."""
    events = draw(st.integers(0, most))
    return RateCell(draw(st.sampled_from(RHOS)), events, draw(st.integers(0, events)))


def test_examples() -> None:
    """The examples of the documentation run."""
    assert doctest.testmod(rate).attempted > 0
    assert doctest.testmod(rate).failed == 0


@pytest.mark.parametrize(
    ("candidate", "events", "rho", "expected"),
    [(2, 2, 0.01, 5.988227), (5, 10, 0.1, 3.806781), (60, 100, 0.5, 0.65255)],
)
def test_golden(candidate: int, events: int, rho: float, expected: float) -> None:
    """The reference values of the formula."""
    assert rollback([RateCell(rho, events, candidate)]) == pytest.approx(expected, abs=1e-5)


def test_promotion_is_the_mixture_over_its_ratios() -> None:
    """Written out as binomial likelihoods, independently of how it is computed."""
    events, candidate, rho, margin = 200, 95, 0.5, 1.5

    def likelihood(ratio: float) -> float:
        theta = rho * ratio / (rho * ratio + 1 - rho)
        return candidate * math.log(theta) + (events - candidate) * math.log(1 - theta)

    expected = sum(math.exp(likelihood(r) - likelihood(margin)) for r in (1, 0.9, 0.8, 0.6)) / 4
    found = promotion_evidence([RateCell(rho, events, candidate)], margin)
    assert found == pytest.approx(math.log(expected), abs=1e-9)


@given(st.lists(cells(), max_size=8), st.randoms(use_true_random=False))
def test_merging_is_exact(stages: list[RateCell], order: random.Random) -> None:
    """Cells split over workers, in any order, give the same evidence to the last bit."""
    parts = []
    for rho, events, candidate in stages:
        half = candidate // 2
        parts += [RateCell(rho, half, half), RateCell(rho, events - half, candidate - half)]
    order.shuffle(parts)
    assert rollback(parts, 1.1) == rollback(stages, 1.1)
    assert promotion_evidence(parts, 1.5) == promotion_evidence(stages, 1.5)


@given(st.lists(cells(), min_size=1, max_size=5), st.floats(0.2, 5), st.floats(1.001, 3))
def test_monotone_in_the_ratio(stages: list[RateCell], ratio: float, factor: float) -> None:
    """A wider margin is harder to break."""
    assert rollback(stages, ratio * factor) <= rollback(stages, ratio) + 1e-6


@given(cells(), st.sampled_from((1.0, 1.5)))
def test_monotone_in_the_counts(cell: RateCell, ratio: float) -> None:
    """An event more on the candidate speaks for rollback, one on stable for promotion."""
    rho, events, candidate = cell
    worse, better = RateCell(rho, events + 1, candidate + 1), RateCell(rho, events + 1, candidate)
    assert rollback([worse], ratio) > rollback([cell], ratio) > rollback([better], ratio)
    assert promotion_evidence([worse], ratio) < promotion_evidence([better], ratio)


def test_nothing_known() -> None:
    """Without events or without a coin the evidence is 1 and every ratio is possible."""
    for nothing in ([], [RateCell(0.1, 0, 0)], [RateCell(0.0, 9, 0), RateCell(1.0, 9, 9)]):
        assert rollback(nothing) == 0.0
        assert promotion_evidence(nothing, 1.5) == 0.0
        assert ratio_interval(nothing) == (0.0, math.inf)


@pytest.mark.parametrize("candidate", [0, 1, 5 * 10**8, 10**9])
@pytest.mark.parametrize("rho", [1e-6, 0.1, 0.5, 1 - 1e-6])
def test_extreme_counts_stay_finite(candidate: int, rho: float) -> None:
    """A billion events overflow nothing."""
    stages = [RateCell(rho, 10**9, candidate)]
    low, high = ratio_interval(stages)
    assert math.isfinite(rollback(stages))
    assert math.isfinite(promotion_evidence(stages, 1.5))
    assert 0.0 <= low < high


@pytest.mark.parametrize(
    "bad",
    [RateCell(0.1, 1, 2), RateCell(0.1, -1, -1), RateCell(1.1, 1, 1), RateCell(math.nan, 1, 1)],
)
def test_impossible_stages_are_refused(bad: RateCell) -> None:
    """Counts and probabilities that cannot be are an error, not evidence."""
    with pytest.raises(ValueError, match="a stage has a probability"):
        rollback([bad])
    with pytest.raises(ValueError, match="a stage has a probability"):
        ratio_interval([bad])


def test_impossible_arguments_are_refused() -> None:
    """So are ratios and levels."""
    for ratio in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match="a ratio of rates"):
            rollback([], ratio)
    with pytest.raises(ValueError, match="alpha"):
        ratio_interval([], 1.0)


def test_p_value() -> None:
    """The inverse of the evidence, at most 1; what is not a number proves nothing."""
    assert p_value(math.log(20)) == pytest.approx(0.05)
    assert p_value(-1e9) == p_value(0.0) == p_value(math.nan) == 1.0
    assert p_value(math.inf) == 0.0


@pytest.mark.parametrize("below", [True, False])
@given(stages=st.lists(cells(3000), min_size=1, max_size=3))
def test_the_interval_is_what_is_not_rejected(below: bool, stages: list[RateCell]) -> None:
    """Just outside the ends the tests reject at alpha / 2, just inside they do not."""
    low, high = ratio_interval(stages)
    assert low < high
    if below and low > 1e-9:
        assert rollback(stages, low * 0.999) >= math.log(40) - 1e-6 > rollback(stages, low * 1.001)
    if not below and high < 1e9:
        totals = [cell for cell in stages if cell.events]
        for ratio, rejected in ((high * 1.001, True), (high * 0.999, False)):
            found = rate.odds_evidence(totals, ratio, rate._interval_factors(ratio))
            assert (found >= math.log(40)) == rejected


def test_the_interval_covers_the_truth_at_all_times() -> None:
    """300 watched runs at a ratio of 2, looked at ten times each: at most 5 % ever miss it."""
    rng = np.random.default_rng(7)
    missed = 0
    for _ in range(300):
        candidate = np.cumsum(rng.binomial(40, 2 / 3, 10))
        intervals = [
            ratio_interval([RateCell(0.5, 40 * (at + 1), int(k))]) for at, k in enumerate(candidate)
        ]
        missed += any(not low <= 2.0 <= high for low, high in intervals)
    assert missed <= 15


def test_false_rollbacks_stay_below_alpha() -> None:
    """2,000 A/A runs ramped 1, 10, 50 %, watched each 20 events: at most 5 % + 3 errors."""
    rng = np.random.default_rng(11)
    runs, looks = 2000, 20
    wealth = np.zeros((runs, len(rate.GRID)))
    grid = np.array(rate.GRID)
    worst = np.full(runs, -np.inf)
    for rho in (0.01, 0.1, 0.5):
        for _ in range(looks):
            k = rng.binomial(20, rho, runs)[:, None]
            wealth += k * np.log(grid) - 20 * np.log1p((grid - 1) * rho)
            worst = np.maximum(worst, np.logaddexp.reduce(wealth, axis=1) - math.log(grid.size))
    assert (worst >= math.log(20)).mean() <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / runs)
    assert np.exp(wealth[:, :2]).mean() < 1.5  # an e-value's mean is 1


def test_false_promotions_at_the_margin_stay_below_alpha() -> None:
    """2,000 runs exactly at the margin, watched: at most 5 % + 3 standard errors are promoted."""
    rng = np.random.default_rng(13)
    runs, rho, margin = 2000, 0.5, 1.5
    theta = rho * margin / (rho * margin + 1 - rho)
    count, fired = np.zeros(runs, dtype=int), np.zeros(runs, dtype=bool)
    for events in range(10, 601, 10):
        count += rng.binomial(10, theta, runs)
        table = np.array(
            [promotion_evidence([RateCell(rho, events, k)], margin) for k in range(events + 1)]
        )
        fired |= table[count] >= math.log(20)
    assert 0 < fired.mean() <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / runs)


def test_a_better_candidate_is_promoted_at_about_the_expected_count() -> None:
    """Equal arms at 50 % prove a ratio below 1.5 after the forecast number of events (15 %)."""
    rng = np.random.default_rng(17)
    most = 1500
    fewest = [  # the largest count that promotes after so many events, -1 if none does
        max(
            (
                k
                for k in range(max(0, n // 2 - 60), n // 2 + 60)
                if k <= n and promotion_evidence([RateCell(0.5, n, k)], 1.5) >= math.log(20)
            ),
            default=-1,
        )
        for n in range(1, most + 1)
    ]
    paths = np.cumsum(rng.random((1000, most)) < 0.5, axis=1)
    fired = paths <= np.array(fewest)
    assert fired.any(axis=1).all()
    mean = float((fired.argmax(axis=1) + 1).mean())
    assert mean == pytest.approx(requests_to_prove(0.5, 1.0, 1.5), rel=0.15)


def test_a_broken_candidate_needs_two_errors() -> None:
    """At 1 % the second error of the candidate decides when stable had none."""
    assert boundary(2, 0.01)[2] == 2
