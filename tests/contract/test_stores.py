"""Every store keeps the same contract."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from itertools import count
from pathlib import Path

import pytest

from hotswap.ports import Store
from hotswap.stores.memory import MemoryStore
from hotswap.stores.sqlite import SqliteStore
from hotswap.testing.checks_store import STORE_CHECKS, MakeStore, check_store


@pytest.fixture(params=["memory", "sqlite"])
def make_store(request: pytest.FixtureRequest, tmp_path: Path) -> MakeStore:
    numbers = count()

    def make() -> Store:
        if request.param == "memory":
            return MemoryStore()
        return SqliteStore(tmp_path / f"state {next(numbers)} %20?#" / "store.db")

    return make


@pytest.mark.parametrize("check", STORE_CHECKS, ids=lambda check: check.__name__)
async def test_store(check: Callable[[MakeStore], Awaitable[None]], make_store: MakeStore) -> None:
    """The store passes this check of the contract."""
    await check(make_store)


async def test_the_contract_catches_a_store_that_forgets_generations() -> None:
    """A store that overwrites whatever the generation does not pass."""

    class Forgetful(MemoryStore):
        async def put(
            self, kind: str, key: str, value: bytes, generation: int | None = None
        ) -> int:
            return await super().put(kind, key, value)

    with pytest.raises(AssertionError):
        await check_store(Forgetful)
