"""Formula F6: bounded differences of losses on the same requests, from a histogram.

A difference is D = loss of the candidate − loss of stable, in [−1, 1]; positive is worse. Evidence
is the wealth of bets on D − margin, on a fixed grid of stakes (Waudby-Smith & Ramdas, "Estimating
means of bounded random variables by betting", JRSSB 2024), and so a sum over counters that add in
any order: `Mapping` of bucket → rows. Blocks for an AUC (`auc`, F7) are such differences too.

A bucket's number over `STEPS` is the middle of what it holds. An even one holds one value exactly
(so that −1, 0 and 1 are −500, 0 and 500, and a tie costs nothing); an odd one what lies between
its neighbours, 1/250 wide. Rounding never makes evidence that the values themselves do not have:

- A value between two even buckets is counted as the end that speaks *against* the bet: the low
  end for rollback, the high end for promotion. Each factor of the wealth is then at most what it
  would be for the value, whatever was in the bucket. It costs 1/500 a row, on average.
- Given a ``chance`` (a uniform number that depends on nothing but the row's id), it moves to one of
  both ends with the odds that leave its expectation unchanged. The mean of what is counted *is*
  the mean of D, so the same bets are exact, and nothing is lost but a variance of 4e-6.

Needs no independence and no constant distribution, only that the mean stays on its side of the
margin.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from hotswap.stats.mixture import log_mean

Floats = npt.NDArray[np.float64]

#: Buckets from 0 to 1; even ones are exact.
STEPS: Final = 500
#: Of `pairs`, and a larger one for small differences, as an AUC's blocks have.
BETS: Final = (0.02, 0.05, 0.1, 0.2, 0.4, 0.8)
_LARGEST: Final = 0.95  # of the stake that could lose everything on one row
_NEAR: Final = 1e-9  # of half a bucket: what subtracting two losses leaves of a value on the grid
_NOISE: Final = 2.0 * _NEAR / STEPS  # each bet allows for it
_HALVINGS: Final = 40


def bucket(d: float, chance: float | None = None) -> int:
    """The bucket of one difference in [−1, 1], from −500 to 500; `ValueError` for any other.

    ``chance`` in [0, 1), a hash of the row's id and of nothing else, sends a value between two
    exact buckets to one of them without bias (see the module); the same row must always bring
    the same. Without it the bucket is odd, and −d is in the bucket opposite to d's.

    >>> bucket(-1.0), bucket(0.0), bucket(0.1), bucket(0.001), bucket(-0.001)
    (-500, 0, 50, 1, -1)
    >>> bucket(0.001, chance=0.2), bucket(0.001, chance=0.3)
    (2, 0)
    """
    given = np.array([d], np.float64)
    return int(_placed(given, None if chance is None else np.array([chance]), -1.0)[0])


def buckets(
    differences: npt.ArrayLike, chance: npt.ArrayLike | None = None, *, low: float = -1.0
) -> dict[int, int]:
    """Rows by bucket of many differences in [``low``, 1]; `ValueError` if any is not.

    ``chance``: one number in [0, 1) for each of them, as in `bucket`.

    >>> buckets([0.0, 1.0, 0.0, -0.5])
    {-250: 1, 0: 2, 500: 1}
    """
    given = np.asarray(differences, np.float64).ravel()
    tosses = None if chance is None else np.asarray(chance, np.float64).ravel()
    found, rows = np.unique(_placed(given, tosses, low), return_counts=True)
    return dict(zip(found.tolist(), rows.tolist(), strict=True))


def merge(*counts: Mapping[int, int]) -> dict[int, int]:
    """The rows of all histograms together, by rising bucket.

    >>> merge({0: 1}, {5: 2}, {0: 3})
    {0: 4, 5: 2}
    """
    places = sorted({at for each in counts for at in each})
    return {at: sum(each.get(at, 0) for each in counts) for at in places}


def mean(counts: Mapping[int, int]) -> float:
    """The mean difference, each row at the middle of its bucket; 0 without rows.

    >>> mean({-500: 1, 0: 6, 500: 3}), mean({})
    (0.2, 0.0)
    """
    rows = sum(counts.values())
    return sum(at * n for at, n in counts.items()) / (rows * STEPS) if rows else 0.0


def rollback_evidence(counts: Mapping[int, int], margin: float = 0.0) -> float:
    """Log E (nats) against "the mean difference is ``margin`` at most"; 0 without rows.

    ``margin`` in [−1, 1]. Bets of Waudby-Smith & Ramdas (2024) on what the buckets surely hold;
    valid at every look. `ValueError` for a bucket, a count or a margin that cannot be.

    >>> rollback_evidence({-500: 100, 0: 9600, 500: 300}) > math.log(20)
    True
    >>> rollback_evidence({-500: 100, 0: 9600, 500: 300}, margin=0.02) < 0
    True
    """
    _check_margin(margin)
    return _wealth(_rows(counts, 1), margin)


def promotion_evidence(counts: Mapping[int, int], margin: float) -> float:
    """Log E (nats) against "the mean difference is ``margin`` at least"; 0 without rows.

    The same bets on the other side (Waudby-Smith & Ramdas, JRSSB 2024): what a promotion needs.

    >>> promotion_evidence({-500: 134, 0: 6442, 500: 134}, margin=0.01) > math.log(20)
    True
    """
    _check_margin(margin)
    return _wealth(_rows(counts, -1), -margin)


def interval(counts: Mapping[int, int], alpha: float = 0.05) -> tuple[float, float]:
    """Bounds that hold the mean difference at all times with chance 1 − ``alpha``.

    The margins that neither side's bets refute at half of ``alpha`` each (Waudby-Smith & Ramdas,
    JRSSB 2024); (−1, 1) without rows.

    >>> low, high = interval({-500: 100, 0: 600, 500: 300})
    >>> 0.1 < low < 0.2 < high < 0.3
    True
    """
    if not 0.0 < alpha < 1.0:
        raise ValueError(f"An error probability lies between 0 and 1, not at {alpha}: give 0.05.")
    sure, most = _rows(counts, 1), _rows(counts, -1)
    if not sure.rows.size:
        return -1.0, 1.0
    needed, middle = math.log(2.0 / alpha), mean(counts)
    return (
        _edge(middle, -1.0, lambda m: _wealth(sure, m) >= needed),
        _edge(middle, 1.0, lambda m: _wealth(most, -m) >= needed),
    )


def ends(counts: Mapping[int, int], side: int, low: int = -STEPS) -> tuple[Floats, Floats]:
    """What each bucket's rows are at least (``side`` 1) or at most (−1), and how many they are.

    By rising bucket, whatever the mapping's order. `ValueError` for a bucket outside ``low`` to
    `STEPS` or a negative count.

    >>> [each.tolist() for each in ends({3: 5, -500: 2}, 1)]
    [[-1.0, 0.004], [2.0, 5.0]]
    """
    order = sorted(at for at, n in counts.items() if n)
    rows = np.array([counts[at] for at in order], np.float64)
    if order and not (low <= order[0] and order[-1] <= STEPS and rows.min() > 0):
        raise ValueError(f"Rows are counted in buckets from {low} to {STEPS}, and never negative.")
    places = np.array(order, np.int64)
    return (places - side * (places & 1)) / STEPS, rows


class _Rows(NamedTuple):
    """What is bet on: values times the side, and how many rows have each."""

    values: Floats
    rows: Floats


def _rows(counts: Mapping[int, int], side: int) -> _Rows:
    values, rows = ends(counts, side)
    return _Rows(side * values - _NOISE, rows)


def _wealth(given: _Rows, margin: float) -> float:
    """The bets' log mean wealth against "the mean of the values is ``margin`` at most".

    A stake is cut where a value of −1 would lose (almost) everything. Each factor, cut or not,
    falls with the margin, so the refuted margins are a ray.
    """
    if not given.rows.size:
        return 0.0
    most = _LARGEST / (1.0 + margin) if margin > -1.0 else math.inf
    gains = given.values - margin
    return log_mean(float((given.rows * np.log1p(min(bet, most) * gains)).sum()) for bet in BETS)


def _placed(given: Floats, chance: Floats | None, low: float) -> npt.NDArray[np.int64]:
    if not bool(np.all((given >= low) & (given <= 1.0))):  # not so of NaN either
        wrong = given[~((given >= low) & (given <= 1.0))][0]
        raise ValueError(f"A difference lies between {low:g} and 1, not at {wrong}: scale it.")
    exact = given * (STEPS / 2)
    near = np.rint(exact)
    below = np.floor(exact)
    if chance is None:
        between = 2.0 * below + 1.0
    else:
        if chance.shape != given.shape or not bool(np.all((chance >= 0.0) & (chance < 1.0))):
            raise ValueError("Give every row one chance, at least 0 and below 1.")
        between = 2.0 * (below + (chance < exact - below))
    return np.where(np.abs(exact - near) <= _NEAR, 2.0 * near, between).astype(np.int64)


def _edge(inside: float, outside: float, refuted: Callable[[float], bool]) -> float:
    """Where the refuted margins begin on the way from ``inside``, itself not refuted."""
    if not refuted(outside):
        return outside
    for _ in range(_HALVINGS):
        middle = 0.5 * (inside + outside)
        if refuted(middle):
            outside = middle
        else:
            inside = middle
    return outside


def _check_margin(margin: float) -> None:
    if not -1.0 <= margin <= 1.0:
        raise ValueError(f"A margin of losses lies between -1 and 1, not at {margin}: give 0.01.")
