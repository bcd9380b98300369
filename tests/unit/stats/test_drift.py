"""Drift is a distance beyond a tolerance, found with an error that holds at all times."""

from __future__ import annotations

import doctest
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hotswap.stats import drift
from hotswap.stats.drift import (
    boundary,
    breach,
    evidence,
    interval,
    jensen_shannon,
    ks,
    psi,
    radius,
    within,
)

HISTOGRAMS = st.dictionaries(st.integers(-50, 50), st.integers(1, 1000), min_size=1, max_size=20)


def test_the_examples_hold() -> None:
    """Every example in the docstrings gives what it says."""
    assert doctest.testmod(drift).failed == 0


def test_the_published_radii() -> None:
    """The constant and the radii agree with the literature's."""
    assert boundary(0.025) == pytest.approx(8.62265, abs=1e-5)
    for n, golden in ((1_000, 0.08422), (10_000, 0.02734), (100_000, 0.00879)):
        assert radius(n, 0.025) == pytest.approx(golden, abs=1e-5)
    assert radius(99, 0.025) == math.inf


@given(HISTOGRAMS, HISTOGRAMS)
def test_the_distance_is_that_of_the_values(a: dict[int, int], b: dict[int, int]) -> None:
    """It is the largest gap of the two distribution functions, the same from either side."""
    grid = range(-50, 51)
    below = [
        np.cumsum([counts.get(at, 0) for at in grid]) / sum(counts.values()) for counts in (a, b)
    ]
    assert ks(a, b) == pytest.approx(float(np.abs(below[0] - below[1]).max()), abs=1e-12)
    assert ks(a, b) == ks(b, a)


@given(HISTOGRAMS, HISTOGRAMS, st.sampled_from([0.0, 0.1, 0.3]))
def test_the_answers_agree(a: dict[int, int], b: dict[int, int], tolerance: float) -> None:
    """Interval, breach, within and evidence never contradict one another."""
    estimate, low, high = interval(a, b)
    assert 0.0 <= low <= estimate <= high <= 1.0
    assert not (breach(a, b, tolerance) and within(a, b, tolerance))
    if evidence(a, b, tolerance) > math.log(20):
        assert breach(a, b, tolerance)


def test_evidence_is_where_the_breach_begins() -> None:
    """The evidence is the calibrated smallest α at which the tolerance is breached."""
    a, b = {0: 500, 1: 1500}, {0: 1100, 1: 900}
    p = (0.5 / math.exp(evidence(a, b, 0.1))) ** 2
    assert breach(a, b, 0.1, p * 1.001)
    assert not breach(a, b, 0.1, p * 0.999)


def test_equal_arms_do_not_drift() -> None:
    """Watched forty times at a tolerance they just meet, arms are flagged in fewer than 5 % of runs."""
    rng = np.random.default_rng(11)
    flagged = 0
    for _ in range(300):
        ups = rng.binomial(50, [[0.5], [0.6]], (2, 40)).cumsum(axis=1)
        flagged += any(
            breach({0: n - int(x), 1: int(x)}, {0: n - int(y), 1: int(y)}, 0.1)
            for n, x, y in zip(range(50, 2050, 50), *ups, strict=True)
        )
    assert flagged / 300 <= 0.05


def test_no_data_says_nothing() -> None:
    """Without requests there is neither a breach nor a promise kept."""
    assert (ks({}, {}), evidence({}, {}), psi({}, {1: 1}), jensen_shannon({}, {})) == (0, 0, 0, 0)
    assert not breach({}, {})
    assert not within({}, {}, 0.99)
    assert not within({0: 99}, {0: 99}, 0.99)


@given(HISTOGRAMS, HISTOGRAMS)
def test_descriptions_are_bounded(a: dict[int, int], b: dict[int, int]) -> None:
    """The two indexes that are only shown are never negative, and nothing for equal arms."""
    assert psi(a, b) >= 0
    assert 0 <= jensen_shannon(a, b) <= math.log(2) + 1e-12
    assert psi(a, a) == jensen_shannon(a, a) == 0


def test_huge_counts_stay_finite() -> None:
    """A quadrillion requests overflow nothing, in the bound as in the evidence."""
    assert math.isfinite(evidence({0: 10**15}, {1: 10**15}))
    assert radius(10**15, 1e-300) > 0


def test_a_tolerance_that_is_none_is_refused() -> None:
    """A tolerance in percent says what to give."""
    with pytest.raises(ValueError, match=r"give 0\.1"):
        breach({0: 1}, {0: 1}, 10)
