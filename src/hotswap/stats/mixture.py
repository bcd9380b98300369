"""The average of e-values, from their logarithms: evidence against one claim, bet on in many ways."""

from __future__ import annotations

import math
from collections.abc import Iterable


def log_mean(logs: Iterable[float]) -> float:
    """The logarithm of the plain average of ``exp(log)``; never overflows. Nothing to average: 0.

    An average of e-values is an e-value whatever their dependence (Vovk & Wang, "E-values:
    calibration, combination and applications", Annals of Statistics 2021).

    >>> round(log_mean([0.0, 5000.0]), 6) == round(5000 - math.log(2), 6)
    True
    """
    values = list(logs)
    if not values:
        return 0.0
    top = max(values)
    if not math.isfinite(top):
        return top
    return top + math.log(math.fsum(math.exp(value - top) for value in values) / len(values))
