"""How long the proof takes that latency is within its margin, if both arms are alike. Pure."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Final

from hotswap.core.routing import WHOLE
from hotswap.core.strategy import RolloutSpec

#: Latencies a second that a worker takes at most (one in 50 ms).
PER_SECOND: Final = 20.0
#: The spread of the logarithm of latency that is assumed; heavier tails take longer.
_SPREAD: Final = 0.5
_NORMAL: Final = NormalDist()


def latency_requests(quantile: float, ratio: float, alpha: float) -> float:
    """Latencies of both arms together until "beyond the ratio" is refuted at that quantile.

    The candidate's latency, divided by the ratio, exceeds stable's quantile less often than
    stable's own does; each exceedance tells by whose it is.

    >>> round(latency_requests(0.5, 1.2, 0.05)), round(latency_requests(0.99, 1.2, 0.05), -2)
    (777, 5800.0)
    """
    stable = 1.0 - quantile
    shifted = _NORMAL.inv_cdf(quantile) + math.log(ratio) / _SPREAD
    ours = 1.0 - _NORMAL.cdf(shifted)
    share = ours / (ours + stable)  # of the exceedances that are the candidate's
    growth = share * math.log(2 * share) + (1 - share) * math.log(2 * (1 - share))
    return (math.log(1.0 / alpha) + math.log(5.0)) / growth / ((ours + stable) / 2)


def latency_seconds(spec: RolloutSpec, weight: int, per_second: float) -> float:
    """Seconds of proof at that weight (of `WHOLE`) and traffic; 0 if no guardrail asks for it,
    infinity if the weight cannot show it.
    """
    wanted = []
    for guardrail in spec.guardrails:
        name, ratio = guardrail.metric, guardrail.max_ratio
        if not name.startswith("latency") or ratio is None or ratio <= 1.0 or guardrail.dry_run:
            continue
        quantiles = (0.5, 0.95, 0.99) if name == "latency" else (int(name[9:]) / 100,)
        wanted += [latency_requests(quantile, ratio, spec.alpha) for quantile in quantiles]
    if not wanted:
        return 0.0
    compared = min(PER_SECOND, per_second * 2 * weight / WHOLE) if 2 * weight <= WHOLE else 0.0
    return max(wanted) / compared if compared > 0 else math.inf
