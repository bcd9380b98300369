"""Hosts that are down, that die, and that a request kills: who is answered, who is told what."""

from __future__ import annotations

import asyncio

import pytest

from hotswap.errors import DeadlineExceeded, HostLost
from hotswap.ipc.frames import Hello, pack
from tests.unit.serving.conftest import Rig, ask
from tests.unit.serving.hosts import FakeHost


async def _revive(host: FakeHost) -> None:
    """What the supervisor does: whenever the host dies, start it again."""
    while True:
        if host._server is None:
            await host.start()
        await asyncio.sleep(0.002)


async def test_requests_wait_for_a_host_that_is_not_up_yet(rig: Rig) -> None:
    """They are sent together, in order, as soon as it listens."""
    host = await rig.host("late", start=False)
    rig.commit(rig.table(1, "v1", rig.entry("v1", host)), push=True)
    lease = rig.plane.lease("m", None, None)
    tasks = [asyncio.create_task(ask(lease, float(n), release=False)) for n in range(4)]
    await asyncio.sleep(0)
    assert not any(task.done() for task in tasks)
    await host.start()
    assert await asyncio.gather(*tasks) == [[0.0], [2.0], [4.0], [6.0]]
    assert len(host.calls) == 1
    lease.release()


async def test_a_host_that_stays_down_costs_the_deadline(rig: Rig) -> None:
    """Nobody waits for ever: 504 at the deadline, and the rows are free."""
    host = await rig.host("never", start=False)
    rig.commit(rig.table(1, "v1", rig.entry("v1", host)), push=True)
    with pytest.raises(DeadlineExceeded):
        await ask(rig.plane.lease("m", None, None), 1.0, seconds=0.05)
    assert rig.plane.routes["m"].arms["v1"].links[0].outstanding_rows == 0


async def test_what_nobody_waits_for_is_not_sent_when_the_host_comes_up(rig: Rig) -> None:
    """Requests that were given up while the host was down cost it nothing."""
    host = await rig.host("late", start=False)
    rig.commit(rig.table(1, "v1", rig.entry("v1", host)), push=True)
    lease = rig.plane.lease("m", None, None)
    gone = asyncio.create_task(ask(lease, 1.0, release=False))
    stays = asyncio.create_task(ask(lease, 2.0, release=False))
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    await host.start()
    assert await stays == [4.0]
    assert host.values == [[2.0]]
    lease.release()


async def test_a_host_that_dies_loses_nothing(rig: Rig) -> None:
    """Everything it held is sent again, alone, to its next process, and answered."""
    host = await rig.serve("v1")
    host.hold = True
    lease = rig.plane.lease("m", None, None)
    tasks = [asyncio.create_task(ask(lease, float(n), release=False)) for n in range(5)]
    await host.until(lambda: len(host.calls) == 1)
    host.die()
    host.hold = False
    await host.start()
    assert await asyncio.gather(*tasks) == [[2.0 * n] for n in range(5)]
    again = host.calls[1:]
    assert [len(call.ids) for call in again] == [1] * 5
    assert len({call.token for call in again}) == 5
    assert 0 not in {call.token for call in again}
    assert rig.plane.routes["m"].arms["v1"].links[0].outstanding_rows == 0
    lease.release()


async def test_another_instance_answers_at_once(rig: Rig) -> None:
    """With a second instance nobody waits for the restart."""
    one, two = await rig.host("one"), await rig.host("two")
    rig.commit(rig.table(1, "v1", rig.entry("v1", one, two)), push=True)
    await rig.until_said("ack", 1, 1)
    one.hold = True
    request = asyncio.create_task(ask(rig.plane.lease("m", None, None), 1.0))
    await one.until(lambda: len(one.calls) == 1)
    one.die()
    assert await request == [2.0]
    assert two.values == [[1.0]]


async def test_only_the_request_that_kills_hosts_fails(rig: Rig) -> None:
    """The guilty one gets HostLost after its second kill; the innocent beside it are answered."""
    host = await rig.serve("v1")
    host.poison = 666.0
    keeper = asyncio.create_task(_revive(host))
    lease = rig.plane.lease("m", None, None)
    tasks = [
        asyncio.create_task(ask(lease, value, release=False)) for value in (1.0, 666.0, 3.0, 4.0)
    ]
    one, guilty, three, four = await asyncio.gather(*tasks, return_exceptions=True)
    keeper.cancel()
    assert [one, three, four] == [[2.0], [6.0], [8.0]]
    assert isinstance(guilty, HostLost)
    assert "died while it ran this request" in str(guilty)
    assert [values for values in host.values if values == [666.0]] == [[666.0]]
    assert rig.plane.stats()[0].errors == {"lost": 1}
    assert await ask(lease, 5.0) == [10.0]


async def test_two_killers_are_both_found(rig: Rig) -> None:
    """Each suspect is tried alone, so each killer is blamed for its own kill only."""
    host = await rig.serve("v1")
    host.poison = 666.0
    keeper = asyncio.create_task(_revive(host))
    lease = rig.plane.lease("m", None, None)
    values = (666.0, 1.0, 666.0, 2.0)
    tasks = [asyncio.create_task(ask(lease, value, release=False)) for value in values]
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    keeper.cancel()
    assert isinstance(answers[0], HostLost)
    assert isinstance(answers[2], HostLost)
    assert [answers[1], answers[3]] == [[2.0], [4.0]]
    lease.release()


async def test_what_is_not_pure_is_not_sent_again(rig: Rig) -> None:
    """A version that says so fails with its host at once."""
    host = await rig.serve("v1", pure=False)
    host.hold = True
    lease = rig.plane.lease("m", None, None)
    request = asyncio.create_task(ask(lease, 1.0))
    await host.until(lambda: len(host.calls) == 1)
    host.die()
    host.hold = False
    with pytest.raises(HostLost):
        await request
    await host.start()
    assert await ask(rig.plane.lease("m", None, None), 2.0) == [4.0]
    assert host.values == [[1.0], [2.0]]


async def test_a_lost_request_keeps_its_deadline(rig: Rig) -> None:
    """A host that does not come back costs no more than the deadline."""
    host = await rig.serve("v1")
    host.hold = True
    lease = rig.plane.lease("m", None, None)
    request = asyncio.create_task(ask(lease, 1.0, seconds=0.2))
    await host.until(lambda: len(host.calls) == 1)
    host.die()
    with pytest.raises(DeadlineExceeded):
        await request


async def test_a_lost_request_can_be_cancelled(rig: Rig) -> None:
    """A client that goes away while its request waits to be sent again is forgotten."""
    host = await rig.serve("v1")
    host.hold = True
    lease = rig.plane.lease("m", None, None)
    tasks = [asyncio.create_task(ask(lease, float(n), release=False)) for n in range(3)]
    await host.until(lambda: len(host.calls) == 1)
    host.die()
    await asyncio.sleep(0.01)
    tasks[2].cancel()
    host.hold = False
    await host.start()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert answers[:2] == [[0.0], [2.0]]
    assert isinstance(answers[2], asyncio.CancelledError)
    assert [2.0] not in host.values
    lease.release()


async def test_a_flip_does_not_lose_what_waits_for_a_restart(rig: Rig) -> None:
    """A request whose host died is answered by its own version although another is stable now."""
    one = await rig.serve("v1")
    one.hold = True
    lease = rig.plane.lease("m", None, None)
    request = asyncio.create_task(ask(lease, 1.0))
    await one.until(lambda: len(one.calls) == 1)
    two = await rig.host("two")
    rig.commit(rig.table(2, "v2", rig.entry("v1", one), rig.entry("v2", two)), push=True)
    rig.plane.tick(1)
    one.die()
    one.hold = False
    await one.start()
    assert await request == [2.0]
    assert two.values == []


async def test_a_host_that_talks_nonsense_is_a_host_that_died(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    """What it held is sent again over a new connection."""
    host = await rig.serve("v1")
    host.hold = True
    request = asyncio.create_task(ask(rig.plane.lease("m", None, None), 1.0))
    await host.until(lambda: len(host.calls) == 1)
    host.hold = False
    host.send(b"\xff" * 64)
    assert await request == [2.0]


async def test_a_second_hello_changes_nothing(rig: Rig) -> None:
    """A repeated greeting neither loses nor repeats a request."""
    host = await rig.serve("v1")
    host.hold = True
    request = asyncio.create_task(ask(rig.plane.lease("m", None, None), 1.0))
    await host.until(lambda: len(host.calls) == 1)
    host.send(pack(Hello(host.name, host.incarnation)))
    host.release()
    assert await request == [2.0]
    assert host.values == [[1.0]]
