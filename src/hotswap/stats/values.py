"""Buckets of what a model answers: one scale for probabilities, counts and other numbers.

The order of the buckets is the order of the values, so that a comparison of two distributions
of buckets is one of values (seen at the buckets' resolution).
"""

from __future__ import annotations

import math
from typing import Final

#: The bucket of infinities and of what is not a number: above every other.
NON_FINITE: Final = 1 << 15
_LINEAR: Final = 64  # buckets of equal width between 0 and 1
_PER_OCTAVE: Final = 8
_SMALL: Final = 6  # below 2**-6, the first linear bucket, the scale goes on in octaves ...
_TINY: Final = 24 * _PER_OCTAVE  # ... 24 of them, so that rare events' probabilities tell apart
_ONE: Final = _TINY + _LINEAR  # the bucket of 1
_EXACT: Final = 1000  # whole numbers up to here have a bucket of their own
_floor, _log2 = math.floor, math.log2


def bucket_value(x: float) -> int:
    """The bucket of an output value; non-decreasing in ``x``, and the mirror image below zero.

    [0, 1] has 64 buckets of equal width, the first of them divided by octaves; whole numbers up
    to 1,000 have a bucket each (class numbers, counts); the rest has eight buckets an octave, as
    in a histogram of high dynamic range (Tene, HdrHistogram). No bucket spans more than 1/64
    within [0, 1], or 9 % above.

    >>> bucket_value(0.0), bucket_value(-0.5) == -bucket_value(0.5), bucket_value(math.nan)
    (0, True, 32768)
    >>> bucket_value(2.9) < bucket_value(3.0) < bucket_value(3.1) < bucket_value(1e300)
    True
    """
    if x < 0:
        return -_positive(-x) if x != -math.inf else NON_FINITE
    return _positive(x) if x > 0 and x != math.inf else (0 if x == 0 else NON_FINITE)


def _positive(x: float) -> int:
    if x < 1.0:
        linear = int(x * _LINEAR)
        if linear:
            return _TINY + linear
        return max(1, _TINY + 1 + _floor(_PER_OCTAVE * (_log2(x) + _SMALL)))
    # Each term is non-decreasing; floor and ceiling step before and after a whole number, and
    # so set it apart from its neighbours.
    whole = 2 * _EXACT + (x > _EXACT) if x >= _EXACT else _floor(x) + math.ceil(x)
    return _ONE - 2 + whole + _floor(_PER_OCTAVE * _log2(x))
