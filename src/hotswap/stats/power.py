"""What a rollout can be expected to see: forecasts for a plan, before any request is risked.

Rates are of an event per request: ``p0`` on stable, ``p1`` on the candidate, which gets requests
with probability ``rho``. Forecasts are in requests of both arms together; ``inf`` where there is
nothing to find. The tests are those of `hotswap.stats.rate`.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt

from hotswap.stats.mixture import log_mean
from hotswap.stats.rate import GRID, PROMOTE, RateCell, rollback_evidence

#: Exact probabilities are computed for up to so many events.
EXACT_EVENTS: Final = 2000
# The mixture needs so much more than the bound that no test can beat: as measured, 1.25 to 1.6.
_DELAY: Final = 1.4
_LATENCY_DELAY: Final = 1.7  # and 1.6 to 1.8 for latency
# The largest evidence so far is ahead of the evidence of the expected counts by this much.
_AHEAD: Final = 1 / 3


def information(rho: float, p0: float, p1: float) -> float:
    """What one request tells of the arms' difference, in nats.

    The mutual information of outcome and arm, rho KL(p1, p) + (1 - rho) KL(p0, p) with p the
    rate of both arms together (Wald, "Sequential Analysis", 1947; Cover & Thomas, "Elements of
    Information Theory"). Raises ValueError for values that are no probabilities.

    >>> information(0.1, 0.01, 0.01), round(math.log(20) / information(0.1, 0.01, 0.02))
    (0.0, 8748)
    """
    _check(rho, 0.05, p0, p1)
    both = rho * p1 + (1.0 - rho) * p0
    return max(0.0, rho * _divergence(p1, both) + (1.0 - rho) * _divergence(p0, both))


def lower_bound(rho: float, p0: float, p1: float, alpha: float = 0.05) -> float:
    """Requests that any test of level ``alpha`` needs on average to detect ``p1`` > ``p0``.

    ln(1 / alpha) / information (Wald 1947).

    >>> round(lower_bound(0.01, 0.001, 0.01))
    21910
    """
    _check(rho, alpha, p0, p1)
    told = information(rho, p0, p1) if p1 > p0 else 0.0
    return -math.log(alpha) / told if told > 0.0 else math.inf


def requests_to_detect(rho: float, p0: float, p1: float, alpha: float = 0.05) -> float:
    """Requests until the rollback test fires, on average: 1.4 times Wald's lower bound (1947).

    >>> 11_000 < requests_to_detect(0.1, 0.01, 0.02) < 13_000
    True
    """
    return _DELAY * lower_bound(rho, p0, p1, alpha)


def chance_to_detect(
    requests: float, rho: float, p0: float, p1: float, alpha: float = 0.05
) -> float:
    """The probability that the rollback test fires within so many requests.

    While up to `EXACT_EVENTS` events can be expected it is exact for independent requests:
    first passage given the number of events by dynamic programming, averaged over that number's
    binomial distribution. Beyond, the log evidence is taken as a Brownian motion with the drift
    mu and the variance v per request of the best single bet, which reaches
    b = ln(1 / alpha) + (the mixture's lag behind that bet) - 1/3 within n requests with probability
    Phi((n mu - b) / sqrt(n v)) + exp(2 mu b / v) Phi(-(n mu + b) / sqrt(n v))
    (Siegmund, "Sequential Analysis", 1985). 0 where ``p1`` is not above ``p0``.

    >>> 0.4 < chance_to_detect(10_300, 0.1, 0.01, 0.02) < 0.6
    True
    """
    _check(rho, alpha, p0, p1)
    if not requests >= 0:
        raise ValueError(f"a number of requests is not negative: {requests}")
    rate = rho * p1 + (1.0 - rho) * p0
    if p1 <= p0 or not 0.0 < rho < 1.0:
        return 0.0
    theta = rho * p1 / rate
    reached = _first_passage(rho, theta, alpha)
    if requests * rate > EXACT_EVENTS - 6.0 * math.sqrt(EXACT_EVENTS):
        return min(1.0, max(float(reached[-1]), _brownian(requests, rate, rho, theta, alpha)))
    return min(1.0, float(np.dot(_binomial(int(requests), rate), reached)))


def requests_to_prove(rho: float, p0: float, ratio: float, alpha: float = 0.05) -> float:
    """Requests until a candidate that equals stable is proved to be below ``ratio`` times it.

    The events n at which the mixture's evidence reaches 1 / alpha, less a third of a nat for the
    running maximum, when rho n of them are the candidate's; divided by ``p0``. Expected growth
    as in Kelly betting (Kelly, "A new interpretation of information rate", 1956).

    >>> round(requests_to_prove(0.5, p0=0.01, ratio=1.5), -3)
    16000.0
    """
    _check(rho, alpha, p0, p0)
    if not (ratio > 1.0 and p0 > 0.0 and 0.0 < rho < 1.0):
        return math.inf
    share = _share(rho, ratio)
    growths = [_divergence(rho, share) - _divergence(rho, _share(rho, truth)) for truth in PROMOTE]
    enough = -math.log(alpha) - _AHEAD
    # Growth is convex in the number of events and starts at 0: it passes the level once.
    low, high = 0.0, 1.0
    while log_mean(high * growth for growth in growths) < enough:
        low, high = high, 2.0 * high
        if high > 1e18:
            return math.inf
    for _ in range(50):
        middle = 0.5 * (low + high)
        if log_mean(middle * growth for growth in growths) < enough:
            low = middle
        else:
            high = middle
    return high / p0


def boundary(events: int, rho: float, alpha: float = 0.05) -> tuple[int, ...]:
    """For 0, 1, ... ``events`` events the fewest on the candidate with which the test fires.

    One more than the events where none suffices. At most `EXACT_EVENTS` events. Armitage,
    McPherson & Rowe, "Repeated significance tests on accumulating data" (1969).

    >>> boundary(4, rho=0.01)
    (1, 2, 2, 2, 2)
    """
    _check(rho, alpha, 0.0, 0.0)
    if not 0 <= events <= EXACT_EVENTS:
        raise ValueError(f"boundaries are computed for 0 to {EXACT_EVENTS} events, not {events}")
    return _boundary(rho, alpha)[: events + 1]


def false_alarm(events: int, rho: float, alpha: float = 0.05) -> float:
    """The exact probability that the rollback test fires within ``events`` events of equal arms.

    By dynamic programming over the candidate's count (Armitage, McPherson & Rowe 1969) up to
    `EXACT_EVENTS`; for more the bound that holds for ever, ``alpha`` itself (Ville 1939).

    >>> round(false_alarm(200, rho=0.1), 5)
    0.02652
    """
    _check(rho, alpha, 0.0, 0.0)
    if not events >= 0:
        raise ValueError(f"a number of events is not negative: {events}")
    if not 0.0 < rho < 1.0:
        return 0.0
    return alpha if events > EXACT_EVENTS else float(_first_passage(rho, rho, alpha)[int(events)])


def latency_requests_to_detect(
    rho: float, ratio: float, sigma: float = 0.5, alpha: float = 0.05
) -> float:
    """Requests until times that are ``ratio`` times as long are detected, on average.

    For log-normal times with the standard deviation ``sigma`` of their logarithm: 1.7 times
    Wald's lower bound (1947) with the mutual information of time and arm.

    >>> 280 < latency_requests_to_detect(0.5, 1.2) < 340
    True
    """
    _check(rho, alpha, 0.0, 0.0)
    if not (0.0 < sigma < math.inf and 0.0 < ratio < math.inf):
        raise ValueError(f"a ratio and a deviation are positive, not {ratio} and {sigma}")
    shift = math.log(ratio) / sigma
    if shift <= 0.0 or not 0.0 < rho < 1.0:
        return math.inf
    z = np.linspace(-9.0, 9.0, 2001)
    normal = np.exp(-0.5 * z * z)
    normal /= normal.sum()
    # log of (candidate's density / stable's) at stable's z and at the candidate's z + shift.
    stable, candidate = shift * z - 0.5 * shift * shift, shift * z + 0.5 * shift * shift
    log_rho, log_rest = math.log(rho), math.log1p(-rho)
    told = -rho * np.dot(normal, np.logaddexp(log_rho, log_rest - candidate)) - (
        1.0 - rho
    ) * np.dot(normal, np.logaddexp(log_rest, log_rho + stable))
    return float(-_LATENCY_DELAY * math.log(alpha) / told) if told > 1e-14 else math.inf


def _check(rho: float, alpha: float, p0: float, p1: float) -> None:
    if not (min(rho, p0, p1) >= 0.0 and max(rho, p0, p1) <= 1.0):
        raise ValueError(f"these are no probabilities: rho {rho}, p0 {p0}, p1 {p1}")
    if not 0.0 < alpha < 1.0:
        raise ValueError(f"alpha lies between 0 and 1, not {alpha}")


def _share(rho: float, ratio: float) -> float:
    """The candidate's share of the events at this ratio of rates."""
    return rho * ratio / (rho * ratio + 1.0 - rho)


def _divergence(p: float, q: float) -> float:
    """KL(p, q) of two coins in nats."""
    first = p * math.log(p / q) if p > 0.0 else 0.0
    second = (1.0 - p) * math.log((1.0 - p) / (1.0 - q)) if p < 1.0 else 0.0
    return first + second


@lru_cache(maxsize=64)
def _boundary(rho: float, alpha: float) -> tuple[int, ...]:
    enough = -math.log(alpha)
    found = [1]
    for events in range(1, EXACT_EVENTS + 1):
        fewest = found[-1]  # it never falls: one more event on stable is evidence against firing
        while fewest <= events and rollback_evidence([RateCell(rho, events, fewest)]) < enough:
            fewest += 1
        found.append(min(fewest, events + 1))
    return tuple(found)


@lru_cache(maxsize=64)
def _first_passage(rho: float, theta: float, alpha: float) -> npt.NDArray[np.float64]:
    """P(fired within n events), n = 0 ... EXACT_EVENTS, each on the candidate with chance theta."""
    bounds = _boundary(rho, alpha)
    alive = np.zeros(EXACT_EVENTS + 2)  # by the candidate's count
    alive[0] = 1.0
    reached = np.zeros(EXACT_EVENTS + 1)
    for events in range(1, EXACT_EVENTS + 1):
        bound = bounds[events]
        moved = theta * alive[:bound]
        alive[:bound] -= moved
        alive[1 : bound + 1] += moved
        reached[events] = reached[events - 1] + alive[bound]
        alive[bound] = 0.0
    reached.setflags(write=False)
    return reached


def _binomial(requests: int, rate: float) -> npt.NDArray[np.float64]:
    """The distribution of the number of events, cut off (to 1e-9) at EXACT_EVENTS."""
    weights = np.zeros(EXACT_EVENTS + 1)
    if rate >= 1.0:
        weights[requests] = 1.0
        return weights
    last = min(requests, EXACT_EVENTS)
    whole, win, lose = math.lgamma(requests + 1), math.log(rate), math.log1p(-rate)
    weights[: last + 1] = [
        math.exp(
            whole
            - math.lgamma(events + 1)
            - math.lgamma(requests - events + 1)
            + events * win
            + (requests - events) * lose
        )
        for events in range(last + 1)
    ]
    return weights


def _brownian(requests: float, rate: float, rho: float, theta: float, alpha: float) -> float:
    if math.isinf(requests):
        requests = 1e300 / max(1.0, 1.0 / rate)
    drifts, variances = [], []
    for factor in GRID:
        loss = -math.log1p((factor - 1.0) * rho)
        gain = math.log(factor) + loss
        drift = rate * (theta * gain + (1.0 - theta) * loss)
        drifts.append(drift)
        variances.append(rate * (theta * gain**2 + (1.0 - theta) * loss**2) - drift**2)
    best = max(range(len(GRID)), key=drifts.__getitem__)
    drift, variance = drifts[best], variances[best]
    lag = requests * drift - log_mean(requests * each for each in drifts)
    level = -math.log(alpha) + max(0.0, lag - _AHEAD)
    if variance <= 0.0:
        return 1.0 if requests * drift >= level else 0.0
    deviation = math.sqrt(requests * variance)
    again = 2.0 * drift * level / variance
    reflected = _normal(-(requests * drift + level) / deviation)
    late = math.exp(again + math.log(reflected)) if reflected > 0.0 and again < 700.0 else 0.0
    return min(1.0, _normal((requests * drift - level) / deviation) + late)


def _normal(x: float) -> float:
    return 0.5 * math.erfc(-x / math.sqrt(2.0))
