"""The list of operations: how many are kept, in memory and in the store."""

from __future__ import annotations

import pytest

from hotswap.control.operations import Operations
from hotswap.errors import NotFound, StoreError
from hotswap.stores.memory import MemoryStore
from hotswap.testing.clock import ManualClock

KEPT = 500


async def _run(operations: Operations, clock: ManualClock, count: int) -> list[str]:
    """So many loads, a second apart; their ids, oldest first."""
    ids = []
    for number in range(count):
        view = operations.begin("load", "m", f"v{number}", None, f"key {number}")
        await operations.update(view.id, state="done")
        clock.advance(1)
        ids.append(view.id)
    return ids


async def _stored(store: MemoryStore) -> set[str]:
    return {key for key, _, _ in await store.scan("operation")}


async def test_old_operations_leave_the_store_too() -> None:
    """Only the newest are kept, in memory, in the store, and after a restart."""
    store, clock = MemoryStore(), ManualClock()
    await store.open()
    operations = Operations(store, clock)
    ids = await _run(operations, clock, KEPT + 20)
    assert await _stored(store) == set(ids[-KEPT:])
    again = Operations(store, clock)
    await again.load()
    for each in (operations, again):
        assert [view.id for view in each.all()] == ids[: -KEPT - 1 : -1]
        with pytest.raises(NotFound):
            each.get(ids[0])
        assert each.repeated("key 0", "load", "m", "v0") is None


async def test_a_store_with_too_many_is_put_in_order_at_the_start() -> None:
    """What an earlier release left behind is deleted, the newest are read."""
    store, clock = MemoryStore(), ManualClock()
    await store.open()
    ids = [*await _run(Operations(store, clock), clock, KEPT)]
    ids += await _run(Operations(store, clock), clock, 3)
    assert len(await _stored(store)) == KEPT + 3
    operations = Operations(store, clock)
    await operations.load()
    assert [view.id for view in operations.all()] == ids[: -KEPT - 1 : -1]
    assert await _stored(store) == set(ids[-KEPT:])


async def test_what_could_not_be_deleted_is_deleted_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that refuses costs nothing but time."""
    store, clock = MemoryStore(), ManualClock()
    await store.open()
    operations = Operations(store, clock)

    async def refuse(kind: str, key: str) -> None:
        raise StoreError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(store, "delete", refuse)
        ids = await _run(operations, clock, KEPT + 2)
        assert len(await _stored(store)) == KEPT + 2
    ids += await _run(operations, clock, 1)
    assert await _stored(store) == set(ids[-KEPT:])
