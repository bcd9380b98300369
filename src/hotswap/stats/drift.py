"""Drift between two distributions seen at the same time: the Kolmogorov–Smirnov distance.

A new model answers differently by design, so drift is tested against a tolerance, never against
equality. Histograms are of any integer buckets whose order is the order of the values; what is
bounded is the distance at that resolution, which is never more than the values' own. Requests
within an arm are taken as independent and alike.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache
from itertools import accumulate
from typing import Final

_WIDTH: Final = 0.85
#: Below so many requests of an arm nothing is claimed.
FIRST: Final = 100
_KAPPA: Final = 0.5


def ks(stable: Mapping[int, int], candidate: Mapping[int, int]) -> float:
    """The largest difference of the two distribution functions, 0 to 1; 0 without requests.

    The two-sample statistic of Kolmogorov (1933) and Smirnov (1939).

    >>> ks({0: 1, 1: 1}, {1: 1, 2: 1})
    0.5
    """
    totals = _totals(stable, candidate)
    if min(totals) <= 0:
        return 0.0
    order = sorted(stable.keys() | candidate.keys())
    stable_below = accumulate([stable.get(at, 0) for at in order])
    below = zip(stable_below, accumulate([candidate.get(at, 0) for at in order]), strict=True)
    return max(abs(a / totals[0] - b / totals[1]) for a, b in below)


def radius(n: int, alpha: float) -> float:
    """How far an empirical distribution of ``n`` may be from its own, at any n, with 1 − ``alpha``.

    The iterated-logarithm bound of Howard & Ramdas ("Sequential estimation of quantiles ...",
    Bernoulli 2022, theorem 2) with A = 0.85, from the hundredth request on; infinite before.

    >>> [round(radius(n, 0.025), 5) for n in (99, 1_000, 10_000, 100_000)]
    [inf, 0.08422, 0.02734, 0.00879]
    """
    return _radius(n, boundary(alpha))


@lru_cache(maxsize=64)
def boundary(alpha: float) -> float:
    """The constant C of the bound at ``alpha`` (Howard & Ramdas 2022, theorem 2).

    >>> round(boundary(0.025), 5)
    8.62265
    """
    if not 0.0 < alpha < 1.0:
        raise ValueError(f"An error probability lies between 0 and 1, not at {alpha}: give 0.05.")
    low, high, target = 1e-3, 1.0, math.log(alpha)
    while _log_alpha(high) > target:
        low, high = high, 2.0 * high
    for _ in range(60):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if _log_alpha(middle) > target else (low, middle)
    return high


def breach(
    stable: Mapping[int, int],
    candidate: Mapping[int, int],
    tolerance: float = 0.1,
    alpha: float = 0.05,
) -> bool:
    """Whether the distance is above ``tolerance``, wrong at any time with chance ``alpha`` at most.

    The lower end of the confidence sequence of Howard & Ramdas (2022) against the tolerance.

    >>> breach({0: 5000}, {0: 2500, 1: 2500}), breach({0: 50}, {1: 50})
    (True, False)
    """
    _check(tolerance)
    return interval(stable, candidate, alpha)[1] > tolerance


def within(
    stable: Mapping[int, int],
    candidate: Mapping[int, int],
    tolerance: float = 0.1,
    alpha: float = 0.05,
) -> bool:
    """Whether the distance is ``tolerance`` at most, wrong with chance ``alpha`` at most.

    The upper end of the confidence sequence of Howard & Ramdas (2022) against the tolerance: what
    a promotion needs. Without data it is False.

    >>> within({0: 50_000}, {0: 50_000}), within({}, {})
    (True, False)
    """
    _check(tolerance)
    return min(_totals(stable, candidate)) >= FIRST and (
        interval(stable, candidate, alpha)[2] <= tolerance
    )


def interval(
    stable: Mapping[int, int], candidate: Mapping[int, int], alpha: float = 0.05
) -> tuple[float, float, float]:
    """The distance, and bounds that hold it at all times with chance 1 − ``alpha``.

    Both arms' radii (Howard & Ramdas 2022) at half of ``alpha`` each, by the triangle inequality.

    >>> interval({}, {})
    (0.0, 0.0, 1.0)
    """
    estimate = ks(stable, candidate)
    around = sum(radius(n, alpha / 2) for n in _totals(stable, candidate))
    return estimate, max(0.0, estimate - around), min(1.0, estimate + around)


def evidence(
    stable: Mapping[int, int], candidate: Mapping[int, int], tolerance: float = 0.1
) -> float:
    """Log E against "the distance is ``tolerance`` at most"; 0 before an arm's hundredth request.

    The smallest α at which `breach` holds is an always-valid p-value p. 1/p is no e-value, so p
    is calibrated: E = κ·p^(κ−1) with κ = ½ (Vovk & Wang, "E-values: calibration, combination and
    applications", Annals of Statistics 2021); E = 20 needs p = 1/1600.

    >>> evidence({0: 50}, {1: 50}), evidence({0: 5000}, {0: 2500, 1: 2500}) > 100
    (0.0, True)
    """
    _check(tolerance)
    totals = _totals(stable, candidate)
    if min(totals) < FIRST:
        return 0.0
    return math.log(_KAPPA) + (_KAPPA - 1.0) * _log_p(totals, ks(stable, candidate) - tolerance)


def psi(stable: Mapping[int, int], candidate: Mapping[int, int]) -> float:
    """The population stability index, to show only: its usual threshold of 0.2 is noise on few.

    The symmetrised divergence of Kullback & Leibler (1951), with half a request added to every
    bucket that either arm has; 0 without requests.

    >>> psi({0: 5, 1: 5}, {0: 5, 1: 5}), psi({0: 90, 1: 10}, {0: 10, 1: 90}) > 3
    (0.0, True)
    """
    if min(_totals(stable, candidate)) <= 0:
        return 0.0
    order = sorted(stable.keys() | candidate.keys())
    p, q = (
        [(counts.get(at, 0) + 0.5) / (sum(counts.values()) + 0.5 * len(order)) for at in order]
        for counts in (stable, candidate)
    )
    return math.fsum((b - a) * math.log(b / a) for a, b in zip(p, q, strict=True))


def jensen_shannon(stable: Mapping[int, int], candidate: Mapping[int, int]) -> float:
    """The Jensen–Shannon divergence in nats, 0 to ln 2, to show only; 0 without requests.

    Lin, "Divergence measures based on the Shannon entropy", IEEE Trans. Inf. Theory 1991.

    >>> round(jensen_shannon({0: 3}, {1: 7}) / math.log(2), 12)
    1.0
    """
    totals = _totals(stable, candidate)
    if min(totals) <= 0:
        return 0.0
    terms = []
    for at in sorted(stable.keys() | candidate.keys()):
        p, q = stable.get(at, 0) / totals[0], candidate.get(at, 0) / totals[1]
        terms += [0.5 * x * math.log(2.0 * x / (p + q)) for x in (p, q) if x > 0.0]
    return max(0.0, math.fsum(terms))


def _log_p(totals: tuple[int, int], excess: float) -> float:
    """The logarithm of the smallest α at which both radii together are less than ``excess``."""

    def around(c: float) -> float:
        return sum(_radius(n, c) for n in totals)

    low, high = 1e-3, 1.0
    if excess <= around(low):
        return 0.0
    while around(high) < excess:
        low, high = high, 2.0 * high
    for _ in range(50):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if around(middle) < excess else (low, middle)
    return min(0.0, math.log(2.0) + _log_alpha(low))


def _radius(n: int, c: float) -> float:
    return math.inf if n < FIRST else _WIDTH * math.sqrt((_iterated(n) + c) / n)


def _iterated(n: int) -> float:
    return math.log(1.0 + math.log(n / FIRST))


def _log_alpha(c: float) -> float:
    """The logarithm of theorem 2's α for a C: the least over η, by golden-section search."""
    low, high = 1.0 + 1e-9, 2.0 * _WIDTH**2 - 1e-9
    step = (math.sqrt(5.0) - 1.0) / 2.0
    for _ in range(60):
        left, right = high - step * (high - low), low + step * (high - low)
        if _bound(c, left) < _bound(c, right):
            high = right
        else:
            low = left
    return _bound(c, 0.5 * (low + high))


def _bound(c: float, eta: float) -> float:
    root = _WIDTH - math.sqrt(2.0 * (eta - 1.0) / c)
    squared = 2.0 / eta * root * root
    if root <= 0.0 or squared <= 1.0:
        # Not a bound here; rising with η leads the search back to where it is one.
        return 1e9 + eta
    return math.log(4.0) - squared * c + math.log1p(1.0 / ((squared - 1.0) * math.log(eta)))


def _totals(stable: Mapping[int, int], candidate: Mapping[int, int]) -> tuple[int, int]:
    return sum(stable.values()), sum(candidate.values())


def _check(tolerance: float) -> None:
    if not 0.0 <= tolerance < 1.0:
        raise ValueError(f"A drift tolerance lies between 0 and 1, not at {tolerance}: give 0.1.")
