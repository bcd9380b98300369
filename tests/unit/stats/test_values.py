"""Output values fall into buckets of one order-preserving scale."""

from __future__ import annotations

import doctest
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hotswap.stats import values
from hotswap.stats.values import NON_FINITE, bucket_value

FINITE = st.floats(allow_nan=False, allow_infinity=False)


def test_the_examples_hold() -> None:
    """Every example in the docstrings gives what it says."""
    assert doctest.testmod(values).failed == 0


@given(FINITE, FINITE)
def test_the_order_of_buckets_is_the_order_of_values(x: float, y: float) -> None:
    """A larger value is never in a lower bucket, over the whole range of numbers."""
    assert bucket_value(min(x, y)) <= bucket_value(max(x, y))


@given(st.floats(-1100.0, 1100.0), st.floats(-1.0, 1.0))
def test_the_order_holds_between_neighbours(x: float, step: float) -> None:
    """Also where the scale changes from linear to exact to logarithmic."""
    low, high = sorted((x, x + step))
    assert bucket_value(low) <= bucket_value(high)


@given(FINITE)
def test_the_scale_is_its_own_mirror_image(x: float) -> None:
    """A negative value has the negative bucket, and no finite one meets the non-finite bucket."""
    assert bucket_value(-x) == -bucket_value(x)
    assert abs(bucket_value(x)) < NON_FINITE


@given(st.integers(-1000, 1000))
def test_small_whole_numbers_stand_alone(n: int) -> None:
    """Class numbers and counts up to a thousand never share a bucket with another value."""
    at = bucket_value(float(n))
    assert bucket_value(math.nextafter(n, -math.inf)) < at < bucket_value(math.nextafter(n, 2000.0))


def test_probabilities_have_linear_buckets_of_a_64th() -> None:
    """From 1/64 on, values between 0 and 1 share a bucket exactly when they share a 64th."""
    for at in range(1, 64):
        low, high = at / 64, math.nextafter((at + 1) / 64, 0.0)
        assert bucket_value(low) == bucket_value(high) == bucket_value(1 / 64) + at - 1


def test_rare_probabilities_tell_apart() -> None:
    """One in ten thousand and one in a thousand are different answers of a fraud model."""
    assert len({bucket_value(p) for p in (0.0, 1e-300, 1e-5, 1e-4, 1e-3, 1e-2)}) == 6


def test_large_values_keep_nine_percent() -> None:
    """Eight buckets an octave: a step of 10 % is seen, whatever the size."""
    assert all(bucket_value(10.0**k) < bucket_value(1.1 * 10.0**k) for k in range(4, 300, 7))


@pytest.mark.parametrize("x", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_has_one_bucket(x: float) -> None:
    """NaN and both infinities are counted together, above every number."""
    assert bucket_value(x) == NON_FINITE
