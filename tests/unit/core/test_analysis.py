"""What the counters say of each metric and together, and the long watch afterwards."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest

from hotswap.core.aftercare import alarmed, baseline_rate, told
from hotswap.core.analysis import Analysis, analyse, two_sided
from hotswap.core.bandit import moved_weight
from hotswap.core.evidence import Arm, Evidence, Recent, Stage
from hotswap.core.plan import Adapt
from hotswap.core.rollout import Exposure, Status
from hotswap.core.strategy import parse
from hotswap.core.windows import PairCounts
from tests.unit.core.world import World


def judged(evidence: Evidence, peaks: dict[str, float] | None = None, **body: Any) -> Analysis:
    spec = parse({"model": "m", "version": "v2", "strategy": "canary", **body})
    return analyse(spec, evidence, {}, peaks or {})


def even(bad: int, bad_stable: int, n: int = 10_000, **other: Any) -> Evidence:
    stage = Stage(1, 5000, baseline=Arm(n, bad_stable), candidate=Arm(n, bad), **other)
    return Evidence((stage,))


def verdict(analysis: Analysis, name: str) -> str:
    found = analysis.metric(name)
    assert found is not None
    return found.verdict


def test_each_guardrail_is_pass_fail_or_not_yet() -> None:
    """Enough for is pass, enough against is fail, anything else is insufficient."""
    assert verdict(judged(even(300, 300)), "error_rate") == "pass"
    assert verdict(judged(even(300, 100)), "error_rate") == "fail"
    assert verdict(judged(even(3, 1, n=100)), "error_rate") == "insufficient"
    assert verdict(judged(Evidence()), "error_rate") == "insufficient"


def test_what_fails_by_itself_rolls_back_by_itself() -> None:
    """A metric is only called failed where its share of the evidence alone is enough."""
    for weight in (0.01, 1.0, 100.0):
        guardrails = [{"metric": "error_rate", "weight": weight}, {"metric": "invalid_rate"}]
        for bad in range(100, 220, 4):
            analysis = judged(even(bad, 100), guardrails=guardrails)
            if verdict(analysis, "error_rate") == "fail":
                assert analysis.failed


def test_one_bad_metric_is_named() -> None:
    """The reason is the metric that alone suffices."""
    analysis = judged(even(300, 100))
    assert analysis.named == ("error_rate",)
    assert analysis.failed == "error_rate"


def test_what_is_only_shown_acts_on_nothing() -> None:
    """A dry-run guardrail neither rolls back nor is waited for."""
    guardrails = [{"metric": "error_rate", "dry_run": True}, {"metric": "invalid_rate"}]
    bad = judged(even(500, 10), guardrails=guardrails)
    assert verdict(bad, "error_rate") == "fail"
    assert (bad.failed, bad.missing) == ("", ())


def test_nothing_proves_nothing() -> None:
    """Without requests nothing is proven, whichever guardrails there are."""
    free = {"require_proof": False}
    for guardrails in ([], [{"metric": "sample_ratio"}], [{"metric": "error_rate", "max": 0.1}]):
        assert not judged(Evidence(), guardrails=guardrails, config=free).proven
        assert not judged(even(0, 0, n=5), guardrails=guardrails, config=free).proven


def test_a_proof_once_had_is_kept() -> None:
    """The greatest proof so far counts; it was looked at all the time."""
    assert verdict(judged(even(3, 1, n=100), {"error_rate": 3.5}), "error_rate") == "pass"


def test_a_rising_base_rate_along_a_ramp_is_no_regression() -> None:
    """Errors of everybody that grow with the weight are not pooled into a difference."""
    stages = tuple(
        Stage(
            number, weight,
            baseline=Arm(9900, 9900 * rate // 1000), candidate=Arm(9900, 9900 * rate // 1000),
        )
        for number, (weight, rate) in enumerate([(5000, 5), (5000, 10), (5000, 20)])
    )  # fmt: skip
    assert not judged(Evidence(stages)).failed


@pytest.mark.parametrize("metric", ["error_rate", "invalid_rate"])
def test_a_level_trips_on_the_candidate_alone(metric: str) -> None:
    """Beyond its level in the last minute it trips, unless stable is beyond it too."""
    guardrails = [{"metric": metric, "max": 0.1}]
    for stable_failed, trips in ((0, True), (300, False)):
        recent = (Recent(1, 100, 60, 900, stable_failed),)
        evidence = msgspec.structs.replace(even(0, 0), recent=recent)
        assert bool(judged(evidence, guardrails=guardrails).tripped) == trips


def test_a_level_of_latency_trips_on_the_candidate_alone() -> None:
    """The same for milliseconds: slow on both arms is no fault of the candidate."""
    guardrails = [{"metric": "latency_p95", "max": 5}]
    slow, quick = {200: 100}, {90: 100}
    for stable, trips in ((quick, True), (slow, False), ({}, True)):
        stage = Stage(1, 5000, baseline=Arm(latency=stable), candidate=Arm(latency=slow))
        assert bool(judged(Evidence((stage,)), guardrails=guardrails).tripped) == trips


def test_a_test_has_two_sides() -> None:
    """Better, worse, or not shown."""
    spec = parse({"model": "m", "version": "v2", "strategy": "ab_test"})
    assert two_sided(spec, even(100, 300), "error_rate")[0] == "better"
    assert two_sided(spec, even(300, 100), "error_rate")[0] == "worse"
    assert two_sided(spec, even(100, 100), "error_rate")[0] == "insufficient"


def test_pairs_prove_what_a_split_would() -> None:
    """Requests that both answered without a failure speak for both rates."""
    pairs = PairCounts(20_000, 20_000, 20_000)
    analysis = judged(Evidence((Stage(1, 0, mirror=10_000, pairs=pairs),)))
    assert verdict(analysis, "error_rate") == verdict(analysis, "invalid_rate") == "pass"
    assert analysis.missing == ("latency",)


# --- the bandit's weight


def test_a_bandit_moves_towards_the_better_arm_within_its_bounds() -> None:
    """By its posterior, not before both arms were seen, and never beyond the bounds."""
    world = World({"strategy": "bandit", "config": {"min_percentage": 10, "max_percentage": 80}})
    step = next(step for step in world.rollout.steps if isinstance(step, Adapt))
    status = Status("running", step_elapsed=60.0, stage=1, exposure=Exposure(1, 5000))

    def moved(evidence: Evidence, status: Status = status) -> int | None:
        rollout = msgspec.structs.replace(world.rollout, evidence=evidence, status=status)
        return moved_weight(rollout, status, step)

    assert moved(even(10, 500)) == 8000
    assert moved(even(500, 10)) == 1000
    assert moved(even(1, 1, n=10)) is None
    assert moved(Evidence()) is None
    assert moved(even(10, 500), msgspec.structs.replace(status, adapted=55.0)) is None


# --- after the promotion


@pytest.mark.parametrize("seed", range(10))
def test_the_watch_does_not_sound_for_what_was_there_before(seed: int) -> None:
    """A candidate like stable, whose rate is known from few failures, passes a day of watching."""
    world = World({"watch_hours": 24}, seed=seed)
    stage = world.random.binomial(20_000, 0.002, 2)
    evidence = even(int(stage[0]), int(stage[1]), n=20_000)
    rollout = msgspec.structs.replace(world.rollout, evidence=evidence)
    status = Status("watching", detector=baseline_rate(rollout, 500.0))
    failed = requests = 0
    for _ in range(1440):
        requests += 30_000
        failed += int(world.random.binomial(30_000, 0.002))
        status = told(status, (failed, requests))
    assert not alarmed(status)


def test_the_watch_sounds_for_a_real_change() -> None:
    """Three times the errors are found within minutes."""
    world = World({"watch_hours": 24})
    rollout = msgspec.structs.replace(world.rollout, evidence=even(40, 40, n=20_000))
    status = Status("watching", detector=baseline_rate(rollout, 500.0))
    failed = requests = 0
    for _ in range(300):
        requests += 500
        failed += int(world.random.binomial(500, 0.006))
        status = told(status, (failed, requests))
    assert alarmed(status)


def test_counters_that_begin_anew_alarm_nobody() -> None:
    """Served counts that fall (a restart) are taken as a new beginning."""
    world = World()
    status = Status("watching", detector=baseline_rate(world.rollout, 500.0), seen=(50, 5000))
    status = told(status, (0, 10))
    assert (status.seen, alarmed(status)) == ((0, 10), False)


# --- what it costs


def test_seven_days_pass() -> None:
    """A week of a rollout is simulated, with a tick every ten minutes."""
    body = {"strategy": "ab_test", "config": {"test_duration_hours": 168}}
    world = World(body, rps=5.0)
    world.running()
    world.end(most=9 * 86400.0, tick=600.0)
    assert world.status.state == "completed"
    assert world.now > 7 * 86400


def test_what_did_not_change_is_not_judged_again() -> None:
    """The same evidence gives the same value, not just an equal one; other evidence does not."""
    evidence = even(100, 100)
    spec = parse({"model": "m", "version": "v2", "strategy": "canary"})
    once = analyse(spec, evidence, {}, {})
    assert analyse(spec, evidence, {}, {}) is once
    assert analyse(spec, evidence, {}, {"error_rate": 50.0}) is not once
    again = analyse(spec, msgspec.structs.replace(evidence), {}, {})
    assert again == once
    assert again is not once
    assert not math.isnan(once.against)
