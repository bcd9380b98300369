"""Control on fakes: a supervisor that starts nothing, jobs that hash nothing, lives that end."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import msgspec

from hotswap.control.jobs import JobRunner
from hotswap.control.node import Node
from hotswap.control.service import Service
from hotswap.control.warming import Policy
from hotswap.core.lifecycle import ModelDocument
from hotswap.core.routing import RouteTable
from hotswap.core.signature import Signature, TensorSpec
from hotswap.core.spec import Artifact, Ingested, ManifestEntry, VersionSettings
from hotswap.core.windows import Window
from hotswap.errors import LoadError, StoreError
from hotswap.ipc.messages import (
    AllWarm,
    Counted,
    CountedSaved,
    Drained,
    HostChanged,
    HostGone,
    HostSpec,
    HostState,
    LoadReport,
    Preload,
    Publish,
    Published,
    Snapshot,
    StableOnly,
    StartHost,
    StopHost,
    Tripped,
    Wanted,
)
from hotswap.ports import MetricSource
from hotswap.stores.memory import MemoryStore
from hotswap.testing.clock import ManualClock

SIGNATURE = Signature((TensorSpec("x", "FP32", (-1, 2)),), (TensorSpec("y", "FP32", (-1,)),))
OTHER = Signature((TensorSpec("z", "FP64", (-1, 3)),), (TensorSpec("y", "FP32", (-1,)),))
MIB = 1 << 20


class Life:
    """One control process: what it did that outlives it, and when it is killed.

    With ``cut``, it dies right after that many store writes and publishes.
    """

    def __init__(self, cut: int | None = None) -> None:
        self.cut = cut
        self.events: list[str] = []
        self.alive = True
        self.died = asyncio.Event()
        self.node: Node | None = None

    def happened(self, what: str) -> None:
        self.events.append(what)
        if len(self.events) == self.cut:
            self.end()

    def end(self) -> None:
        self.alive = False
        self.died.set()

    def tell(self, message: object) -> None:
        if self.alive and self.node is not None:
            self.node.heard(message)


class LifeStore:
    """The shared store as one life sees it; ``failing`` is why it cannot be written now."""

    def __init__(self, store: MemoryStore, life: Life) -> None:
        self._store = store
        self._life = life
        self.failing = ""
        #: writes wait for it where it is given
        self.blocked: asyncio.Event | None = None

    async def open(self) -> None:
        if self.failing:
            raise StoreError(self.failing)
        await self._store.open()

    async def close(self) -> None:
        """The shared one stays."""

    async def get(self, kind: str, key: str) -> tuple[bytes, int] | None:
        return await self._store.get(kind, key)

    async def scan(self, kind: str) -> list[tuple[str, bytes, int]]:
        return await self._store.scan(kind)

    def _may_write(self) -> None:
        if not self._life.alive:
            raise asyncio.CancelledError  # a dead process does nothing more
        if self.failing:
            raise StoreError(self.failing)

    def _wrote(self, what: str) -> None:
        self._life.happened(what)
        if not self._life.alive:
            raise asyncio.CancelledError

    async def put(self, kind: str, key: str, value: bytes, generation: int | None = None) -> int:
        self._may_write()
        if self.blocked is not None:
            await self.blocked.wait()
            self._may_write()
        result = await self._store.put(kind, key, value, generation)
        self._wrote(f"put {kind} {key}")
        return result

    async def delete(self, kind: str, key: str) -> None:
        self._may_write()
        await self._store.delete(kind, key)
        self._wrote(f"delete {kind} {key}")


class FakeSupervisor:
    """Plays the supervisor's part. By default every host is ready at once and every flip done.

    ``broken``: why (and with which exception) a version cannot be loaded. ``held``: versions
    whose hosts stay starting until `finish`. ``refuse``: why flips are not carried out.
    ``draining``: workers hold their old tables until `drain`. ``stable_only``: words with the bit
    set. ``unsaved``: reports that control has not saved yet. ``run`` names this supervisor.
    """

    def __init__(self, runtime_dir: Path) -> None:
        self.runtime_dir = runtime_dir
        self.hosts: dict[str, HostState] = {}
        self.tables: dict[int, RouteTable] = {}
        self.started: list[HostSpec] = []
        self.preloaded: list[tuple[str, ...]] = []
        self.all_warm = 0
        self.broken: dict[tuple[str, str], tuple[str, str]] = {}
        self.signatures: dict[tuple[str, str], Signature] = {}
        self.memory = 10 * MIB
        self.held: set[tuple[str, str]] = set()
        self.refuse = ""
        self.silent = False
        self.draining = False
        self.run = secrets.token_hex(4)
        self.stable_only: set[int] = set()
        self.tripped: dict[int, Tripped] = {}
        self.lowered: dict[int, str] = {}
        self.unsaved: list[Counted] = []
        self.sequence = 0
        #: every exposure that was ever in force: (model, test, stage, weight, mirror, stable)
        self.shown: list[tuple[str, str, int, int, int, str | None]] = []
        self.flips: list[tuple[str, str | None]] = []
        self.life = Life()

    def sender(self, life: Life) -> FakeSender:
        return FakeSender(self, life)

    def snapshot(self) -> Snapshot:
        return Snapshot(
            hosts=tuple(self.hosts.values()), tables=tuple(self.tables.values()), workers=2,
            started=self.all_warm > 0, nursery=(), runtime_dir=str(self.runtime_dir), settings=b"",
            started_at=1.0, supervisor_pid=1, data_address=("127.0.0.1", 1),
            control_address=("127.0.0.1", 2), run=self.run,
        )  # fmt: skip

    def running(self) -> dict[str, list[str]]:
        """model/version -> its hosts' states."""
        found: dict[str, list[str]] = {}
        for state in self.hosts.values():
            name = f"{state.spec.model}/{state.spec.version}"
            found.setdefault(name, []).append(state.state)
        return found

    def table(self, model: str = "m") -> RouteTable:
        return next(table for table in self.tables.values() if table.model == model)

    # --- what control wishes

    def receive(self, message: object, life: Life) -> None:
        if not life.alive:
            return
        if isinstance(message, StartHost):
            self._start(message.spec)
        elif isinstance(message, StopHost):
            if self.hosts.pop(message.host, None) is not None:
                self._tell(HostGone(message.host))
        elif isinstance(message, Publish):
            self._publish(message.table, life)
        elif isinstance(message, StableOnly):
            self.stable_only.add(message.index)
            split = self.tables[message.index].split
            if split is not None:
                self.lowered[message.index] = split.test
            life.happened(f"stable only {message.index}")
        elif isinstance(message, CountedSaved):
            self.unsaved = [each for each in self.unsaved if each.sequence > message.sequence]
        elif isinstance(message, Preload):
            self.preloaded.append(message.runtimes)
        elif isinstance(message, AllWarm):
            self.all_warm += 1

    def _tell(self, message: object) -> None:
        self.life.tell(message)

    def _start(self, spec: HostSpec) -> None:
        if spec.host in self.hosts:
            self._tell(HostChanged(self.hosts[spec.host]))
            return
        self.started.append(spec)
        self.hosts[spec.host] = HostState(spec, "starting")
        if (spec.model, spec.version) not in self.held:
            self._finish(spec)

    def finish(self, model: str, version: str) -> None:
        """Let the held hosts of a version come up, or fail."""
        self.held.discard((model, version))
        for state in list(self.hosts.values()):
            spec = state.spec
            if (spec.model, spec.version) == (model, version) and state.state == "starting":
                self._finish(spec)

    def _finish(self, spec: HostSpec) -> None:
        key = (spec.model, spec.version)
        if key in self.broken:
            del self.hosts[spec.host]
            error, kind = self.broken[key]
            self._tell(HostChanged(HostState(spec, "failed", error=error, error_type=kind)))
            return
        signature = spec.public or self.signatures.get(key, SIGNATURE)
        report = LoadReport(signature, "fake", 0.5, 0.1, 0.001, self.memory)
        state = HostState(spec, "ready", pid=100 + len(self.started), incarnation=1, report=report)
        self.hosts[spec.host] = state
        self._tell(HostChanged(state))

    def lose(self, model: str, version: str, *, twin: bool | None = None, most: int = 99) -> None:
        """Hosts of a version (at most so many) are dead and cannot be started again."""
        gone = 0
        for name, state in list(self.hosts.items()):
            ours = (state.spec.model, state.spec.version) == (model, version)
            if ours and twin in (None, state.spec.twin) and gone < most:
                gone += 1
                del self.hosts[name]
                failed = msgspec.structs.replace(state, state="failed", error="it keeps dying")
                self._tell(HostChanged(failed))

    def _publish(self, table: RouteTable, life: Life) -> None:
        before = self.tables.get(table.index)
        error = self.refuse
        if before is not None and before.revision >= table.revision:
            error = f"revision {table.revision} is not newer than {before.revision}"
        # A twin that died may still be named: its requests go to the version's own hosts.
        named = {ref.host for entry in table.versions for ref in entry.hosts}
        assert named <= set(self.hosts), "a table names hosts that do not run"
        if not error:
            self._commit(before, table)
            life.happened(f"publish {table.model} {table.revision} {table.stable}{_said(table)}")
        if not self.silent:
            self._tell(Published(table.index, table.revision, 0.01, 1.0, 2, 2, error))
        if not self.draining:
            self._tell(Drained(table.index, self.tables[table.index].revision))

    def _commit(self, before: RouteTable | None, table: RouteTable) -> None:
        self.tables[table.index] = table
        test = table.split.test if table.split is not None else ""
        tripped = self.tripped.get(table.index)
        if tripped is not None and test != tripped.test:
            del self.tripped[table.index]
        if test != self.lowered.get(table.index):
            self.lowered.pop(table.index, None)
        if table.index not in self.tripped and table.index not in self.lowered:
            self.stable_only.discard(table.index)
        if before is None or before.stable != table.stable:
            self.flips.append((table.model, table.stable))
        split = table.split
        if split is not None:
            shape = (split.test, split.stage, split.weight, split.mirror)
            self.shown.append((table.model, *shape, table.stable))

    def exposed(self, model: str = "m") -> int:
        """The candidate's weight that is in force, as workers see it (of 10,000)."""
        table = self.table(model)
        if table.split is None or table.index in self.stable_only:
            return 0
        return table.split.weight

    def count(self, *windows: Window) -> None:
        """Workers report windows."""
        self.sequence += 1
        batch = Counted(list(windows), self.sequence)
        self.unsaved.append(batch)
        self._tell(batch)

    def trip(self, reason: str, model: str = "m") -> None:
        """A worker's breaker takes the candidate out of every worker's route."""
        table = self.table(model)
        assert table.split is not None
        message = Tripped(table.index, table.split.test, reason, 5)
        self.tripped[table.index] = message
        self.stable_only.add(table.index)
        self._tell(message)

    def told(self) -> None:
        """A control process has just begun: what the one before did not save."""
        for tripped in self.tripped.values():
            self._tell(tripped)
        for batch in self.unsaved:
            self._tell(batch)

    def revive(self, model: str, version: str, *, twin: bool = False) -> None:
        """The processes of a version died, and run again."""
        for name, state in list(self.hosts.items()):
            spec = state.spec
            if (spec.model, spec.version, spec.twin) == (model, version, twin):
                self.hosts[name] = msgspec.structs.replace(state, restarts=state.restarts + 1)
                self._tell(HostChanged(self.hosts[name]))

    def drain(self) -> None:
        """No worker holds an old table any more."""
        for table in self.tables.values():
            self._tell(Drained(table.index, table.revision))

    def want(self, model: str, version: str) -> None:
        """A client asked a worker for a version that is not warm."""
        self._tell(Wanted(model, version))


def _said(table: RouteTable) -> str:
    split = table.split
    if split is None:
        return ""
    return f" {split.candidate}@{split.weight} stage {split.stage}"


class FakeSender:
    """One life's channel: messages arrive a moment later, as over a socket."""

    def __init__(self, supervisor: FakeSupervisor, life: Life) -> None:
        self._supervisor = supervisor
        self._life = life

    def send(self, message: object) -> bool:
        asyncio.get_running_loop().call_soon(self._supervisor.receive, message, self._life)
        return True


class FakeJobs:
    """Takes in any uri: its text is its content. ``code`` in it: loading runs code."""

    def __init__(self) -> None:
        self.bytes = MIB
        self.settings = VersionSettings()

    async def ingest(
        self, source: str, *, runtime: str | None, overrides: dict[str, Any] | None, **_: object
    ) -> Ingested:
        if "torn" in source:
            raise LoadError("the archive is torn")
        hashed = hashlib.sha256(source.encode()).hexdigest()
        artifact = Artifact(
            f"/artifacts/{hashed}", "model.bin", runtime or "fake", f"sha256:{hashed}",
            (ManifestEntry("model.bin", self.bytes, hashed),),
        )  # fmt: skip
        code = "a pickle runs code when it is loaded" if "code" in source else None
        return Ingested(artifact, self.settings, "fake", code)


class World:
    """A node whose control can be killed and started again.

    The supervisor, the store and the clock stay; each `begin` is a new control process.
    """

    def __init__(self, folder: Path, **policy: Any) -> None:
        (folder / "tally").mkdir(parents=True)
        self.folder = folder
        self.shared = MemoryStore()
        self.clock = ManualClock()
        self.supervisor = FakeSupervisor(folder)
        self.jobs = FakeJobs()
        self.keep_warm = 600.0
        self.memory: Callable[[int], int] = lambda pid: self.supervisor.memory
        self.sources: dict[str, MetricSource] = {}
        self._policy: dict[str, Any] = {
            "trust_code": False, "trust_digests": (), "allow_unvalidated": False,
            "load_seconds": 120.0, "memory_budget": 1 << 40, "roots": (),
        } | policy  # fmt: skip
        self.life = Life()
        self._tasks: set[asyncio.Task[Any]] = set()

    def begin(self, cut: int | None = None) -> Service:
        """A new control process over what the last one left; not yet opened."""
        self.life.end()
        self.life = self.supervisor.life = Life(cut)
        self.store = LifeStore(self.shared, self.life)
        node = self.life.node = Node(self.supervisor.sender(self.life), self.supervisor.snapshot())
        self.node = node
        self.service = Service(
            node=node,
            store=self.store,
            jobs=cast(JobRunner, self.jobs),
            policy=Policy(**self._policy),
            clock=self.clock,
            state_dir=self.folder,
            roots=(),
            keep_warm_seconds=self.keep_warm,
            memory_of=lambda pid: self.memory(pid),
            info=dict,
            sources=self.sources,
        )
        return self.service

    async def restart(self, cut: int | None = None) -> Service:
        """A new control process, open and restored; killed again after ``cut`` events."""
        service = self.begin(cut)

        async def start() -> None:
            self.supervisor.told()
            await service.open()
            await service.restore()
            # As the supervisor says to a control process that has just begun.
            if not self.supervisor.draining:
                self.supervisor.drain()

        await self.run(start())
        return service

    async def run(self, work: Any) -> Any:
        """Await it, unless this life ends before: then None, and nothing of it goes on."""
        task = asyncio.ensure_future(work)
        died = asyncio.ensure_future(self.life.died.wait())
        await asyncio.wait({task, died}, return_when=asyncio.FIRST_COMPLETED)
        died.cancel()
        if self.life.alive:
            return await task
        task.cancel()
        await asyncio.gather(task, died, return_exceptions=True)
        await settle()
        return None

    async def budget(self, memory: int) -> None:
        """Control again, with so many bytes for hosts."""
        self._policy["memory_budget"] = memory
        await self.restart()

    async def register(self, model: str, *versions: str, prefix: str = "") -> None:
        for version in versions:
            await self.service.register(model, f"{prefix}{model}-{version}", version=version)

    async def full_restart(self, cut: int | None = None) -> Service:
        """The whole node again: tables and wanted hosts are restored from the last run."""
        old = self.supervisor
        new = self.supervisor = FakeSupervisor(self.folder)
        named = {host for table in old.tables.values() for host in table.hosts()}
        new.broken, new.signatures = old.broken, old.signatures
        new.tables, new.shown, new.flips = dict(old.tables), old.shown, old.flips
        new.hosts = {n: s for n, s in old.hosts.items() if n in named}
        return await self.restart(cut)

    async def stored(self, model: str = "m") -> ModelDocument:
        """What a restart would read."""
        found = await self.shared.get("model", model)
        assert found is not None
        return msgspec.msgpack.decode(found[0], type=ModelDocument)

    def found(self, *names: str) -> list[tuple[str, str, Path]]:
        """What a models folder would report."""
        return [(m, v, Path(f"/{m}-{v}")) for m, v in (name.split("/") for name in names)]


async def settle() -> None:
    """Let everything that can happen now happen."""
    for _ in range(50):
        await asyncio.sleep(0)


def states(operations: Sequence[Any]) -> list[tuple[str, str, str]]:
    """(kind, version, state) of operations, newest first."""
    return [(each.kind, each.version, each.state) for each in operations]
