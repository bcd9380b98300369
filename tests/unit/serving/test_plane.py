"""The worker's plane: what a lease is answered by, across flips, drains and discoveries."""

from __future__ import annotations

import asyncio
import time

import msgspec
import numpy as np
import pytest

from hotswap.errors import (
    DeadlineExceeded,
    InvalidOutput,
    ModelFailed,
    NotFound,
    OutOfMemory,
    Overloaded,
    Unavailable,
)
from hotswap.ipc.frames import Failure
from hotswap.ipc.tables import write_table
from hotswap.ipc.words import STABLE_ONLY
from tests.unit.serving.conftest import Rig, ask, without_hosts


async def test_a_lease_is_answered_by_the_stable_version(rig: Rig) -> None:
    """Its name, its signature, its answer; counted under it."""
    await rig.serve("v1")
    lease = rig.plane.lease("m", None, None)
    assert (lease.model, lease.version, lease.fallback) == ("m", "v1", None)
    assert [spec.name for spec in lease.signature.inputs] == ["x"]
    assert await ask(lease, 1.0, 2.5) == [2.0, 5.0]
    (stats,) = rig.plane.stats()
    assert (stats.model, stats.version, stats.role) == ("m", "v1", "stable")
    assert (stats.success, stats.inferences, stats.inflight) == (1, 2, 0)
    assert (stats.queue_ns, stats.compute_ns) == (5, 7)


async def test_requests_of_one_loop_step_leave_together(rig: Rig) -> None:
    """Equal layouts are one frame; other requested outputs are another; answers find their own."""
    host = await rig.serve()
    lease = rig.plane.lease("m", None, None)
    answers = await asyncio.gather(
        *(ask(lease, float(n), float(n) + 0.5, release=False) for n in range(5)),
        lease.predict({"x": np.ones(1)}, ("y",), 1, time.monotonic() + 5, "id"),
    )
    lease.release()
    assert answers[:5] == [[2.0 * n, 2.0 * n + 1] for n in range(5)]
    assert [(len(call.ids), call.outputs) for call in host.calls] == [(5, ()), (1, ("y",))]


async def test_a_loaded_version_of_a_model_without_a_signature_says_what_to_do(rig: Rig) -> None:
    """It is warm and stays unanswerable until a version is activated: 'try again' would be a lie."""
    host = await rig.host("one")
    table = rig.table(1, None, rig.entry("v1", host))
    rig.commit(msgspec.structs.replace(table, signature=None))
    for version in ("v1", None):
        with pytest.raises(
            Unavailable, match=r"no active version yet: .*'hotswap switch m VERSION'"
        ):
            rig.plane.lease("m", version, None)
    assert all(what != "wanted" for what, _, _ in rig.said)


async def test_the_next_lease_sees_a_flip_although_nothing_was_pushed(rig: Rig) -> None:
    """The word and the file are enough: a worker that was told nothing routes by the new table."""
    await rig.serve("v1")
    two = await rig.host("two")
    rig.commit(rig.table(2, "v2", rig.entry("v2", two)))
    lease = rig.plane.lease("m", None, None)
    assert lease.version == "v2"
    assert await ask(lease, 1.0) == [2.0]
    assert two.values == [[1.0]]


async def test_a_pushed_table_waits_for_its_word(rig: Rig) -> None:
    """Until the word is stored every lease is of the old table; then of the new one at once."""
    one = await rig.serve("v1")
    two = await rig.host("two")
    table = rig.table(2, "v2", rig.entry("v1", one), rig.entry("v2", two))
    write_table(str(rig.folder), table)
    rig.plane.install(table)
    await rig.until_said("ack", 1, 2)
    assert (rig.plane.lease("m", None, None)).version == "v1"
    rig.epoch.commit(1, 2)
    assert (rig.plane.lease("m", None, None)).version == "v2"


async def test_a_worker_that_missed_several_flips_goes_to_the_last(rig: Rig) -> None:
    """Old pushes that were overtaken do not bring an old table back."""
    one = await rig.serve("v1")
    tables = [rig.table(n, f"v{n}", rig.entry(f"v{n}", one)) for n in (2, 3, 4)]
    for table in tables:
        rig.commit(table)
    rig.plane.install(tables[0])
    assert rig.plane.lease("m", None, None).version == "v4"
    rig.plane.install(tables[1])
    assert rig.plane.lease("m", None, None).version == "v4"
    assert rig.plane.table("m").revision == 4


async def test_a_lease_pins_its_revision(rig: Rig) -> None:
    """What began before the flip is answered by the version with which it began."""
    one = await rig.serve("v1")
    one.hold = True
    lease = rig.plane.lease("m", None, None)
    request = asyncio.create_task(ask(lease, 1.0, release=False))
    await one.until(lambda: len(one.calls) == 1)
    two = await rig.host("two")
    rig.commit(rig.table(2, "v2", rig.entry("v2", two)), push=True)
    assert await ask(rig.plane.lease("m", None, None), 3.0) == [6.0]
    one.release()
    assert await request == [2.0]
    assert await ask(lease, 4.0) == [8.0]  # a second call by the same lease
    assert one.values == [[1.0], [4.0]]
    assert two.values == [[3.0]]


async def test_draining_is_told_when_the_last_lease_of_an_old_table_goes(rig: Rig) -> None:
    """Not before, not without; with several old tables, up to the lowest that is still held."""
    one = await rig.serve("v1")
    first, second = rig.plane.lease("m", None, None), rig.plane.lease("m", None, None)
    rig.commit(rig.table(2, "v1", rig.entry("v1", one)))
    third = rig.plane.lease("m", None, None)
    rig.commit(rig.table(3, "v1", rig.entry("v1", one)))
    fourth = rig.plane.lease("m", None, None)
    drained = [s for s in rig.said if s[0] == "drained"]
    assert drained == []
    third.release()
    assert rig.said[-1] == ("drained", 1, 1)
    first.release()
    assert rig.said[-1] == ("drained", 1, 1)
    second.release()
    assert rig.said[-1] == ("drained", 1, 3)
    fourth.release()
    assert rig.said[-1] == ("drained", 1, 3)


async def test_an_idle_worker_follows_on_its_own(rig: Rig) -> None:
    """With no request at all a tick sees the word and says that nothing is held."""
    one = await rig.serve("v1")
    rig.commit(rig.table(2, "v1", rig.entry("v1", one)))
    rig.plane.tick(99)
    assert ("drained", 1, 2) in rig.said
    assert rig.plane.wall_ms == 99


async def test_a_model_that_nobody_told_of_is_found(rig: Rig) -> None:
    """A model published while this worker was deaf is found by the first request for it."""
    await rig.serve("v1")
    other = await rig.host("other")
    with pytest.raises(NotFound, match="no model 'late'"):
        rig.plane.lease("late", None, None)
    rig.commit(rig.table(5, "v7", rig.entry("v7", other), model="late", index=3))
    assert await ask(rig.plane.lease("late", None, None), 1.0) == [2.0]
    assert rig.plane.models() == ["late", "m"]


async def test_a_removed_model_is_unknown_until_it_comes_back(rig: Rig) -> None:
    """A table without versions is no model; a later revision of it is one again."""
    one = await rig.serve("v1")
    rig.commit(rig.table(2, None), push=True)
    with pytest.raises(NotFound, match="no model 'm'"):
        rig.plane.lease("m", None, None)
    assert rig.plane.models() == []
    rig.commit(rig.table(3, "v1", rig.entry("v1", one)))
    assert await ask(rig.plane.lease("m", None, None), 1.0) == [2.0]


async def test_stable_only_does_not_disturb_routing(rig: Rig) -> None:
    """Bit 63 beside the revision changes no table."""
    await rig.serve("v1")
    rig.epoch.stable_only(1)
    assert rig.epoch.view[1] & STABLE_ONLY
    assert await ask(rig.plane.lease("m", None, None), 1.0) == [2.0]


async def test_a_pinned_version_is_answered_by_that_one(rig: Rig) -> None:
    """Pinned requests go past the choice and are counted apart."""
    one, two = await rig.host("one"), await rig.host("two")
    rig.commit(rig.table(1, "v1", rig.entry("v1", one), rig.entry("v2", two)), push=True)
    lease = rig.plane.lease("m", "v2", None)
    assert lease.version == "v2"
    await ask(lease, 1.0)
    assert two.values == [[1.0]]
    assert [(s.version, s.role) for s in rig.plane.stats()] == [("v2", "pinned")]
    with pytest.raises(NotFound, match="'m' has no version 'v9'"):
        rig.plane.lease("m", "v9", None)


async def test_a_version_that_is_not_warm_is_asked_for_once(rig: Rig) -> None:
    """503 with a reason, and one wish to control however many ask."""
    one = await rig.host("one")
    rig.commit(rig.table(1, "v1", rig.entry("v1", one), rig.entry("v2")), push=True)
    for _ in range(3):
        with pytest.raises(Unavailable, match=r"'v2' of model 'm' is being loaded"):
            rig.plane.lease("m", "v2", None)
    assert [s for s in rig.said if s[0] == "wanted"] == [("wanted", "m", "v2")]


async def test_why_a_version_could_not_be_loaded_is_told(rig: Rig) -> None:
    """The table's reason reaches the client, with a longer wait."""
    one = await rig.serve("v1")
    entry = rig.entry("v2")
    bad = type(entry)("v2", "x", "UNAVAILABLE", reason="the file is torn")
    rig.commit(rig.table(2, "v1", rig.entry("v1", one), bad))
    with pytest.raises(Unavailable, match="the file is torn") as caught:
        rig.plane.lease("m", "v2", None)
    assert caught.value.retry_after > 1


async def test_a_model_without_an_active_version_says_what_to_do(rig: Rig) -> None:
    """Registered but never activated: 503 with the command."""
    rig.commit(rig.table(1, None, rig.entry("v1")))
    with pytest.raises(Unavailable, match="hotswap switch m VERSION"):
        rig.plane.lease("m", None, None)


async def test_the_queue_is_bounded(rig: Rig) -> None:
    """Beyond the worker's share of rows a request is refused at once; an answer makes room."""
    host = await rig.serve("v1")
    table = rig.plane.table("m")
    plane = rig.new_plane(slot=1, queue_rows=8, workers=2)
    plane.install(table)
    host.hold = True
    first = asyncio.create_task(ask(plane.lease("m", None, None), 1.0, 2.0, 3.0))
    await host.until(lambda: len(host.calls) == 1)
    with pytest.raises(Overloaded, match="3 rows are waiting"):
        await ask(plane.lease("m", None, None), 1.0, 2.0)
    host.release()
    assert await first == [2.0, 4.0, 6.0]
    assert await ask(plane.lease("m", None, None), 1.0, 2.0) == [2.0, 4.0]
    assert await ask(plane.lease("m", None, None), *range(20)) == [2.0 * n for n in range(20)]
    stats = next(s for s in plane.stats() if s.errors)
    assert stats.errors == {"overload": 1}


async def test_a_deadline_passes_while_the_model_computes(rig: Rig) -> None:
    """504, the rows are free again, the host is told, and a late answer disturbs nobody."""
    host = await rig.serve("v1")
    host.hold = True
    with pytest.raises(DeadlineExceeded, match="before the model answered"):
        await ask(rig.plane.lease("m", None, None), 1.0, seconds=0.05)
    await host.until(lambda: host.cancelled == host.calls[0].ids)
    link = rig.plane.routes["m"].arms["v1"].links[0]
    assert (link.outstanding_rows, link.idle) == (0, True)
    host.release()
    assert await ask(rig.plane.lease("m", None, None), 2.0) == [4.0]
    assert rig.plane.stats()[0].errors == {"timeout": 1}


async def test_a_client_that_goes_away_frees_its_rows(rig: Rig) -> None:
    """Cancelling a request frees it here and tells the host."""
    host = await rig.serve("v1")
    host.hold = True
    request = asyncio.create_task(ask(rig.plane.lease("m", None, None), 1.0, 2.0))
    await host.until(lambda: len(host.calls) == 1)
    request.cancel()
    with pytest.raises(asyncio.CancelledError):
        await request
    await host.until(lambda: host.cancelled == host.calls[0].ids)
    link = rig.plane.routes["m"].arms["v1"].links[0]
    assert link.outstanding_rows == 0
    (stats,) = rig.plane.stats()
    assert (stats.errors, stats.inflight) == ({"cancelled": 1}, 0)


@pytest.mark.parametrize(
    ("kind", "error", "counted"),
    [
        ("model", ModelFailed, "model"),
        ("invalid_output", InvalidOutput, "invalid_output"),
        ("timeout", DeadlineExceeded, "timeout"),
        ("memory", OutOfMemory, "memory"),
    ],
)
async def test_a_hosts_failure_is_raised_as_its_kind(
    rig: Rig, kind: str, error: type[Exception], counted: str
) -> None:
    """With the message for the client and the traceback as a note for the log."""
    host = await rig.serve("v1")
    host.fail = lambda number: Failure([number], kind, "it broke", "Traceback: secret")
    with pytest.raises(error, match="it broke") as caught:
        await ask(rig.plane.lease("m", None, None), 1.0)
    assert str(caught.value) == "it broke"
    assert type(caught.value) is error
    assert caught.value.__notes__ == ["Traceback: secret"]
    assert rig.plane.stats()[0].errors == {counted: 1}


async def test_the_least_loaded_instance_is_asked(rig: Rig) -> None:
    """With two instances a request goes where fewer rows wait."""
    one, two = await rig.host("one"), await rig.host("two")
    rig.commit(rig.table(1, "v1", rig.entry("v1", one, two)), push=True)
    await rig.until_said("ack", 1, 1)
    one.hold = two.hold = True
    tasks = [
        asyncio.create_task(ask(rig.plane.lease("m", None, None), *([1.0] * rows)))
        for rows in (5, 2, 2, 2)
    ]
    await two.until(lambda: sum(map(len, two.values)) == 6)
    assert list(map(len, one.values)) == [5]
    one.release()
    two.release()
    await asyncio.gather(*tasks)


async def test_readiness(rig: Rig) -> None:
    """Ready once told that everything was warm, while a stable version can answer, until draining."""
    plane = rig.plane
    one = await rig.serve("v1")
    assert not plane.ready()
    plane.started = True
    assert plane.ready()
    down = await rig.host("down", start=False)
    every = rig.new_plane(slot=1, readiness="all")
    every.started = True
    for each in (plane, every):
        each.install(rig.plane.table("m"))
        each.install(rig.table(1, "v1", rig.entry("v1", down), model="n", index=2))
    async with asyncio.timeout(10):
        await every.routes["m"].arms["v1"].links[0].connected.wait()
    assert plane.ready()
    assert not every.ready()
    await down.start()
    async with asyncio.timeout(10):
        await every.routes["n"].arms["v1"].links[0].connected.wait()
    assert every.ready()
    one.die()
    async with asyncio.timeout(10):
        while every.ready():  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.001)
    plane.draining = True
    assert not plane.ready()


async def test_a_plane_without_models_is_not_ready(rig: Rig) -> None:
    """Nothing to answer with is not ready, whatever was said."""
    rig.plane.started = True
    assert not rig.plane.ready()


async def test_links_that_no_table_names_are_closed(rig: Rig) -> None:
    """After the last lease of the old table the connection to its host goes."""
    one = await rig.serve("v1")
    two = await rig.host("two")
    lease = rig.plane.lease("m", None, None)
    link = rig.plane.routes["m"].arms["v1"].links[0]
    table = rig.table(2, "v2", rig.entry("v1", one), rig.entry("v2", two))
    rig.commit(table, push=True)
    rig.commit(without_hosts(table, "v1", 3), push=True)
    assert rig.plane.lease("m", "v2", None).version == "v2"
    assert await ask(lease, 1.0, release=False) == [2.0]
    lease.release()
    assert ("drained", 1, 3) in rig.said or ("drained", 1, 2) in rig.said
    assert link._closed
