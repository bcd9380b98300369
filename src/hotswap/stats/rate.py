"""Formula F1: is an event more frequent on the candidate than on stable?

Given that an event (an error, say) happened, the routing coin decided which arm had it: with
rate ratio r and the candidate's probability rho that is the candidate with probability
rho r / (rho r + 1 - rho). A bet on that coin needs two integers a stage, no minimum count and
no assumption on how the events arrive: bursts and daily cycles hit both arms alike. Evidence is
the natural logarithm of an e-value; looking at it often costs nothing (Ville's inequality).

Kulldorff et al., "A maximized sequential probability ratio test for drug and vaccine safety
surveillance" (2011); Lindon & Malek, "Anytime-valid inference for multinomial count data" (2022).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Final, NamedTuple

from hotswap.stats.mixture import log_mean


class RateCell(NamedTuple):
    """One stage: the candidate's probability, the events of both arms, those on the candidate."""

    rho: float
    events: int
    candidate: int


#: Rollback bets on the candidate's rate being so many times the ratio under test.
GRID: Final = (1.25, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0, 100.0)
#: Promotion bets on the true rate ratio being one of these.
PROMOTE: Final = (1.0, 0.9, 0.8, 0.6)
# From 1 downwards there is no room for PROMOTE below the ratio under test: the mirrored grid.
_MIRRORED: Final = tuple(1.0 / factor for factor in GRID)
_LOG_RATIOS: Final = 28.0  # ratios are looked for between exp(-28) and exp(28), 1e-12 and 1e12
_HALVINGS: Final = 34


def rollback_evidence(cells: Sequence[RateCell], ratio: float = 1.0) -> float:
    """Log evidence against 'the candidate's rate is at most ``ratio`` times stable's'.

    ``ratio`` is positive. No data: 0. Cells of one probability are added up first, so neither
    their order nor how they were split changes a bit of the result. Probabilities may differ by
    cell (a ramp, or a bandit's) as long as each was fixed before its requests were assigned.
    Stages of probability 0 or 1 tossed no coin and count for nothing. Raises ValueError for
    counts or probabilities that cannot be.

    The mixture of likelihood ratios is Kulldorff's test with a grid in place of the maximum.

    >>> round(rollback_evidence([RateCell(rho=0.1, events=10, candidate=5)]), 6)
    3.806781
    """
    return odds_evidence(cells, ratio, GRID)


def promotion_evidence(cells: Sequence[RateCell], ratio: float) -> float:
    """Log evidence against 'the candidate's rate is at least ``ratio`` times stable's'.

    As `rollback_evidence`, the other way round: a proof of non-inferiority by the margin
    ``ratio`` when it is above 1, and of an improvement from 1 downwards. The bets are on true
    ratios of `PROMOTE` above 1, and on ``ratio`` divided by `GRID` from 1 downwards. One-sided
    validity: the likelihood ratio is monotone in the ratio (Wald, "Sequential Analysis", 1947).

    >>> promotion_evidence([RateCell(rho=0.5, events=200, candidate=95)], 1.5) > math.log(20)
    True
    """
    return odds_evidence(cells, ratio, _promotion_factors(ratio))


def ratio_interval(cells: Sequence[RateCell], alpha: float = 0.05) -> tuple[float, float]:
    """The confidence sequence for the rate ratio, candidate's over stable's, at level 1 - alpha.

    Every ratio that neither test rejects at ``alpha`` / 2; it holds at all times at once, so it
    may be shown while it grows. The test for the upper end bets on ``ratio`` / `GRID` beside
    `PROMOTE`, so that it says something of a bad candidate too. ``(0.0, inf)`` without data.
    Inversion of tests (Howard et al., "Time-uniform, nonparametric, nonasymptotic confidence
    sequences", 2021).

    >>> low, high = ratio_interval([RateCell(rho=0.5, events=300, candidate=200)])
    >>> 1.3 < low < 2.0 < high < 3.2
    True
    """
    if not 0.0 < alpha < 1.0:
        raise ValueError(f"alpha lies between 0 and 1, not {alpha}")
    totals = _totals(cells)
    if not totals:
        return 0.0, math.inf
    enough = math.log(2.0 / alpha)

    def evidence(log_ratio: float, *, below: bool) -> float:
        ratio = math.exp(log_ratio)
        factors = GRID if below else _interval_factors(ratio)
        return _mixture(totals, ratio, factors, cached=False)

    # The rejected ratios are a ray from 0 and a ray to infinity. Evidence of rollback falls with
    # the ratio. A bet on less is at most even up to the likeliest ratio, and gains from there on.
    low = _last(lambda x: evidence(x, below=True) >= enough)
    high = _last(lambda x: evidence(-x, below=False) >= enough)
    return (0.0 if low is None else math.exp(low)), (math.inf if high is None else math.exp(-high))


def p_value(log_evidence: float) -> float:
    """The always-valid p-value: 1 / E, at most 1 (Ville's inequality). Not a number gives 1.

    >>> p_value(-5.0), round(p_value(math.log(20)), 6), p_value(1e9)
    (1.0, 0.05, 0.0)
    """
    return math.exp(-log_evidence) if log_evidence > 0.0 else 1.0


def odds_evidence(
    cells: Iterable[tuple[float, int, int]], ratio: float, factors: tuple[float, ...]
) -> float:
    """Log evidence that the coin's odds are not ``ratio`` times rho's, but ``factors`` times that.

    ``cells`` are (rho, all, those on the candidate). Likelihood ratios of binomial counts, one a
    factor, multiplied over stages and then averaged (the method of mixtures, Wald 1947).

    >>> round(odds_evidence([(0.01, 2, 2)], 1.0, GRID), 6)
    5.988227
    """
    if not 0.0 < ratio < math.inf:
        raise ValueError(f"a ratio of rates is positive and finite, not {ratio}")
    totals = _totals(cells)
    return _mixture(totals, ratio, factors, cached=True) if totals else 0.0


def _promotion_factors(ratio: float) -> tuple[float, ...]:
    return tuple(truth / ratio for truth in PROMOTE) if ratio > 1.0 else _MIRRORED


def _interval_factors(ratio: float) -> tuple[float, ...]:
    """Promotion's bets, and those that end the interval soon where the truth is far above 1."""
    return _MIRRORED + tuple(min(1.0, truth / ratio) for truth in PROMOTE)


def _totals(cells: Iterable[tuple[float, int, int]]) -> list[tuple[float, int, int]]:
    """The cells with events and a coin, one for each probability."""
    sums: dict[float, tuple[int, int]] = {}
    for rho, events, candidate in cells:
        if not (0 <= candidate <= events and 0.0 <= rho <= 1.0):
            raise ValueError(
                "a stage has a probability and 0 <= candidate <= all, "
                f"not {(rho, events, candidate)}"
            )
        if events and 0.0 < rho < 1.0:
            before = sums.get(rho, (0, 0))
            sums[rho] = (before[0] + events, before[1] + candidate)
    return [(rho, *sums[rho]) for rho in sorted(sums)]


def _mixture(
    totals: list[tuple[float, int, int]], ratio: float, factors: tuple[float, ...], *, cached: bool
) -> float:
    # One bet's likelihood ratio is factor ** candidate / (1 + (factor - 1) theta) ** all, where
    # theta is the candidate's share of the events at the ratio under test.
    gains, costs = (_gains, _costs) if cached else (_gains.__wrapped__, _costs.__wrapped__)
    candidates = sum(total[2] for total in totals)
    wealth = [candidates * gain for gain in gains(factors)]
    for rho, events, _ in totals:
        for at, cost in enumerate(costs(rho, ratio, factors)):
            wealth[at] -= events * cost
    return log_mean(wealth)


@lru_cache(maxsize=256)
def _gains(factors: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(math.log(factor) for factor in factors)


@lru_cache(maxsize=4096)
def _costs(rho: float, ratio: float, factors: tuple[float, ...]) -> tuple[float, ...]:
    theta = rho * ratio / (rho * ratio + 1.0 - rho)
    return tuple(math.log1p((factor - 1.0) * theta) for factor in factors)


def _last(holds: Callable[[float], bool]) -> float | None:
    """The largest log ratio for which the falling test holds, rounded down; None if none is."""
    low, high = -_LOG_RATIOS, _LOG_RATIOS
    if not holds(low):
        return None
    for _ in range(_HALVINGS):
        middle = 0.5 * (low + high)
        if holds(middle):
            low = middle
        else:
            high = middle
    return low
