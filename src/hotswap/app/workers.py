"""The supervisor's workers: one listening socket a slot, always a live process behind it."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable

import structlog

from hotswap.app.processes import Backoff, Watch, describe_exit, pair, start
from hotswap.core.routing import RouteTable
from hotswap.ipc import messages
from hotswap.ipc.channel import Channel
from hotswap.ipc.messages import (
    Ack,
    Beat,
    Counted,
    Drained,
    Listening,
    Push,
    Started,
    Stop,
    Tripped,
    Unready,
    Wanted,
    WorkerInit,
    WorkerSpec,
)

log = structlog.get_logger("hotswap.supervisor")

_SILENT_SECONDS = 5.0
_START_SECONDS = 60.0
_RETRY_SECONDS = 1.0

SpecOf = Callable[[int, int, str], WorkerSpec]


class Worker:
    """One worker process in one slot."""

    def __init__(self, keeper: Workers, slot: int, number: int, tally: str) -> None:
        self.slot = slot
        self.number = number
        self.tally = tally
        self.listening = False
        self.retiring = False
        self.heard = time.monotonic()
        #: index -> lowest revision that it may still hold
        self.holds: dict[int, int] = {}
        self.acked: dict[int, int] = {}
        self._keeper = keeper
        self._channel: Channel | None = None
        self.watch: Watch | None = None

    async def start(self, spec: WorkerSpec) -> None:
        keeper = self._keeper
        ours, theirs = pair()
        listener = keeper.sockets[self.slot]
        descriptors = [theirs.fileno(), listener.fileno(), keeper.epoch_fd, keeper.health_fd]
        names = ("channel", "listener", "epoch", "health")
        arguments = [f"--{n}={d}" for n, d in zip(names, descriptors, strict=True)]
        try:
            process = start("hotswap.app.worker", arguments, descriptors)
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        self.watch = Watch(process.pid, self._exited)
        process.returncode = 0  # the watch collects it, not the Popen object
        self.holds = {table.index: table.revision for table in spec.tables}
        self._channel = await Channel.attach(
            ours, messages.encode, messages.decode, self._heard, lambda: None
        )
        self._channel.send(WorkerInit(spec))

    def _heard(self, message: object) -> None:
        self.heard = time.monotonic()
        if isinstance(message, Beat):
            return
        if isinstance(message, Ack):
            self.acked[message.index] = max(message.revision, self.acked.get(message.index, 0))
            self._keeper.acked()
        elif isinstance(message, Drained):
            self.holds[message.index] = message.revision
            self._keeper.on_drained(message.index)
        elif isinstance(message, Wanted):
            self._keeper.on_wanted(message)
        elif isinstance(message, Counted):
            self._keeper.on_counted(message)
        elif isinstance(message, Tripped):
            self._keeper.on_tripped(message)
        elif isinstance(message, Listening):
            self.listening = True
            self._keeper.listening(self)

    def send(self, message: object) -> None:
        if self._channel is not None:
            self._channel.send(message)

    def silent(self, now: float) -> bool:
        """Whether its loop has stood still for too long."""
        limit = _SILENT_SECONDS if self.listening else _START_SECONDS
        return now - self.heard > limit

    def _exited(self, status: int) -> None:
        if self._channel is not None:
            self._channel.close()
        self._keeper.exited(self, status)


class Workers:
    """All of them."""

    def __init__(
        self,
        sockets: list[socket.socket],
        epoch_fd: int,
        health_fd: int,
        spec_of: SpecOf,
        on_drained: Callable[[int], None],
        on_wanted: Callable[[Wanted], None],
        on_changed: Callable[[int], None],
        on_counted: Callable[[Counted], None],
        on_tripped: Callable[[Tripped], None],
    ) -> None:
        self.sockets = sockets
        self.epoch_fd = epoch_fd
        self.health_fd = health_fd
        self.on_drained = on_drained
        self.on_wanted = on_wanted
        self.on_counted = on_counted
        self.on_tripped = on_tripped
        self.stopping = False
        self.live: list[Worker] = []
        self._spec_of = spec_of
        self._on_changed = on_changed
        self._numbers = 0
        self._backoffs = [Backoff() for _ in sockets]
        self._acks = asyncio.Event()

    async def open(self) -> None:
        """Start one a slot."""
        await asyncio.gather(*(self._start(slot) for slot in range(len(self.sockets))))

    async def _start(self, slot: int) -> Worker:
        self._numbers += 1
        # The slot's own file, unless its present owner still lives (a reload).
        taken = {worker.tally for worker in self.live}
        tally = next(
            name for turn in range(len(taken) + 1) if (name := f"{slot}.{turn}") not in taken
        )
        worker = Worker(self, slot, self._numbers, tally)
        self.live.append(worker)
        try:
            await worker.start(self._spec_of(slot, self._numbers, tally))
        except OSError:  # no process: want of memory, of processes, of descriptors
            self.live.remove(worker)
            raise
        return worker

    def push(self, table: RouteTable) -> None:
        for worker in self.live:
            worker.send(Push(table))

    async def wait_acks(self, index: int, revision: int, seconds: float) -> int:
        """Until every listening worker has the table, or that long; how many have."""
        deadline = time.monotonic() + seconds
        while True:
            asked = [worker for worker in self.live if worker.listening]
            have = sum(worker.acked.get(index, 0) >= revision for worker in asked)
            left = deadline - time.monotonic()
            if have == len(asked) or left <= 0:
                return have
            self._acks.clear()
            try:
                await asyncio.wait_for(self._acks.wait(), left)
            except TimeoutError:
                continue

    def acked(self) -> None:
        self._acks.set()

    def lowest(self, index: int, current: int) -> int:
        """The lowest revision of a model that any worker may still hold."""
        return min([w.holds.get(index, current) for w in self.live] or [current])

    def published(self, index: int, previous: int) -> None:
        """A flip: until it says otherwise, a worker may hold what it had."""
        for worker in self.live:
            worker.holds.setdefault(index, previous)

    def listening(self, worker: Worker) -> None:
        """A worker accepts: whom it replaces may go."""
        for old in self.live:
            if old.retiring and old.slot == worker.slot and old.number < worker.number:
                old.send(Stop(3600.0))
        self._on_changed(sum(w.listening for w in self.live))

    def exited(self, worker: Worker, status: int) -> None:
        self.live.remove(worker)
        self.acked()
        for index in worker.holds:
            self.on_drained(index)
        self._on_changed(sum(w.listening for w in self.live))
        if self.stopping or worker.retiring:
            return
        log.warning(
            "a worker ended and is started again", slot=worker.slot, how=describe_exit(status)
        )
        lived = time.monotonic() - worker.watch.started if worker.watch is not None else 0.0
        delay = self._backoffs[worker.slot].delay(lived)
        asyncio.get_running_loop().call_later(delay, self._restart, worker.slot)

    def _restart(self, slot: int) -> None:
        if not self.stopping:
            task = asyncio.get_running_loop().create_task(self._start(slot))
            task.add_done_callback(lambda done: self._look_at(done, slot))

    def _look_at(self, task: asyncio.Task[Worker], slot: int) -> None:
        """A start that failed is tried again: a slot without a worker answers nobody."""
        error = None if task.cancelled() else task.exception()
        if error is not None:
            log.error("a worker cannot be started; it is tried again", slot=slot, reason=str(error))
            asyncio.get_running_loop().call_later(_RETRY_SECONDS, self._restart, slot)

    async def reload(self) -> None:
        """New processes with the present code and settings; each old one drains once its successor accepts."""
        for old in [w for w in self.live if not w.retiring]:
            old.retiring = True
            try:
                await self._start(old.slot)
            except OSError:
                old.retiring = False  # it stays, and is replaced if it dies
                raise

    def check(self) -> None:
        """Kill what has been silent for too long; its successor takes its socket."""
        now = time.monotonic()
        for worker in self.live:
            if worker.silent(now) and worker.watch is not None and not worker.retiring:
                log.error("a worker's loop stands still: it is killed", slot=worker.slot)
                worker.watch.kill()

    def started(self) -> None:
        for worker in self.live:
            worker.send(Started())

    def unready(self) -> None:
        for worker in self.live:
            worker.send(Unready())

    def stop(self, grace: float) -> None:
        self.stopping = True
        for worker in self.live:
            worker.send(Stop(grace))

    def kill(self) -> None:
        for worker in self.live:
            if worker.watch is not None:
                worker.watch.kill()

    def pids(self) -> set[int]:
        return {w.watch.pid for w in self.live if w.watch is not None and w.watch.alive}
