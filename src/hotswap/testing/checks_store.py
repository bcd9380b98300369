"""What every store must do. Run `check_store` on your own adapter, or each of `STORE_CHECKS`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final

from hotswap.errors import Conflict
from hotswap.ports import Store

MakeStore = Callable[[], Store]
"""Makes a new, empty, unopened store at each call."""


async def check_store(make_store: MakeStore) -> None:
    """Run all of `STORE_CHECKS`, each on a new store. Raises `AssertionError` at the first failure."""
    for check in STORE_CHECKS:
        await check(make_store)


async def check_round_trip(make_store: MakeStore) -> None:
    """What was put is read back, byte for byte, under its own kind and key only."""
    async with _opened(make_store()) as store:
        assert await store.get("version", "a/1") is None
        every_byte = bytes(range(256)) * 4
        assert await store.put("version", "a/1", every_byte) == 1
        assert await store.get("version", "a/1") == (every_byte, 1)
        assert await store.get("model", "a/1") is None
        assert await store.get("version", "a/2") is None
        assert await store.get("version", "A/1") is None, "keys differ by case"
        await store.put("version", "empty", b"")
        assert await store.get("version", "empty") == (b"", 1), "an empty value is a value"
        big = b"x" * 5_000_000
        await store.put("version", "big", big)
        assert await store.get("version", "big") == (big, 1)


async def check_compare_and_set(make_store: MakeStore) -> None:
    """A write that expects another generation is refused and changes nothing."""
    async with _opened(make_store()) as store:
        assert await store.put("k", "x", b"1", 0) == 1
        await _refused(store.put("k", "x", b"2", 0))
        await _refused(store.put("k", "x", b"2", 2))
        await _refused(store.put("k", "absent", b"2", 1))
        await _refused(store.put("k", "x", b"2", -1))
        assert await store.get("k", "x") == (b"1", 1)
        assert await store.get("k", "absent") is None
        assert await store.put("k", "x", b"2", 1) == 2
        assert await store.put("k", "x", b"3") == 3, "None overwrites whatever there is"
        await _refused(store.put("k", "x", b"4", 2))
        assert await store.get("k", "x") == (b"3", 3)


async def check_delete(make_store: MakeStore) -> None:
    """A deleted document is gone, and no generation of it ever comes back."""
    async with _opened(make_store()) as store:
        await store.delete("k", "never")
        first = await store.put("k", "x", b"1", 0)
        await store.put("k", "y", b"1", 0)
        await store.delete("k", "x")
        await store.delete("k", "x")
        assert await store.get("k", "x") is None
        assert [key for key, _, _ in await store.scan("k")] == ["y"]
        await _refused(store.put("k", "x", b"late", first))
        again = await store.put("k", "x", b"2", 0)
        assert again > first, "a generation was used twice"
        await _refused(store.put("k", "x", b"late", first))
        assert await store.get("k", "x") == (b"2", again)


async def check_scan(make_store: MakeStore) -> None:
    """A scan gives a kind's documents by key, and no other kind's."""
    async with _opened(make_store()) as store:
        assert await store.scan("k") == []
        for key in ("b", "a", "B", "a/b", "é", "a-b"):
            await store.put("k", key, key.encode())
        await store.put("k2", "a", b"other")
        await store.put("k", "b", b"again")
        assert await store.scan("k") == [
            ("B", b"B", 1),
            ("a", b"a", 1),
            ("a-b", b"a-b", 1),
            ("a/b", b"a/b", 1),
            ("b", b"again", 2),
            ("é", "é".encode(), 1),
        ]


async def check_hostile_keys(make_store: MakeStore) -> None:
    """Keys are values: nothing in them is read as a statement, a pattern or a path."""
    async with _opened(make_store()) as store:
        keys = ["'; DROP TABLE documents; --", "%", "_", "../x", "a" * 5000, "\u202e", ":kind", ""]
        for number, key in enumerate(keys):
            await store.put("k", key, b"%d" % number, 0)
        for number, key in enumerate(keys):
            assert await store.get("k", key) == (b"%d" % number, 1)
        await store.delete("k", "%")
        assert len(await store.scan("k")) == len(keys) - 1


async def check_races(make_store: MakeStore) -> None:
    """Of writers that expect the same generation exactly one wins, each time."""
    async with _opened(make_store()) as store:
        generation = 0
        for turn in range(5):
            writes = [store.put("k", "x", b"%d" % writer, generation) for writer in range(8)]
            results = await asyncio.gather(*writes, return_exceptions=True)
            won = [number for number, result in enumerate(results) if isinstance(result, int)]
            lost = [result for result in results if isinstance(result, Conflict)]
            assert (len(won), len(lost)) == (1, 7), f"turn {turn}: {results}"
            present = await store.get("k", "x")
            assert present is not None
            assert present[0] == b"%d" % won[0]
            generation = present[1]


async def check_reopen(make_store: MakeStore) -> None:
    """What was put is there after `close` and `open`, which may both be repeated."""
    store = make_store()
    await store.open()
    await store.put("k", "x", b"1", 0)
    await store.close()
    await store.close()
    await store.open()
    await store.open()
    assert await store.get("k", "x") == (b"1", 1)
    assert await store.put("k", "x", b"2", 1) == 2
    await store.close()


STORE_CHECKS: Final[tuple[Callable[[MakeStore], Awaitable[None]], ...]] = (
    check_round_trip,
    check_compare_and_set,
    check_delete,
    check_scan,
    check_hostile_keys,
    check_races,
    check_reopen,
)


async def _refused(write: Awaitable[int]) -> None:
    try:
        await write
    except Conflict:
        return
    raise AssertionError("a write that expected another generation was accepted")


@asynccontextmanager
async def _opened(store: Store) -> AsyncIterator[Store]:
    await store.open()
    try:
        yield store
    finally:
        await store.close()
