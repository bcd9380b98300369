"""Two versions judged on the same requests, and one version's rate against a limit.

A pair's difference is D = loss of the candidate − loss of stable, in [−1, 1]; of two verdicts it
is 1 (worse), −1 (better) or 0 (tie). Counts add in any order, and every margin is available
afterwards; differences that are not whole numbers keep sums for a margin fixed at the start.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final, NamedTuple, overload

from hotswap.stats.mixture import log_mean

_BETS: Final = (0.02, 0.05, 0.1, 0.2, 0.4)
_CONCENTRATION: Final = 20.0
_UNIT: Final = 1 << 40  # of the sums below: exact integers add the same in any order
_MORE: Final = (1.1, 1.25, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0, 100.0)
_FEWER: Final = (0.9, 0.8, 0.6, 0.4, 0.2, 0.05)
_RARE: Final = 1e-9
_lgamma = math.lgamma


class Pairs(NamedTuple):
    """Requests by whether the candidate's answer was worse than stable's, better, or as good."""

    worse: int
    better: int
    ties: int


class PairSums(NamedTuple):
    """Log-wealth per bet against a fixed margin, in units of 2**-40, rounded down; starts at 0."""

    margin: float
    rollback: tuple[int, ...] = (0,) * len(_BETS)
    promotion: tuple[int, ...] = (0,) * len(_BETS)


def mcnemar_evidence(pairs: Pairs) -> float:
    """Log E against "worse is no likelier than better"; ties do not count.

    The test of McNemar (1947) with a Beta(10, 10) mixture over the chances above a half (Howard et
    al., "Time-uniform, nonparametric, nonasymptotic confidence sequences", AoS 2021).

    >>> round(mcnemar_evidence(Pairs(60, 40, 0)), 6), round(mcnemar_evidence(Pairs(30, 10, 9)), 6)
    (1.441783, 3.588749)
    """
    _check_pairs(pairs)
    half = _CONCENTRATION / 2
    a, b = half + pairs.worse, half + pairs.better
    if pairs.worse + pairs.better == 0:
        return 0.0
    return (
        _log_beta(a, b)
        + _log_half_tail(b, a)
        - _log_beta(half, half)
        + math.log(2.0) * (1 + pairs.worse + pairs.better)
    )


@overload
def evidence(pairs: Pairs, margin: float = 0.0) -> float: ...
@overload
def evidence(pairs: PairSums, margin: None = None) -> float: ...
def evidence(pairs: Pairs | PairSums, margin: float | None = None) -> float:
    """Log E against "the mean difference is ``margin`` at most".

    Betting on a grid of stakes (Waudby-Smith & Ramdas, "Estimating means of bounded random
    variables by betting", JRSSB 2024); needs no independence, only that the mean stays below.
    `PairSums` bring their margin.

    >>> evidence(Pairs(60, 40, 900)) > evidence(Pairs(60, 40, 900), 0.01) > -1
    True
    """
    if isinstance(pairs, PairSums):
        _check_own_margin(margin)
        return log_mean(wealth / _UNIT for wealth in pairs.rollback)
    return _counted(pairs, 0.0 if margin is None else margin, 1.0)


@overload
def promotion_evidence(pairs: Pairs, margin: float) -> float: ...
@overload
def promotion_evidence(pairs: PairSums, margin: None = None) -> float: ...
def promotion_evidence(pairs: Pairs | PairSums, margin: float | None = None) -> float:
    """Log E against "the mean difference is ``margin`` at least": what a promotion needs.

    The same bets on the other side (Waudby-Smith & Ramdas, JRSSB 2024). `PairSums` bring their
    margin.

    >>> promotion_evidence(Pairs(134, 134, 6442), 0.01) > 3
    True
    """
    if isinstance(pairs, PairSums):
        _check_own_margin(margin)
        return log_mean(wealth / _UNIT for wealth in pairs.promotion)
    if margin is None:
        raise ValueError("A promotion needs a margin: say how much worse the candidate may be.")
    return _counted(pairs, margin, -1.0)


def difference_interval(pairs: Pairs, alpha: float = 0.05) -> tuple[float, float, float]:
    """The mean difference, and bounds that hold it at all times with chance 1 − ``alpha``.

    The margins that neither side's bets refute at half of ``alpha`` each (Waudby-Smith & Ramdas,
    JRSSB 2024). (0, −1, 1) without pairs.

    >>> estimate, low, high = difference_interval(Pairs(500, 100, 400))
    >>> low < estimate < high, low > 0.2
    (True, True)
    """
    _check_alpha(alpha)
    total = sum(pairs)
    if total <= 0:
        return 0.0, -1.0, 1.0
    needed = math.log(2.0 / alpha)
    estimate = (pairs.worse - pairs.better) / total
    low = _edge(estimate, -1.0, lambda m: evidence(pairs, m) >= needed)
    high = _edge(estimate, 1.0, lambda m: promotion_evidence(pairs, m) >= needed)
    return estimate, low, high


def add(sums: PairSums, d: float) -> PairSums:
    """The sums with one more difference in [−1, 1]; `ValueError` for any other.

    Each stake's gain, rounded down, which only makes the evidence smaller (Waudby-Smith & Ramdas,
    JRSSB 2024).

    >>> sums = add(add(PairSums(0.1), 0.3), -0.2)
    >>> sums == merge(add(PairSums(0.1), -0.2), add(PairSums(0.1), 0.3))
    True
    """
    _check_margin(sums.margin)
    if not -1.0 <= d <= 1.0:
        raise ValueError(f"A difference of losses lies between -1 and 1, not at {d}: scale it.")
    gain = d - sums.margin
    return PairSums(
        sums.margin,
        tuple(w + _units(bet * gain) for w, bet in zip(sums.rollback, _BETS, strict=True)),
        tuple(w + _units(-bet * gain) for w, bet in zip(sums.promotion, _BETS, strict=True)),
    )


def merge(one: PairSums, other: PairSums) -> PairSums:
    """The sums of both's differences; `ValueError` when their margins differ.

    Log-wealths of fixed stakes add (Waudby-Smith & Ramdas, JRSSB 2024).

    >>> merge(PairSums(0.1), PairSums(0.1)) == PairSums(0.1)
    True
    """
    if one.margin != other.margin:
        raise ValueError(f"Sums for the margins {one.margin} and {other.margin} do not add.")
    return PairSums(
        one.margin,
        tuple(a + b for a, b in zip(one.rollback, other.rollback, strict=True)),
        tuple(a + b for a, b in zip(one.promotion, other.promotion, strict=True)),
    )


def limit_evidence(events: int, total: int, limit: float) -> float:
    """Log E against "the rate is ``limit`` at most"; a limit of 1 cannot be broken.

    Binomial likelihood ratios on a grid of odds, all above the limit's, so that each is a
    supermartingale at every rate below it (Wald 1945; Waudby-Smith & Ramdas, JRSSB 2024).

    >>> limit_evidence(30, 200, 0.05) > 3, limit_evidence(10, 200, 0.05) < 0
    (True, True)
    """
    _check_rate(events, total, limit)
    return 0.0 if limit >= 1.0 else _against(events, total, max(limit, _RARE), _MORE)


def limit_promotion_evidence(events: int, total: int, limit: float) -> float:
    """Log E against "the rate is ``limit`` at least"; a limit of 0 can never be kept to surely.

    `limit_evidence` on the other side (Wald 1945; Waudby-Smith & Ramdas, JRSSB 2024).

    >>> limit_promotion_evidence(0, 200, 0.05) > 3, limit_promotion_evidence(10, 200, 0.05) < 0
    (True, True)
    """
    _check_rate(events, total, limit)
    return 0.0 if limit <= 0.0 else _against(events, total, min(limit, 1.0 - _RARE), _FEWER)


def rate_interval(events: int, total: int, alpha: float = 0.05) -> tuple[float, float]:
    """Bounds that hold a rate at all times with chance 1 − ``alpha``; (0, 1) without requests.

    Inverts the beta-binomial mixture with Jeffreys' prior (Robbins 1970; Howard et al., AoS 2021).

    >>> low, high = rate_interval(100, 10_000)
    >>> 0.0065 < low < 0.01 < high < 0.015
    True
    """
    _check_rate(events, total, 0.5)
    _check_alpha(alpha)
    if total == 0:
        return 0.0, 1.0
    missed = total - events
    mixed = _log_beta(0.5 + events, 0.5 + missed) - _log_beta(0.5, 0.5)
    needed = -math.log(alpha)

    def refuted(rate: float) -> bool:
        if (rate <= 0.0 and events) or (rate >= 1.0 and missed):
            return True
        fit = events * math.log(rate) if events else 0.0
        return mixed - fit - (missed * math.log1p(-rate) if missed else 0.0) >= needed

    estimate = events / total
    return _edge(estimate, 0.0, refuted), _edge(estimate, 1.0, refuted)


def _counted(pairs: Pairs, margin: float, side: float) -> float:
    _check_pairs(pairs)
    _check_margin(margin)
    worse, better, ties = pairs
    return log_mean(
        worse * math.log1p(bet * (1.0 - margin))
        + better * math.log1p(bet * (-1.0 - margin))
        + ties * math.log1p(bet * -margin)
        for bet in (side * stake for stake in _BETS)
    )


def _against(events: int, total: int, limit: float, odds: tuple[float, ...]) -> float:
    return log_mean(
        events * math.log(ratio) - total * math.log1p(limit * (ratio - 1.0)) for ratio in odds
    )


def _units(gain: float) -> int:
    return math.floor(math.log1p(gain) * _UNIT)


def _edge(inside: float, outside: float, refuted: Callable[[float], bool]) -> float:
    """Where the refuted values begin on the way from ``inside``, itself not refuted."""
    if not refuted(outside):
        return outside
    for _ in range(50):
        middle = 0.5 * (inside + outside)
        if refuted(middle):
            outside = middle
        else:
            inside = middle
    return outside


def _log_beta(a: float, b: float) -> float:
    return _lgamma(a) + _lgamma(b) - _lgamma(a + b)


def _log_half_tail(a: float, b: float) -> float:
    """ln I_½(a, b), the regularised incomplete beta function, by Lentz's continued fraction.

    Numerical Recipes, section 6.4; in logarithms, so that a tail of any smallness stays one.
    """
    if b < a:
        return _log_fraction(a, b)
    return math.log1p(-math.exp(min(_log_fraction(b, a), -1e-16)))


def _log_fraction(a: float, b: float) -> float:
    c, d = 1.0, 1.0 / (1.0 - (a + b) * 0.5 / (a + 1.0))
    value = d
    for m in range(1, 100_000):
        for term in (
            m * (b - m) * 0.5 / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * 0.5 / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1.0 / (1.0 + term * d)
            c = 1.0 + term / c
            value *= c * d
        if abs(c * d - 1.0) < 1e-15:
            break
    return -(a + b) * math.log(2.0) - math.log(a) - _log_beta(a, b) + math.log(value)


def _check_pairs(pairs: Pairs) -> None:
    if min(pairs) < 0:
        raise ValueError(f"Counts of pairs are never negative: {tuple(pairs)}.")


def _check_margin(margin: float) -> None:
    if not -1.0 <= margin <= 1.0:
        raise ValueError(f"A margin of losses lies between -1 and 1, not at {margin}: give 0.01.")


def _check_own_margin(margin: float | None) -> None:
    if margin is not None:
        raise ValueError("These sums were made for their own margin: give none here.")


def _check_rate(events: int, total: int, limit: float) -> None:
    if not 0 <= events <= total:
        raise ValueError(f"{events} events of {total} requests is not a rate: count both alike.")
    if not 0.0 <= limit <= 1.0:
        raise ValueError(f"A rate's limit lies between 0 and 1, not at {limit}: give 0.01.")


def _check_alpha(alpha: float) -> None:
    if not 0.0 < alpha < 1.0:
        raise ValueError(f"An error probability lies between 0 and 1, not at {alpha}: give 0.05.")
