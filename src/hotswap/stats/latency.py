"""Is the candidate slower? Betting on the routing coin, given how long each request took.

The only chance used is the router's own coin, so nothing is assumed of the latencies: daily
cycles, incidents and neighbours that wait for each other are all allowed for. Histograms are of
`hotswap.stats.buckets`; a timeout is longer than any time.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from hotswap.stats.buckets import BUCKETS, LOG_STEP, TIMEOUT, lower_bound, shift
from hotswap.stats.quantiles import quantile, quantile_interval

_Floats = npt.NDArray[np.float64]

_TILTS: Final = np.array([0.1, 0.2, 0.4, 0.8, 1.6])
_LEVELS: Final = (0.5, 0.9, 0.95, 0.99, 0.999)
_TAIL: Final = slice(1, 5)  # the levels that can roll back: the median is the tilt's business
_AT: Final = {"p50": 0, "p95": 2, "p99": 3}
_WORSE: Final = np.array([1.1, 1.25, 1.5, 2.0, 3.0, 5.0, 10.0])
_BETTER: Final = np.array([0.9, 0.8, 0.6, 0.4, 0.2, 0.1])


class Reference(NamedTuple):
    """What is frozen of the stable version's latency before the first bet; any value is valid.

    ``mu`` and ``sigma``: mean and standard deviation of ln(nanoseconds). ``counts``: the
    histogram as (bucket, count) in order. ``thresholds``: the buckets of p50, p90, p95, p99 and
    p99.9; a request exceeds a threshold when its bucket is higher.
    """

    mu: float
    sigma: float
    counts: tuple[tuple[int, int], ...]
    thresholds: tuple[int, ...]


class LatencyCell(NamedTuple):
    """A stretch of constant probability: both arms' histograms, bucket → requests.

    ``rho`` is the candidate's chance among the two arms compared: 0.5 when stable has a twin.
    """

    rho: float
    stable: Mapping[int, int]
    candidate: Mapping[int, int]


def freeze(counts: Mapping[int, int]) -> Reference:
    """The reference of a stable version's histogram; `ValueError` when it is empty.

    Nearest-rank quantiles (Hyndman & Fan 1996, type 1) and the moments of the log-normal.

    >>> freeze({20: 50, 30: 45, 40: 5}).thresholds
    (20, 30, 30, 40, 40)
    """
    dense = _dense(counts)
    total = float(dense.sum())
    if total <= 0.0:
        raise ValueError("A latency reference needs requests: freeze it after the first thousand.")
    timed = dense[:TIMEOUT]
    answered = float(timed.sum())
    mu, sigma = float(_MIDDLES[TIMEOUT - 1]), 0.0
    if answered:
        mu = float(timed @ _MIDDLES[:TIMEOUT]) / answered
        sigma = math.sqrt(max(0.0, float(timed @ (_MIDDLES[:TIMEOUT] - mu) ** 2) / answered))
    below = np.cumsum(dense)
    thresholds = tuple(int(np.searchsorted(below, level * total)) for level in _LEVELS)
    # Narrower than a bucket is not known, and would make every neighbour an outlier.
    kept = tuple(sorted((at, count) for at, count in counts.items() if count))
    return Reference(mu, max(sigma, LOG_STEP), kept, thresholds)


def rollback_evidence(
    cells: Sequence[LatencyCell], reference: Reference, ratio: float = 1.0
) -> float:
    """Log E against "the candidate takes at most ``ratio`` times as long, in distribution".

    Half of the wealth bets on the whole distribution by an exponential tilt of the standardised
    log-latency, half on requests above stable's frozen p90, p95, p99 and p99.9. Each bet is
    non-decreasing in the latency, so the product is a supermartingale whenever stable dominates
    the slowed-down candidate stochastically (Lindon & Malek, NeurIPS 2022, arXiv:2011.03567;
    Shekhar & Ramdas, arXiv:2112.09162). A ratio between two buckets' is rounded up.

    >>> reference = freeze({10: 500, 20: 400, 30: 100})
    >>> same, slow = {10: 50, 20: 40, 30: 10}, {20: 50, 30: 40, 40: 10}
    >>> rollback_evidence([LatencyCell(0.5, same, same)], reference) < 0
    True
    >>> rollback_evidence([LatencyCell(0.5, same, slow)], reference) > 10
    True
    """
    down = -shift(1.0 / _checked(ratio))
    tilts: _Floats = np.zeros(len(_TILTS))
    exceedances: _Floats = np.zeros((len(_LEVELS) - 1, len(_WORSE)))
    for cell in cells:
        stable, candidate = _dense(cell.stable), _moved(_dense(cell.candidate), down)
        gain, cost = _tilt_tables(reference, cell.rho)
        tilts += gain @ candidate - cost @ (stable + candidate)
        thresholds = reference.thresholds[_TAIL]
        exceedances += _exceedance(stable, candidate, thresholds, _odds_table(cell.rho, True))
    return _log_half(_log_mean(tilts), _log_mean(exceedances.ravel()))


def promotion_evidence(
    cells: Sequence[LatencyCell], reference: Reference, quantile: str, ratio: float
) -> float:
    """Log E against "the candidate exceeds ``ratio``·t at least as often as stable exceeds t".

    t is stable's frozen ``quantile`` ("p50", "p95" or "p99"). The margin is in the two
    thresholds, so an event is charged to the candidate with chance θ ≥ ρ under this hypothesis,
    and equality, a ratio of rates of exactly 1, belongs to it: every bet is on a rate below 1, where
    the binomial likelihood ratio falls in θ and is at most 1 in expectation (Lindon & Malek,
    arXiv:2011.03567; Kulldorff et al. 2011). When both versions are equally fast the candidate
    exceeds the wider threshold less often: that is the power. A ratio between two buckets' is
    rounded down.

    >>> reference = freeze({bucket: 100 for bucket in range(20, 40)})
    >>> same = {bucket: 100 for bucket in range(20, 40)}
    >>> promotion_evidence([LatencyCell(0.5, same, same)], reference, "p50", 1.2) > 3
    True
    >>> promotion_evidence([LatencyCell(0.5, same, same)], reference, "p50", 1.0) < 0
    True
    """
    if quantile not in _AT:
        raise ValueError(f"No latency promise for {quantile!r}: choose one of p50, p95, p99.")
    down = shift(_checked(ratio))
    thresholds = (reference.thresholds[_AT[quantile]],)
    wealth: _Floats = np.zeros((1, len(_BETTER)))
    for cell in cells:
        stable, candidate = _dense(cell.stable), _moved(_dense(cell.candidate), down)
        wealth += _exceedance(stable, candidate, thresholds, _odds_table(cell.rho, False))
    return _log_mean(wealth.ravel())


def ratio_interval(
    cells: Sequence[LatencyCell], quantile: float, alpha: float = 0.05
) -> tuple[float, float, float]:
    """Candidate's quantile over stable's, and bounds that hold it at all times, to show.

    Each arm's confidence sequence (Howard & Ramdas, Bernoulli 2022) has half of ``alpha``. Stages
    of unequal probability are not pooled, which could turn a change over time into a difference:
    those of the probability with the most requests in its smaller arm speak. The estimate is NaN
    while an arm has no requests, or timeouts at this quantile in both.

    >>> same = {10: 5000, 20: 5000, 30: 5000}
    >>> estimate, low, high = ratio_interval([LatencyCell(0.5, same, same)], 0.5)
    >>> estimate, 0.9 < low < 1 < high < 1.1
    (1.0, True)
    """
    pooled: dict[float, tuple[_Floats, _Floats]] = {}
    for cell in cells:
        _check_rho(cell.rho)
        stable, candidate = pooled.get(cell.rho, (np.zeros(BUCKETS), np.zeros(BUCKETS)))
        pooled[cell.rho] = stable + _dense(cell.stable), candidate + _dense(cell.candidate)
    if not pooled:
        return math.nan, 0.0, math.inf
    arms = max(pooled.values(), key=lambda both: min(float(both[0].sum()), float(both[1].sum())))
    stable_counts, candidate_counts = (_sparse(arm) for arm in arms)
    low, high = quantile_interval(candidate_counts, quantile, alpha / 2)
    stable_low, stable_high = quantile_interval(stable_counts, quantile, alpha / 2)
    return (
        _quotient(_quantile(candidate_counts, quantile), _quantile(stable_counts, quantile)),
        0.0 if math.isinf(stable_high) else low / stable_high,
        math.inf if stable_low == 0.0 or math.isinf(high) else high / stable_low,
    )


_quantile = quantile  # two functions here have an argument of this name


def _quotient(value: float, by: float) -> float:
    return math.nan if math.isinf(value) and math.isinf(by) else value / by


def _middles() -> _Floats:
    """ln ns in the middle of every bucket; of timeouts: infinity."""
    first = math.log(lower_bound(1))
    middles = np.asarray(first + (np.arange(BUCKETS) - 0.5) * LOG_STEP, np.float64)
    middles[TIMEOUT] = math.inf
    return middles


_MIDDLES: Final = _middles()


def _dense(counts: Mapping[int, int]) -> _Floats:
    """All buckets' counts in order: the sums below then do not depend on the mapping's order."""
    dense: _Floats = np.zeros(BUCKETS)
    if counts:
        at = np.fromiter(counts.keys(), np.intp, len(counts))
        if int(at.min()) < 0 or int(at.max()) > TIMEOUT:
            raise ValueError(f"A latency bucket lies between 0 and {TIMEOUT}: use buckets.bucket.")
        dense[at] = np.fromiter(counts.values(), np.float64, len(counts))
    return dense


def _sparse(dense: _Floats) -> dict[int, int]:
    return {int(at): int(dense[at]) for at in np.flatnonzero(dense)}


def _moved(dense: _Floats, down: int) -> _Floats:
    """The histogram with every time divided by the ratio; a timeout stays one."""
    if down == 0:
        return dense
    moved: _Floats = np.zeros(BUCKETS)
    if down > 0:
        down = min(down, TIMEOUT - 1)
        moved[: TIMEOUT - down] = dense[down:TIMEOUT]
        moved[0] += dense[:down].sum()
    else:
        up = min(-down, TIMEOUT - 1)
        moved[up:TIMEOUT] = dense[: TIMEOUT - up]
        moved[TIMEOUT - 1] += dense[TIMEOUT - up : TIMEOUT].sum()
    moved[TIMEOUT] = dense[TIMEOUT]
    return moved


@lru_cache(maxsize=64)
def _tilt_tables(reference: Reference, rho: float) -> tuple[_Floats, _Floats]:
    """(tilts, buckets): ln of a candidate request's factor is gain − cost, of a stable one −cost."""
    _check_rho(rho)
    scores = np.round(np.clip((_MIDDLES - reference.mu) / reference.sigma, -3.0, 3.0), 1)
    baseline = _dense(dict(reference.counts))
    tilted = np.outer(_TILTS, scores)
    gain: _Floats = tilted - np.log(np.exp(tilted) @ baseline / baseline.sum())[:, None]
    cost: _Floats = np.logaddexp(math.log(rho) + gain, math.log1p(-rho))
    return gain, cost


@lru_cache(maxsize=64)
def _odds_table(rho: float, worse: bool) -> tuple[_Floats, _Floats]:
    """ln of a ratio's factor for an event on the candidate, and on stable."""
    _check_rho(rho)
    ratios = _WORSE if worse else _BETTER
    norm = np.log(rho * ratios + (1.0 - rho))
    return np.log(ratios) - norm, -norm


def _exceedance(
    stable: _Floats,
    candidate: _Floats,
    thresholds: tuple[int, ...],
    table: tuple[_Floats, _Floats],
) -> _Floats:
    """(thresholds, ratios): log-wealth of bets on which arm an exceeding request belongs to."""
    at = list(thresholds)
    slower_stable = stable.sum() - np.cumsum(stable)[at]
    slower_candidate = candidate.sum() - np.cumsum(candidate)[at]
    wealth: _Floats = np.multiply.outer(slower_candidate, table[0])
    wealth += np.multiply.outer(slower_stable, table[1])
    return wealth


def _log_mean(logs: _Floats) -> float:
    top = float(logs.max())
    return top + math.log(float(np.exp(logs - top).sum()) / logs.size)


def _log_half(one: float, other: float) -> float:
    return float(np.logaddexp(one, other)) - math.log(2.0)


def _check_rho(rho: float) -> None:
    if not 0.0 < rho < 1.0:
        raise ValueError(
            f"A latency test needs a coin: a candidate's probability of {rho} is not between 0 and 1."
        )


def _checked(ratio: float) -> float:
    if not 0.0 < ratio < math.inf:
        raise ValueError(f"A ratio of latencies is a positive number, not {ratio}: give 1.2.")
    return ratio
