"""Latency buckets: eight to an octave from 16 microseconds to 68 seconds. Pure, mergeable.

Log-linear buckets, as HdrHistogram has them: the relative width of a bucket is at most 1/8, so a
quantile read from them is off by at most 12.5 %. Counts of several workers add exactly.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

_FIRST: Final = 14
_LAST: Final = 36
BUCKETS: Final = (_LAST - _FIRST) * 8 + 1


def bucket(ns: int) -> int:
    """The bucket of a time in nanoseconds.

    >>> bucket(0), bucket(1 << 14), bucket(1 << 60) == BUCKETS - 1
    (0, 0, True)
    """
    octave = ns.bit_length() - 1
    if octave < _FIRST:
        return 0
    if octave >= _LAST:
        return BUCKETS - 1
    return ((octave - _FIRST) << 3) | ((ns >> (octave - 3)) & 7)


def upper_bound(index: int) -> int:
    """The bucket's upper bound in nanoseconds (exclusive); the last bucket has none and says 2^63.

    >>> upper_bound(bucket(1_000_000)) > 1_000_000
    True
    """
    if index >= BUCKETS - 1:
        return 1 << 63
    octave, eighth = _FIRST + (index >> 3), index & 7
    return (1 << octave) + ((eighth + 1) << (octave - 3))


def quantile(counts: Mapping[int, int], q: float) -> float | None:
    """The q-quantile in nanoseconds of {upper bound: count}, or None if empty.

    The upper bound of the bucket in which it lies: at most 12.5 % above the true value.

    >>> quantile({100: 1, 200: 1}, 0.5)
    100.0
    """
    total = sum(counts.values())
    if not total:
        return None
    seen = 0
    for bound in sorted(counts):
        seen += counts[bound]
        if seen >= q * total:
            return float(bound)
    return float(max(counts))
