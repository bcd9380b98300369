"""The bandit's probabilities."""

from __future__ import annotations

import doctest

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hotswap.stats import thompson
from hotswap.stats.thompson import propensity

COUNT = st.integers(0, 10**9)


def test_examples() -> None:
    """The examples of the documentation run."""
    assert doctest.testmod(thompson).attempted > 0
    assert doctest.testmod(thompson).failed == 0


@given(COUNT, COUNT, COUNT, COUNT)
def test_symmetric_clipped_and_on_the_grid(a: int, b: int, c: int, d: int) -> None:
    """Swapping the arms gives the rest to 1, for any counts."""
    found = propensity(a, b, c, d)
    assert 0.05 <= found <= 0.95
    assert found == pytest.approx(round(found * 20) / 20)
    assert propensity(c, d, a, b) == pytest.approx(1 - found)


@given(st.integers(0, 10**8), st.integers(0, 10**8), st.integers(0, 10**8), st.integers(0, 10**8))
def test_monotone(a: int, b: int, c: int, d: int) -> None:
    """More successes never make an arm less likely to be tried."""
    more = c + c // 2 + 1
    assert propensity(a, b, more, d) >= propensity(a, b, c, d)


@pytest.mark.parametrize(
    ("arms", "expected"),
    [
        ((0, 0, 0, 1), 1 / 3),  # Beta(1, 2) above Beta(1, 1)
        ((1, 0, 0, 0), 1 / 3),
        ((0, 0, 9, 0), 10 / 11),
        ((0, 99, 0, 0), 100 / 101),
        ((0, 10**8, 1, 10**8), 3 / 4),  # two gamma variables of shapes 1 and 2
    ],
)
def test_known_probabilities(arms: tuple[int, int, int, int], expected: float) -> None:
    """Cases that integrate in closed form, within a thousandth."""
    assert propensity(*arms, low=0.0, high=1.0, grid=0.0001) == pytest.approx(expected, abs=1e-3)


def test_large_counts_tell_small_differences_apart() -> None:
    """One part in ten thousand is a coin's toss at a million successes, and sure at 1e9."""
    assert propensity(10**9, 10**9, 10**9 + 10**6, 10**9) == 0.95
    assert propensity(10**6, 10**6, 10**6 + 100, 10**6) == 0.5


def test_impossible_values_are_refused() -> None:
    """A sentence that says what is wrong."""
    with pytest.raises(ValueError, match="not negative"):
        propensity(-1, 0, 0, 0)
    with pytest.raises(ValueError, match="bounds lie in order"):
        propensity(0, 0, 0, 0, low=0.9, high=0.1)
    with pytest.raises(ValueError, match="no multiple"):
        propensity(0, 0, 0, 0, low=0.11, high=0.14)
