"""Is one column still distributed as it was, within a tolerance? Watched over time, without a coin.

    reference = numbers(values)                       # frozen once: bins and how often each was hit
    reference = categories({"a": 900, "b": 80, None: 20})
    reference = Reference(counts, ordered=True)       # or counted elsewhere: no value, bin by bin
    watch = start(reference, tolerance=0.1, arl=1e6)  # plain numbers, to be stored as they are
    watch = update(watch, counted(reference, values))           # one batch, in order of time
    watch = update(watch, counted_categories(reference, {"a": 70, "b": 30}))
    alarmed(watch), evidence(watch), threshold(watch), leading(watch)
    distance(reference, counts_of_a_window)           # to show: it decides nothing

Counts of a batch are as long as the reference's: rows without a value first, then one for each
bin; the last bin of categories is all others. Bins of numbers are in order.

What is claimed is several rates: that a value is at or below a decile of the reference, or above
it; that it is a category, or is not; that there is none. For each there is a detector of change
(F9, `change`) against "no more often than the reference, and the tolerance, and what the
reference's own rows leave open". The evidence is the average C of all, so it has their average run
length (Shin, Ramdas & Rinaldo, "E-detectors", arXiv:2203.03532): a column that stays within its
tolerance is alarmed on after ``arl`` rows at the earliest, on average. With k columns a false alarm
is arl/k rows away. It is wrong more often only if a row's value is likelier after others like it
(a burst of one user): the rates are those given the past.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from hotswap.stats import change, drift
from hotswap.stats.change import Detector
from hotswap.stats.mixture import log_mean

#: Quantiles that numbers are cut at, and watched at.
CUTS: Final = tuple(share / 10 for share in range(1, 10))
#: Categories that are told apart; the rest are one.
CATEGORIES: Final = 20
#: The chance that the reference's rows mislead some detector.
MISLED: Final = 0.05

Said = Literal["below", "above", "more", "fewer", "missing"]


class Reference(NamedTuple):
    """A frozen distribution. ``counts``: rows without a value, then bin by bin. ``ordered``:
    numbers, whose bins' order is theirs. ``cuts``: where bins of numbers end, each included;
    ``names``: of categories. Both may be empty when the bins are counted elsewhere.
    """

    counts: tuple[int, ...]
    ordered: bool
    cuts: tuple[float, ...] = ()
    names: tuple[str, ...] = ()


class Claim(NamedTuple):
    """What one detector watches: a rate above ``baseline``.

    ``below``, ``above``: values in bins up to ``at``, or after it; ``more``, ``fewer``: in bin
    ``at``, or not; ``missing``: no value, ``at`` 0. ``before``: the reference's rate.
    """

    said: Said
    at: int
    before: float
    baseline: float


class Watch(NamedTuple):
    """The running detectors of one column. ``arl``: rows to a false alarm, at least, on average.

    ``bins``: how many counts a batch has. ``wealth``: ln C of each claim's bets; ``peak``: the
    largest evidence so far; ``rows`` seen.
    """

    tolerance: float
    arl: float
    bins: int
    claims: tuple[Claim, ...]
    wealth: tuple[tuple[float, ...], ...]
    peak: float = 0.0
    rows: int = 0


class Distance(NamedTuple):
    """How far a window is from the reference: to show.

    ``estimate``, with bounds ``low`` and ``high``: for numbers the Kolmogorov–Smirnov distance at
    the bins' ends, for categories the largest difference of a share. ``missing``, ``missing_before``:
    shares of rows without a value. The rest as in `drift`.
    """

    estimate: float
    low: float
    high: float
    missing: float
    missing_before: float
    psi: float
    jensen_shannon: float


def numbers(values: npt.ArrayLike) -> Reference:
    """The reference of these numbers, cut at their deciles; NaN is no value.

    Inverse empirical distribution function; deciles that coincide are one cut. `ValueError`
    without any number.

    >>> numbers([1.0, 1.0, 1.0, 5.0, float("nan")])
    Reference(counts=(1, 3, 1, 0), ordered=True, cuts=(1.0, 5.0), names=())
    """
    given = np.asarray(values, np.float64).ravel()
    known = given[~np.isnan(given)]
    if not known.size:
        raise ValueError("A reference needs values: there is no number among them.")
    found = np.unique(np.quantile(known, CUTS, method="inverted_cdf"))
    cuts = tuple(found[np.isfinite(found)].tolist()) or (0.0,)  # infinities alone: by sign
    empty = Reference((0,) * (len(cuts) + 2), ordered=True, cuts=cuts)
    return empty._replace(counts=counted(empty, given))


def categories(counts: Mapping[str | None, int]) -> Reference:
    """The reference of categories and how often each was there; None is no value.

    The `CATEGORIES` most frequent are told apart, by name where they are equally frequent.

    >>> categories({"a": 9, "b": 1, None: 2})
    Reference(counts=(2, 9, 1, 0), ordered=False, cuts=(), names=('a', 'b'))
    """
    known = [(-n, name) for name, n in counts.items() if name is not None and n > 0]
    if not known:
        raise ValueError("A reference needs values: there is no category among them.")
    names = tuple(name for _, name in sorted(known)[:CATEGORIES])
    empty = Reference((0,) * (len(names) + 2), ordered=False, names=names)
    return empty._replace(counts=counted_categories(empty, counts))


def counted(reference: Reference, values: npt.ArrayLike) -> tuple[int, ...]:
    """These numbers by the reference's bins; NaN is no value. For references made by `numbers`.

    >>> counted(Reference((0, 5, 5, 0), ordered=True, cuts=(1.0, 2.0)), [0.5, 1.0, 1.5, 9, 9])
    (0, 2, 1, 2)
    """
    given = np.asarray(values, np.float64).ravel()
    known = given[~np.isnan(given)]
    places = np.searchsorted(np.array(reference.cuts), known, side="left")
    rows = np.bincount(places, minlength=len(reference.counts) - 1)
    return (int(given.size - known.size), *map(int, rows))


def counted_categories(reference: Reference, counts: Mapping[str | None, int]) -> tuple[int, ...]:
    """These categories by the reference's bins. For references made by `categories`.

    >>> counted_categories(Reference((0, 8, 2, 0), ordered=False, names=("a", "b")), {"c": 4, "a": 1})
    (0, 1, 0, 4)
    """
    named = [counts.get(name, 0) for name in reference.names]
    missing = counts.get(None, 0)
    return missing, *named, sum(counts.values()) - sum(named) - missing


def start(reference: Reference, tolerance: float = 0.1, arl: float = 1e6) -> Watch:
    """A fresh watch. ``tolerance``: how much any watched rate may change, from 0 to below 1.

    A claim whose rate cannot exceed its baseline is not made; a small reference leaves few.
    What the reference leaves open is Chernoff's bound (Hoeffding 1963, theorem 1) at `MISLED` over
    the number of claims: with 95 % certainty none of them is wrong of itself. `ValueError` for a
    reference without rows, or numbers that cannot be.

    >>> [(c.said, c.at, round(c.baseline, 3)) for c in start(Reference((0, 5000, 5000), True)).claims]
    [('missing', 0, 0.1), ('below', 1, 0.614), ('above', 1, 0.614)]
    """
    if not 0.0 <= tolerance < 1.0:
        raise ValueError(f"A drift tolerance lies between 0 and 1, not at {tolerance}: give 0.1.")
    if not 1.0 < arl < math.inf:
        raise ValueError(f"Give an ARL of many rows, not {arl}: a million.")
    _check(reference, reference.counts)
    rates = _rates(reference)
    chance = MISLED / len(rates)
    claims = []
    for said, at, events, total in rates:
        baseline = _above(events, total, chance) + tolerance
        if baseline < 1.0:
            claims.append(Claim(said, at, events / total, baseline))
    return Watch(
        float(tolerance), float(arl), len(reference.counts), tuple(claims), ((),) * len(claims)
    )


def update(watch: Watch, counts: Sequence[int]) -> Watch:
    """The watch after one more batch, in order of time; rows by bin, as the reference's.

    Each claim's detector takes the rate of its bins among rows with a value, and of rows without
    one among all (Page 1954; Shin, Ramdas & Rinaldo, arXiv:2203.03532). Unlike other evidence it
    depends on the order. Batches should have far fewer rows than the ARL.

    >>> watch = start(Reference((0, 5000, 5000), ordered=True))
    >>> for _ in range(9):
    ...     watch = update(watch, (0, 50, 250))
    >>> alarmed(watch), leading(watch).said
    (True, 'above')
    """
    _check_batch(counts, watch.bins)
    rows = sum(counts)
    wealth = tuple(
        change.update(
            Detector(claim.baseline, watch.arl, 1.0, kept), *_events(claim, counts, rows)
        ).wealth
        for claim, kept in zip(watch.claims, watch.wealth, strict=True)
    )
    after = watch._replace(wealth=wealth, rows=watch.rows + rows)
    return after._replace(peak=max(watch.peak, evidence(after)))


def alarmed(watch: Watch) -> bool:
    """Whether some rate was found beyond its tolerance, now or before; `start` again after it.

    The evidence reached the ARL (Shin, Ramdas & Rinaldo, arXiv:2203.03532).

    >>> alarmed(start(Reference((0, 50, 50), ordered=True)))
    False
    """
    return watch.peak >= threshold(watch)


def evidence(watch: Watch) -> float:
    """Log of the mean C now, in rows: 0 at the start, about the batch's ln rows when all is calm.

    An average of e-detectors is one (Shin, Ramdas & Rinaldo, arXiv:2203.03532); no e-value over
    all time.

    >>> evidence(start(Reference((0, 50, 50), ordered=True)))
    0.0
    """
    return log_mean(log_mean(kept) for kept in watch.wealth)


def threshold(watch: Watch) -> float:
    """The evidence at which there is an alarm: ln arl.

    >>> threshold(start(Reference((0, 50, 50), ordered=True), arl=math.e**9))
    9.0
    """
    return math.log(watch.arl)


def leading(watch: Watch) -> Claim | None:
    """The claim with the most evidence now: what to say of an alarm. None without any.

    >>> leading(start(Reference((0, 1), ordered=True)))
    """
    if not watch.claims:
        return None
    logs = [log_mean(kept) for kept in watch.wealth]
    return watch.claims[logs.index(max(logs))]


def distance(reference: Reference, counts: Sequence[int], alpha: float = 0.05) -> Distance:
    """How far these rows are from the reference, with bounds at level 1 − ``alpha``.

    Numbers: the radii of Howard & Ramdas (F8, `drift`), nothing below 100 rows with a value.
    Categories: Hoeffding's bound (1963) over all shares, for the rows as they are. PSI and
    Jensen–Shannon are description only.

    >>> seen = distance(Reference((0, 5000, 5000), ordered=True), (100, 900, 100))
    >>> seen.estimate, seen.missing < 0.1, seen.low > 0.2
    (0.4, True, True)
    """
    _check(reference, counts)
    before, now = (dict(enumerate(each[1:])) for each in (reference.counts, counts))
    if reference.ordered:
        estimate, low, high = drift.interval(before, now, alpha)
    else:
        estimate, low, high = _largest_share(before, now, alpha)
    return Distance(
        estimate,
        low,
        high,
        counts[0] / max(1, sum(counts)),
        reference.counts[0] / max(1, sum(reference.counts)),
        drift.psi(before, now),
        drift.jensen_shannon(before, now),
    )


def _rates(reference: Reference) -> list[tuple[Said, int, int, int]]:
    """What may be claimed: kind, bin, and the reference's events among how many rows."""
    missing, *bins = reference.counts
    known = sum(bins)
    rates: list[tuple[Said, int, int, int]] = [("missing", 0, missing, missing + known)]
    if not known:
        return rates
    if not reference.ordered:
        for at, n in enumerate(bins, 1):
            rates += [("more", at, n, known), ("fewer", at, known - n, known)]
        return rates
    below = np.cumsum(bins)[:-1]
    if below.size:
        nearest = {int(np.abs(below / known - share).argmin()) for share in CUTS}
        for place in sorted(nearest):
            n = int(below[place])
            rates += [("below", place + 1, n, known), ("above", place + 1, known - n, known)]
    return rates


def _events(claim: Claim, counts: Sequence[int], rows: int) -> tuple[int, int]:
    """A claim's events in a batch, and among how many rows."""
    if claim.said == "missing":
        return counts[0], rows
    known, at = rows - counts[0], claim.at
    inside = counts[at] if claim.said in ("more", "fewer") else sum(counts[1 : at + 1])
    return (inside if claim.said in ("more", "below") else known - inside), known


def _above(events: int, total: int, chance: float) -> float:
    """The largest rate that so many events leave possible: n KL(seen, rate) = −ln ``chance``."""
    seen, most = events / total, -math.log(chance) / total
    low, high = seen, 1.0
    for _ in range(40):
        middle = 0.5 * (low + high)
        if _divergence(seen, middle) < most:
            low = middle
        else:
            high = middle
    return high


def _divergence(seen: float, rate: float) -> float:
    """Kullback and Leibler's, of one coin from another; ``rate`` is above ``seen``."""
    hit = seen * math.log(seen / rate) if seen > 0.0 else 0.0
    return hit + (1.0 - seen) * math.log((1.0 - seen) / (1.0 - rate)) if rate < 1.0 else math.inf


def _largest_share(
    before: Mapping[int, int], now: Mapping[int, int], alpha: float
) -> tuple[float, float, float]:
    if not 0.0 < alpha < 1.0:
        raise ValueError(f"An error probability lies between 0 and 1, not at {alpha}: give 0.05.")
    totals = sum(before.values()), sum(now.values())
    if min(totals) <= 0:
        return 0.0, 0.0, 1.0
    estimate = max(abs(before[at] / totals[0] - now[at] / totals[1]) for at in before)
    needed = math.log(4.0 * len(before) / alpha)  # two sides of two distributions, every share
    around = sum(math.sqrt(needed / (2.0 * total)) for total in totals)
    return estimate, max(0.0, estimate - around), min(1.0, estimate + around)


def _check(reference: Reference, counts: Sequence[int]) -> None:
    if sum(reference.counts) <= 0 or len(reference.counts) < 2 or min(reference.counts) < 0:
        raise ValueError("A reference has rows, and counts of no value and of one bin at least.")
    _check_batch(counts, len(reference.counts))


def _check_batch(counts: Sequence[int], bins: int) -> None:
    if len(counts) != bins or min(counts) < 0:
        raise ValueError(
            f"Give {bins} counts of rows, none below 0, as the reference has: not {tuple(counts)}."
        )
