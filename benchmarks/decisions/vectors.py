"""The production formulas over arrays, for simulations of millions of looks.

Each function is `hotswap.stats` said again for arrays; the tests prove them equal on random
counters. Evidence is a natural logarithm; arrays of counts are floats.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from hotswap.stats import differences
from hotswap.stats.buckets import BUCKETS, LOG_STEP, TIMEOUT, lower_bound
from hotswap.stats.rate import GRID, PROMOTE
from hotswap.stats.split import ODDS

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

_TILTS: Final = np.array([0.1, 0.2, 0.4, 0.8, 1.6])
_LEVELS: Final = (0.5, 0.9, 0.95, 0.99, 0.999)
_WORSE: Final = np.array([1.1, 1.25, 1.5, 2.0, 3.0, 5.0, 10.0])
_BETTER: Final = np.array([0.9, 0.8, 0.6, 0.4, 0.2, 0.1])
_STAKES: Final = 0.95 * np.array([1.0, 0.5, 0.25, 0.1, 0.04, 0.016])
#: Which threshold of a reference each quantile is.
QUANTILE_AT: Final = {"p50": 0, "p95": 2, "p99": 3}


def log_mean(wealth: Floats) -> Floats:
    """ln of the mean of exp over the last axis."""
    top = wealth.max(axis=-1)
    spread = np.exp(wealth - top[..., None]).mean(axis=-1)
    return np.asarray(top + np.log(spread), np.float64)


def bets(rho: float, ratio: float, factors: tuple[float, ...]) -> tuple[Floats, Floats]:
    """(candidate's event, stable's event): what each adds to every bet's log wealth."""
    theta = rho * ratio / (rho * ratio + 1.0 - rho)
    odds = np.array(factors)
    costs = np.log1p((odds - 1.0) * theta)
    return np.log(odds) - costs, -costs


def promotion_factors(ratio: float) -> tuple[float, ...]:
    """The bets of `hotswap.stats.rate.promotion_evidence` for a ratio above 1."""
    return tuple(truth / ratio for truth in PROMOTE)


def rate_wealth(rho: float, ours: Floats, stable: Floats, ratio: float, factors: tuple[float, ...]) -> Floats:  # fmt: skip
    """Log wealth of every bet (last axis) for one stage's events on the candidate and on stable."""
    win, lose = bets(rho, ratio, factors)
    return np.multiply.outer(ours, win) + np.multiply.outer(stable, lose)


def rate_rollback(rho: float, ours: Floats, stable: Floats, ratio: float = 1.0) -> Floats:
    """`hotswap.stats.rate.rollback_evidence` of one stage."""
    return log_mean(rate_wealth(rho, ours, stable, ratio, GRID))


def rate_promotion(rho: float, ours: Floats, stable: Floats, ratio: float) -> Floats:
    """`hotswap.stats.rate.promotion_evidence` of one stage, for a ratio above 1."""
    return log_mean(rate_wealth(rho, ours, stable, ratio, promotion_factors(ratio)))


def split_wealth(rho: float, ours: Floats, stable: Floats) -> Floats:
    """Log wealth of every bet of `hotswap.stats.split.evidence` for one stage's outcomes."""
    return rate_wealth(rho, ours, stable, 1.0, ODDS)


def margin_wealth(rho: float, cells: Floats, mean: float, margin: float) -> Floats:
    """Log wealth of `hotswap.stats.margin.rollback_evidence`'s bets for one stage.

    ``cells``: (..., 4) requests in the order of `MeanCell`: c11, c10, c01, c00.
    """
    loss = max((1.0 - mean) / (1.0 - rho), mean / rho)
    scale = margin + loss
    scores = np.array(
        ((1.0 - mean) / rho, -mean / rho, -(1.0 - mean) / (1.0 - rho), mean / (1.0 - rho))
    )
    return np.asarray(cells @ np.log1p(np.outer(scores - margin, _STAKES) / scale), np.float64)


def margin_promotion_wealth(rho: float, cells: Floats, mean: float, margin: float) -> Floats:
    """The same of `hotswap.stats.margin.promotion_evidence`."""
    return margin_wealth(rho, cells[..., [1, 0, 3, 2]], 1.0 - mean, -margin)


def difference_gains(places: Ints, margin: float = 0.0) -> Floats:
    """(rows, bets): what a row in each of these buckets adds to the log wealth of the bets of
    `hotswap.stats.differences.rollback_evidence`.
    """
    least = np.array([differences.ends({at: 1}, 1)[0][0] for at in places.tolist()])
    return np.asarray(np.log1p(np.outer(least - margin, differences.BETS)), np.float64)


class Reference(NamedTuple):
    """A frozen latency reference: log factors of the tilts by bucket, and thresholds.

    ``candidate`` and ``stable``: (tilts, buckets), what one request adds to each tilt's log
    wealth at a coin of one half.
    """

    candidate: Floats
    stable: Floats
    thresholds: Ints


@lru_cache(maxsize=1)
def _middles() -> Floats:
    first = math.log(lower_bound(1))
    middles = np.asarray(first + (np.arange(BUCKETS) - 0.5) * LOG_STEP, np.float64)
    middles[TIMEOUT] = math.inf
    return middles


def freeze(seen: Ints, rho: float = 0.5) -> Reference:
    """`hotswap.stats.latency.freeze` of answers (their buckets, no timeouts), and its tables."""
    counts = np.bincount(seen, minlength=BUCKETS).astype(np.float64)
    total, middles = counts.sum(), _middles()
    timed = counts[:TIMEOUT]
    mu = float(timed @ middles[:TIMEOUT]) / total
    sigma = math.sqrt(max(0.0, float(timed @ (middles[:TIMEOUT] - mu) ** 2) / total))
    below = np.cumsum(counts)
    thresholds = np.array([int(np.searchsorted(below, level * total)) for level in _LEVELS])
    scores = np.round(np.clip((middles - mu) / max(sigma, LOG_STEP), -3.0, 3.0), 1)
    tilted = np.outer(_TILTS, scores)
    gain = tilted - np.log(np.exp(tilted) @ counts / total)[:, None]
    cost = np.logaddexp(math.log(rho) + gain, math.log1p(-rho))
    return Reference(gain - cost, -cost, thresholds)


def buckets_of(ns: Floats) -> Ints:
    """`hotswap.stats.buckets.bucket` of times in nanoseconds, none below 10 microseconds."""
    at = ((np.log(ns) - math.log(10_000.0)) / LOG_STEP).astype(np.int64) + 1
    return np.minimum(at, TIMEOUT - 1)


def latency_path(reference: Reference, at: Ints, ours: Bools, rho: float = 0.5) -> Floats:
    """The e-value (not its logarithm) of `hotswap.stats.latency.rollback_evidence` after each of
    the compared requests: their buckets, and which are the candidate's.
    """
    table = np.concatenate([reference.stable, reference.candidate], axis=1)
    places = at + BUCKETS * ours
    total: Floats = np.zeros(len(at))
    for steps in table:
        path = np.cumsum(steps[places])
        total += np.exp(path, out=path)
    total /= len(table)
    norm = np.log(rho * _WORSE + (1.0 - rho))
    exceeding: Floats = np.zeros(len(at))
    for threshold in reference.thresholds[1:]:
        beyond = at > threshold
        mine = np.cumsum(ours[beyond])
        everyone = np.arange(1, len(mine) + 1)
        logs = np.multiply.outer(mine.astype(np.float64), np.log(_WORSE))
        logs -= np.multiply.outer(everyone.astype(np.float64), norm)
        values = np.concatenate(([1.0], np.exp(logs).mean(axis=1)))
        exceeding += values[np.cumsum(beyond)]
    return 0.5 * (total + exceeding / 4.0)


def latency_promotion_wealth(ours: Floats, stable: Floats, rho: float = 0.5) -> Floats:
    """Log wealth of `hotswap.stats.latency.promotion_evidence`'s bets, from how many of the
    candidate's requests took longer than the margin allows and of stable's than the threshold.
    """
    norm = np.log(rho * _BETTER + (1.0 - rho))
    return np.asarray(
        np.multiply.outer(ours, np.log(_BETTER) - norm) - np.multiply.outer(stable, norm),
        np.float64,
    )


def boundary(evidence: Callable[[int, int], float], enough: float, totals: Ints) -> Ints:
    """For each of the rising ``totals`` the fewest of the candidate's with which the production
    function ``evidence(total, candidate)`` reaches ``enough``; one more than all if none does.

    The evidence rises with the candidate's count and falls with stable's, so the boundary never
    falls and one walk finds it.
    """
    found = np.empty(len(totals), np.int64)
    fewest = 0
    for place, total in enumerate(totals.tolist()):
        while fewest <= total and evidence(total, fewest) < enough:
            fewest += 1
        found[place] = fewest
    return found
