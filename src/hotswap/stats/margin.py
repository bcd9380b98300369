"""Formula F2: does the candidate's mean exceed stable's by more than an absolute margin?

For outcomes in [0, 1] (an event or none, a clipped and scaled reward). With a frozen guess m of
the mean, Z = (Y - m) (A / rho - (1 - A) / (1 - rho)) has exactly the difference of the means as
its expectation, by the routing coin alone and whatever drifts; evidence is the wealth of bets on
Z - margin. A wrong m costs power, never validity. Z is the augmented inverse-propensity score
(Robins, Rotnitzky & Zhao 1994); the bets are those of Waudby-Smith & Ramdas, "Estimating means
of bounded random variables by betting" (2024), on a fixed grid, so that counters suffice.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Final, NamedTuple

from hotswap.stats.mixture import log_mean


class MeanCell(NamedTuple):
    """One stage of binary outcomes: the candidate's probability, then requests by arm and event.

    ``c11`` candidate with the event, ``c10`` candidate without, ``c01`` stable with, ``c00``
    stable without.
    """

    rho: float
    c11: int
    c10: int
    c01: int
    c00: int


class Sums(NamedTuple):
    """Log wealth of each bet of the grid, for outcomes that are not binary."""

    wealth: tuple[float, ...] = (0.0,) * 6


#: Bets as shares of the largest that cannot lose everything on one request.
_STAKES: Final = tuple(0.95 * share for share in (1.0, 0.5, 0.25, 0.1, 0.04, 0.016))
_HALVINGS: Final = 30


def rollback_evidence(cells: Sequence[MeanCell], mean: float, margin: float = 0.0) -> float:
    """Log evidence against 'the candidate's mean is at most stable's plus ``margin``'.

    ``mean`` in [0, 1] was frozen before the rollout; ``margin`` lies in (-1, 1). No data: 0.
    Cells of one probability are added up first, so neither their order nor how they were split
    changes a bit of the result. Stages of probability 0 or 1 tossed no coin and count for
    nothing. Raises ValueError for values that cannot be. Method: see the module.

    >>> cell = MeanCell(rho=0.1, c11=20, c10=980, c01=90, c00=8910)
    >>> round(rollback_evidence([cell], mean=0.01), 6)
    2.023086
    """
    _check(mean, margin)
    totals = _totals(cells)
    return _wealth(totals, mean, margin, cached=True) if totals else 0.0


def promotion_evidence(cells: Sequence[MeanCell], mean: float, margin: float) -> float:
    """Log evidence against 'the candidate's mean is at least stable's plus ``margin``'.

    The rollback test of the opposite outcome with the opposite margin (Waudby-Smith & Ramdas
    2024); arguments as for `rollback_evidence`.

    >>> cell = MeanCell(rho=0.5, c11=100, c10=9_900, c01=100, c00=9_900)
    >>> promotion_evidence([cell], mean=0.01, margin=0.005) > math.log(20)
    True
    """
    return rollback_evidence([_opposite(cell) for cell in cells], 1.0 - mean, -margin)


def difference_interval(
    cells: Sequence[MeanCell], mean: float, alpha: float = 0.05
) -> tuple[float, float]:
    """The confidence sequence for the candidate's mean minus stable's, at level 1 - alpha.

    Every difference that neither test rejects at ``alpha`` / 2, at all times at once;
    ``(-1.0, 1.0)`` without data. Inversion of bets (Waudby-Smith & Ramdas 2024).

    >>> cell = MeanCell(rho=0.5, c11=200, c10=9_800, c01=100, c00=9_900)
    >>> low, high = difference_interval([cell], mean=0.01)
    >>> 0.0 < low < 0.01 < high < 0.02
    True
    """
    _check(mean, 0.0)
    if not 0.0 < alpha < 1.0:
        raise ValueError(f"alpha lies between 0 and 1, not {alpha}")
    totals = _totals(cells)
    if not totals:
        return -1.0, 1.0
    enough = math.log(2.0 / alpha)
    low = _bound(totals, mean, enough)
    high = -_bound([_opposite(cell) for cell in totals], 1.0 - mean, enough)
    return low, max(low, high)


def update(
    sums: Sums, value: float, assigned_candidate: bool, rho: float, mean: float, margin: float = 0.0
) -> Sums:
    """The sums after one more outcome ``value`` in [0, 1] on the arm that the coin had assigned.

    Cap and scale unbounded values by constants frozen beforehand. ``rho`` in (0, 1) is the
    candidate's probability at that request. For promotion give 1 - value, 1 - mean and -margin.
    Workers' sums are added up by adding their ``wealth`` element by element. Raises ValueError
    for values that cannot be. Method: see the module.

    >>> sums = update(Sums(), 1.0, assigned_candidate=True, rho=0.5, mean=0.1)
    >>> evidence(sums) > 0
    True
    """
    if not 0.0 <= value <= 1.0:
        raise ValueError(f"an outcome is capped and scaled to [0, 1] first: {value} is not in it")
    if not 0.0 < rho < 1.0:
        raise ValueError(f"a request without a coin takes no part: the probability is {rho}")
    _check(mean, margin)
    score = (value - mean) * (1.0 / rho if assigned_candidate else -1.0 / (1.0 - rho)) - margin
    scale = margin + _largest_loss(rho, mean)
    return Sums(
        tuple(
            before + math.log1p(stake * score / scale)
            for before, stake in zip(sums.wealth, _STAKES, strict=True)
        )
    )


def evidence(sums: Sums) -> float:
    """Log evidence of the sums: the average of the bets' wealth (Waudby-Smith & Ramdas 2024).

    >>> evidence(Sums())
    0.0
    """
    return log_mean(sums.wealth)


def _check(mean: float, margin: float) -> None:
    if not (0.0 <= mean <= 1.0 and -1.0 < margin < 1.0):
        raise ValueError(
            f"the mean lies in [0, 1] and the margin between -1 and 1, not {mean} and {margin}"
        )


def _opposite(cell: MeanCell) -> MeanCell:
    return MeanCell(cell.rho, cell.c10, cell.c11, cell.c00, cell.c01)


def _totals(cells: Sequence[MeanCell]) -> list[MeanCell]:
    """The cells with requests and a coin, one for each probability."""
    sums: dict[float, MeanCell] = {}
    for cell in cells:
        rho, c11, c10, c01, c00 = cell
        if not (min(c11, c10, c01, c00) >= 0 and 0.0 <= rho <= 1.0):
            raise ValueError(f"a stage has a probability and no negative counts, not {cell}")
        if 0.0 < rho < 1.0 and (c11 or c10 or c01 or c00):
            old = sums.get(rho)
            sums[rho] = (
                MeanCell(rho, old[1] + c11, old[2] + c10, old[3] + c01, old[4] + c00)
                if old
                else cell
            )
    return [sums[rho] for rho in sorted(sums)]


def _wealth(totals: list[MeanCell], mean: float, margin: float, *, cached: bool) -> float:
    gains = _gains if cached else _gains.__wrapped__
    wealth = [0.0] * len(_STAKES)
    for rho, c11, c10, c01, c00 in totals:
        for at, (g11, g10, g01, g00) in enumerate(gains(rho, mean, margin)):
            wealth[at] += c11 * g11 + c10 * g10 + c01 * g01 + c00 * g00
    return log_mean(wealth)


def _largest_loss(rho: float, mean: float) -> float:
    """How far Z can fall below zero; at least 1, so a margin above -1 leaves room for a bet."""
    return max((1.0 - mean) / (1.0 - rho), mean / rho)


@lru_cache(maxsize=4096)
def _gains(rho: float, mean: float, margin: float) -> tuple[tuple[float, ...], ...]:
    """For each stake the logarithms of what a request of each of the four kinds multiplies by."""
    scale = margin + _largest_loss(rho, mean)
    scores = ((1.0 - mean) / rho, -mean / rho, -(1.0 - mean) / (1.0 - rho), mean / (1.0 - rho))
    return tuple(
        tuple(math.log1p(stake * (score - margin) / scale) for score in scores) for stake in _STAKES
    )


def _bound(totals: list[MeanCell], mean: float, enough: float) -> float:
    """The largest margin that the rollback test rejects, rounded down; -1 if there is none.

    Each request's factor is 1 - stake + stake (Z + loss) / (margin + loss): it falls with the
    margin, so the rejected margins are a ray.
    """
    low, high = -1.0, 1.0
    for _ in range(_HALVINGS):
        middle = 0.5 * (low + high)
        if _wealth(totals, mean, middle, cached=False) >= enough:
            low = middle
        else:
            high = middle
    return low
