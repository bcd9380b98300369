"""Worlds on fakes, as many as a test needs."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from tests.unit.control.fakes import World, settle

NewWorld = Callable[[], Awaitable[World]]


@pytest.fixture
async def new_world(tmp_path: Path) -> AsyncIterator[NewWorld]:
    """Make a node with an open store and no model; may be called again for another one."""
    worlds: list[World] = []
    numbers = itertools.count()

    async def make() -> World:
        world = World(tmp_path / f"node{next(numbers)}")
        worlds.append(world)
        await world.restart()
        return world

    yield make
    for world in worlds:
        world.life.end()
    await settle()


@pytest.fixture
async def world(new_world: NewWorld) -> World:
    """A node with an open store and no model."""
    return await new_world()
