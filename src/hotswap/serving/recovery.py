"""What becomes of requests that a host died with.

Each is sent again *alone*, one at a time, to another instance or to the restarted host. While a
host runs such a request it stamps the request's token in shared memory. So when a host dies
again, what killed it is known: that request is its own failure and is not tried again; requests
that merely waited there are sent once more.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence

from hotswap.errors import DeadlineExceeded, HostLost
from hotswap.ipc.words import Health
from hotswap.serving.link import HostLink, Pending, Promise

_MOST = 5


class Recovery:
    """The suspects of one worker. ``slot`` makes its tokens differ from other workers'."""

    def __init__(self, health: Health, slot: int) -> None:
        self._health = health
        self._high = (slot + 1) << 40
        self._next = 0
        self._waiting: dict[frozenset[str], deque[tuple[Pending, list[HostLink]]]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def lost(
        self, link: HostLink, lost: Sequence[Pending], links: list[HostLink], pure: bool
    ) -> None:
        """``link``'s host died with ``lost``; ``links`` lead to every instance of the version."""
        running, incarnation = self._health.running(link.ref.slot)
        for pending in lost:
            if pending.future.done():
                continue
            guilty = (
                pending.token != 0 and pending.token == running and incarnation == link.incarnation
            )
            pending.attempts += 1
            if guilty or not pure or pending.attempts > _MOST:
                pending.future.set_exception(
                    HostLost("the model's process died while it ran this request")
                )
                continue
            self._again(pending, links)

    def forget(self, pending: Pending) -> None:
        """Nobody waits for it any more."""
        for queue in self._waiting.values():
            for entry in [entry for entry in queue if entry[0] is pending]:
                queue.remove(entry)

    def _again(self, pending: Pending, links: list[HostLink]) -> None:
        self._next += 1
        pending.token = self._high | (self._next & 0xFF_FFFF_FFFF)
        group = frozenset(link.ref.host for link in links)
        # While it waits for its turn it is on no link that would keep its deadline.
        loop = asyncio.get_running_loop()
        timer = loop.call_later(pending.deadline - time.monotonic(), _expire, pending.future)
        pending.future.add_done_callback(lambda _: timer.cancel())
        queue = self._waiting.get(group)
        if queue is not None:
            queue.append((pending, links))
            return
        self._waiting[group] = deque([(pending, links)])
        task = loop.create_task(self._drive(group))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _drive(self, group: frozenset[str]) -> None:
        """One suspect at a time, each answered or failed before the next is sent."""
        queue = self._waiting[group]
        while queue:
            pending, links = queue.popleft()
            if pending.future.done():
                continue
            # Its own lease keeps one of them open; others may have gone meanwhile.
            links = [each for each in links if not each.closed] or links
            link = next((each for each in links if each.connected.is_set()), links[0])
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()

            def settled(_: object, turn: asyncio.Future[None] = turn) -> None:
                if not turn.done():
                    turn.set_result(None)

            pending.future.add_done_callback(settled)
            attempts = pending.attempts
            link.call(pending)
            while not turn.done() and pending.attempts == attempts:
                # It is settled by an answer, a failure or its deadline; or its host dies and
                # `lost` queues it again, which is the end of this turn too.
                left = max(0.0, pending.deadline - time.monotonic())
                await asyncio.wait([turn], timeout=min(left, 0.05))
                if not left:
                    break
        self._waiting.pop(group, None)


def _expire(future: Promise) -> None:
    if not future.done():
        future.set_exception(DeadlineExceeded("the deadline passed before the model answered"))
