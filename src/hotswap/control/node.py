"""This node as control sees it: a mirror of the supervisor's state, and wishes to it."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Callable, Collection, Sequence
from typing import Protocol

import structlog

from hotswap.core.routing import RouteTable
from hotswap.errors import HotswapError, LoadError, OutOfMemory, SignatureMismatch, StoreError
from hotswap.ipc.messages import (
    AllWarm,
    Counted,
    CountedSaved,
    Drained,
    HostChanged,
    HostGone,
    HostSpec,
    HostState,
    Preload,
    Publish,
    Published,
    Snapshot,
    StableOnly,
    StartHost,
    StopHost,
    Tripped,
    Wanted,
    WorkersChanged,
)

log = structlog.get_logger("hotswap.control")

_PUBLISH_SECONDS = 10.0


class Sender(Protocol):
    """The channel to the supervisor."""

    def send(self, message: object) -> bool: ...


def load_error(state: HostState) -> HotswapError:
    """The host's own exception, as ours: what the version raised reaches the user."""
    kinds: dict[str, type[HotswapError]] = {
        "SignatureMismatch": SignatureMismatch,
        "MemoryError": OutOfMemory,
    }
    spec = state.spec
    kind = kinds.get(state.error_type, LoadError)
    return kind(
        f"version {spec.version!r} of model {spec.model!r} could not be loaded: {state.error}"
    )


class Node:
    """Hosts and tables of this node. Everything here runs on control's loop."""

    def __init__(self, sender: Sender, snapshot: Snapshot) -> None:
        self.hosts: dict[str, HostState] = {}
        #: (model, version, twin) -> its hosts: what is asked for most, and there may be thousands
        self._of: dict[tuple[str, str, bool], dict[str, HostState]] = {}
        for state in snapshot.hosts:
            self._keep(state)
        self.tables: dict[str, RouteTable] = {table.model: table for table in snapshot.tables}
        self.workers = snapshot.workers
        self.snapshot = snapshot
        self.on_wanted: Callable[[str, str], None] = lambda model, version: None
        self.on_counted: Callable[[Counted], None] = lambda message: None
        self.on_tripped: Callable[[Tripped], None] = lambda message: None
        self._sender = sender
        self._loading: dict[str, asyncio.Future[HostState]] = {}
        self._publishing: dict[tuple[int, int], tuple[RouteTable, asyncio.Future[Published]]] = {}
        self._news = asyncio.Event()
        self._drained: dict[int, int] = {}
        #: host -> (index, the revision that no longer names it)
        self._leaving: dict[str, tuple[int, int]] = {}
        #: name -> slot, of hosts that were named and not yet started
        self._claimed: dict[str, int] = {}

    # --- what the supervisor says

    def heard(self, message: object) -> None:
        """A message of the supervisor."""
        self._hear(message)
        news, self._news = self._news, asyncio.Event()
        news.set()

    def _hear(self, message: object) -> None:
        if isinstance(message, HostChanged):
            self._host_changed(message.state)
        elif isinstance(message, HostGone):
            self._host_gone(message.host)
        elif isinstance(message, Published):
            self._published(message)
        elif isinstance(message, Drained):
            self._drained[message.index] = message.revision
            self._let_go()
        elif isinstance(message, Wanted):
            self.on_wanted(message.model, message.version)
        elif isinstance(message, Counted):
            self.on_counted(message)
        elif isinstance(message, Tripped):
            self.on_tripped(message)
        elif isinstance(message, WorkersChanged):
            self.workers = message.live

    def _host_changed(self, state: HostState) -> None:
        name = state.spec.host
        waiting = self._loading.get(name)
        if state.state == "failed":
            self._drop(name)
            if waiting is not None and not waiting.done():
                waiting.set_exception(load_error(state))
            return
        self._keep(state)
        if state.state == "ready" and waiting is not None and not waiting.done():
            waiting.set_result(state)

    def _host_gone(self, name: str) -> None:
        state = self._drop(name)
        waiting = self._loading.get(name)
        if waiting is not None and not waiting.done():
            version = state.spec.version if state is not None else "?"
            waiting.set_exception(LoadError(f"loading version {version!r} was cancelled"))

    # --- hosts

    def _keep(self, state: HostState) -> None:
        spec = state.spec
        self.hosts[spec.host] = state
        self._of.setdefault((spec.model, spec.version, spec.twin), {})[spec.host] = state

    def _drop(self, name: str) -> HostState | None:
        self._leaving.pop(name, None)
        state = self.hosts.pop(name, None)
        if state is not None:
            spec = state.spec
            key = (spec.model, spec.version, spec.twin)
            self._of[key].pop(name, None)
            if not self._of[key]:
                del self._of[key]
        return state

    def new_host(self) -> tuple[str, int]:
        """A name and a health slot that no living host has."""
        # Claimed at once: loads of several models choose before the first of them has begun.
        taken = {state.spec.slot for state in self.hosts.values()} | set(self._claimed.values())
        slot = next(number for number in range(len(taken) + 1) if number not in taken)
        # Never one that was used before: workers know a host by its name.
        name = secrets.token_hex(4)
        self._claimed[name] = slot
        return name, slot

    async def start(self, spec: HostSpec) -> HostState:
        """Start a host and wait until it is warm. Raises what the version raised.

        Its slot is taken from now on. A cancelled wait leaves the host to `stop`.
        """
        future: asyncio.Future[HostState] = asyncio.get_running_loop().create_future()
        self._loading[spec.host] = future
        self._keep(HostState(spec, "starting"))
        self._claimed.pop(spec.host, None)
        self._sender.send(StartHost(spec))
        try:
            return await future
        finally:
            self._loading.pop(spec.host, None)

    def starting(self, model: str, version: str, *, twin: bool = False) -> list[HostSpec]:
        """Hosts of a version that the supervisor is starting of its own accord (a restart)."""
        return [
            state.spec
            for name, state in self._of.get((model, version, twin), {}).items()
            if state.state == "starting" and name not in self._loading and name not in self._leaving
        ]

    def stop(self, host: str) -> None:
        """At once: no table may name it."""
        self._claimed.pop(host, None)
        if host in self.hosts:
            self._leaving.setdefault(host, (0, 1 << 62))  # no table names it any more
            self._sender.send(StopHost(host))

    def leave(self, spec: HostSpec) -> None:
        """It has been replaced: no later table names it, and it goes once no request holds it."""
        table = self.tables.get(spec.model)
        if table is None:
            self.stop(spec.host)
        else:
            self._leaving[spec.host] = (table.index, table.revision + 1)

    def stop_removed(self, registered: Callable[[str], Collection[str]]) -> None:
        """Stop hosts of versions that are not registered any more, unless a table names them."""
        named = {host for table in self.tables.values() for host in table.hosts()}
        for name, state in list(self.hosts.items()):
            if name in named or name in self._leaving:
                continue
            if state.spec.version not in registered(state.spec.model):
                self.stop(name)

    def warm(self, model: str, version: str, *, twin: bool = False) -> list[HostState]:
        """Hosts of a version that can answer (one that is being restarted will), or its twins."""
        return sorted(
            (
                state
                for state in self._of.get((model, version, twin), {}).values()
                if state.state in ("ready", "restarting")
                and state.report is not None
                and state.spec.host not in self._leaving
            ),
            key=lambda state: state.spec.instance,
        )

    async def answering(self, model: str, version: str, seconds: float) -> None:
        """Wait until a host of a warm version is up: one may be being restarted just now.

        Raises `LoadError` saying why it does not come up.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        while True:
            hosts = self.warm(model, version)
            if any(state.state == "ready" for state in hosts):
                return
            left = deadline - loop.time()
            if not hosts or left <= 0:
                why = next((state.error for state in hosts if state.error), "its process is gone")
                raise LoadError(f"version {version!r} of model {model!r} does not stay up: {why}")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._news.wait(), left)

    # --- tables

    async def publish(self, table: RouteTable) -> Published:
        """Flip to this table; what it no longer names goes once every worker has drained.

        Raises `StoreError` if the supervisor could not carry it out.
        """
        key = (table.index, table.revision)
        if key in self._publishing:
            raise StoreError("the flip before this one is not carried out yet; try again")
        future: asyncio.Future[Published] = asyncio.get_running_loop().create_future()
        self._publishing[key] = (table, future)
        self._sender.send(Publish(table))
        try:
            published = await asyncio.wait_for(future, _PUBLISH_SECONDS)
        except TimeoutError:
            raise StoreError("the supervisor did not carry out the flip in time") from None
        if published.error:
            raise StoreError(f"the flip was not carried out: {published.error}")
        return published

    def _published(self, message: Published) -> None:
        """A flip is done, whether or not somebody still waits for it."""
        table, future = self._publishing.pop((message.index, message.revision), (None, None))
        if table is not None and not message.error:
            self._flipped(table)
        if future is not None and not future.done():
            future.set_result(message)

    def _flipped(self, table: RouteTable) -> None:
        named = table.hosts()
        before = self.tables.get(table.model)
        if before is not None:
            for host in before.hosts() - named:
                self._leaving.setdefault(host, (table.index, table.revision))
        self.tables[table.model] = table
        self._let_go()

    def _let_go(self) -> None:
        """Stop the hosts that no table names and no request holds."""
        for host, (index, revision) in list(self._leaving.items()):
            if self._drained.get(index, 0) >= revision:
                self._leaving[host] = (index, 1 << 62)  # once
                self.stop(host)

    def forget_strangers(self, named: set[str]) -> None:
        """After a restart of control: let go of hosts that no table names and nobody waits for.

        A request may still hold the table before, which names them: the supervisor tells a new
        control what is drained.
        """
        for name, state in list(self.hosts.items()):
            if name in named or name in self._loading:
                continue
            table = self.tables.get(state.spec.model)
            if table is not None and state.state in ("ready", "restarting"):
                self._leaving[name] = (table.index, table.revision)
            else:
                self.stop(name)
        self._let_go()

    def preload(self, runtimes: Sequence[str]) -> None:
        """Have these runtimes imported before a host needs them."""
        self._sender.send(Preload(tuple(runtimes)))

    def all_warm(self) -> None:
        self._sender.send(AllWarm())

    def stable_only(self, index: int) -> None:
        """Take the candidate of a model out of the route at once; no table is needed for it."""
        self._sender.send(StableOnly(index))

    def counted_saved(self, sequence: int) -> None:
        """What workers counted up to this report is saved."""
        self._sender.send(CountedSaved(sequence))
