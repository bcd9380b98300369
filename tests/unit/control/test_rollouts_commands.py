"""What operators do to rollouts, in every state, through the service."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from hotswap.core.verification import verify
from hotswap.errors import BadInput, Conflict, NotFound, StoreError
from tests.unit.control.fakes import World, settle
from tests.unit.control.traffic import Traffic, body, drive, ended, tick, until_phase

#: Each state's legal commands; the rest is refused without effect.
LEGAL = {
    "queued": {"abort"},
    "preparing": {"abort"},
    "running": {"promote", "pause", "abort", "skip"},
    "paused": {"promote", "resume", "abort"},
    "approval": {"promote", "resume", "abort", "pause", "skip"},
    "baking": {"pause", "abort"},
    "watching": set(),
    "healthy": set(),
    "rolled_back": {"abort", "retry"},
    "failed": {"retry"},
}
COMMANDS = ("promote", "pause", "resume", "abort", "retry", "skip")


async def in_state(served: World, state: str) -> tuple[Traffic, str]:
    """A rollout of m to v2 that is there."""
    traffic = Traffic(served)
    service = served.service
    if state == "queued":
        await service.start_rollout(body(version="v3"))
        return traffic, (await service.start_rollout(body(on_running="queue"))).id
    if state == "failed":
        served.supervisor.broken["m", "v2"] = ("bad magic", "LoadError")
    if state == "preparing":
        served.supervisor.held.add(("m", "v2"))
    steps = {"steps": [10, {"approval": True}], "config": {}} if state == "approval" else {}
    id = (await service.start_rollout(body(**steps))).id
    if state in ("preparing",):
        await drive(traffic, 2)
    elif state == "running":
        await drive(traffic, 5)
    elif state == "approval":
        await until_phase(traffic, id, "Paused")
    elif state == "paused":
        await drive(traffic, 5)
        await service.command_rollout(id, "pause")
    elif state == "baking":
        await until_phase(traffic, id, "Baking")
    elif state == "watching":
        await until_phase(traffic, id, "Healthy")
    elif state == "rolled_back":
        await drive(traffic, 5)
        await service.command_rollout(id, "abort")
        await ended(traffic, id)
    else:
        await ended(traffic, id)
    run = service._rollouts._runs[id]
    actual = {"paused": "running", "approval": "running"}.get(state, state)
    assert run.status.state == actual
    return traffic, id


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("state", LEGAL)
async def test_a_command_is_legal_or_changes_nothing(
    served: World, state: str, command: str
) -> None:
    """An illegal one tells the state and the generation and leaves the journal as it was."""
    _, id = await in_state(served, state)
    before = await served.service.rollout(id)
    journal = await served.service.rollout_journal(id)
    if command in LEGAL[state]:
        view = await served.service.command_rollout(id, command, why="because", who="ann")
        if (state, command) != ("rolled_back", "abort"):  # which it is already
            assert view.generation == before.generation + 1
            last = (await served.service.rollout_journal(id))[-1]
            assert (last.kind, last.command, last.who, last.why) == (
                "commanded", command, "ann", "because",
            )  # fmt: skip
    else:
        with pytest.raises(Conflict, match=f"at generation {before.generation}"):
            await served.service.command_rollout(id, command)
        assert (await served.service.rollout(id)).generation == before.generation
        assert await served.service.rollout_journal(id) == journal
    assert verify(await served.service.rollout_journal(id)).mismatches == ()


@pytest.mark.parametrize("command", COMMANDS)
async def test_a_stale_generation_is_refused(served: World, command: str) -> None:
    """Whoever looked before the last change looks again; an abort too, if it names one."""
    _, id = await in_state(served, "running")
    before = await served.service.rollout(id)
    with pytest.raises(Conflict, match="generation 1 is not the present one"):
        await served.service.command_rollout(id, command, generation=1)
    assert (await served.service.rollout(id)).generation == before.generation
    assert served.supervisor.exposed() == 1000


async def test_the_present_generation_is_taken(served: World) -> None:
    """Of two commands that saw the same one only the first is carried out."""
    _, id = await in_state(served, "running")
    seen = (await served.service.rollout(id)).generation
    await served.service.command_rollout(id, "skip", generation=seen)
    with pytest.raises(Conflict, match="is not the present one"):
        await served.service.command_rollout(id, "skip", generation=seen)


async def test_an_idempotency_key_commands_once(served: World) -> None:
    """Also after a restart of control; with another command it is refused."""
    _, id = await in_state(served, "running")
    first = await served.service.command_rollout(id, "skip", idempotency_key="k")
    again = await served.service.command_rollout(id, "skip", idempotency_key="k")
    assert (first.step, first.generation) == (again.step, again.generation)
    await served.restart()
    again = await served.service.command_rollout(id, "skip", idempotency_key="k")
    assert (first.step, first.generation) == (again.step, again.generation)
    with pytest.raises(Conflict, match="was used for another command"):
        await served.service.command_rollout(id, "pause", idempotency_key="k")


async def test_unknown_rollouts_and_commands(served: World) -> None:
    """Are told apart."""
    _, id = await in_state(served, "running")
    with pytest.raises(NotFound, match="there is no rollout 'nope'"):
        await served.service.command_rollout("nope", "pause")
    for ask in (served.service.rollout, served.service.rollout_journal):
        with pytest.raises(NotFound):
            await ask("nope")
    with pytest.raises(NotFound, match="no model"):
        await served.service.rollouts("nope")
    with pytest.raises(BadInput, match="use promote, pause"):
        await served.service.command_rollout(id, "explode")


async def test_rollouts_are_listed_newest_first(served: World) -> None:
    """Of all models or of one."""
    await served.register("n", "v1", "v2")
    await served.service.switch("n", "v1")
    first = await served.service.start_rollout(body())
    second = await served.service.start_rollout(body(model="n"))
    assert [each.id for each in await served.service.rollouts()] == [second.id, first.id]
    assert [each.id for each in await served.service.rollouts("m")] == [first.id]
    assert {each.id for each in served.service.rollout_gauges()} == {first.id, second.id}


async def test_pausing_holds_the_clock_of_the_step(served: World) -> None:
    """And resuming goes on where it was."""
    traffic, id = await in_state(served, "running")
    await served.service.command_rollout(id, "pause")
    before = await served.service.rollout(id)
    assert (before.phase, before.reason) == ("Paused", "user")
    await drive(traffic, 60)
    after = await served.service.rollout(id)
    assert (after.step, after.step_seconds) == (before.step, before.step_seconds)
    assert after.counts["candidate_requests"] > before.counts["candidate_requests"]
    await served.service.command_rollout(id, "resume")
    assert (await ended(traffic, id)).phase == "Healthy"


async def test_a_paused_candidate_that_fails_is_taken_back(served: World) -> None:
    """Guardrails act in every state in which it is exposed."""
    traffic, id = await in_state(served, "paused")
    traffic.failing["v2"] = 0.5
    view = await ended(traffic, id)
    assert view.phase == "RolledBack"
    assert served.supervisor.exposed() == 0


async def test_retrying_is_another_test(served: World) -> None:
    """Fresh evidence, a new salt, another name; and windows of the attempt before do not count."""
    traffic, id = await in_state(served, "running")
    run = served.service._rollouts._runs[id]
    old = served.supervisor.table().split
    assert old is not None
    await served.service.command_rollout(id, "abort")
    await ended(traffic, id)
    view = await served.service.command_rollout(id, "retry")
    assert (view.attempt, view.step, view.counts["candidate_requests"]) == (2, 0, 0)
    for _ in range(5):  # no traffic of its own yet
        served.clock.advance(1)
        await tick(served)
    new = served.supervisor.table().split
    assert new is not None
    assert new.test == f"{id}.2" != old.test
    assert new.salt != old.salt
    assert new.stage > old.stage
    served.supervisor.count(traffic.window(old, 4000, 1))
    await settle()
    assert run.rollout.evidence.reports == 0
    served.supervisor.count(traffic.window(new, 4000, 1))
    await settle()
    assert run.rollout.evidence.reports == 1
    assert (await ended(traffic, id)).phase == "Healthy"
    assert verify(await served.service.rollout_journal(id)).mismatches == ()


async def test_a_retry_that_is_not_saved_leaves_it_over(served: World) -> None:
    """And tries nothing; when the store is back it can be given again."""
    traffic, id = await in_state(served, "rolled_back")
    served.store.failing = "the disk is full"
    with pytest.raises(StoreError, match="not carried out"):
        await served.service.command_rollout(id, "retry")
    await drive(traffic, 3)
    view = await served.service.rollout(id)
    assert (view.phase, view.attempt, view.final) == ("RolledBack", 1, True)
    served.store.failing = ""
    await served.service.command_rollout(id, "retry")
    assert (await ended(traffic, id)).phase == "Healthy"


async def test_promoting_by_hand_skips_steps_but_not_the_bake(served: World) -> None:
    """The rest of the ramp is marked as skipped."""
    traffic, id = await in_state(served, "running")
    await served.service.command_rollout(id, "promote")
    view = await until_phase(traffic, id, "Baking")
    assert [step.state for step in view.steps][-2:] == ["done", "current"]
    assert "skipped" in [step.state for step in view.steps]
    assert served.supervisor.table().stable == "v2"


async def test_aborting_while_it_bakes_flips_back(served: World) -> None:
    """The version before answers at once, and is stable again."""
    traffic, id = await in_state(served, "baking")
    await served.service.command_rollout(id, "abort")
    assert served.supervisor.exposed() == 0
    await ended(traffic, id)
    assert served.supervisor.table().stable == "v1"
    assert served.supervisor.table().split is None
    assert (await served.stored()).active == "v1"
    assert served.supervisor.stable_only == set()


@pytest.mark.parametrize("state", ["preparing", "running", "paused", "baking"])
async def test_a_rollback_is_the_end_of_a_rollout(served: World, state: str) -> None:
    """It answers when v1 has everything; given again with its key it goes back no further."""
    await served.register("m", "v0")
    await served.service.switch("m", "v0")
    await served.service.switch("m", "v1")
    _, id = await in_state(served, state)
    view = await served.service.rollback("m", idempotency_key="k")
    assert (view.from_, view.to) == ("v2", "v1")
    assert view.revision == served.supervisor.table().revision
    for _ in range(2):
        table = served.supervisor.table()
        assert (table.stable, table.split) == ("v1", None)
        over = await served.service.rollout(id)
        assert (over.phase, over.reason) == ("RolledBack", "aborted")
        again = await served.service.rollback("m", idempotency_key="k")
        assert (again.operation_id, again.to) == (view.operation_id, "v1")
        await served.restart()
    assert served.supervisor.table().stable == "v1"


async def test_a_rollback_while_it_is_watched_goes_to_the_version_before(served: World) -> None:
    """Nothing divides requests any more: it is a rollback like any other."""
    traffic, id = await in_state(served, "watching")
    await served.service.rollback("m")
    assert served.supervisor.table().stable == "v1"
    await drive(traffic, 2)
    view = await served.service.rollout(id)
    assert view.final
    assert served.supervisor.table().stable == "v1"


async def test_a_switch_needs_force_beside_a_rollout(served: World) -> None:
    """The sentence says what to do."""
    _, id = await in_state(served, "running")
    with pytest.raises(Conflict, match=f"rollout {id} .* abort it first, or force"):
        await served.service.switch("m", "v3")
    assert served.supervisor.exposed() == 1000


@pytest.mark.parametrize("to", ["v1", "v2", "v3"])
@pytest.mark.parametrize("state", ["preparing", "running", "paused", "baking", "watching"])
async def test_a_forced_switch_stands(served: World, state: str, to: str) -> None:
    """Whatever ran is over, and nothing undoes the switch later: not even one to the candidate."""
    traffic, id = await in_state(served, state)
    served.supervisor.held.clear()
    await served.service.switch("m", to, force=True)
    assert served.supervisor.table().stable == to
    await drive(traffic, 60)
    assert served.supervisor.table().stable == to
    assert (await served.service.model("m")).active == to
    view = await served.service.rollout(id)
    assert view.final
    if state in ("preparing", "running", "paused"):
        assert (view.phase, view.reason) == ("RolledBack", "superseded")
    assert served.supervisor.table().split is None
    assert verify(await served.service.rollout_journal(id)).mismatches == ()


@pytest.mark.parametrize("state", ["preparing", "running", "baking"])
async def test_what_a_rollout_needs_is_not_removed(served: World, state: str) -> None:
    """Neither the candidate nor stable; another version can go."""
    await in_state(served, state)
    acts: tuple[Callable[[str, str], Awaitable[object]], ...] = (
        served.service.unload, served.service.remove_version,
    )  # fmt: skip
    for act in acts:
        for version in ("v1", "v2"):
            with pytest.raises(Conflict, match=r"is needed by rollout|is active"):
                await act("m", version)
    await served.service.clear_cache()
    await served.service.remove_version("m", "v3")
    assert "m/v2" in served.supervisor.running()


async def test_removing_a_model_ends_its_rollout(served: World) -> None:
    """By force; and what is registered under its name later has nothing of it."""
    traffic, id = await in_state(served, "running")
    await served.service.remove_model("m", force=True)
    await drive(traffic, 3)
    view = await served.service.rollout(id)
    assert (view.phase, view.reason) == ("RolledBack", "superseded")
    await served.register("m", "w1")
    await served.service.switch("m", "w1")
    await drive(traffic, 3)
    assert served.supervisor.table().split is None


async def test_control_that_dies_at_its_own_end_finishes_it(served: World) -> None:
    """The mark of what was rolled back is made by the next one."""
    traffic, id = await in_state(served, "running")
    traffic.failing["v2"] = 0.5
    run = served.service._rollouts._runs[id]
    await drive(traffic, 60, until=lambda: run.status.state == "rolling_back")
    before = len(served.life.events)
    for cut in range(1, 12):
        served.life.cut = before + cut
        await drive(traffic, 3)
        run = served.service._rollouts._runs[id]
        if run.closed:
            break
        before = len(served.life.events)
    await ended(traffic, id)
    assert (await served.stored()).rolled_back == ("v2",)
