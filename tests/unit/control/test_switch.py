"""Switches: one load however many ask, the newest wins, a failure changes nothing."""

from __future__ import annotations

import asyncio

import pytest

from hotswap.core.views import SwitchView
from hotswap.errors import (
    BadInput,
    Conflict,
    LoadError,
    NotFound,
    OutOfMemory,
    SignatureMismatch,
    StoreError,
    UntrustedCode,
)
from tests.unit.control.fakes import OTHER, SIGNATURE, World, settle, states


async def test_a_switch_loads_then_flips_then_says_so(served: World) -> None:
    """The answer has both versions, the revision and times; everybody sees the new version."""
    answer = await served.service.switch("m", "v2")
    assert (answer.from_, answer.to) == ("v1", "v2")
    table = served.supervisor.table()
    assert (table.stable, table.revision, table.signature) == ("v2", answer.revision, SIGNATURE)
    assert answer.flip_ms == 0.01
    view = await served.service.model("m")
    assert (view.active, view.previous) == ("v2", "v1")
    assert [(v.version, v.role, v.state) for v in view.versions] == [
        ("v1", "previous", "READY"), ("v2", "stable", "READY"), ("v3", "", "REGISTERED"),
    ]  # fmt: skip
    assert states(await served.service.operations()) == [
        ("switch", "v2", "done"), ("switch", "v1", "done"),
    ]  # fmt: skip
    assert (await served.stored()).active == "v2"
    assert (await served.stored()).intent is None
    assert served.service.switch_counters() == {("m", "done"): 2}
    assert served.service.switch_seconds()["m"][0] == 2


async def test_nothing_is_flipped_before_the_version_is_warm(served: World) -> None:
    """While v2 loads, v1 answers and no table names v2."""
    served.supervisor.held.add(("m", "v2"))
    switch = asyncio.create_task(served.service.switch("m", "v2"))
    await settle()
    assert served.supervisor.table().stable == "v1"
    view = await served.service.model("m")
    assert [v.state for v in view.versions] == ["READY", "LOADING", "REGISTERED"]
    assert states(await served.service.operations())[0] == ("switch", "v2", "preparing")
    served.supervisor.finish("m", "v2")
    assert (await switch).to == "v2"


async def test_loads_of_one_version_are_one_load(served: World) -> None:
    """However many ask at once, its hosts are started once."""
    served.supervisor.held.add(("m", "v2"))
    asks = [asyncio.create_task(served.service.load("m", "v2")) for _ in range(5)]
    await settle()
    served.supervisor.finish("m", "v2")
    done = await asyncio.gather(*asks)
    assert {view.state for view in done} == {"done"}
    assert [s.version for s in served.supervisor.started] == ["v1", "v2"]


async def test_a_newer_switch_supersedes_and_the_older_caller_is_told(served: World) -> None:
    """The last command wins although the first one's version is warm first."""
    served.supervisor.held |= {("m", "v2"), ("m", "v3")}
    older = asyncio.create_task(served.service.switch("m", "v2"))
    await settle()
    newer = asyncio.create_task(served.service.switch("m", "v3"))
    with pytest.raises(Conflict, match="'v2' was superseded"):
        await older
    served.supervisor.finish("m", "v2")
    await settle()
    assert served.supervisor.table().stable == "v1"
    served.supervisor.finish("m", "v3")
    assert (await newer).from_ == "v1"
    assert served.supervisor.table().stable == "v3"
    assert states(await served.service.operations())[:2] == [
        ("switch", "v3", "done"), ("switch", "v2", "superseded"),
    ]  # fmt: skip
    assert served.service.switch_counters() == {("m", "done"): 2, ("m", "superseded"): 1}


async def test_switches_of_models_do_not_wait_for_each_other(served: World) -> None:
    """A model whose version loads for long delays no other model."""
    await served.register("n", "v1")
    served.supervisor.held.add(("m", "v2"))
    slow = asyncio.create_task(served.service.switch("m", "v2"))
    await settle()
    assert (await served.service.switch("n", "v1")).to == "v1"
    assert not slow.done()
    served.supervisor.finish("m", "v2")
    await slow


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("RuntimeError", LoadError),
        ("SignatureMismatch", SignatureMismatch),
        ("MemoryError", OutOfMemory),
    ],
)
async def test_a_version_that_cannot_be_loaded_changes_nothing(
    served: World, kind: str, error: type[Exception]
) -> None:
    """The caller gets its reason, v1 goes on, no process is left, a retry may succeed."""
    before = await served.stored()
    served.supervisor.broken["m", "v2"] = ("RuntimeError: bad magic", kind)
    with pytest.raises(error, match="bad magic"):
        await served.service.switch("m", "v2")
    assert served.supervisor.table().stable == "v1"
    assert await served.stored() == before
    assert served.supervisor.running() == {"m/v1": ["ready"]}
    view = await served.service.model("m")
    assert (view.versions[1].state, "bad magic" in view.versions[1].reason) == ("UNAVAILABLE", True)
    entry = served.supervisor.table().version("v2")
    assert entry is not None
    assert entry.reason == "RuntimeError: bad magic"
    operation = (await served.service.operations())[0]
    assert (operation.state, "bad magic" in operation.reason) == ("failed", True)
    del served.supervisor.broken["m", "v2"]
    assert (await served.service.switch("m", "v2")).to == "v2"
    assert (await served.service.model("m")).versions[1].reason == ""


async def test_one_instance_that_fails_stops_the_others(world: World) -> None:
    """A version of three hosts is warm with three or not at all."""
    world.jobs.settings = type(world.jobs.settings)(instances=3)
    await world.register("m", "v1")
    world.supervisor.held.add(("m", "v1"))
    switch = asyncio.create_task(world.service.switch("m", "v1"))
    await settle()
    assert len(world.supervisor.hosts) == 3
    assert len({s.slot for s in world.supervisor.started}) == 3
    first = world.supervisor.started[0]
    world.supervisor.broken["m", "v1"] = ("one is enough", "LoadError")
    world.supervisor._finish(first)
    with pytest.raises(LoadError, match="one is enough"):
        await switch
    await settle()
    assert world.supervisor.hosts == {}


async def test_a_flip_that_is_refused_changes_nothing(served: World) -> None:
    """The supervisor could not write the table: the intent is taken back."""
    served.supervisor.refuse = "the disk is full"
    with pytest.raises(StoreError, match="the disk is full"):
        await served.service.switch("m", "v2")
    assert (await served.service.model("m")).active == "v1"
    assert (await served.stored()).intent is None
    served.supervisor.refuse = ""
    assert (await served.service.switch("m", "v2")).from_ == "v1"


async def test_a_client_that_goes_away_does_not_undo_its_switch(served: World) -> None:
    """The switch goes on without its caller and ends as it would have."""
    served.supervisor.held |= {("m", "v2"), ("m", "v3")}
    gone = asyncio.create_task(served.service.switch("m", "v2"))
    await settle()
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    served.supervisor.finish("m", "v2")
    await settle()
    assert served.supervisor.table().stable == "v2"
    assert states(await served.service.operations())[0] == ("switch", "v2", "done")
    assert served.service.switch_counters() == {("m", "done"): 2}


async def test_a_failure_is_kept_although_the_client_went_away(served: World) -> None:
    """The operation does not stay preparing for ever."""
    served.supervisor.held.add(("m", "v2"))
    served.supervisor.broken["m", "v2"] = ("bad magic", "LoadError")
    gone = asyncio.create_task(served.service.switch("m", "v2"))
    await settle()
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    served.supervisor.finish("m", "v2")
    await settle()
    operation = (await served.service.operations())[0]
    assert (operation.state, "bad magic" in operation.reason) == ("failed", True)
    assert served.service.switch_counters() == {("m", "done"): 1, ("m", "failed"): 1}


async def test_an_idempotency_key_is_answered_again(served: World) -> None:
    """The same key and command give the same answer and no second flip; another command is 409."""
    first = await served.service.switch("m", "v2", idempotency_key="k")
    await served.service.switch("m", "v3")
    again = await served.service.switch("m", "v2", idempotency_key="k")
    assert again == first
    assert served.supervisor.table().stable == "v3"
    with pytest.raises(Conflict, match="key 'k' was used for a switch of 'm' to 'v2'"):
        await served.service.switch("m", "v3", idempotency_key="k")
    with pytest.raises(Conflict, match="'k' was used"):
        await served.service.rollback("m", idempotency_key="k")
    await served.restart()
    assert await served.service.switch("m", "v2", idempotency_key="k") == first


async def test_a_rollbacks_key_is_answered_again(served: World) -> None:
    """A repeated rollback does not go back twice."""
    await served.service.switch("m", "v2")
    await served.service.switch("m", "v3")
    first = await served.service.rollback("m", idempotency_key="r")
    assert await served.service.rollback("m", idempotency_key="r") == first
    assert (await served.service.model("m")).active == "v2"


async def test_force_replaces_the_signature(served: World) -> None:
    """A version that does not fit is loaded without the model's signature, and its own is served."""
    served.supervisor.signatures["m", "v2"] = OTHER
    await served.service.switch("m", "v2", force=True)
    assert served.supervisor.started[-1].public is None
    assert served.supervisor.table().signature == OTHER
    assert (await served.service.model("m")).signature == OTHER
    await served.service.rollback("m")
    assert served.supervisor.table().signature == SIGNATURE


async def test_later_versions_are_loaded_for_the_models_signature(served: World) -> None:
    """The first version decides; the others are given its signature to be adapted to."""
    await served.service.switch("m", "v2")
    assert [spec.public for spec in served.supervisor.started] == [None, SIGNATURE]


async def test_what_was_loaded_before_there_was_a_signature_is_adapted_to_it(world: World) -> None:
    """Warm is not enough: the host that serves its own signature is replaced, not switched to."""
    await world.register("m", "v1", "v2")
    world.supervisor.signatures["m", "v2"] = OTHER
    await world.service.load("m", "v2")
    await world.service.switch("m", "v1")
    await world.service.switch("m", "v2")
    assert world.supervisor.started[-1].public == SIGNATURE
    assert world.supervisor.table().signature == SIGNATURE
    assert world.supervisor.running()["m/v2"] == ["ready"]


async def test_what_was_loaded_before_there_was_a_signature_may_be_refused(world: World) -> None:
    """If it cannot be adapted, nothing changes."""
    await world.register("m", "v1", "v2")
    world.supervisor.signatures["m", "v2"] = OTHER
    await world.service.load("m", "v2")
    await world.service.switch("m", "v1")
    world.supervisor.broken["m", "v2"] = ("it does not fit", "SignatureMismatch")
    with pytest.raises(SignatureMismatch, match="does not fit"):
        await world.service.switch("m", "v2")
    assert world.supervisor.table().stable == "v1"
    assert world.supervisor.table().signature == SIGNATURE


async def test_what_does_not_exist_is_not_found(served: World) -> None:
    """404 for models and versions, naming what there is; the only model may be left out."""
    with pytest.raises(NotFound, match="'m' has no version 'v9'; registered: v1, v2, v3"):
        await served.service.switch("m", "v9")
    with pytest.raises(NotFound, match="no model 'q'"):
        await served.service.switch("q", "v1")
    assert (await served.service.switch(None, "v2")).to == "v2"
    await served.register("n", "v1")
    with pytest.raises(BadInput, match="one of m, n"):
        await served.service.switch(None, "v1")


async def test_code_is_not_trusted_unless_the_operator_says_so(world: World) -> None:
    """A version that can run code is neither registered from outside nor loaded."""
    with pytest.raises(UntrustedCode, match="a pickle runs code"):
        await world.register("m", "v1", prefix="code-")
    await world.service.adopt([("m", "v1", world.folder / "code-m")], first=True)
    view = (await world.service.model("m")).versions[0]
    assert (view.state, view.reason) == ("UNAVAILABLE", "a pickle runs code when it is loaded")
    with pytest.raises(UntrustedCode, match="a pickle runs code"):
        await world.service.switch("m", "v1")
    assert world.supervisor.started == []
    world._policy["trust_digests"] = (view.digest,)
    await world.restart()
    assert (await world.service.switch("m", "v1")).to == "v1"


async def test_a_switch_to_the_active_version_is_harmless(served: World) -> None:
    """It is already there: from and to are the same."""
    answer = await served.service.switch("m", "v1")
    assert isinstance(answer, SwitchView)
    assert (answer.from_, answer.to) == ("v1", "v1")
    assert len(served.supervisor.started) == 1


async def test_what_failed_may_be_tried_again_with_its_key(served: World) -> None:
    """A key protects from doing it twice, not from doing it at all."""
    served.supervisor.broken["m", "v2"] = ("bad magic", "LoadError")
    with pytest.raises(LoadError):
        await served.service.switch("m", "v2", idempotency_key="k")
    del served.supervisor.broken["m", "v2"]
    answer = await served.service.switch("m", "v2", idempotency_key="k")
    assert answer.to == "v2"
    assert await served.service.switch("m", "v2", idempotency_key="k") == answer


async def test_hosts_that_are_replaced_finish_what_they_hold(served: World) -> None:
    """A version that must be loaded anew for another signature drops no request meanwhile."""
    served.supervisor.signatures["m", "v2"] = OTHER
    await served.service.switch("m", "v2", force=True)
    (old,) = [name for name, s in served.supervisor.hosts.items() if s.spec.version == "v1"]
    served.supervisor.draining = True
    await served.service.switch("m", "v1")
    await settle()
    assert old in served.supervisor.hosts
    entry = served.supervisor.table().version("v1")
    assert entry is not None
    assert [ref.host for ref in entry.hosts] != [old]
    assert served.supervisor.table().signature == OTHER
    served.supervisor.drain()
    await settle()
    assert old not in served.supervisor.hosts
