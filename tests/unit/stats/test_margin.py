"""F2: additive margins on means of bounded outcomes."""

from __future__ import annotations

import doctest
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hotswap.stats import margin
from hotswap.stats.margin import (
    MeanCell,
    Sums,
    difference_interval,
    promotion_evidence,
    rollback_evidence,
    update,
)

GOLDEN = MeanCell(0.1, 20, 980, 90, 8910)
COUNT = st.integers(0, 5000)
CELLS = st.builds(MeanCell, st.sampled_from((0.01, 0.1, 0.5, 0.9)), COUNT, COUNT, COUNT, COUNT)


def test_examples() -> None:
    """The examples of the documentation run."""
    assert doctest.testmod(margin).attempted > 0
    assert doctest.testmod(margin).failed == 0


def test_golden() -> None:
    """The reference value of the formula."""
    assert rollback_evidence([GOLDEN], 0.01) == pytest.approx(2.023086, abs=1e-5)


def test_the_sums_of_single_outcomes_are_the_counters() -> None:
    """Request by request or by counters: the same evidence, in both directions."""
    cell = MeanCell(0.3, 7, 20, 9, 50)
    worse, better = Sums(), Sums()
    for count, value, candidate in (
        (cell.c11, 1.0, True),
        (cell.c10, 0.0, True),
        (cell.c01, 1.0, False),
        (cell.c00, 0.0, False),
    ):
        for _ in range(count):
            worse = update(worse, value, candidate, 0.3, 0.2, 0.05)
            better = update(better, 1.0 - value, candidate, 0.3, 0.8, -0.05)
    assert margin.evidence(worse) == pytest.approx(rollback_evidence([cell], 0.2, 0.05))
    assert margin.evidence(better) == pytest.approx(promotion_evidence([cell], 0.2, 0.05))


@given(st.lists(CELLS, max_size=6))
def test_merging_is_exact(stages: list[MeanCell]) -> None:
    """Order and splitting of the cells change no bit."""
    parts = [cell._replace(c00=0) for cell in stages]
    parts += [MeanCell(cell.rho, 0, 0, 0, cell.c00) for cell in reversed(stages)]
    assert rollback_evidence(parts, 0.1, 0.01) == rollback_evidence(stages, 0.1, 0.01)
    assert promotion_evidence(parts, 0.1, 0.01) == promotion_evidence(stages, 0.1, 0.01)


@given(CELLS, st.floats(0, 1), st.floats(-0.9, 0.9), st.floats(0.001, 0.09))
def test_monotone_in_the_margin(cell: MeanCell, mean: float, low: float, more: float) -> None:
    """A wider margin is harder to break and easier to prove."""
    assert (
        rollback_evidence([cell], mean, low + more) <= rollback_evidence([cell], mean, low) + 1e-6
    )
    assert (
        promotion_evidence([cell], mean, low + more) >= promotion_evidence([cell], mean, low) - 1e-6
    )


@given(CELLS, st.floats(0, 1))
def test_monotone_in_the_counts(cell: MeanCell, mean: float) -> None:
    """An event on the candidate never speaks less for rollback than none there."""
    bad = rollback_evidence([cell._replace(c11=cell.c11 + 1)], mean)
    assert bad >= rollback_evidence([cell._replace(c10=cell.c10 + 1)], mean)


def test_nothing_known() -> None:
    """Without requests or without a coin the evidence is 1 and every difference is possible."""
    for nothing in ([], [MeanCell(0.5, 0, 0, 0, 0)], [MeanCell(1.0, 5, 5, 0, 0)]):
        assert rollback_evidence(nothing, 0.1) == promotion_evidence(nothing, 0.1, 0.05) == 0.0
        assert difference_interval(nothing, 0.1) == (-1.0, 1.0)


@pytest.mark.parametrize("mean", [0.0, 1e-6, 0.5, 1.0])
@pytest.mark.parametrize("rho", [1e-4, 0.5, 0.9999])
def test_extreme_counts_stay_finite(rho: float, mean: float) -> None:
    """A billion requests overflow nothing."""
    for cell in (MeanCell(rho, 10**9, 0, 0, 10**9), MeanCell(rho, 0, 10**9, 10**9, 10**9)):
        low, high = difference_interval([cell], mean)
        assert math.isfinite(rollback_evidence([cell], mean, 0.005))
        assert math.isfinite(promotion_evidence([cell], mean, 0.005))
        assert -1.0 <= low <= high <= 1.0


def test_the_interval_agrees_with_the_tests() -> None:
    """Its ends are where the tests begin to reject at alpha / 2."""
    cell, enough = MeanCell(0.5, 400, 9_600, 200, 9_800), math.log(40)
    low, high = difference_interval([cell], 0.02)
    assert rollback_evidence([cell], 0.02, low - 1e-6) >= enough
    assert rollback_evidence([cell], 0.02, low + 1e-6) < enough
    assert promotion_evidence([cell], 0.02, high + 1e-6) >= enough
    assert promotion_evidence([cell], 0.02, high - 1e-6) < enough


def _watched(
    p0: float, p1: float, rho: float, mean: float, delta: float, seed: int
) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """The largest rollback evidence of 2,000 runs of 20,000 requests, looked at 100 times."""
    rng = np.random.default_rng(seed)
    runs, batch = 2000, 200
    gains = np.array(margin._gains(rho, mean, delta))
    shares = [rho * p1, rho * (1 - p1), (1 - rho) * p0, (1 - rho) * (1 - p0)]
    wealth, worst = np.zeros((runs, len(gains))), np.full(runs, -np.inf)
    for _ in range(100):
        wealth += rng.multinomial(batch, shares, runs) @ gains.T
        worst = np.maximum(worst, np.logaddexp.reduce(wealth, axis=1) - math.log(len(gains)))
    return worst


@pytest.mark.parametrize("mean", [0.02, 0.2])
def test_false_rollbacks_stay_below_alpha(mean: float) -> None:
    """2,000 watched A/A runs, with a frozen mean that is right and one that is ten times off."""
    fired = _watched(0.02, 0.02, 0.1, mean, 0.0, seed=5) >= math.log(20)
    assert fired.mean() <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 2000)


def test_false_promotions_at_the_margin_stay_below_alpha() -> None:
    """Exactly at the margin (as the opposite outcome's rollback test): at most 5 % + 3 errors."""
    fired = _watched(0.98, 0.97, 0.5, 0.98, -0.01, seed=6) >= math.log(20)
    assert fired.mean() <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 2000)


def test_a_worse_candidate_is_found() -> None:
    """2 % to 4 % at 10 %: nearly always found within 20,000 requests."""
    assert (_watched(0.02, 0.04, 0.1, 0.02, 0.0, seed=8) >= math.log(20)).mean() > 0.9


def test_the_interval_contains_the_truth() -> None:
    """200 runs, ten looks each: at most 5 % ever miss the difference."""
    rng = np.random.default_rng(9)
    p0, p1, rho = 0.05, 0.08, 0.3
    shares = [rho * p1, rho * (1 - p1), (1 - rho) * p0, (1 - rho) * (1 - p0)]
    missed = 0
    for _ in range(200):
        counts = np.cumsum(rng.multinomial(400, shares, 10), axis=0).tolist()
        ends = [difference_interval([MeanCell(rho, *row)], 0.05) for row in counts]
        missed += any(not low <= p1 - p0 <= high for low, high in ends)
    assert missed <= 10


def test_impossible_values_are_refused() -> None:
    """A sentence that says what is wrong."""
    with pytest.raises(ValueError, match="no negative counts"):
        rollback_evidence([MeanCell(0.5, -1, 0, 0, 0)], 0.1)
    for mean, delta in ((1.5, 0.0), (math.nan, 0.0), (0.5, 1.0), (0.5, math.nan)):
        with pytest.raises(ValueError, match="the mean lies in"):
            rollback_evidence([], mean, delta)
    for value in (1.5, -0.1, math.nan):
        with pytest.raises(ValueError, match="capped and scaled"):
            update(Sums(), value, True, 0.5, 0.1)
    with pytest.raises(ValueError, match="without a coin"):
        update(Sums(), 0.5, True, 1.0, 0.1)
    with pytest.raises(ValueError, match="alpha"):
        difference_interval([], 0.5, 0.0)
