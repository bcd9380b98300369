"""What an operator may do in each state; everything else is refused and changes nothing."""

from __future__ import annotations

from functools import cache
from typing import Any

import msgspec
import pytest

from hotswap.core.analysis import Analysis
from hotswap.core.commands import COMMANDS, commanded
from hotswap.core.evidence import Evidence
from hotswap.core.plan import Analyse, End, Hold, Promote
from hotswap.core.rollout import FINAL, Rollout, Status, analysed
from hotswap.errors import BadInput, Conflict
from tests.unit.core.world import World

BODY: dict[str, Any] = {
    "config": {"evaluation_period_seconds": 10},
    "bake_seconds": 30,
    "watch_seconds": 30,
}
STATES = (
    "queued", "preparing", "running", "promoting", "baking", "watching", "rolling_back", *FINAL,
)  # fmt: skip
LEGAL = {
    "queued": {"abort"},
    "preparing": {"abort"},
    "running": {"abort", "pause", "skip", "promote"},
    "promoting": {"abort"},
    "baking": {"abort", "pause"},
    "watching": set[str](),
    "rolling_back": {"abort"},
    "rolled_back": {"abort", "retry"},
    "failed": {"retry"},
    "healthy": set[str](),
    "completed": set[str](),
    "degraded": set[str](),
}


@cache
def _running() -> World:
    return World(BODY).running(Hold)


def running() -> World:
    return _running().copy()


def at(state: str) -> Rollout:
    """A rollout in that state, at a step that belongs to it."""
    rollout = running().rollout
    last = len(rollout.steps) - 1
    step = {"promoting": last - 1, "baking": last, "watching": last}.get(state, 1)
    status = msgspec.structs.replace(rollout.status, state=state, reason="why", step=step)
    if state in ("queued", "preparing", "rolling_back", *FINAL):
        status = msgspec.structs.replace(status, exposure=None)
    return msgspec.structs.replace(rollout, status=status)


def judged(rollout: Rollout) -> Analysis:
    return analysed(rollout, World(BODY).seen())


@pytest.mark.parametrize("state", sorted(STATES))
@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_in_each_state(command: str, state: str) -> None:
    """Legal ones move the rollout to the next generation, others are refused with the state."""
    before = at(state)
    if command not in LEGAL[state]:
        with pytest.raises(Conflict) as caught:
            commanded(before, command, judged(before))
        assert f"generation {before.status.generation}" in str(caught.value)
        return
    after = commanded(before, command, judged(before))
    if command == "abort" and state in ("rolling_back", "rolled_back"):
        assert after is before
    else:
        assert after.status.generation == before.status.generation + 1


@pytest.mark.parametrize("name", ["", "explode", "PROMOTE", "supersede"])
def test_what_is_no_command_is_refused(name: str) -> None:
    """An unknown word is never taken for another command."""
    rollout = running().rollout
    with pytest.raises(BadInput, match="there is no command"):
        commanded(rollout, name, judged(rollout))


def test_abort_is_sticky_and_idempotent() -> None:
    """A second abort changes nothing, and nothing but a retry begins again."""
    world = running()
    world.command("abort", why="looks wrong")
    assert world.status.exposure is None
    first = world.rollout
    world.command("abort", why="again")
    assert world.rollout is first
    world.end()
    world.command("abort")
    for _ in range(100):
        world.tick(3600.0)
    assert (world.phase, world.reason) == ("RolledBack", "aborted")
    assert world.status.message == "aborted by an operator (looks wrong)"


@pytest.mark.parametrize("state", ["queued", "preparing", "running", "promoting", "baking"])
def test_abort_goes_back_from_wherever_it_is(state: str) -> None:
    """Whatever it was doing, the candidate is not to be seen from now on."""
    before = at(state)
    after = commanded(before, "abort", judged(before)).status
    assert after.state in ("rolling_back", "rolled_back")
    assert after.exposure is None
    assert after.holds == {}


def test_retry_begins_at_the_first_step_with_fresh_evidence() -> None:
    """Nothing of the attempt before counts, and its stages' numbers are never used again."""
    world = running()
    world.breaker = "8 failures"
    world.end()
    before = world.rollout
    world.breaker = ""
    world.command("retry", why="fixed")
    after = world.rollout
    assert (after.status.step, after.status.attempt, after.status.state) == (0, 2, "preparing")
    assert (after.evidence.stages, after.evidence.recent) == ((), ())
    assert after.evidence.reference is None
    assert after.evidence.error_mean == before.evidence.error_mean
    assert (after.status.peaks, after.status.holds, after.status.elapsed) == ({}, {}, 0.0)
    assert after.test != before.test
    assert world.end(tick=0.5).status.state == "healthy"
    assert min(stage.number for stage in world.rollout.evidence.stages) > before.status.stage


def test_pausing_twice_is_refused() -> None:
    """It is paused already, and stays as it was."""
    world = running()
    world.command("pause")
    with pytest.raises(Conflict, match="paused already"):
        world.command("pause")
    assert world.phase == "Paused"


def test_a_paused_rollout_stands_still_until_it_is_resumed() -> None:
    """Weight and remaining time are kept, however long the pause."""
    world = running()
    before = world.status
    world.command("pause")
    for _ in range(100):
        world.tick(60.0)
    assert (world.status.step, world.status.exposure) == (before.step, before.exposure)
    assert world.status.step_elapsed == before.step_elapsed
    world.command("resume")
    assert world.end(tick=0.5).status.state == "healthy"


def test_ending_ones_pause_approves_of_nothing() -> None:
    """Paused while it waits for approval: resuming ends the pause, a second time approves."""
    world = World({**BODY, "config": {}, "steps": [5, {"approval": True}, 50]})
    world.until(lambda w: w.reason == "approval")
    world.command("pause")
    world.command("resume")
    world.tick()
    assert (world.phase, world.reason) == ("Paused", "approval")
    world.command("resume")
    world.tick()
    assert world.phase == "Progressing"


def test_skip_goes_one_step_on_and_says_so() -> None:
    """A skipped step is noted as one."""
    world = running()
    step = world.status.step
    world.command("skip")
    assert (world.status.step, world.status.passed) == (step + 1, (step,))


def test_skipping_every_step_still_leaves_the_proof() -> None:
    """Skip is no promotion: at the last gate nothing but proof passes."""
    world = World({**BODY, "deadline_seconds": 60}, rps=0.0)
    world.until(lambda w: w.status.state == "running")
    while not isinstance(world.rollout.steps[world.status.step], Promote):
        world.command("skip")
    with pytest.raises(Conflict, match="'promote' does it"):
        world.command("skip")
    for _ in range(60):
        world.tick(10.0)
    assert world.status.state == "running"
    assert world.active == "v1"


def test_a_skipped_test_has_no_winner() -> None:
    """An A/B test whose verdict was skipped promotes by proof alone."""
    config = {"promote_winner": True, "test_duration_seconds": 5}
    world = World({**BODY, "strategy": "ab_test", "config": config})
    world.running(Analyse)
    world.rps = 0.0
    world.command("skip")
    for _ in range(100):
        world.tick(10.0)
    assert (world.status.state, world.active) == ("running", "v1")


def test_the_end_cannot_be_skipped() -> None:
    """After a last step there is none."""
    world = World({**BODY, "strategy": "ab_test", "config": {"test_duration_seconds": 5}})
    world.until(lambda w: w.status.state == "running")
    while not isinstance(world.rollout.steps[world.status.step], End):
        world.command("skip")
    with pytest.raises(Conflict, match="nothing follows"):
        world.command("skip")
    world.tick()
    world.tick()
    assert world.status.state == "completed"


def test_promote_skips_the_steps_that_are_left() -> None:
    """The operator's promotion asks for no proof, but for capacity."""
    world = running()
    world.ready = False
    world.command("promote", why="urgent")
    step = world.status.step
    for _ in range(10):
        world.tick()
    assert (world.phase, world.active) == ("Promoting", "v1")
    world.ready = True
    world.until(lambda w: w.status.state == "baking")
    assert world.status.step == step + 1
    assert "urgent" in world.said[-2] + world.journal[-2].record.after.message


@pytest.mark.parametrize("strategy", ["shadow", "ab_test"])
def test_what_ends_without_a_promotion_cannot_be_promoted(strategy: str) -> None:
    """There is no such step in the plan."""
    world = World({**BODY, "strategy": strategy, "config": {}})
    world.until(lambda w: w.status.state == "running")
    with pytest.raises(Conflict, match="ends without"):
        world.command("promote")


def failing() -> World:
    """A candidate whose guardrail says fail, seen by a person before the machine acts."""
    world = running()
    world.p1 = 0.03
    assert world.exposed is not None
    while not judged(world.rollout).failed:
        world.deliver([world.window(world.exposed, 500)])
    assert not judged(world.rollout).tripped
    return world


def test_promote_is_refused_while_a_guardrail_says_fail() -> None:
    """A person has to insist, and then the promotion is carried out."""
    world = failing()
    with pytest.raises(Conflict, match="a guardrail says fail"):
        world.command("promote")
    world.command("promote", force=True)
    world.p1 = world.p0
    world.tick()
    assert world.active == "v2"


def test_nobody_can_insist_against_a_limit() -> None:
    """What trips would be taken back at once, so it is refused at once."""
    world = running()
    world.p1 = 0.9
    assert world.exposed is not None
    for _ in range(4):
        world.deliver([world.window(world.exposed, 500)])
    with pytest.raises(Conflict, match="a limit is passed"):
        world.command("promote", force=True)


def test_nothing_is_left_of_a_refused_command() -> None:
    """The rollout is a value: what is refused cannot have changed it."""
    rollout = Rollout("r", running().rollout.spec, (), Status("healthy"), "v1", Evidence())
    for command in ("promote", "pause", "resume", "skip", "retry", "abort"):
        with pytest.raises(Conflict):
            commanded(rollout, command, judged(rollout))
    assert rollout.status == Status("healthy")
