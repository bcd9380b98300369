"""Latency buckets of the evidence: four to every factor of 1.2, from 10 microseconds up.

A shift by four buckets is a factor of exactly 1.2, the default margin, so that a margin is a
shift of a histogram and one set of counters serves every margin. Counts add exactly.
"""

from __future__ import annotations

import math
from typing import Final

#: Natural logarithm of the ratio of two neighbouring bounds.
LOG_STEP: Final = math.log(1.2) / 4
_FIRST_NS: Final = 10_000.0
_SCALE: Final = 1.0 / LOG_STEP
_OFFSET: Final = math.log(_FIRST_NS)
BUCKETS: Final = 360
#: The bucket of a request that had no answer within its budget: longer than any time.
TIMEOUT: Final = BUCKETS - 1
_log = math.log


def bucket(ns: int) -> int:
    """The bucket of a time in nanoseconds; never `TIMEOUT`.

    >>> bucket(0), bucket(10_000), bucket(12_001), bucket(1 << 62) == TIMEOUT - 1
    (0, 1, 5, True)
    """
    if ns < _FIRST_NS:
        return 0
    at = int((_log(ns) - _OFFSET) * _SCALE) + 1
    return at if at < TIMEOUT else TIMEOUT - 1


def lower_bound(index: int) -> float:
    """The bucket's lower bound in nanoseconds (inclusive); 0 for the first, infinity for `TIMEOUT`.

    >>> lower_bound(1), lower_bound(TIMEOUT)
    (10000.0, inf)
    """
    if index >= TIMEOUT:
        return math.inf
    return 0.0 if index == 0 else _FIRST_NS * math.exp((index - 1) * LOG_STEP)


def shift(ratio: float) -> int:
    """How many buckets a ratio of times is, towards 1 where it lies between two.

    A candidate that may be ``ratio`` times as slow is compared after its histogram was moved
    down by so many buckets. Rounding towards 1 makes a promise to promote only stricter.

    >>> shift(1.2), shift(1.0), shift(1.25)
    (4, 0, 4)
    """
    return math.floor(math.log(ratio) / LOG_STEP + 1e-9)
