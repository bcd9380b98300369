"""What happens is told: switches, loads and registrations, beside rollouts."""

from __future__ import annotations

import asyncio

import pytest

from hotswap.control.events import Events
from hotswap.errors import LoadError
from hotswap.testing.clock import ManualClock
from tests.unit.control.fakes import World


async def test_switches_loads_and_failures_are_told_as_they_end(served: World) -> None:
    """Each once, with its operation and its versions."""
    before = len(served.service.recent_events())
    await served.service.switch("m", "v2")
    await served.service.rollback("m")
    await served.service.load("m", "v3")
    told = served.service.recent_events()[before:]
    assert [(event.kind, event.message) for event in told] == [
        ("switch", "v2: answers now"),
        ("switch", "v1: answers again"),
        ("operation", "v3: load"),
    ]
    assert told[0].data["from_version"] == "v1"
    assert told[0].data["operation"] == (await served.service.operations())[2].id
    await served.service.unload("m", "v3")
    served.supervisor.broken["m", "v3"] = ("no such file", "OSError")
    with pytest.raises(LoadError):
        await served.service.switch("m", "v3")
    last = served.service.recent_events()[-1]
    assert (last.kind, last.data["state"]) == ("switch", "failed")


async def test_who_comes_back_gets_what_it_missed_and_a_slow_one_holds_up_nobody() -> None:
    """What is kept is told first; a full queue loses its oldest."""
    events = Events(ManualClock())
    events.tell("rollout", "m", "one")
    first = events.recent()[0].id
    events.tell("rollout", "m", "two")
    listener = events.listen(first)
    assert (await anext(listener)).message == "two"
    waiting = asyncio.ensure_future(anext(listener))
    await asyncio.sleep(0)
    for number in range(1500):
        events.tell("rollout", "m", str(number))
    assert (await waiting).message in ("0", "499", "500")
    await listener.aclose()
    assert len(events.recent()) == 1000
