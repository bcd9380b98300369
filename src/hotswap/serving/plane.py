"""The worker's data plane: which version answers, through which host, held by a lease.

The word of a model in the epoch memory says which revision new requests are routed by. It is
read once a request, in `lease`; a worker that lacks that revision loads the table from where
the supervisor wrote it before it stored the word. So no worker can answer by an old table once
the word is stored, and none has to be asked.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from hotswap.core.routing import HostRef, RouteTable, VersionEntry
from hotswap.core.signature import Signature
from hotswap.core.stats import ModelStats
from hotswap.errors import DeadlineExceeded, HostLost, NotFound, Overloaded, Unavailable
from hotswap.ipc.frames import Layout
from hotswap.ipc.tables import read_table, read_tables
from hotswap.ipc.tally import Block, TallyFile, read_tallies
from hotswap.ipc.words import REVISION_MASK, STABLE_ONLY, Epoch, Health
from hotswap.ports import Array
from hotswap.serving.attempt import Attempt
from hotswap.serving.link import HostLink, Pending, Reply
from hotswap.serving.mirror import Mirror
from hotswap.serving.notes import Notes
from hotswap.serving.payload import FAILURES, Encoder
from hotswap.serving.recovery import Recovery
from hotswap.serving.route import Arm, Route
from hotswap.serving.split import SplitLease
from hotswap.serving.trials import Counted, Trials, TrippedAt

_SHORT = 2.0
_FOLLOW = 20
_now = time.monotonic
_now_ns = time.monotonic_ns


class WorkerLease:
    """One request's hold on a revision (see `hotswap.ports.Lease`)."""

    __slots__ = (
        "_arm", "_block", "_key", "_pinned", "_plane", "_route", "fallback", "model", "signature",
        "version",
    )  # fmt: skip

    def __init__(
        self,
        plane: WorkerPlane,
        route: Route,
        arm: Arm,
        block: Block,
        key: bytes | None,
        pinned: bool,
    ) -> None:
        table = route.table
        assert table.signature is not None
        self._plane = plane
        self._route = route
        self._arm = arm
        self._block = block
        self._key = key
        self._pinned = pinned
        self.model: str = table.model
        self.version: str = arm.entry.version
        self.signature: Signature = table.signature
        self.fallback: str | None = None
        route.leases += 1

    async def predict(
        self,
        inputs: Mapping[str, Array],
        outputs: tuple[str, ...],
        rows: int,
        deadline: float,
        request_id: str,
    ) -> dict[str, Array]:
        block, plane = self._block, self._plane
        block.begin()
        began = _now_ns()
        try:
            layout, raws = plane.encode(self.signature, inputs)
            reply = await plane.ask(self._arm, layout, raws, outputs, rows, deadline)
        except BaseException as exc:
            block.fail(_now_ns() - began, FAILURES.get(type(exc).__name__, "model"))
            raise
        ns = _now_ns() - began
        block.succeed(ns, rows, reply.queue_ns, reply.compute_ns, plane.wall_ms)
        notes = plane.notes
        if notes is not None and (notes.all or notes.wants()):
            context = notes.plain(self.version, self._pinned)
            notes.add(
                request_id, began, ns, rows, layout, raws, reply, self.model, context,
                self.signature, self._key,
            )  # fmt: skip
        start, stop = reply.start, reply.stop
        return {name: array[start:stop] for name, array in reply.outputs}

    def release(self) -> None:
        self._plane.released(self._route)


class WorkerPlane:
    """Every model's routes in one worker. All of it runs on the worker's loop.

    ``worker`` names this process among all workers that ever ran; ``on_counted`` is given the
    windows that are complete, ``on_tripped`` a model's index, a test, a sentence and how often in
    a row its candidate failed.
    """

    def __init__(
        self,
        *,
        runtime_dir: str,
        slot: int,
        workers: int,
        queue_rows: int,
        readiness: str,
        epoch: Epoch,
        health: Health,
        tally: str,
        wall_ms: int,
        on_ack: Callable[[int, int], object],
        on_drained: Callable[[int, int], object],
        on_wanted: Callable[[str, str], object],
        worker: str = "",
        on_counted: Counted = lambda windows: None,
        on_tripped: TrippedAt = lambda *said: None,
        notes: Notes | None = None,
    ) -> None:
        self.notes = notes
        self.routes: dict[str, Route] = {}
        self.started = False
        self.draining = False
        self.wall_ms = wall_ms  # refreshed by `tick`: for display only
        self._runtime_dir = runtime_dir
        self._tally_dir = Path(runtime_dir) / "tally"
        self._tally = TallyFile(self._tally_dir / tally)
        self._readiness = readiness
        self._epoch = epoch.view
        self._health = health
        self._limit = max(1, queue_rows // max(1, workers))
        self._on_ack = on_ack
        self._on_drained = on_drained
        self._on_wanted = on_wanted
        self.loop = self._loop = asyncio.get_running_loop()
        self._links: dict[str, HostLink] = {}
        self._next: dict[str, Route] = {}
        self._old: list[Route] = []
        self.encode = Encoder().encode
        self.coin: Callable[[], int] = partial(secrets.randbits, 64)
        self.mirror = Mirror(self)
        self._trials = Trials(worker, self._tally.block, self.mirror.offer, on_counted, on_tripped)
        self.windows = self._trials.windows
        self._asked: dict[tuple[str, str], float] = {}
        self._directory = 0
        self._recovery = Recovery(health, slot)

    # --- tables

    def install(self, table: RouteTable) -> None:
        """A table was pushed: connect to its hosts and say so; it is routed by once its word is stored."""
        current = self.routes.get(table.model)
        if current is not None and current.table.revision >= table.revision:
            self._on_ack(table.index, table.revision)
            return
        route = self._route(table)
        self._next[table.model] = route
        if current is None or self._revision(table.index) >= table.revision:
            self._advance(table.model)
        self._loop.create_task(self._acknowledge(route))

    async def _acknowledge(self, route: Route) -> None:
        for link in route.links():
            await link.connected.wait()
        self._on_ack(route.table.index, route.table.revision)

    def _revision(self, index: int) -> int:
        return int(self._epoch[index]) & REVISION_MASK

    def _route(self, table: RouteTable) -> Route:
        arms = {entry.version: Arm(entry, self._linked(entry.hosts)) for entry in table.versions}
        split = table.split
        if split is None or table.signature is None:
            return Route(table, arms)
        division = self._trials.division(table, split, arms, self._linked(split.twin))
        return Route(table, arms, division)

    def _linked(self, refs: Sequence[HostRef]) -> list[HostLink]:
        links = []
        for ref in refs:
            link = self._links.get(ref.host)
            if link is None:
                link = HostLink(ref, self._runtime_dir, self._recover)
                self._links[ref.host] = link
            links.append(link)
        return links

    def _advance(self, model: str) -> None:
        """Route by the revision that the word names; what it replaces drains."""
        old = self.routes.get(model)
        index = (old or self._next[model]).table.index
        revision = self._revision(index)
        coming = self._next.pop(model, None)
        if coming is None or (old is not None and coming.table.revision != revision):
            table = read_table(self._runtime_dir, index, revision)
            if table is None:
                if coming is not None:
                    self._next[model] = coming
                return
            if coming is not None and coming.table.revision > revision:
                self._next[model] = coming
            coming = self._route(table)
        self.routes[model] = coming
        if old is not None:
            if old.leases:
                self._old.append(old)
            else:
                self.drained(old)

    def drained(self, route: Route) -> None:
        """Nothing holds this table any more: say up to where this worker has drained, close spare links."""
        if route in self._old:
            self._old.remove(route)
        held = [r.table.revision for r in self._old if r.table.index == route.table.index]
        current = self.routes.get(route.table.model)
        lowest = min([*held, current.table.revision if current else route.table.revision + 1])
        self._on_drained(route.table.index, lowest)
        self._close_spare_links()

    def released(self, route: Route) -> None:
        """One hold on this table is over."""
        route.leases -= 1
        if not route.leases and route is not self.routes.get(route.table.model):
            self.drained(route)

    def _close_spare_links(self) -> None:
        used: set[str] = set()
        for route in (*self.routes.values(), *self._next.values(), *self._old):
            used.update(link.ref.host for link in route.links())
        for host in [host for host in self._links if host not in used]:
            self._links.pop(host).close()

    def tick(self, wall_ms: int) -> None:
        """A few times a second: follow words that moved without a request, keep the display clock."""
        self.wall_ms = wall_ms
        if self.notes is not None:
            self.notes.sync()
            self.notes.flush()
        for model, route in list(self.routes.items()):
            if self._revision(route.table.index) != route.table.revision:
                self._advance(model)
        self._discover()
        self.report()

    def report(self) -> None:
        """Report the windows that are complete."""
        self._trials.report((*self.routes.values(), *self._next.values(), *self._old))

    def _discover(self) -> None:
        """Models that were published while this worker was not told: word 0 counts them."""
        seen = self._revision(0)
        if seen == self._directory:
            return
        self._directory = seen
        for table in read_tables(self._runtime_dir, self._revision):
            if table.model not in self.routes:
                self._next.setdefault(table.model, self._route(table))
                self._advance(table.model)

    # --- what the front end asks

    def lease(
        self, model: str, version: str | None, key: bytes | None, *, arm: str | None = None
    ) -> WorkerLease | SplitLease:
        """Choose by the revision in force and hold it (see `hotswap.ports.DataPlane`)."""
        route = self.routes.get(model)
        if route is None:
            self._discover()
            route = self.routes.get(model)
            if route is None:
                raise NotFound(f"there is no model {model!r}")
        table = route.table
        if self._epoch[table.index] & REVISION_MASK != table.revision:
            route = self._follow(model)
            table = route.table
        if arm is not None:
            version = self._named(table, version, arm)
        if version is None:
            division = route.division
            if division is None or arm is not None:
                chosen = route.choice
            elif self._epoch[table.index] & STABLE_ONLY:
                chosen = division.baseline()
            elif division.baseline().links:
                return SplitLease(self, route, division, key)
            else:
                chosen = route.choice
            if chosen is None:
                raise self._inactive(table)
            block = chosen.stable
            if block is None:
                block = chosen.stable = self._tally.block(model, chosen.entry.version, "stable")
        else:
            chosen = route.arms.get(version)
            if chosen is None:
                raise NotFound(f"model {model!r} has no version {version!r}")
            block = chosen.pinned
            if block is None:
                block = chosen.pinned = self._tally.block(model, version, "pinned")
        if not chosen.links:
            raise self._cold(model, chosen.entry)
        if table.signature is None:  # loaded, but nothing has told what the model takes
            raise self._inactive(table)
        return WorkerLease(self, route, chosen, block, key, version is not None)

    def _named(self, table: RouteTable, version: str | None, arm: str) -> str | None:
        """The version of an arm; None for the stable one, whatever the split says."""
        if arm == "stable":
            return version
        if table.split is None:
            raise NotFound(f"no test of model {table.model!r} is running")
        return table.split.candidate if arm == "candidate" else table.split.baseline

    def _follow(self, model: str) -> Route:
        """The route of the revision in force. Never an older one: sooner none, and 503.

        The table of a revision that was just read can be gone when flips come fast; the word
        then names a newer one already.
        """
        for _ in range(_FOLLOW):
            self._advance(model)
            route = self.routes[model]
            if self._revision(route.table.index) == route.table.revision:
                return route
        raise Unavailable(f"the route table of model {model!r} is being replaced; try again", 0.1)

    def _inactive(self, table: RouteTable) -> Exception:
        if not table.versions:
            return NotFound(f"there is no model {table.model!r}")
        if not self.started:
            return Unavailable(
                f"model {table.model!r} has no active version yet: the server is starting; "
                f"if it stays so, 'hotswap switch {table.model} VERSION' activates one"
            )
        return Unavailable(
            f"model {table.model!r} has no active version: "
            f"'hotswap switch {table.model} VERSION' activates one"
        )

    def _cold(self, model: str, entry: VersionEntry) -> Exception:
        """A version that is not warm: ask for it once a second, and say when to come back."""
        now = _now()
        if now - self._asked.get((model, entry.version), -1.0) >= 1.0:
            self._asked[(model, entry.version)] = now
            self._on_wanted(model, entry.version)
        if entry.state == "UNAVAILABLE" and entry.reason:
            return Unavailable(
                f"version {entry.version!r} of model {model!r} could not be loaded: {entry.reason}",
                10,
            )
        return Unavailable(
            f"version {entry.version!r} of model {model!r} is being loaded; try again"
        )

    def table(self, model: str) -> RouteTable:
        route = self.routes.get(model)
        if route is None:
            self._discover()
            route = self.routes.get(model)
        if route is None or not route.table.versions:
            raise NotFound(f"there is no model {model!r}")
        if self._revision(route.table.index) != route.table.revision:
            route = self._follow(model)
        return route.table

    def models(self) -> list[str]:
        return sorted(name for name, route in self.routes.items() if route.table.versions)

    def ready(self) -> bool:
        """At start: once every required model was warm; later: while one (or all) can answer."""
        if not self.started or self.draining:
            return False
        able = [
            any(link.connected.is_set() for link in route.choice.links)
            for route in self.routes.values()
            if route.choice is not None
        ]
        if not able:
            return False
        return all(able) if self._readiness == "all" else any(able)

    def stats(self) -> list[ModelStats]:
        return read_tallies(self._tally_dir)

    # --- one call

    def room(self, arm: Arm, rows: int) -> HostLink:
        """The least loaded instance. Raises `Overloaded` if even there too many rows wait."""
        link = arm.pick()
        assert link is not None
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
        """Send it to the least loaded instance and wait. Raises what `Lease.predict` says."""
        link = self.room(arm, rows)
        future: asyncio.Future[Reply] = self._loop.create_future()
        pending = Pending(layout, outputs, raws, rows, deadline, future)
        number = link.call(pending)
        left = deadline - _now()
        timer = self._loop.call_later(left, _expire, future) if left < _SHORT else None
        try:
            return await future
        except (asyncio.CancelledError, DeadlineExceeded):
            link.cancel(number)
            self._recovery.forget(pending)
            raise
        finally:
            if timer is not None:
                timer.cancel()

    def _recover(self, link: HostLink, lost: list[Pending]) -> None:
        """A host died with these: send each again, alone, unless another version will answer."""
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
        arms = [
            arm
            for route in (*self.routes.values(), *self._old)
            for arm in route.arms.values()
            if link in arm.links
        ]
        pure = all(arm.entry.pure for arm in arms)
        others = [each for arm in arms for each in arm.links]
        self._recovery.lost(link, again, others or [link], pure)


def _expire(future: asyncio.Future[Reply]) -> None:
    if not future.done():
        future.set_exception(DeadlineExceeded("the deadline passed before the model answered"))
