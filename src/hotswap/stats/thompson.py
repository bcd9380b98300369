"""Thompson sampling for two versions: the probability with which the candidate should be tried.

The probability moves on a fixed grid and is logged with each request: every value is a stage of
its own for `hotswap.stats.rate`, whose evidence on the best arm stays valid because each
probability was known before its requests were assigned.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

_POINTS = 601
_DEVIATIONS = 12.0


def propensity(
    successes_a: int,
    failures_a: int,
    successes_b: int,
    failures_b: int,
    *,
    low: float = 0.05,
    high: float = 0.95,
    grid: float = 0.05,
) -> float:
    """P(B succeeds more often than A) under uniform priors, within [low, high] on the grid.

    By integration, without chance: the same counts give the same probability everywhere. Counts
    may be as large as 1e9. The bounds keep both arms in the comparison. Raises ValueError for
    negative counts and for bounds between which the grid has no point. Thompson, "On the
    likelihood that one unknown probability exceeds another" (1933).

    >>> propensity(50, 50, 50, 50), propensity(10, 90, 90, 10), propensity(40, 60, 50, 50)
    (0.5, 0.95, 0.9)
    """
    if min(successes_a, failures_a, successes_b, failures_b) < 0:
        raise ValueError("counts of successes and failures are not negative")
    if not (0.0 <= low <= high <= 1.0 and 0.0 < grid <= 1.0):
        raise ValueError(f"bounds lie in order within [0, 1], not {low} to {high} by {grid}")
    first, last = math.ceil(low / grid - 1e-9), math.floor(high / grid + 1e-9)
    if first > last:
        raise ValueError(f"no multiple of {grid} lies between {low} and {high}")
    better = _probability_better(
        (successes_a + 1.0, failures_a + 1.0), (successes_b + 1.0, failures_b + 1.0)
    )
    return round(min(max(round(better / grid), first), last) * grid, 12)


def _probability_better(a: tuple[float, float], b: tuple[float, float]) -> float:
    """P(B > A) for two beta variables, on the log-odds scale, where both are bell-shaped.

    Trapezoids over both arms' grids together: swapping the arms gives exactly the rest to 1.
    """
    points = np.union1d(_grid(*a), _grid(*b))
    below_a, below_b = _cumulative(points, *a), _cumulative(points, *b)
    return float(np.sum(0.5 * (below_a[1:] + below_a[:-1]) * np.diff(below_b)))


def _grid(alpha: float, beta: float) -> npt.NDArray[np.float64]:
    middle = math.log(alpha / beta)
    reach = _DEVIATIONS * math.sqrt(1.0 / alpha + 1.0 / beta)
    return np.linspace(middle - reach, middle + reach, _POINTS)


def _cumulative(
    points: npt.NDArray[np.float64], alpha: float, beta: float
) -> npt.NDArray[np.float64]:
    logs = -alpha * np.logaddexp(0.0, -points) - beta * np.logaddexp(0.0, points)
    density = np.exp(logs - logs.max())
    areas = 0.5 * (density[1:] + density[:-1]) * np.diff(points)
    sums = np.concatenate(([0.0], np.cumsum(areas)))
    return np.asarray(sums / sums[-1], dtype=np.float64)
