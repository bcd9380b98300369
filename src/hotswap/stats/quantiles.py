"""Quantiles of latency histograms, with bounds and p-values that hold while they are watched.

Both tests take requests within an arm as independent and alike: use them to show and for a limit
on one arm; `hotswap.stats.latency` compares arms without that assumption.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Mapping
from itertools import accumulate
from typing import Final

from hotswap.stats.buckets import lower_bound

#: How many requests' worth of belief the mixture starts with; sharpest near eight times as many.
_PRIOR: Final = 100.0
_lgamma = math.lgamma


def quantile(counts: Mapping[int, int], p: float) -> float:
    """The ``p``-quantile in nanoseconds: the upper bound of the bucket that holds it.

    Infinity when that bucket is of timeouts; NaN without requests. The empirical quantile of
    Hyndman & Fan ("Sample quantiles in statistical packages", 1996), type 1.

    >>> quantile({1: 98, 5: 2}, 0.5), quantile({1: 98, 5: 2}, 0.99) > 12_000
    (10466.351393921057, True)
    """
    _check(p)
    total = sum(counts.values())
    if total <= 0:
        return math.nan
    order = sorted(counts)
    seen = list(accumulate(counts[at] for at in order))
    return lower_bound(order[bisect_left(seen, p * total)] + 1)


def quantile_interval(
    counts: Mapping[int, int], p: float, alpha: float = 0.05
) -> tuple[float, float]:
    """Bounds in nanoseconds that hold the ``p``-quantile at all times with chance 1 − ``alpha``.

    Inverts the beta-binomial mixture test of how many requests are at or below a value (Howard &
    Ramdas, "Sequential estimation of quantiles with applications to A/B testing and best-arm
    identification", Bernoulli 2022). (0, inf) without requests.

    >>> low, high = quantile_interval({1: 5000, 2: 5000, 3: 5000}, 0.5)
    >>> low == lower_bound(2), high == lower_bound(3)
    (True, True)
    """
    _check(p)
    _check_alpha(alpha)
    total = sum(counts.values())
    if total <= 0:
        return 0.0, math.inf
    needed = -math.log(alpha)

    def against(below: int) -> bool:
        return _log_mixture(below, total, p) >= needed

    # The evidence is convex in the count and least near p*total: each side has one threshold.
    centre = min(total, max(0, round(p * total)))
    too_few = _last(-1, centre, lambda k: k < 0 or against(k))
    enough = total - _last(-1, total - centre, lambda k: k < 0 or against(total - k))
    order = sorted(counts)
    seen = list(accumulate(counts[at] for at in order))
    low = 0.0 if too_few < 0 else lower_bound(order[bisect_right(seen, too_few)])
    high = math.inf if enough > total else lower_bound(order[bisect_left(seen, enough)] + 1)
    return low, high


def p_value(stable: Mapping[int, int], candidate: Mapping[int, int], p: float) -> float:
    """An always-valid p-value of "both arms have the same ``p``-quantile"; 1 without requests.

    The two-sample test of Howard & Ramdas (2022, section 4): the least joint evidence of the two
    arms against any common value of the quantile.

    >>> p_value({1: 500}, {1: 500}, 0.5), p_value({1: 500}, {9: 500}, 0.5) < 1e-100
    (1.0, True)
    """
    _check(p)
    totals = sum(stable.values()), sum(candidate.values())
    if min(totals) <= 0:
        return 1.0
    seen = [0, 0]
    least = math.inf
    for at in sorted(stable.keys() | candidate.keys()):
        joint = 0.0
        for arm, counts in enumerate((stable, candidate)):
            before = seen[arm]
            seen[arm] = before + counts.get(at, 0)
            # A value that may be the arm's own quantile counts as exactly p.
            nearest = min(max(p * totals[arm], before), seen[arm])
            joint += _log_mixture(nearest, totals[arm], p)
        least = min(least, joint)
    return math.exp(min(0.0, -least))


def _log_mixture(below: float, total: int, p: float) -> float:
    """Log E against "the chance of being at or below is p": a Beta prior with mean p, mixed over."""
    a, b = _PRIOR * p, _PRIOR * (1.0 - p)
    over = total - below
    return (
        _lgamma(a + below)
        - _lgamma(a)
        + (_lgamma(b + over) - _lgamma(b))
        - (_lgamma(a + b + total) - _lgamma(a + b))
        - below * math.log(p)
        - over * math.log1p(-p)
    )


def _last(low: int, high: int, holds: Callable[[int], bool]) -> int:
    """The last whole number from ``low`` (where it holds) up to ``high`` for which it holds."""
    while low < high:
        middle = (low + high + 1) // 2
        if holds(middle):
            low = middle
        else:
            high = middle - 1
    return low


def _check(p: float) -> None:
    if not 0.0 < p < 1.0:
        raise ValueError(f"A quantile lies between 0 and 1, not at {p}: give 0.99 for p99.")


def _check_alpha(alpha: float) -> None:
    if not 0.0 < alpha < 1.0:
        raise ValueError(f"An error probability lies between 0 and 1, not at {alpha}: give 0.05.")
