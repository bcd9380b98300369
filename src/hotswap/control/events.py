"""What happens, told to whoever listens; the last thousand are kept for those who come back."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from typing import Any

from hotswap.core.rollout_views import EventView
from hotswap.ports import Clock

_KEPT = 1000
_WAITING = 1000


class Events:
    """A slow listener loses the oldest it has not read; nobody waits for it.

    Ids go on over restarts: they begin at the time of the start in milliseconds.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._next = int(clock.wall() * 1000)
        self._kept: deque[EventView] = deque(maxlen=_KEPT)
        self._queues: set[asyncio.Queue[EventView]] = set()

    def tell(self, kind: str, model: str, message: str, **data: Any) -> None:
        """Something happened. ``data`` must be JSON values."""
        self._next += 1
        event = EventView(self._next, self._clock.wall(), kind, model, message, data)
        self._kept.append(event)
        for queue in self._queues:
            if queue.full():
                queue.get_nowait()
            queue.put_nowait(event)

    def recent(self, kind: str | None = None) -> list[EventView]:
        """What is kept, oldest first; of one kind if it is given."""
        return [event for event in self._kept if kind is None or event.kind == kind]

    async def listen(self, after: int | None = None) -> AsyncGenerator[EventView, None]:
        """From now on, for ever; first what is kept and came after that event."""
        queue: asyncio.Queue[EventView] = asyncio.Queue(_WAITING)
        kept = [] if after is None else [event for event in self._kept if event.id > after]
        self._queues.add(queue)  # in the same step as the copy: nothing is missed or told twice
        try:
            for event in kept:
                yield event
            while True:
                yield await queue.get()
        finally:
            self._queues.discard(queue)
