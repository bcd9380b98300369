"""Divides an engine's requests while a rollout runs, on one event loop in a thread of its own.

A model without a split never comes here. With one, its unpinned requests are handed to this
loop, which divides, measures and replaces them by the very code of a server's worker
(`hotswap.serving.split` and what it uses): the versions are reached through links, whether they
run within the program (`InlineLink`) or in processes (`HostLink`). As everything of a split
happens on one thread, callers may be on any loop and thread, and nothing of it needs a lock.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import secrets
import threading
import time
from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, cast

from hotswap.core.routing import HostRef, RouteTable
from hotswap.core.signature import Signature
from hotswap.core.windows import Window
from hotswap.errors import DeadlineExceeded, HostLost, Overloaded, Unavailable
from hotswap.ipc.frames import Layout
from hotswap.ipc.words import Health
from hotswap.ports import Array
from hotswap.serving.attempt import Attempt
from hotswap.serving.inline_links import InlineLink
from hotswap.serving.inline_runner import InlineRunner
from hotswap.serving.link import HostLink, Pending, Reply
from hotswap.serving.mirror import Mirror
from hotswap.serving.notes import Notes
from hotswap.serving.payload import Encoder
from hotswap.serving.recovery import Recovery
from hotswap.serving.route import Arm, Route
from hotswap.serving.split import SplitLease
from hotswap.serving.trials import Trials, TrippedAt

if TYPE_CHECKING:
    from hotswap.serving.plane import WorkerPlane

_T = TypeVar("_T")
_BEAT_SECONDS = 0.05
_now = time.monotonic


class SplitRoute(Route):
    """One published table with a split. ``hold`` and ``let_go``: of the table it belongs to."""

    __slots__ = ("hold", "let_go")
    hold: Callable[[], None]
    let_go: Callable[[], None]


class FirstUp(Arm):
    """An arm that is answered by the first of its links that is up."""

    __slots__ = ()

    def pick(self) -> HostLink | None:
        """The first that is up; if none is, the first."""
        return next((each for each in self.links if each.connected.is_set()), self.links[0])


class Process:
    """One host's process as this loop sees it."""

    def __init__(self, link: HostLink, version: tuple[str, str, bool], pure: bool) -> None:
        self.link = link
        self.version = version
        self.pure = pure


class SplitLoop:
    """What `hotswap.serving.split` asks of a plane, for an engine. Starts at first use.

    ``block_of`` gives the operational counters of a (model, version, role); ``on_counted`` gets
    the windows that are complete, ``on_tripped`` what `Trials` tells of a breaker: both on this
    loop's thread. ``on_thread``: versions within the program run on their own threads while
    requests are divided, so that they are measured alike and none can hold up this loop.
    """

    def __init__(
        self,
        *,
        block_of: Callable[[str, str, str], Any],
        on_counted: Callable[[list[Window]], object],
        on_tripped: TrippedAt,
        queue_rows: int,
        on_thread: bool,
        wall_ms: Callable[[], int],
    ) -> None:
        self._wall_ms = wall_ms
        self.loop = asyncio.new_event_loop()
        self.coin: Callable[[], int] = partial(secrets.randbits, 64)
        self.encode = Encoder().encode
        self.notes: Notes | None = None  # an engine keeps no records
        self._limit = queue_rows
        self._on_thread = on_thread
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None
        self._ended = False
        self._inline: dict[str, InlineLink] = {}
        self._processes: dict[str, Process] = {}
        self._current: dict[int, SplitRoute] = {}
        self._old: set[SplitRoute] = set()
        self._beating = False
        self._recovery: Recovery | None = None
        self._runtime_dir = ""
        self.mirror: Mirror
        self._trials = Trials(
            secrets.token_hex(6), block_of, lambda first: self.mirror.offer(first), on_counted,
            on_tripped,
        )  # fmt: skip
        self.windows = self._trials.windows

    @property
    def wall_ms(self) -> int:
        """Unix time, for display."""
        return self._wall_ms()

    # --- the thread

    def _start(self) -> None:
        with self._starting:
            if self._ended:
                raise Unavailable("the engine is stopped")
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="hotswap split", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_until_complete(self._open())
        self.loop.run_forever()
        self.loop.run_until_complete(self._close())
        self.loop.close()

    async def _open(self) -> None:
        # It is a worker's plane in all that a split asks of one.
        self.mirror = Mirror(cast("WorkerPlane", self))

    async def _close(self) -> None:
        for host in [*self._inline, *self._processes]:
            self.remove(host)
        mine = asyncio.current_task()
        others = [task for task in asyncio.all_tasks() if task is not mine]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    def stop(self) -> None:
        """End the thread. Blocks."""
        with self._starting:
            self._ended = True
            thread = self._thread
        if thread is not None:
            self.loop.call_soon_threadsafe(self.loop.stop)
            thread.join()
        else:
            self.loop.close()

    def submit(self, work: Coroutine[Any, Any, _T]) -> concurrent.futures.Future[_T]:
        """Begin it there, from any thread."""
        try:
            self._start()
            return asyncio.run_coroutine_threadsafe(work, self.loop)
        except (RuntimeError, Unavailable):
            work.close()
            raise Unavailable("the engine is stopped") from None

    async def on_loop(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Do it there and wait here, without blocking this loop."""
        try:
            return await asyncio.wrap_future(self.submit(work))
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            raise Unavailable("the engine is stopped") from None  # nobody cancelled this one

    # --- hosts

    def use(self, health: Health, runtime_dir: str) -> None:
        """Hosts in processes tell of themselves there, and listen there."""
        self._recovery = Recovery(health, 0)
        self._runtime_dir = runtime_dir

    async def connect(
        self, ref: HostRef, version: tuple[str, str, bool], pure: bool, seconds: float
    ) -> None:
        """A host's process listens: be connected to it. Raises TimeoutError."""
        if ref.host not in self._processes:
            link = HostLink(ref, self._runtime_dir, self._lost)
            self._processes[ref.host] = Process(link, version, pure)
        async with asyncio.timeout(seconds):
            await self._processes[ref.host].link.connected.wait()

    def remove(self, host: str) -> None:
        """No table names that host any more. On this loop."""
        inline = self._inline.pop(host, None)
        if inline is not None:
            inline.close()
        process = self._processes.pop(host, None)
        if process is not None:
            process.link.close()

    def removed(self, host: str) -> None:
        """The same from any thread."""
        if self._thread is not None:
            self.loop.call_soon_threadsafe(self.remove, host)

    def outstanding(self, host: str) -> int:
        """Rows that a process has to do."""
        process = self._processes.get(host)
        return process.link.outstanding_rows if process is not None else 0

    async def ask_host(
        self,
        host: str,
        signature: Signature,
        inputs: Mapping[str, Array],
        outputs: tuple[str, ...],
        rows: int,
        deadline: float,
    ) -> Reply:
        """A call of one process that no split is about."""
        process = self._processes.get(host)
        if process is None:
            raise Unavailable("the version is being unloaded")
        layout, raws = self.encode(signature, inputs)
        return await self._send(process.link, layout, raws, outputs, rows, deadline)

    # --- tables

    async def route(
        self,
        table: RouteTable,
        runners: Mapping[str, InlineRunner],
        hold: Callable[[], None],
        let_go: Callable[[], None],
    ) -> SplitRoute:
        """How requests are divided by this table, from now on."""
        split = table.split
        assert split is not None
        arms = {entry.version: Arm(entry, self._links(entry.hosts, runners)) for entry in
                table.versions}  # fmt: skip
        candidate = arms.get(split.candidate)
        for each in candidate.links if candidate is not None else ():
            if isinstance(each, InlineLink):
                each.on_thread = True  # it may hang
        twins = self._links(split.twin, runners)
        if split.pair and twins:
            # Both see every request: the one in a process is compared with one in a process.
            own = arms[split.baseline]
            arms = {**arms, split.baseline: FirstUp(own.entry, [*twins, *own.links])}
        route = SplitRoute(table, arms, self._trials.division(table, split, arms, twins))
        route.hold, route.let_go = hold, let_go
        self._retire(table.index)
        self._current[table.index] = route
        self._beat()
        return route

    def retired(self, index: int) -> None:
        """A model's requests are not divided any more. From any thread."""
        if self._thread is not None:
            self.loop.call_soon_threadsafe(self._retire, index)

    def _retire(self, index: int) -> None:
        old = self._current.pop(index, None)
        if old is not None and old.leases:
            self._old.add(old)

    def _links(
        self, refs: tuple[HostRef, ...], runners: Mapping[str, InlineRunner]
    ) -> list[HostLink]:
        links: list[HostLink] = []
        for ref in refs:
            process = self._processes.get(ref.host)
            if process is not None:
                links.append(process.link)
            elif ref.host in runners:
                inline = self._inline.get(ref.host)
                if inline is None:
                    inline = InlineLink(ref, runners[ref.host], on_thread=self._on_thread)
                    self._inline[ref.host] = inline
                links.append(cast(HostLink, inline))
        return links

    def _beat(self) -> None:
        """Report what is complete, while there may be anything to report."""
        if not self._beating:
            self._beating = True
            self.loop.call_later(_BEAT_SECONDS, self._report)

    def _report(self) -> None:
        self._beating = False
        self._trials.report((*self._current.values(), *self._old))
        if self._current or self._old or self.windows.tests():
            self._beat()

    # --- one request

    async def predict(
        self,
        route: SplitRoute,
        key: bytes | None,
        inputs: Mapping[str, Array],
        outputs: tuple[str, ...],
        rows: int,
        deadline: float,
        request_id: str,
    ) -> tuple[dict[str, Array], str, str | None]:
        """Divide it: the answer, who gave it, and why it was not the candidate if it was to be."""
        assert route.division is not None
        if not route.leases:
            route.hold()
        lease = SplitLease(cast("WorkerPlane", self), route, route.division, key)
        try:
            answer = await lease.predict(inputs, outputs, rows, deadline, request_id)
            return answer, lease.version, lease.fallback
        finally:
            lease.release()
            self._beat()

    def released(self, route: Route) -> None:
        """One hold on this table is over."""
        route.leases -= 1
        if not route.leases:
            assert isinstance(route, SplitRoute)
            self._old.discard(route)
            route.let_go()

    def room(self, arm: Arm, rows: int) -> HostLink:
        """The least loaded instance. Raises `Overloaded` if even there too many rows wait."""
        link = arm.pick()
        if link is None:
            raise Unavailable(f"version {arm.entry.version!r} is not loaded")
        if link.outstanding_rows + rows > self._limit and link.outstanding_rows:
            raise Overloaded(
                f"{link.outstanding_rows} rows are waiting for version {arm.entry.version!r} already"
            )
        return link

    async def ask(
        self,
        arm: Arm,
        layout: tuple[Layout, ...],
        raws: list[bytes],
        outputs: tuple[str, ...],
        rows: int,
        deadline: float,
    ) -> Reply:
        """Ask the least loaded instance and wait. Raises what `Lease.predict` says."""
        return await self._send(self.room(arm, rows), layout, raws, outputs, rows, deadline)

    async def _send(
        self,
        link: HostLink,
        layout: tuple[Layout, ...],
        raws: list[bytes],
        outputs: tuple[str, ...],
        rows: int,
        deadline: float,
    ) -> Reply:
        future: asyncio.Future[Reply] = self.loop.create_future()
        pending = Pending(layout, outputs, raws, rows, deadline, future)
        number = link.call(pending)
        timer = self.loop.call_later(deadline - _now(), _expire, future)
        try:
            return await future
        except (asyncio.CancelledError, DeadlineExceeded):
            link.cancel(number)
            if self._recovery is not None:
                self._recovery.forget(pending)
            raise
        finally:
            timer.cancel()

    def _lost(self, link: HostLink, lost: list[Pending]) -> None:
        """A process died with these: each is sent again, alone, unless another version answers."""
        again = []
        for pending in lost:
            promise = pending.future
            if isinstance(promise, Attempt):
                promise.lost()
            if pending.resend:
                again.append(pending)
            elif not promise.done():
                promise.set_exception(
                    HostLost("the model's process died while it ran this request")
                )
        own = self._processes.get(link.ref.host)
        if own is None or self._recovery is None:
            return
        same = [each for each in self._processes.values() if each.version == own.version]
        self._recovery.lost(link, again, [each.link for each in same], own.pure)


def _expire(future: asyncio.Future[Reply]) -> None:
    if not future.done():
        future.set_exception(DeadlineExceeded("the deadline passed before the model answered"))


__all__ = ["SplitLoop", "SplitRoute"]
