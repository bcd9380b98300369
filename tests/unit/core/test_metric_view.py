"""A metric as it is shown: the estimate, its interval and the margin in one unit."""

from __future__ import annotations

from typing import Any

import pytest

from hotswap.core.analysis import analyse
from hotswap.core.evidence import Arm, Evidence, Stage
from hotswap.core.metric_view import metric_views
from hotswap.core.plan import compile_steps
from hotswap.core.rollout import Rollout, Status
from hotswap.core.rollout_views import MetricView
from hotswap.core.strategy import parse


def shown(bad: int, bad_stable: int, **guardrail: Any) -> MetricView:
    """An even stage of 1,000 requests on each arm, with one guardrail."""
    spec = parse({"model": "m", "version": "v2", "strategy": "canary", "guardrails": [guardrail]})
    stage = Stage(1, 5000, baseline=Arm(1000, bad_stable), candidate=Arm(1000, bad))
    rollout = Rollout("r", spec, compile_steps(spec), Status(), "v1", Evidence((stage,)))
    (view,) = metric_views(rollout, analyse(spec, rollout.evidence, {}, {}))
    return view


def test_an_increase_is_compared_with_a_difference() -> None:
    """With failures and without: never an increase beside a ratio."""
    view = shown(40, 20, metric="error_rate", max_increase=0.05)
    assert (view.comparison, view.margin) == ("difference", 0.05)
    assert view.estimate == pytest.approx(0.02)
    assert view.interval is not None
    low, high = view.interval
    assert low is not None
    assert high is not None
    assert low < 0.02 < high < 0.1
    assert shown(0, 0, metric="error_rate", max_increase=0.05).estimate == 0.0


@pytest.mark.parametrize(
    ("guardrail", "comparison", "margin"),
    [
        ({"metric": "error_rate", "max_ratio": 1.5}, "ratio", 1.5),
        ({"metric": "error_rate", "max_ratio": 1.5, "max_increase": 0.005}, "ratio", 1.5),
        ({"metric": "error_rate", "max": 0.05}, "ratio", None),
        ({"metric": "latency_p95", "max": 50}, "ratio", None),
        ({"metric": "prediction_drift", "max": 0.1}, "difference", 0.1),
        ({"metric": "cpu", "query": "up", "max": 3}, "level", 3.0),
    ],
)
def test_a_margin_is_in_the_unit_of_what_is_shown(
    guardrail: dict[str, Any], comparison: str, margin: float | None
) -> None:
    """A limit in another unit is not shown as if it were one of this."""
    view = shown(40, 20, **guardrail)
    assert (view.comparison, view.margin) == (comparison, margin)


def test_a_ratio_alone_has_no_margin_before_the_first_failure() -> None:
    """A difference is shown then, and 1.5 is none."""
    view = shown(0, 0, metric="error_rate", max_ratio=1.5)
    assert (view.comparison, view.margin) == ("difference", None)
