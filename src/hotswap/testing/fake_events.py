"""Events in memory: kept, and handed to whoever listens, from whatever thread they come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from hotswap.core.rollout_views import EventView

KEPT = 1000


class FakeEvents:
    """What happened. ``listeners`` is how many are listening now."""

    def __init__(self) -> None:
        self.kept: list[EventView] = []
        self._last = 0
        self._queues: list[tuple[asyncio.AbstractEventLoop, asyncio.Queue[EventView]]] = []

    @property
    def listeners(self) -> int:
        """How many are listening now."""
        return len(self._queues)

    def emit(self, kind: str, model: str, message: str, data: dict[str, Any]) -> EventView:
        """Keep an event and hand it to each listener."""
        self._last += 1
        event = EventView(self._last, 1.7e9 + self._last, kind, model, message, data)
        self.kept = [*self.kept, event][-KEPT:]
        for loop, queue in self._queues:
            loop.call_soon_threadsafe(queue.put_nowait, event)
        return event

    async def listen(self, after: int | None) -> AsyncIterator[EventView]:
        """First what came after ``after``, then what comes, for ever."""
        queue: asyncio.Queue[EventView] = asyncio.Queue()
        entry = (asyncio.get_running_loop(), queue)
        missed = [] if after is None else [event for event in self.kept if event.id > after]
        self._queues.append(entry)
        try:
            for event in missed:
                yield event
            while True:
                yield await queue.get()
        finally:
            self._queues.remove(entry)
