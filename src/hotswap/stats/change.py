"""Has one version become worse? A change detector for when no second arm is left to compare with.

Without a coin there is no error probability over all time, only how long a false alarm is away
on average. Unlike the other evidence it depends on the order in time, so it is kept as a running
value and not as counters; a detector is plain numbers and can be saved as such.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

from hotswap.stats.mixture import log_mean

_ODDS: Final = (1.25, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0, 100.0)
_RARE: Final = 1e-6


class Detector(NamedTuple):
    """A running detector of a rate above its baseline.

    ``wealth``: ln C per bet of the grid, empty before the first update; ``peak``: the largest evidence so far. ``arl``: requests
    to a false alarm, at least, on average. ``batch``: the usual requests per update, the unit in
    which the evidence is told; it changes no alarm.
    """

    baseline: float
    arl: float
    batch: float
    wealth: tuple[float, ...]
    peak: float = 0.0


def start(baseline_rate: float, arl: float = 100_000.0, batch: float = 1.0) -> Detector:
    """A fresh detector for a rate frozen before; a rate of 0 is taken as one in a million.

    The average run length (ARL) is counted in requests (Shin, Ramdas & Rinaldo, "E-detectors: a
    nonparametric framework for sequential change detection", arXiv:2203.03532).

    >>> alarmed(start(0.01)), evidence(start(0.01))
    (False, 0.0)
    """
    if not 0.0 <= baseline_rate < 1.0:
        raise ValueError(f"A baseline rate lies between 0 and 1, not at {baseline_rate}.")
    if not 0.0 < batch < arl < math.inf:
        raise ValueError(f"Give an ARL ({arl}) of more requests than a batch ({batch}).")
    return Detector(max(baseline_rate, _RARE), float(arl), float(batch), ())


def update(detector: Detector, events: int, total: int) -> Detector:
    """The detector after one more batch of ``total`` requests, ``events`` of them bad.

    C becomes max(C, total / batch)·L with the batch's binomial likelihood ratio L, per bet of the
    grid of odds. As C never exceeds the sum that starts anew with every request, its mean reaches
    arl / batch after ``arl`` requests at the earliest on average, however the batches are cut
    (CUSUM: Page 1954; Shin, Ramdas & Rinaldo, arXiv:2203.03532, theorem 2.4).

    >>> detector = start(0.01, batch=100)
    >>> for _ in range(5):
    ...     detector = update(detector, 10, 100)
    >>> alarmed(detector)
    True
    """
    if not 0 <= events <= total:
        raise ValueError(f"{events} events of {total} requests is not a rate: count both alike.")
    if total == 0:
        return detector
    fresh = math.log(total / detector.batch)
    before = detector.wealth or (fresh,) * len(_ODDS)
    wealth = tuple(
        max(kept, fresh)
        + events * math.log(odds)
        - total * math.log1p(detector.baseline * (odds - 1.0))
        for kept, odds in zip(before, _ODDS, strict=True)
    )
    return detector._replace(wealth=wealth, peak=max(detector.peak, log_mean(wealth)))


def alarmed(detector: Detector) -> bool:
    """Whether the rate has been found above its baseline, now or before.

    The threshold of Shin, Ramdas & Rinaldo (arXiv:2203.03532): the evidence reached the ARL.

    >>> alarmed(update(start(0.01), 4, 4))
    True
    """
    return detector.peak >= threshold(detector)


def evidence(detector: Detector) -> float:
    """Log of the mean C now; an alarm is where it reaches `threshold`. 0 at the start.

    Not an e-value over all time: its mean grows by one with every batch (Shin, Ramdas & Rinaldo,
    arXiv:2203.03532).

    >>> evidence(update(start(0.01), 1, 1)) > 1
    True
    """
    return log_mean(detector.wealth)


def threshold(detector: Detector) -> float:
    """The evidence at which there is an alarm: ln(arl / batch).

    Shin, Ramdas & Rinaldo, arXiv:2203.03532, theorem 2.4.

    >>> threshold(start(0.01, arl=math.e**10, batch=1))
    10.0
    """
    return math.log(detector.arl / detector.batch)
