"""What a plan says beforehand must be what then happens, within a factor of two."""

from __future__ import annotations

import math
from statistics import median
from typing import Any

import pytest

from hotswap.core.evidence import Arm, Evidence, Stage
from hotswap.core.guards import Guardrail
from hotswap.core.measures import against, proof
from hotswap.core.preflight import preflight
from hotswap.core.rollout_views import PlanView
from hotswap.core.strategy import parse
from hotswap.core.windows import PairCounts
from tests.unit.core.world import World

NEEDED = math.log(20)
ERRORS = Guardrail("error_rate", max_ratio=1.5, max_increase=0.005)


def plan(per_second: float, rate: float, **body: Any) -> PlanView:
    spec = parse({"model": "m", "version": "v2", "strategy": "canary", **body})
    return preflight(spec, body, "v1", per_second, rate)


def simulated(weight: int, p0: float, p1: float, *, prove: bool, seed: int, step: int) -> int:
    """Requests until the evidence is there, looked at every ``step`` requests."""
    world = World(p0=p0, p1=p1, seed=seed)
    ours = theirs = bad = bad_stable = requests = 0
    while requests < 5_000_000:
        requests += step
        mine = int(world.random.binomial(step, weight / 10_000))
        ours, theirs = ours + mine, theirs + step - mine
        bad += int(world.random.binomial(mine, p1))
        bad_stable += int(world.random.binomial(step - mine, p0))
        stage = Stage(1, weight, baseline=Arm(theirs, bad_stable), candidate=Arm(ours, bad))
        evidence = Evidence((stage,), error_mean=p0)
        found = (proof if prove else against)("error_rate", evidence, ERRORS)
        if found >= NEEDED:
            return requests
    raise AssertionError("nothing was ever shown")


@pytest.mark.parametrize(("percent", "rate"), [(1, 0.001), (10, 0.01), (50, 0.01), (50, 0.05)])
def test_the_requests_to_notice_a_regression_are_as_forecast(percent: int, rate: float) -> None:
    """Doubled errors are noticed after as many requests as the plan says."""
    told = plan(500, rate, steps=[percent, 60]).steps[0].requests
    assert told is not None
    took = [
        simulated(percent * 100, rate, 2 * rate, prove=False, seed=seed, step=max(20, told // 40))
        for seed in range(41)
    ]
    assert told / 2 < median(took) < told * 2, (told, median(took))


@pytest.mark.parametrize(("percent", "rate"), [(10, 0.002), (50, 0.001), (50, 0.01), (50, 0.05)])
def test_the_requests_to_prove_are_as_forecast(percent: int, rate: float) -> None:
    """Equal arms are shown to be within the margin after as many requests as the plan says."""
    view = plan(500, rate, steps=[percent, 60])
    told = next(step.requests for step in view.steps if step.kind == "analyse")
    assert told is not None
    took = [
        simulated(percent * 100, rate, rate, prove=True, seed=seed, step=max(20, told // 40))
        for seed in range(41)
    ]
    assert told / 2 < median(took) < told * 2, (told, median(took))


def test_a_step_that_sees_nothing_says_so() -> None:
    """One percent of fifty requests a second cannot see doubled errors in half an hour."""
    view = plan(50, 0.001, steps=[1, {"hold_minutes": 30}, 50])
    assert "needs about" in view.steps[0].warning
    assert any("candidate at 1 %" in warning for warning in view.warnings)
    busy = plan(50_000, 0.01, steps=[10, {"hold_minutes": 30}, 50])
    assert busy.warnings == ()
    assert (busy.steps[0].chance or 0) > 0.99


@pytest.mark.parametrize(
    "body",
    [
        {}, {"strategy": "immediate"}, {"strategy": "gradual"}, {"strategy": "ab_test"},
        {"strategy": "shadow"}, {"strategy": "champion_challenger"}, {"strategy": "bandit"},
        {"strategy": "shadow", "config": {"then": "canary"}},
        {"guardrails": [], "config": {"require_proof": False}},
    ],
)  # fmt: skip
@pytest.mark.parametrize("per_second", [0.0, 1e-6, 50.0, 1e5])
@pytest.mark.parametrize("rate", [0.0, 0.5, 1.0])
def test_every_plan_has_sensible_numbers(
    body: dict[str, Any], per_second: float, rate: float
) -> None:
    """No traffic, no errors and nothing but errors give finite numbers, or none."""
    view = plan(per_second, rate, **body)
    assert math.isfinite(view.shortest_seconds)
    for step in view.steps:
        assert step.requests is None or 0 <= step.requests < 10**12
        assert step.chance is None or 0.0 <= step.chance <= 1.0
        assert math.isfinite(step.seconds)
    if view.with_proof_seconds is not None:
        assert view.with_proof_seconds >= view.shortest_seconds
    if per_second == 0:
        assert "no traffic" in view.warnings[0]
    assert view.false_alarm == 0.05


def test_pairs_tell_sooner_than_a_split() -> None:
    """In shadow both see each request: less is needed than at any weight."""
    shadow = plan(500, 0.01, strategy="shadow").steps[0].requests
    split = plan(500, 0.01, steps=[10, 50]).steps[0].requests
    assert shadow is not None
    assert split is not None
    assert shadow < split
    took = []
    for seed in range(21):
        world = World(p0=0.01, p1=0.02, seed=seed)
        total = worse = better = 0
        while True:
            total += 100
            worse += int(world.random.binomial(100, 0.02))
            better += int(world.random.binomial(100, 0.01))
            both = PairCounts(total, total - worse - better, 0, worse, better)
            if (
                against("error_rate", Evidence((Stage(1, 0, mirror=10_000, pairs=both),)), ERRORS)
                > NEEDED
            ):
                break
        took.append(total)
    assert shadow / 2 < median(took) < shadow * 2, (shadow, median(took))
