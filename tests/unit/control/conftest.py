"""A world on fakes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.unit.control.fakes import World, settle


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """A node with an open store and no model."""
    world = World(tmp_path / "node")
    await world.restart()
    yield world
    world.life.end()
    await settle()


@pytest.fixture
async def served(world: World) -> World:
    """A node on which model ``m`` has v1 (active), v2 and v3."""
    await world.register("m", "v1", "v2", "v3")
    await world.service.switch("m", "v1")
    return world
