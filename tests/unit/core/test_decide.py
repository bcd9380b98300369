"""What happens next: promotion fails closed, alarms act wherever the candidate is exposed."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import msgspec
import pytest

from hotswap.core.analysis import Reading
from hotswap.core.decide import decide
from hotswap.core.plan import Adapt, Analyse, Approval, Hold, Requests
from hotswap.core.rollout import FINAL, Exposure, Observation
from hotswap.core.windows import ArmCounts, UnitEvent, Window
from tests.unit.core.world import World

QUICK: dict[str, Any] = {
    "config": {"evaluation_period_seconds": 10},
    "bake_seconds": 30,
    "watch_seconds": 30,
}
QUERY = [{"metric": "cpu", "query": "up", "max": 1.0}]


def quick(**body: Any) -> dict[str, Any]:
    return {**QUICK, **body}


# --- the whole way


@pytest.mark.parametrize(
    ("body", "end"),
    [
        (quick(), "healthy"),
        (quick(strategy="immediate", config={}), "healthy"),
        (quick(strategy="gradual", config={"duration_seconds": 40}), "healthy"),
        (quick(config={}, steps=[5, {"hold_seconds": 5}, 25, {"requests": 50}, 50]), "healthy"),
        (quick(strategy="ab_test", config={"test_duration_seconds": 60}), "completed"),
        (quick(strategy="shadow", config={}), "completed"),
        (quick(strategy="champion_challenger", config={}), "healthy"),
        (quick(strategy="champion_challenger", config={"promote": False}), "completed"),
    ],
)
def test_a_good_candidate_comes_to_the_end_of_each_strategy(body: dict[str, Any], end: str) -> None:
    """A candidate as good as stable is promoted, or its test is completed."""
    world = World(body).end(tick=0.5)
    assert world.status.state == end, world.said
    assert world.active == ("v2" if end == "healthy" else "v1")
    assert world.exposed is None


@pytest.mark.parametrize("better", [0.05, 0.02])
def test_a_bandit_promotes_what_is_better(better: float) -> None:
    """A bandit ends by promoting the arm that is shown better, with every guardrail shown."""
    body = quick(strategy="bandit", config={})
    world = World(body, p0=0.1, p1=better, rps=200).end(tick=1.0)
    assert world.active == "v2", world.said


@pytest.mark.parametrize("strategy", ["canary", "ab_test", "champion_challenger", "bandit"])
def test_a_worse_candidate_goes_back(strategy: str) -> None:
    """Ten times the errors roll back, by whichever strategy, and say so with numbers."""
    world = World(quick(strategy=strategy, config={}), p0=0.002, p1=0.02).end(tick=0.5)
    assert (world.phase, world.active) == ("RolledBack", "v1")
    assert world.reason in ("guardrail", "tripwire")
    assert "v2" in world.status.message or "candidate" in world.status.message


def test_a_shadow_that_fails_goes_back_before_anybody_is_answered_by_it() -> None:
    """In shadow the pairs alone tell, and the weight was never above zero."""
    world = World(quick(strategy="shadow", config={}), p1=0.05)
    while not world.rollout.final:
        world.tick()
        assert world.exposed is None or world.exposed.weight == 0
    assert (world.phase, world.reason) == ("RolledBack", "guardrail")


def test_a_slow_candidate_goes_back() -> None:
    """Half as slow again is found by latency, against a twin."""
    world = World(quick(config={"evaluation_period_seconds": 300}), slow=1.5).end(tick=0.5)
    assert (world.phase, world.reason) == ("RolledBack", "guardrail")
    assert "latency" in world.status.message


@pytest.mark.parametrize("seed", range(5))
def test_a_strictly_better_candidate_is_never_rolled_back(seed: int) -> None:
    """Fewer errors and shorter times are no reason to go back."""
    world = World(quick(), p0=0.05, p1=0.001, slow=0.8, seed=seed).end(tick=0.5)
    assert world.status.state == "healthy", world.said


@pytest.mark.parametrize("seed", range(5))
def test_an_incident_that_hits_both_arms_does_not_roll_back(seed: int) -> None:
    """Errors of both arms twenty times as frequent for a while change nothing, tripwire included."""
    world = World(quick(config={"evaluation_period_seconds": 60}), seed=seed)
    world.running(Hold)
    world.p0 = world.p1 = 0.2
    for _ in range(300):
        world.tick()
    world.p0 = world.p1 = 0.002
    world.end(tick=0.5)
    assert world.status.state == "healthy", world.said


# --- promotion fails closed


@pytest.mark.parametrize("strategy", ["canary", "gradual", "champion_challenger", "bandit"])
@pytest.mark.parametrize("insufficient", ["hold", "extend", "rollback"])
def test_without_a_request_nothing_is_promoted(strategy: str, insufficient: str) -> None:
    """No traffic: whatever is chosen for that case, the candidate is never promoted."""
    body = quick(strategy=strategy, config={}, on_insufficient=insufficient, deadline_hours=1)
    world = World(body, rps=0).end(most=400 * 86400.0, tick=1800.0)
    assert world.phase == "RolledBack"
    assert all("Promoting" not in said for said in world.said)


@pytest.mark.parametrize(
    "guardrails",
    [
        [{"metric": "error_rate", "max": 0.5}],
        [{"metric": "error_rate", "max": 0.5}, {"metric": "invalid_rate", "dry_run": True}],
        [{"metric": "prediction_drift", "max": 0.5}],
        [{"metric": "latency", "max": 500}],
    ],
)
def test_even_with_few_guardrails_no_data_promotes_nothing(guardrails: list[Any]) -> None:
    """Guardrails that ask for little still ask for something to have been seen."""
    world = World(quick(guardrails=guardrails, deadline_hours=1), rps=0)
    for _ in range(200):
        world.tick(60.0)
    assert world.phase == "Paused"
    assert world.reason == "insufficient"


NO_DATA = [None, math.nan, math.inf, -math.inf]


@pytest.mark.parametrize("value", NO_DATA)
@pytest.mark.parametrize("limit", [1.0, -1.0])
def test_no_number_is_no_data_whichever_way_it_compares(value: float | None, limit: float) -> None:
    """NaN, infinity and nothing hold the rollout: they are neither good nor bad."""
    guardrails = [{"metric": "cpu", "query": "up", "max": limit}]
    world = World(quick(guardrails=guardrails))
    world.readings = {"cpu": Reading(value, "the query gave no data")}
    for _ in range(500):
        world.tick(1.0)
    assert (world.phase, world.reason) == ("Paused", "metrics_outage")
    world.readings = {"cpu": Reading(limit - 1.0)}
    world.end(tick=0.5)
    assert world.status.state == "healthy", world.said


def test_an_old_reading_is_no_reading() -> None:
    """What was read long ago says nothing of now."""
    world = World(quick(guardrails=QUERY))
    world.readings = {"cpu": Reading(0.5, age=3600.0)}
    world.tick()
    world.tick()
    assert world.reason == "metrics_outage"
    assert "1 h ago" not in world.status.message  # it names the metric; the view says how old


def test_a_reading_beyond_its_level_rolls_back() -> None:
    """A level that a source reads is a tripwire, and one of dry_run is only shown."""
    world = World(quick(guardrails=QUERY))
    world.readings = {"cpu": Reading(0.5)}
    world.running(Hold)
    world.readings = {"cpu": Reading(1.5)}
    world.end()
    assert world.reason == "tripwire"
    dry = World(quick(guardrails=[{"metric": "error_rate"}, {**QUERY[0], "dry_run": True}]))
    dry.readings = {"cpu": Reading(1.5)}
    assert dry.end(tick=0.5).status.state == "healthy"


def test_an_objective_must_be_met_to_promote() -> None:
    """A candidate that is no worse is not better: it waits until it is shown to be."""
    body = quick(objectives=[{"metric": "error_rate"}], deadline_hours=1)
    same = World(body, p0=0.05, p1=0.05)
    same.until(lambda world: world.reason == "insufficient", most=2 * 3600.0, tick=2.0)
    assert same.active == "v1"
    better = World(body, p0=0.05, p1=0.02).end(tick=0.5)
    assert better.status.state == "healthy"


# --- not enough


def needing(what: str) -> World:
    """A world that stands at a gate without traffic."""
    world = World(quick(on_insufficient=what, deadline_seconds=600))
    world.running(Hold)
    world.rps = 0.0
    return world


def test_at_the_deadline_it_holds_by_default_and_goes_on_when_there_is_enough() -> None:
    """Insufficient evidence holds the weight; when it comes after all the rollout goes on."""
    world = needing("hold").until(lambda w: w.reason == "insufficient", tick=5.0)
    weight = world.exposed
    for _ in range(100):
        world.tick(60.0)
    assert (world.phase, world.exposed) == ("Paused", weight)
    world.rps = 500.0
    assert world.end(tick=0.5).status.state == "healthy"


def test_at_the_deadline_it_may_extend() -> None:
    """Each deadline that is passed extends it, and says so, until a month is over."""
    world = needing("extend").until(lambda w: w.status.extended == 3, tick=5.0)
    assert world.phase == "Progressing"
    assert "extended" in world.status.message


def test_at_the_deadline_it_may_roll_back() -> None:
    """With on_insufficient rollback the deadline ends it."""
    world = needing("rollback").end(tick=5.0)
    assert (world.phase, world.reason) == ("RolledBack", "insufficient")


def test_resuming_what_lacks_evidence_waits_once_more() -> None:
    """Resume is no promotion: it grants another deadline."""
    world = needing("hold").until(lambda w: w.reason == "insufficient", tick=5.0)
    before = world.status.step
    world.command("resume")
    for _ in range(100):
        world.tick(5.0)
    assert (world.phase, world.status.step) == ("Progressing", before)
    world.until(lambda w: w.reason == "insufficient", tick=5.0)


def test_min_requests_are_waited_for() -> None:
    """A step lasts until the candidate has had so many requests, however long that takes."""
    world = World(quick(min_requests=500), rps=100)
    world.running(Hold)
    start = world.now
    step = world.status.step
    world.until(lambda w: w.status.step != step)
    assert world.now - start > 90  # 500 requests at 5 % of 100 a second


# --- holds come and go


def test_lost_capacity_holds_the_ramp_and_its_clock() -> None:
    """Hosts that are missing hold the step; its remaining time is what it was."""
    world = World(quick(config={"evaluation_period_seconds": 100}))
    world.running(Hold)
    world.until(lambda w: w.status.step_elapsed >= 50)
    world.ready = False
    for _ in range(100):
        world.tick(1.0)
    assert (world.phase, world.reason) == ("Paused", "capacity")
    assert world.status.step_elapsed < 52
    world.ready = True
    world.tick()
    assert world.phase == "Progressing"


def test_exposure_that_was_lost_holds_the_ramp_and_its_clock() -> None:
    """While the route table shows nothing of the candidate its step does not pass."""
    world = World(quick(config={"evaluation_period_seconds": 100}))
    world.running(Hold)
    before = world.status.step_elapsed
    world.exposed, world.ready = None, False
    for _ in range(200):
        world.tick(1.0)
    assert world.reason == "capacity"
    assert world.status.step_elapsed <= before + 2
    world.ready = True
    world.tick()
    world.tick()
    assert (world.phase, world.exposed) == ("Progressing", world.status.exposure)


@pytest.mark.parametrize("gone", ["ready", "exposed"])
def test_capacity_that_does_not_come_back_ends_it(gone: str) -> None:
    """A hold for capacity has a deadline of an hour."""
    world = World(quick())
    world.running(Hold)
    world.ready = False
    if gone == "exposed":
        world.exposed = None
    world.end(most=2 * 3600.0, tick=10.0)
    assert (world.phase, world.reason) == ("RolledBack", "expired")


def test_a_store_outage_freezes_the_weight_and_nothing_more() -> None:
    """Nothing is raised while nothing can be saved; afterwards it goes on."""
    world = World(quick())
    world.running(Hold)
    shown = world.exposed
    world.outage = "the disk is full"
    for _ in range(500):
        world.tick(1.0)
    assert (world.phase, world.reason, world.exposed) == ("Paused", "store", shown)
    world.outage = ""
    assert world.end(tick=0.5).status.state == "healthy"


def test_a_store_outage_while_promoting_does_not_abort() -> None:
    """The clock of the promotion stands while the store is away."""
    world = World(quick())
    world.flips = False
    world.until(lambda w: w.status.state == "promoting", tick=0.5)
    world.outage = "the disk is full"
    for _ in range(100):
        world.tick(60.0)
    assert (world.phase, world.reason) == ("Promoting", "store")
    world.outage, world.flips = "", True
    assert world.end(tick=0.5).status.state == "healthy"


def test_a_promotion_that_does_not_happen_goes_back() -> None:
    """Ten minutes without a flip are enough."""
    world = World(quick())
    world.flips = False
    world.until(lambda w: w.status.state == "promoting", tick=0.5)
    world.end(tick=5.0)
    assert (world.phase, world.reason) == ("RolledBack", "promotion")


def lossy(world: World, kept: float) -> None:
    """Deliver windows of which some of the candidate's requests were lost on the way."""
    assert world.exposed is not None
    window = world.window(world.exposed, 5000)
    ours = window.arms["candidate"]
    ours.requests = int(ours.requests * kept)
    world.deliver([window])


def test_lost_records_hold_the_rollout_as_they_make_everything_doubtful() -> None:
    """A split that does not come out as tossed holds; a person may insist."""
    world = World(quick(config={"evaluation_period_seconds": 600}))
    world.running(Hold)
    for _ in range(100):
        lossy(world, 0.5)
    world.tick()
    assert (world.phase, world.reason) == ("Paused", "sample_ratio")
    world.command("promote", force=True)
    assert world.end(tick=0.5).status.state == "healthy", world.said


def test_approval_is_waited_for() -> None:
    """A step of approval stays until a person says go on."""
    body = quick(config={}, steps=[5, {"approval": True}, 50])
    world = World(body).running(Approval)
    world.until(lambda w: w.reason == "approval")
    for _ in range(50):
        world.tick(60.0)
    assert world.phase == "Paused"
    world.command("resume")
    world.tick()
    assert not isinstance(world.rollout.steps[world.status.step], Approval)


# --- alarms


@cache
def exposed_states() -> dict[str, World]:
    """Worlds in every state in which the candidate can be exposed, to be copied."""
    worlds = {}
    worlds["running"] = World(quick()).running(Hold)
    worlds["paused"] = World(quick()).running(Hold)
    worlds["paused"].command("pause")
    worlds["approval"] = World(quick(config={}, steps=[5, {"approval": True}, 50])).until(
        lambda w: w.reason == "approval"
    )
    worlds["insufficient"] = needing("hold").until(lambda w: w.reason == "insufficient", tick=5.0)
    worlds["insufficient"].rps = 500.0
    worlds["outage"] = World(quick()).running(Hold)
    worlds["outage"].outage = "gone"
    worlds["promoting"] = World(quick())
    worlds["promoting"].flips = False
    worlds["promoting"].until(lambda w: w.status.state == "promoting", tick=0.5)
    worlds["baking"] = World(quick(bake_seconds=600)).until(
        lambda w: w.status.state == "baking", tick=0.5
    )
    worlds["baking, paused"] = World(quick(bake_seconds=600)).until(
        lambda w: w.status.state == "baking", tick=0.5
    )
    worlds["baking, paused"].command("pause")
    return worlds


EXPOSED = (
    "running", "paused", "approval", "insufficient", "outage", "promoting", "baking",
    "baking, paused",
)  # fmt: skip


@pytest.mark.parametrize("state", EXPOSED)
def test_guardrails_act_in_every_state_in_which_the_candidate_is_exposed(state: str) -> None:
    """A candidate that turns bad goes back, whatever it was waiting for."""
    world = exposed_states()[state].copy()
    world.p1 = 0.4
    world.until(lambda w: w.status.state in ("rolling_back", "rolled_back"), most=60.0)
    assert world.status.exposure is None
    world.end()
    assert (world.phase, world.active) == ("RolledBack", "v1")


@pytest.mark.parametrize("state", EXPOSED)
@pytest.mark.parametrize(
    ("what", "value"), [("breaker", "8 failures"), ("restarts", 3), ("load_error", "no memory")]
)
def test_what_does_not_stay_up_goes_back_at_once(state: str, what: str, value: Any) -> None:
    """The breaker, a process that keeps dying and a host that cannot load act in one tick."""
    world = exposed_states()[state].copy()
    setattr(world, what, value)
    world.tick()
    assert world.status.state == "rolling_back"
    assert world.status.exposure is None
    assert world.reason in ("tripwire", "bake")


def test_the_tripwire_looks_at_the_candidate_alone() -> None:
    """Half of the candidate's requests failing trips within a few dozen of them."""
    spec = quick(guardrails=[{"metric": "error_rate", "max": 0.05, "max_ratio": 1000}])
    world = World(spec, p1=0.9, p0=0.0)
    world.rollout = msgspec.structs.replace(
        world.rollout, spec=msgspec.structs.replace(world.rollout.spec, alpha=1e-300)
    )
    world.end()
    assert world.reason == "tripwire"
    assert "at most 5 % may" in world.status.message


def test_failures_of_units_that_came_back_break_nothing() -> None:
    """Of keyed units that were counted before only the failure is new: more failures than requests."""
    world = World(quick(), rps=0.0)
    world.running(Hold)
    assert world.exposed is not None
    stage = world.exposed.stage
    arms = {"candidate": ArmCounts(requests=25)}
    events = [UnitEvent(unit, 2, 1) for unit in range(100)]
    world.deliver([Window(world.rollout.test, stage, "w", 1, 500, 500, arms, units=events)])
    world.tick()
    assert world.status.state == "rolling_back"


def test_a_broken_candidate_is_gone_after_a_handful_of_requests() -> None:
    """At one percent, with one error in a thousand on stable, a candidate that always fails goes
    back after at most five of its requests on average.
    """
    spent = []
    for seed in range(40):
        world = World(quick(steps=[1, 50], config={}), p0=0.001, p1=1.0, rps=100, seed=seed)
        world.end()
        spent.append(sum(s.candidate.requests for s in world.rollout.evidence.stages))
    assert sum(spent) / len(spent) <= 5.0


# --- the bake and after


@cache
def _promoted(body: str) -> World:
    world = World(msgspec.json.decode(body))
    return world.until(lambda w: w.status.state == "baking", tick=1.0)


def promoted(**body: Any) -> World:
    return _promoted(msgspec.json.encode(quick(**body)).decode()).copy()


def test_errors_that_rise_in_the_bake_go_back() -> None:
    """After the promotion there is no coin; the change is found all the same."""
    world = promoted(bake_seconds=3600)
    world.p1 = 0.02
    world.end(tick=0.5)
    assert (world.phase, world.reason, world.active) == ("RolledBack", "bake", "v1")


def test_errors_that_rise_in_the_watch_go_back() -> None:
    """The watch goes on after the bake."""
    world = promoted(watch_seconds=3600).until(lambda w: w.status.state == "watching", tick=0.5)
    assert world.phase == "Healthy"
    world.p1 = 0.05
    world.end(tick=0.5)
    assert (world.phase, world.reason, world.active) == ("RolledBack", "watch", "v1")


@pytest.mark.parametrize("state", ["baking", "watching"])
def test_with_nothing_to_return_to_it_says_degraded(state: str) -> None:
    """Stable itself is bad and no other version is proved."""
    world = promoted(bake_seconds=20, watch_seconds=3600)
    world.until(lambda w: w.status.state == state, tick=0.5)
    world.p1, world.target, world.flips = 0.3, None, False
    world.end(tick=0.5)
    assert world.phase == "Degraded"
    assert "no version to return to" in world.status.message
    assert world.status.exposure is None


def test_a_failure_in_the_bake_that_comes_without_a_request_is_not_lost() -> None:
    """Failures that are counted before their requests are told with the next ones."""
    world = promoted(bake_seconds=3600)
    stage = world.status.stage
    world.rps = 0.0
    for number in range(60):
        arms = {"candidate": ArmCounts(requests=0, errors=5)}
        if number % 2:
            arms = {"candidate": ArmCounts(requests=5)}
        world.deliver([Window(world.rollout.test, stage, "w", number, 10_000, 0, arms)])
        world.tick()
    assert world.status.state in ("rolling_back", "rolled_back")


@pytest.mark.parametrize("state", ["baking", "watching"])
def test_another_version_made_stable_ends_it(state: str) -> None:
    """Whoever replaces the new stable version by hand has the last word."""
    world = promoted(watch_seconds=3600).until(lambda w: w.status.state == state, tick=0.5)
    world.active = "v3"
    world.exposed = None
    world.tick()
    assert world.status.state in FINAL
    assert world.status.exposure is None
    assert world.active == "v3"


@pytest.mark.parametrize("state", ["baking", "watching"])
def test_that_the_active_version_is_unknown_for_a_moment_ends_nothing(state: str) -> None:
    """After a restart nothing may be known yet: that is not another version."""
    world = promoted(watch_seconds=3600).until(lambda w: w.status.state == state, tick=0.5)
    world.active, world.exposed, world.ready = None, None, False
    world.tick()
    assert world.status.state == state
    world.active, world.ready = "v2", True
    assert world.end(tick=0.5).status.state == "healthy"


def test_going_back_is_not_over_while_the_active_version_is_unknown() -> None:
    """On the way back the same moment is no arrival."""
    world = promoted(bake_seconds=3600)
    world.flips = False
    world.breaker = "8 failures"
    world.tick()
    world.active = None
    world.tick()
    assert world.status.state == "rolling_back"


# --- clocks


def test_durations_come_from_the_ticks_alone() -> None:
    """A step takes as many seconds of ticks, in whatever portions they come."""
    ends = set()
    for tick in (0.2, 1.0, 5.0):
        world = World(quick(strategy="ab_test", config={"test_duration_seconds": 100}))
        world.running(Hold, tick=tick)
        start = world.now
        world.end(tick=tick)
        ends.add(round((world.now - start) / 10))
    assert ends == {10}


@pytest.mark.parametrize("seconds", [0.0, -5.0, math.nan])
def test_no_time_and_impossible_time_move_no_clock(seconds: float) -> None:
    """Clocks never run backwards."""
    world = World(quick()).running(Hold)
    before = world.status
    after = decide(world.rollout, world.seen(), seconds).status
    assert after.elapsed == before.elapsed
    assert after.step_elapsed == before.step_elapsed


def test_what_is_over_stays_as_it_is() -> None:
    """A final state absorbs, whatever is seen afterwards."""
    world = World(quick(), p1=0.5).end()
    status = world.status
    seen = Observation(exposed=Exposure(9, 5000), active="v9", breaker="x", load_error="y")
    decision = decide(world.rollout, seen, 1e6)
    assert decision.status == status
    assert not decision.moved


# --- preparing and queueing


def test_what_cannot_be_loaded_fails_with_the_reason() -> None:
    """A load error ends the preparation, in its own words."""
    world = World(quick())
    world.ready, world.load_error = False, "the artifact is damaged"
    world.tick()
    assert (world.phase, world.status.message) == ("Failed", "the artifact is damaged")


def test_what_does_not_become_warm_fails() -> None:
    """Preparing has a deadline of ten minutes."""
    world = World(quick())
    world.ready, world.lacking = False, "0 of 1 hosts are warm"
    world.end(tick=5.0)
    assert (world.phase, world.reason) == ("Failed", "load")
    assert "0 of 1 hosts" in world.status.message
    assert world.now <= 610


def test_a_queued_rollout_waits_for_its_turn() -> None:
    """While another one runs it waits, at most a month; then it is prepared."""
    world = World(quick())
    world.rollout = msgspec.structs.replace(
        world.rollout, status=msgspec.structs.replace(world.status, state="queued")
    )
    world.blocked = True
    for _ in range(100):
        world.tick(3600.0)
    assert world.status.state == "queued"
    world.blocked = False
    assert world.end(tick=0.5).status.state == "healthy"


# --- every state has an exit

TROUBLE: list[dict[str, Any]] = [
    {},
    {"ready": False},
    {"outage": "gone"},
    {"flips": False},
    {"exposed": None, "ready": False},
    {"readings": {}},
    {"rps": 0.0},
    {"target": None, "flips": False},
    {"active": None, "exposed": None, "ready": False},
]
STATES: list[tuple[dict[str, Any], str]] = [
    (quick(guardrails=[*QUERY, {"metric": "error_rate"}]), "preparing"),
    (quick(guardrails=[*QUERY, {"metric": "error_rate"}]), "running"),
    (quick(strategy="bandit", config={}), "running"),
    (quick(strategy="shadow", config={}), "running"),
    (quick(strategy="champion_challenger", config={}), "running"),
    (quick(strategy="ab_test", config={"promote_winner": True}), "running"),
    (quick(config={}, steps=[5, {"approval": True}, 50]), "running"),
    (quick(config={}, steps=[5, {"requests": 10**9}, 50]), "running"),
    (quick(), "promoting"),
    (quick(bake_seconds=3600), "baking"),
    (quick(watch_seconds=86400), "watching"),
]


@cache
def standing(body: str, state: str) -> World:
    world = World(msgspec.json.decode(body))
    world.readings = {"cpu": Reading(0.5)}
    world.flips = state != "promoting"
    shown = state == "running"
    return world.until(
        lambda w: w.status.state == state and (w.exposed is not None or not shown), tick=1.0
    )


@pytest.mark.parametrize("trouble", TROUBLE, ids=str)
@pytest.mark.parametrize(("body", "state"), STATES, ids=str)
@pytest.mark.parametrize("paused", [False, True])
def test_with_time_alone_every_rollout_ends(
    body: dict[str, Any], state: str, trouble: dict[str, Any], paused: bool
) -> None:
    """Whatever is missing for ever, and wherever it stood: no state is without a deadline."""
    world = standing(msgspec.json.encode(body).decode(), state).copy()
    world.flips = True
    if paused and state in ("running", "baking"):
        world.command("pause")
    for name, value in trouble.items():
        setattr(world, name, value)
    world.rps = 0.0
    world.end(most=200 * 86400.0, tick=6 * 3600.0)
    assert world.status.exposure is None


def test_every_step_that_waits_is_one_of_the_plan() -> None:
    """The walk above meets every kind of step that can wait."""
    kinds = {type(step) for body, _ in STATES for step in World(body).rollout.steps}
    assert {Adapt, Analyse, Approval, Hold, Requests} <= kinds
