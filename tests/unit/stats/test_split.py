"""F10: sample-ratio mismatch."""

from __future__ import annotations

import doctest
import math

import numpy as np
import pytest

from hotswap.stats import split
from hotswap.stats.split import SplitCell, beta_mixture_evidence, evidence


def test_examples() -> None:
    """The examples of the documentation run."""
    assert doctest.testmod(split).attempted > 0
    assert doctest.testmod(split).failed == 0


def test_golden() -> None:
    """The reference value of the beta mixture (given to four decimals)."""
    assert beta_mixture_evidence(100_000, 900, 0.01) == pytest.approx(2.9083, abs=5e-5)


def test_the_mixture_is_written_out() -> None:
    """Fourteen likelihood ratios of binomial counts over two stages, averaged."""
    stages = [SplitCell(0.1, 500, 40), SplitCell(0.5, 300, 140)]
    wealth = 0.0
    for odds in split.ODDS:
        log = 0.0
        for rho, total, k in stages:
            theta = rho * odds / (rho * odds + 1 - rho)
            log += k * math.log(theta / rho) + (total - k) * math.log((1 - theta) / (1 - rho))
        wealth += math.exp(log) / 14
    assert evidence(stages) == pytest.approx(math.log(wealth), abs=1e-9)


@pytest.mark.parametrize("candidate", [9_000, 11_000])
def test_both_directions_are_seen(candidate: int) -> None:
    """Lost and doubled records alike."""
    assert evidence([SplitCell(0.5, 20_000, candidate)]) > math.log(1000)
    assert beta_mixture_evidence(20_000, candidate, 0.5) > math.log(1000)


def test_a_loss_of_a_fifth_at_one_percent_is_seen_near_forty_thousand_requests() -> None:
    """The expected counts give an alarm at level 0.001 between 25,000 and 50,000 requests."""
    seen = [
        n
        for n in range(1000, 60_000, 1000)
        if evidence([SplitCell(0.01, n, round(0.00801 * n))]) > math.log(1000)
    ]
    assert 25_000 <= min(seen) <= 50_000


def test_no_alarm_where_nothing_is_lost() -> None:
    """1,000 clean runs, watched at 100 looks each: no alarm to speak of."""
    rng = np.random.default_rng(3)
    runs, rho = 1000, 0.1
    odds = np.array(split.ODDS)
    wealth, alarms = np.zeros((runs, odds.size)), np.zeros(runs, dtype=bool)
    for _ in range(100):
        k = rng.binomial(500, rho, runs)[:, None]
        wealth += k * np.log(odds) - 500 * np.log1p((odds - 1) * rho)
        alarms |= np.logaddexp.reduce(wealth, axis=1) - math.log(odds.size) >= math.log(1000)
    assert alarms.sum() <= 4


def test_empty_and_extreme_counts_are_finite() -> None:
    """No data is E = 1; a billion outcomes overflow nothing."""
    assert evidence([]) == evidence([SplitCell(0.5, 0, 0)]) == 0.0
    assert beta_mixture_evidence(0, 0, 0.5) == pytest.approx(0.0)
    for k in (0, 1, 10**8, 10**9):
        assert math.isfinite(evidence([SplitCell(0.1, 10**9, k)]))
        assert math.isfinite(beta_mixture_evidence(10**9, k, 0.1))


@pytest.mark.parametrize(
    ("total", "candidate", "rho", "k"),
    [(1, 2, 0.5, 1000), (1, -1, 0.5, 1000), (1, 1, 0.0, 1000), (1, 1, 0.5, 0), (1, 1, math.nan, 1)],
)
def test_impossible_values_are_refused(total: int, candidate: int, rho: float, k: float) -> None:
    """An error, not evidence."""
    with pytest.raises(ValueError, match="a split has"):
        beta_mixture_evidence(total, candidate, rho, k)
