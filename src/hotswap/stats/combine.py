"""Many metrics, one decision: any of them may roll back, all of them must agree to promote.

Give every metric of the plan each time, with 0 for one without data: which metrics take part
must not depend on what they say. Evidence that is not a number counts as none at all (E = 0).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

#: Default shares of the budget of false alarms, by kind of metric.
WEIGHTS: Final[Mapping[str, float]] = {"errors": 0.4, "latency": 0.3, "labels": 0.2, "drift": 0.1}


def rollback(evidence: Mapping[str, float], weights: Mapping[str, float]) -> float:
    """The log of the weighted average of the metrics' e-values: evidence that one of them is bad.

    Weights are normalised over the metrics given. An average of e-values is an e-value under any
    dependence (Vovk & Wang, "E-values: calibration, combination and applications", 2021). No
    metrics: 0. Raises ValueError for a metric without a positive weight.

    >>> round(rollback({"errors": math.log(40), "latency": 0.0}, {"errors": 1, "latency": 1}), 6)
    3.020425
    """
    terms = _weighted(evidence, weights)
    if not terms:
        return 0.0
    top = max(terms.values())
    if math.isinf(top):
        return top
    return top + math.log(math.fsum(math.exp(term - top) for term in terms.values()))


def named(
    evidence: Mapping[str, float], weights: Mapping[str, float], alpha: float
) -> tuple[str, ...]:
    """The metrics to be named as the reason, strongest first; () if only all together are.

    Those whose weighted e-value alone reaches 1 / alpha; if there is none, those that the e-BH
    procedure rejects at ``alpha`` (Wang & Ramdas, "False discovery rate control with e-values",
    2022). Raises ValueError as `rollback` does.

    >>> named({"errors": 6.0, "latency": 1.0}, {"errors": 0.4, "latency": 0.3}, 0.05)
    ('errors',)
    """
    if not 0.0 < alpha < 1.0:
        raise ValueError(f"alpha lies between 0 and 1, not {alpha}")
    enough = -math.log(alpha)
    terms = _weighted(evidence, weights)
    alone = [name for name in _strongest_first(terms) if terms[name] >= enough]
    if alone:
        return tuple(alone)
    plain = {name: _number(value) for name, value in evidence.items()}
    order = _strongest_first(plain)
    for count in range(len(order), 0, -1):
        if plain[order[count - 1]] >= enough + math.log(len(order) / count):
            return tuple(order[:count])
    return ()


def promotion(evidence: Mapping[str, float]) -> float:
    """The weakest metric's log evidence: each must prove its margin, so no level is divided.

    An intersection-union test (Berger, "Multiparameter hypothesis testing and acceptance
    sampling", 1982). No metrics: 0, which promotes nothing.

    >>> promotion({"errors": 4.0, "latency": 2.5})
    2.5
    """
    return min((_number(value) for value in evidence.values()), default=0.0)


def _number(value: float) -> float:
    return -math.inf if math.isnan(value) else value


def _strongest_first(values: Mapping[str, float]) -> list[str]:
    return sorted(values, key=lambda name: (-values[name], name))


def _weighted(evidence: Mapping[str, float], weights: Mapping[str, float]) -> dict[str, float]:
    for name in evidence:
        if not 0.0 < weights.get(name, 0.0) < math.inf:
            raise ValueError(f"metric {name!r} needs a positive weight")
    total = math.fsum(weights[name] for name in evidence)
    return {
        name: _number(value) + math.log(weights[name] / total) for name, value in evidence.items()
    }
