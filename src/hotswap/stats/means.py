"""Formula F2 for values: does the candidate's mean exceed stable's by more than a margin?

For outcomes in [0, 1] of requests that one arm answered each (a capped and scaled reward, a loss,
1 for a wrong prediction), counted by arm and bucket; `margin` is the same for events. With a
frozen guess m of the mean, Z = (Y − m) (A / ρ − (1 − A) / (1 − ρ)) has exactly the difference of
the means as its expectation, by the routing coin alone (Robins, Rotnitzky & Zhao 1994). Evidence
is the wealth of bets on Z − margin on a fixed grid (Waudby-Smith & Ramdas, "Estimating means of
bounded random variables by betting", JRSSB 2024). A wrong m costs power, never validity.

Buckets are those of `differences`, from 0 to 500: even ones exact, odd ones between. What lies
between counts as the end that speaks against the bet, low for one arm and high for the other, or
moves to one of both ends by an unbiased ``chance``: then the means stay what they are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from hotswap.stats import differences
from hotswap.stats.differences import STEPS, Floats
from hotswap.stats.mixture import log_mean


class ValueCell(NamedTuple):
    """One stage: the candidate's probability, then rows by bucket (0 to 500) of either arm."""

    rho: float
    candidate: Mapping[int, int]
    stable: Mapping[int, int]


#: Bets as shares of the largest that cannot lose everything on one request, as in `margin`.
_STAKES: Final = 0.95 * np.array([1.0, 0.5, 0.25, 0.1, 0.04, 0.016])
_HALVINGS: Final = 30


def buckets(values: npt.ArrayLike, chance: npt.ArrayLike | None = None) -> dict[int, int]:
    """Rows by bucket of outcomes in [0, 1]; `ValueError` if any is not.

    ``chance``: one number in [0, 1) for each, a hash of the row's id, as in `differences.bucket`.

    >>> buckets([0.0, 1.0, 0.001, 1.0])
    {0: 1, 1: 1, 500: 2}
    """
    return differences.buckets(values, chance, low=0.0)


def mean(counts: Mapping[int, int]) -> float:
    """The mean outcome of one arm, each row at the middle of its bucket; 0 without rows.

    >>> mean({0: 3, 500: 1})
    0.25
    """
    return differences.mean(counts)


def rollback_evidence(cells: Sequence[ValueCell], mean: float, margin: float = 0.0) -> float:
    """Log E (nats) against "the candidate's mean is at most stable's plus ``margin``".

    ``mean`` in [0, 1] was frozen before the rollout; ``margin`` lies in (−1, 1). For outcomes
    where more is worse: give 1 − reward. Stages of one probability are added up first; those of
    probability 0 or 1 tossed no coin and count for nothing. No data: 0. `ValueError` for values
    that cannot be. Method: see the module.

    >>> cell = ValueCell(0.1, {0: 980, 500: 20}, {0: 8910, 500: 90})
    >>> round(rollback_evidence([cell], mean=0.01), 6)
    2.023086
    """
    _check(mean, margin)
    return _wealth(_totals(cells), mean, margin)


def promotion_evidence(cells: Sequence[ValueCell], mean: float, margin: float) -> float:
    """Log E (nats) against "the candidate's mean is at least stable's plus ``margin``".

    The rollback test of 1 − Y with the opposite margin (Waudby-Smith & Ramdas 2024).

    >>> cell = ValueCell(0.5, {0: 9_900, 500: 100}, {0: 9_900, 500: 100})
    >>> promotion_evidence([cell], mean=0.01, margin=0.005) > math.log(20)
    True
    """
    _check(mean, margin)
    return _wealth([_opposite(each) for each in _totals(cells)], 1.0 - mean, -margin)


def difference_interval(
    cells: Sequence[ValueCell], mean: float, alpha: float = 0.05
) -> tuple[float, float]:
    """Bounds that hold the candidate's mean minus stable's at all times with chance 1 − ``alpha``.

    What neither test rejects at half of ``alpha`` (Waudby-Smith & Ramdas 2024); (−1, 1) without
    data.

    >>> cell = ValueCell(0.5, {0: 9_800, 500: 200}, {0: 9_900, 500: 100})
    >>> low, high = difference_interval([cell], mean=0.01)
    >>> 0.0 < low < 0.01 < high < 0.02
    True
    """
    _check(mean, 0.0)
    if not 0.0 < alpha < 1.0:
        raise ValueError(f"An error probability lies between 0 and 1, not at {alpha}: give 0.05.")
    totals = _totals(cells)
    if not totals:
        return -1.0, 1.0
    enough = math.log(2.0 / alpha)
    low = _bound(totals, mean, enough)
    high = -_bound([_opposite(each) for each in totals], 1.0 - mean, enough)
    return low, max(low, high)


class _Total(NamedTuple):
    """A stage's outcomes, each at the end that speaks against the bet: values and rows by arm."""

    rho: float
    candidate: tuple[Floats, Floats]
    stable: tuple[Floats, Floats]
    source: ValueCell


def _totals(cells: Sequence[ValueCell]) -> list[_Total]:
    """The stages with rows and a coin, one for each probability, by rising probability."""
    sums: dict[float, ValueCell] = {}
    for cell in cells:
        rho = cell.rho
        if not 0.0 <= rho <= 1.0:
            raise ValueError(f"The candidate's probability lies between 0 and 1, not at {rho}.")
        if 0.0 < rho < 1.0:
            old = sums.get(rho, ValueCell(rho, {}, {}))
            sums[rho] = ValueCell(
                rho,
                differences.merge(old.candidate, cell.candidate),
                differences.merge(old.stable, cell.stable),
            )
    found = [_total(sums[rho]) for rho in sorted(sums)]
    return [each for each in found if each.candidate[1].size or each.stable[1].size]


def _total(cell: ValueCell) -> _Total:
    return _Total(
        cell.rho,
        differences.ends(cell.candidate, 1, low=0),
        differences.ends(cell.stable, -1, low=0),
        cell,
    )


def _opposite(total: _Total) -> _Total:
    """The same rows of 1 − Y."""
    rho, candidate, stable = total.source
    return _total(
        ValueCell(
            rho,
            {STEPS - at: n for at, n in candidate.items()},
            {STEPS - at: n for at, n in stable.items()},
        )
    )


def _wealth(totals: list[_Total], mean: float, margin: float) -> float:
    """The bets' log mean wealth; a stage's largest bet leaves 5 % of it after the worst row."""
    if not totals:
        return 0.0
    wealth = np.zeros(len(_STAKES))
    for rho, (candidate, ours), (stable, theirs), _ in totals:
        scale = margin + max((1.0 - mean) / (1.0 - rho), mean / rho)
        for scores, rows in (
            ((candidate - mean) / rho, ours),
            ((mean - stable) / (1.0 - rho), theirs),
        ):
            gains = np.log1p(_STAKES[:, None] * ((scores - margin) / scale))
            wealth += (gains * rows).sum(axis=1)
    return log_mean(wealth.tolist())


def _bound(totals: list[_Total], mean: float, enough: float) -> float:
    """The largest margin that the rollback test rejects, rounded down; −1 if there is none.

    Each factor falls with the margin, as in `margin`, so the rejected margins are a ray.
    """
    low, high = -1.0, 1.0
    for _ in range(_HALVINGS):
        middle = 0.5 * (low + high)
        if _wealth(totals, mean, middle) >= enough:
            low = middle
        else:
            high = middle
    return low


def _check(mean: float, margin: float) -> None:
    if not (0.0 <= mean <= 1.0 and -1.0 < margin < 1.0):
        raise ValueError(
            f"the mean lies in [0, 1] and the margin between -1 and 1, not {mean} and {margin}"
        )
