"""A rollout that is guarded by drift of its inputs: it holds, and neither promotes nor goes back."""

from __future__ import annotations

from typing import Any

import pytest

from hotswap.core.analysis import Reading
from hotswap.core.guards import Guardrail, parse_guardrails
from hotswap.core.metric_view import metric_views
from hotswap.core.plan import Hold
from hotswap.core.rollout import analysed
from hotswap.errors import BadInput
from tests.unit.core.world import World

GUARDED: dict[str, Any] = {
    "config": {"evaluation_period_seconds": 10},
    "bake_seconds": 30,
    "watch_seconds": 0,
    "guardrails": [{"metric": "error_rate"}, {"metric": "input_drift", "max": 0.1}],
}


def test_it_has_a_level_alone() -> None:
    """And is read from hotswap's own watch, whose name may be said."""
    (found,) = parse_guardrails([{"metric": "input_drift", "max": 0.2}])
    assert found == Guardrail("input_drift", maximum=0.2, source="drift")
    again = {"metric": "input_drift", "max": 0.2, "source": "drift", "query": "", "weight": None}
    assert parse_guardrails([again]) == (found,)


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        ({}, "give the guardrail 'input_drift' its 'max'"),
        ({"max": 2.0}, "max"),
        ({"max": 0.1, "max_ratio": 1.5}, "has no 'max_ratio'"),
        ({"max": 0.1, "weight": 1.0}, "has no 'weight'"),
        ({"max": 0.1, "source": "prometheus"}, "hotswap's own metric"),
        ({"max": 0.1, "query": "up"}, "hotswap's own metric"),
        ({"max": 0.1, "required": False}, "can only hold"),
    ],
)
def test_what_it_cannot_have_is_refused(more: dict[str, Any], problem: str) -> None:
    """With the reason, when it is given."""
    with pytest.raises(BadInput, match=problem):
        parse_guardrails([{"metric": "input_drift", **more}])


@pytest.mark.parametrize(
    "reading",
    [Reading(0.3), Reading(None, "there is no drift reference yet"), Reading(0.0, age=3600.0)],
)
def test_drift_or_not_knowing_of_it_holds(reading: Reading) -> None:
    """Both versions get these inputs: nothing is rolled back for them, and nothing promoted."""
    world = World(GUARDED)
    world.readings = {"input_drift": Reading(0.0)}
    world.running(Hold)
    world.readings = {"input_drift": reading}
    for _ in range(600):
        world.tick(1.0)
    assert (world.phase, world.reason, world.active) == ("Paused", "metrics_outage", "v1")
    assert world.exposed is not None

    world.readings = {"input_drift": Reading(0.05)}
    assert world.end(tick=0.5).status.state == "healthy"


def test_it_is_said_why() -> None:
    """In the view of the metric."""
    world = World(GUARDED)
    world.readings = {"input_drift": Reading(0.3)}
    world.tick()
    views = metric_views(world.rollout, analysed(world.rollout, world.seen()))
    view = next(each for each in views if each.name == "input_drift")
    assert (view.verdict, view.margin) == ("error", 0.1)
    assert view.sentence == (
        "input_drift is 0.3 > 0.1: what is asked has changed, for both versions"
    )


def test_what_drifts_in_the_bake_keeps_the_old_version_warm() -> None:
    """The bake does not end while it lasts."""
    world = World({**GUARDED, "strategy": "immediate", "config": {}})
    world.readings = {"input_drift": Reading(0.0)}
    world.until(lambda each: each.status.state == "baking")
    world.readings = {"input_drift": Reading(0.3)}
    for _ in range(300):
        world.tick(1.0)
    assert world.status.state == "baking"
