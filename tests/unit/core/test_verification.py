"""A journal is decided again and must come out as it stands; what was changed is found."""

from __future__ import annotations

from functools import cache
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hotswap.core.rollout_views import JournalView
from hotswap.core.verification import verify
from tests.unit.core.world import World

BODIES: list[dict[str, Any]] = [
    {"config": {"evaluation_period_seconds": 5}},
    {"strategy": "shadow", "config": {"min_requests": 100}},
    {"strategy": "champion_challenger", "config": {}},
    {"strategy": "bandit", "config": {}},
    {"steps": [5, {"approval": True}, 50]},
]


@cache
def journal(number: int, bad: bool) -> tuple[JournalView, ...]:
    """A rollout of some strategy with a few commands, as it was written down."""
    body = {"bake_seconds": 5, "watch_seconds": 5, **BODIES[number]}
    world = World(body, p0=0.02, p1=0.2 if bad else 0.01)
    world.running()
    world.command("pause", why="lunch")
    world.tick()
    if world.status.state == "running":
        world.command("resume")
    world.until(lambda w: w.rollout.final or w.reason == "approval", tick=0.5)
    if not world.rollout.final:
        world.command("resume", why="fine")
    world.end(tick=0.5)
    return tuple(world.entries())


@pytest.mark.parametrize("bad", [False, True])
@pytest.mark.parametrize("number", range(len(BODIES)))
def test_what_was_decided_comes_out_again(number: int, bad: bool) -> None:
    """Each decision and command of a journal is the only one that could be made, also after JSON."""
    entries = journal(number, bad)
    stored = msgspec.json.decode(msgspec.json.encode(entries), type=list[JournalView])
    found = verify(stored)
    assert found.mismatches == ()
    assert found.decisions == len(entries) >= 4


def numbers(value: object, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where a record holds numbers."""
    if isinstance(value, dict):
        return [at for key, each in value.items() for at in numbers(each, (*path, key))]
    if isinstance(value, list):
        return [at for key, each in enumerate(value) for at in numbers(each, (*path, key))]
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return [path] if is_number else []


@settings(deadline=None, max_examples=150)
@given(data=st.data(), number=st.integers(0, len(BODIES) - 1), bad=st.booleans())
def test_any_number_that_was_changed_is_found(data: st.DataObject, number: int, bad: bool) -> None:
    """A counter, a clock, a weight or a setting in a record cannot be changed unnoticed."""
    entries = list(journal(number, bad))
    at = data.draw(st.integers(0, len(entries) - 1))
    record = msgspec.json.decode(msgspec.json.encode(entries[at].record))
    path = data.draw(st.sampled_from(numbers(record)))
    inside = record
    for key in path[:-1]:
        inside = inside[key]
    inside[path[-1]] += data.draw(st.sampled_from([1, 7]))
    entries[at] = msgspec.structs.replace(entries[at], record=record)
    assert at + 1 in {each.number for each in verify(entries).mismatches}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("message", "all is well"), ("phase", "Healthy, really"), ("reason", "because"),
        ("generation", 99), ("step", 99), ("formula", "0"), ("kind", "started"),
        ("kind", "superseded"), ("record", {}),
    ],
)  # fmt: skip
def test_what_is_shown_must_be_what_was_recorded(field: str, value: Any) -> None:
    """A sentence, a phase or a number beside the record that says something else is found."""
    entries = list(journal(0, bad=False))
    entries[3] = msgspec.structs.replace(entries[3], **{field: value})
    assert 4 in {each.number for each in verify(entries).mismatches}


def test_a_status_that_was_changed_is_found() -> None:
    """What was decided cannot be turned into something else."""
    entries = list(journal(0, bad=True))
    record = msgspec.json.decode(msgspec.json.encode(entries[-1].record))
    record["after"]["state"] = "healthy"
    entries[-1] = msgspec.structs.replace(entries[-1], record=record)
    (found,) = verify(entries).mismatches
    assert "changed after it was written" in found.message


def test_a_missing_entry_is_found_and_order_does_not_matter() -> None:
    """Entries are numbered: one that is left out leaves a gap."""
    entries = list(journal(0, bad=False))
    assert verify(entries[::-1]).mismatches == ()
    del entries[2]
    (found,) = verify(entries).mismatches
    assert "entry 3 is missing" in found.message
