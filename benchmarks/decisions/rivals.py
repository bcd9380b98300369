"""Other ways to decide, written again from their descriptions, on counts of requests and errors.

Each takes a stream (below) and says when it would have rolled back: the number of the look, or
-1. They are models of the rules, not the products: what the products do besides (minimum
samples, retries, outlier removal) is left out.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import numpy as np

from benchmarks.decisions import vectors
from benchmarks.decisions.vectors import Bools, Floats, Ints
from hotswap.stats.rate import GRID

#: Requests of one step of a stream; 10 steps are a minute.
STEP: Final = 100
MINUTE: Final = 10


class Stream(NamedTuple):
    """Counts by (run, step): the candidate's requests and errors, then the baseline's. ``rho`` of
    each step. ``twin``: errors of as many baseline requests as the candidate had.
    """

    rho: Floats
    ours: Ints
    our_errors: Ints
    theirs: Ints
    their_errors: Ints
    twin_errors: Ints


def draw(rng: np.random.Generator, rho: Floats, p0: Floats, p1: Floats, runs: int) -> Stream:
    """A stream of ``len(rho)`` steps with these rates of errors."""
    shape = (runs, len(rho))
    ours = rng.binomial(STEP, rho, size=shape)
    theirs = STEP - ours
    twin = np.minimum(ours, theirs)
    twin_errors = rng.binomial(twin, p0)
    return Stream(
        rho,
        ours,
        rng.binomial(ours, p1),
        theirs,
        twin_errors + rng.binomial(theirs - twin, p0),
        twin_errors,
    )


def first(fired: Bools, every: int) -> Ints:
    """The step after which the first look fired, -1 for none."""
    return np.where(fired.any(axis=1), (fired.argmax(axis=1) + 1) * every, -1)


def by(counts: Ints, every: int) -> Ints:
    """Sums over so many steps."""
    return np.asarray(counts.reshape(len(counts), -1, every).sum(axis=2), np.int64)


def ours(stream: Stream, alpha: float = 0.05) -> Ints:
    """F1 of `hotswap.stats.rate` after every step: stages multiplied, the whole level for errors."""
    wealth: Floats = np.zeros((len(stream.ours), 1))
    fired = np.zeros(stream.ours.shape, np.bool_)
    for rho in dict.fromkeys(stream.rho.tolist()):
        at = np.flatnonzero(stream.rho == rho)
        mine = stream.our_errors[:, at].cumsum(axis=1).astype(np.float64)
        other = stream.their_errors[:, at].cumsum(axis=1).astype(np.float64)
        steps = vectors.rate_wealth(rho, mine, other, 1.0, GRID)
        fired[:, at] = vectors.log_mean(wealth[:, None, :] + steps) >= -math.log(alpha)
        wealth = wealth + steps[:, -1]
    return first(fired, 1)


def threshold(stream: Stream, level: float, limit: int, minutes: int = 5) -> Ints:
    """Argo Rollouts: the candidate's rate of errors in each window against a level; more than
    ``limit`` failed windows end it. A window without requests is none.
    """
    every = minutes * MINUTE
    n, bad = by(stream.ours, every), by(stream.our_errors, every)
    failed = bad > level * n
    return first(np.cumsum(failed, axis=1) > limit, every)


def peeked(stream: Stream, every: int = 10, alpha: float = 0.05) -> Ints:
    """A one-sided z-test of two proportions, of everything so far, at every look."""
    n1, k1 = by(stream.ours, every).cumsum(axis=1), by(stream.our_errors, every).cumsum(axis=1)
    n0, k0 = by(stream.theirs, every).cumsum(axis=1), by(stream.their_errors, every).cumsum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        pool = (k1 + k0) / (n1 + n0)
        z = (k1 / n1 - k0 / n0) / np.sqrt(pool * (1 - pool) * (1 / n1 + 1 / n0))
    quantile = {0.05: 1.6448536269514722}[alpha]
    return first(np.nan_to_num(z, nan=0.0, posinf=0.0) > quantile, every)


def asymptotic(stream: Stream, alpha: float = 0.05, tuning: float = 5_000.0) -> Ints:
    """The asymptotic confidence sequence for the difference of means, one-sided, as GrowthBook
    uses it (Waudby-Smith et al., arXiv:2103.06476), at every step.
    """
    n1, k1 = stream.ours.cumsum(axis=1), stream.our_errors.cumsum(axis=1)
    n0, k0 = stream.theirs.cumsum(axis=1), stream.their_errors.cumsum(axis=1)
    n = n1 + n0
    twice = 2 * alpha
    tuned = math.sqrt((-2 * math.log(twice) + math.log(-2 * math.log(twice) + 1)) / tuning)
    with np.errstate(divide="ignore", invalid="ignore"):
        r1, r0 = k1 / n1, k0 / n0
        variance = (r1 * (1 - r1) / n1 + r0 * (1 - r0) / n0) * n
        whole = n * tuned**2 + 1
        reach = np.sqrt(variance) * np.sqrt(
            2 * whole * np.log(1 + np.sqrt(whole) / (2 * alpha)) / (n * tuned) ** 2
        )
        low = (r1 - r0) - reach
    # Without spread in an arm there is no such interval.
    spread = (k1 > 0) & (k0 > 0) & (k1 < n1) & (k0 < n0)
    return first((np.nan_to_num(low, nan=-1.0) > 0) & spread, 1)


def judged(ours_by_minute: Floats, theirs_by_minute: Floats) -> bool:
    """Kayenta's judge on two series: the 98 % confidence interval of the Mann-Whitney shift lies
    beyond a quarter of the Hodges-Lehmann estimate, and the mean is higher.
    """
    n, m = len(ours_by_minute), len(theirs_by_minute)
    if np.array_equal(ours_by_minute, theirs_by_minute):
        return False
    differences = np.subtract.outer(ours_by_minute, theirs_by_minute).ravel()
    reach = 2.3263478740408408 * math.sqrt(n * m * (n + m + 1) / 12.0)
    at = math.floor(n * m / 2.0 - reach)
    if at < 0:
        return False
    low = float(np.partition(differences, at)[at])
    if low <= 0.0:
        return False
    shift = float(np.median(differences))
    higher = float(ours_by_minute.mean()) >= float(theirs_by_minute.mean())
    return low > 0.25 * abs(shift) and higher


def mann_whitney(stream: Stream, minutes: int = 10) -> Ints:
    """The judge every ten minutes on all minutes so far, against an equally large baseline."""
    n = by(stream.ours, MINUTE)
    size = np.maximum(1, n)
    mine = by(stream.our_errors, MINUTE) / size
    other = by(stream.twin_errors, MINUTE) / size
    found = np.full(len(n), -1, np.int64)
    for run in range(len(n)):
        for end in range(minutes, n.shape[1] + 1, minutes):
            if judged(mine[run, :end], other[run, :end]):
                found[run] = end * MINUTE
                break
    return found
