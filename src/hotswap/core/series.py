"""How a rollout's evidence went, in some two hundred points however long it took. Pure."""

from __future__ import annotations

import math
from typing import Final

from hotswap.core.analysis import Analysis
from hotswap.core.rollout import Status
from hotswap.core.rollout_views import PointView

_MOST: Final = 240
_CAP: Final = 700.0


def sampled(
    series: tuple[PointView, ...], status: Status, analysis: Analysis
) -> tuple[PointView, ...]:
    """With a point for now, if the last is far enough away; every second one goes when they are many.

    >>> status = Status(elapsed=3.0)
    >>> nothing = Analysis((), 0.0, (), "", "", False, (), "", ())
    >>> points = sampled((), status, nothing)
    >>> len(points), sampled(points, status, nothing) is points
    (1, True)
    """
    if series and series[-1].attempt == status.attempt:
        apart = max(1.0, status.elapsed / (_MOST / 2))
        if status.elapsed - series[-1].elapsed < apart:
            return series
    point = PointView(
        elapsed=round(status.elapsed, 2),
        attempt=status.attempt,
        weight=0.0 if status.exposure is None else status.exposure.weight / 100,
        against={m.name: _odds(m.against) for m in analysis.metrics},
        proof={m.name: _odds(m.proof) for m in analysis.metrics if m.proof > 0.0},
    )
    longer = (*series, point)
    return longer if len(longer) <= _MOST else (*longer[:-1:2], point)


def _odds(log_evidence: float) -> float:
    return float(f"{math.exp(min(_CAP, log_evidence)):.4g}")
