"""How the evidence went, kept short."""

from __future__ import annotations

from hotswap.core.analysis import Analysis, Measured
from hotswap.core.rollout import Exposure, Status
from hotswap.core.rollout_views import PointView
from hotswap.core.series import sampled


def analysis(against: float) -> Analysis:
    metric = Measured("error_rate", "insufficient", against, 1.0)
    return Analysis((metric,), against, (), "", "", False, (), "", ())


def test_a_week_is_some_two_hundred_points_and_the_last_is_now() -> None:
    """However long it takes, what is kept stays short and spans all of it."""
    series: tuple[PointView, ...] = ()
    seconds = 0.0
    while seconds < 7 * 86400:
        status = Status(elapsed=seconds, exposure=Exposure(1, 500))
        series = sampled(series, status, analysis(seconds / 1e5))
        seconds += max(0.2, seconds / 500)
    assert 60 < len(series) <= 240
    assert series[0].elapsed < 10
    assert series[-1].elapsed > 6.8 * 86400
    assert [point.elapsed for point in series] == sorted(point.elapsed for point in series)
    assert series[-1].weight == 5.0
    assert series[-1].against["error_rate"] > series[0].against["error_rate"]


def test_evidence_beyond_measure_stays_a_number() -> None:
    """JSON has no infinity."""
    (point,) = sampled((), Status(), analysis(1e6))
    assert 1e300 < point.against["error_rate"] < float("inf")


def test_another_attempt_begins_at_once() -> None:
    """Its clock begins anew, and so do its points."""
    series = sampled((), Status(elapsed=50.0), analysis(0.0))
    series = sampled(series, Status(elapsed=0.2, attempt=2), analysis(0.0))
    assert [point.attempt for point in series] == [1, 2]
