"""A worker's plane with fake hosts, and a supervisor that only publishes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from hotswap.core.routing import WHOLE, HostRef, RouteTable, Split, VersionEntry
from hotswap.core.signature import Signature, TensorSpec
from hotswap.core.windows import ArmCounts, Window
from hotswap.ipc.tables import forget_tables, write_table
from hotswap.ipc.words import HEALTH_WORDS, Epoch, Health, Words
from hotswap.serving import windows
from hotswap.serving.plane import WorkerLease, WorkerPlane
from hotswap.serving.split import SplitLease
from tests.unit.serving.hosts import FakeHost

SIGNATURE = Signature((TensorSpec("x", "FP64", (-1,)),), (TensorSpec("y", "FP64", (-1,)),))


class Rig:
    """One worker's plane and what surrounds it. ``said`` is what it told the supervisor."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "tables").mkdir()
        (folder / "tally").mkdir()
        self.epoch = Epoch(Words.create("test-epoch", 64))
        self.health = Health(Words.create("test-health", HEALTH_WORDS))
        self.said: list[tuple[str, object, object]] = []
        self.hosts: dict[str, FakeHost] = {}
        self.heard = asyncio.Event()
        self.planes: list[WorkerPlane] = []
        self.windows: list[Window] = []
        self.plane = self.new_plane()

    def new_plane(
        self, slot: int = 0, queue_rows: int = 4096, readiness: str = "any", workers: int = 1
    ) -> WorkerPlane:
        plane = WorkerPlane(
            runtime_dir=str(self.folder),
            slot=slot,
            workers=workers,
            queue_rows=queue_rows,
            readiness=readiness,
            epoch=self.epoch,
            health=self.health,
            tally=f"{slot}.{len(self.planes)}",
            wall_ms=1,
            on_ack=lambda index, revision: self._say("ack", index, revision),
            on_drained=lambda index, revision: self._say("drained", index, revision),
            on_wanted=lambda model, version: self._say("wanted", model, version),
            worker="w1",
            on_counted=self.windows.extend,
            on_tripped=lambda index, test, why, failures: self._say("tripped", test, failures),
        )
        self.planes.append(plane)
        return plane

    def _say(self, what: str, one: object, two: object) -> None:
        self.said.append((what, one, two))
        self.heard.set()

    async def until_said(self, *what: object) -> None:
        """Wait until the plane has said it."""
        async with asyncio.timeout(10):
            while what not in self.said:
                self.heard.clear()
                await self.heard.wait()

    async def host(self, name: str, *, start: bool = True) -> FakeHost:
        """A fake host of that name, listening unless told otherwise."""
        fake = FakeHost(self.folder, name, len(self.hosts), self.health)
        self.hosts[name] = fake
        if start:
            await fake.start()
        return fake

    def entry(self, version: str, *hosts: FakeHost, pure: bool = True) -> VersionEntry:
        refs = tuple(HostRef(h.name, f"h{h.name}", h.slot) for h in hosts)
        return VersionEntry(version, "x", "READY" if hosts else "LOADING", hosts=refs, pure=pure)

    def table(
        self,
        revision: int,
        stable: str | None,
        *entries: VersionEntry,
        model: str = "m",
        index: int = 1,
    ) -> RouteTable:
        return RouteTable(model, index, revision, stable, SIGNATURE, entries)

    def commit(self, table: RouteTable, *, push: bool = False) -> None:
        """What the supervisor does: the file, perhaps a push, the word."""
        write_table(str(self.folder), table)
        if push:
            self.plane.install(table)
        if not self.epoch.revision(table.index):
            self.epoch.commit(0, self.epoch.revision(0) + 1)
        self.epoch.commit(table.index, table.revision)
        forget_tables(str(self.folder), table.index, table.revision - 1)

    async def serve(self, version: str = "v1", *, pure: bool = True, revision: int = 1) -> FakeHost:
        """A model ``m`` whose stable ``version`` is warm on a new host, and connected."""
        fake = await self.host(f"{version}-{len(self.hosts)}")
        self.commit(self.table(revision, version, self.entry(version, fake, pure=pure)), push=True)
        await self.until_said("ack", 1, revision)
        return fake

    async def divide(
        self, *, revision: int = 1, twin: bool = False, pure: bool = True, **more: Any
    ) -> tuple[FakeHost, ...]:
        """A running split between v1 and v2, all of its hosts connected: baseline, candidate, twin.

        ``more`` are fields of `Split`; a model that has such hosts already keeps them.
        """
        names = ["v1", "v2", *(["twin"] if twin else [])]
        fakes = [self.hosts.get(name) or await self.host(name) for name in names]
        settings: dict[str, Any] = {
            "test": "t", "stage": 1, "weight": 5_000, "salt": "s", "budget_ms": 5_000.0,
        }  # fmt: skip
        if twin:
            settings["twin"] = (HostRef("twin", "htwin", fakes[2].slot),)
            settings["twin_weight"] = 2_500
        split = Split(candidate="v2", baseline="v1", **(settings | more))
        entries = (self.entry("v1", fakes[0], pure=pure), self.entry("v2", fakes[1], pure=pure))
        table = self.table(revision, "v1", *entries)
        self.commit(msgspec.structs.replace(table, split=split), push=True)
        await self.until_said("ack", 1, revision)
        return tuple(fakes)

    def coins(self, *places: int) -> None:
        """The coins that are tossed next, as places among `WHOLE`; after them the last again."""
        left = [(place << 64) // WHOLE + 1 for place in places]
        self.plane.coin = lambda: left.pop(0) if len(left) > 1 else left[0]

    def counted(self) -> list[Window]:
        """Every window so far, whether or not its time is over."""
        self.windows += self.plane.windows.due(time.monotonic_ns() + 3_600_000_000_000)
        return self.windows

    def arm(self, name: str) -> ArmCounts:
        """The sums of one arm over all windows so far."""
        total = ArmCounts()
        for window in self.counted():
            arm = window.arms.get(name, ArmCounts())
            total.requests += arm.requests
            total.errors += arm.errors
            total.timeouts += arm.timeouts
            total.invalid += arm.invalid
            for into, found in ((total.latency, arm.latency), (total.values, arm.values)):
                for key, count in found.items():
                    into[key] = into.get(key, 0) + count
        return total


async def ask(
    lease: WorkerLease | SplitLease, *values: float, seconds: float = 10.0, release: bool = True
) -> list[float]:
    """One request by this lease: the values of ``y``."""
    try:
        answer = await lease.predict(
            {"x": np.array(values)}, (), len(values), time.monotonic() + seconds, "id"
        )
    finally:
        if release:
            lease.release()
    return [float(value) for value in answer["y"]]


def without_hosts(table: RouteTable, version: str, revision: int) -> RouteTable:
    """The next table, in which that version has no host."""
    entries = tuple(
        msgspec.structs.replace(e, hosts=(), state="UNAVAILABLE") if e.version == version else e
        for e in table.versions
    )
    return msgspec.structs.replace(table, versions=entries, revision=revision)


@pytest.fixture
async def rig(runtime_dir: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Rig]:
    monkeypatch.setattr(windows, "LATENCY_GAP_NS", 0)  # every latency is taken
    rig = Rig(runtime_dir)
    yield rig
    for plane in rig.planes:
        for route in (*plane.routes.values(), *plane._next.values(), *plane._old):
            for link in route.links():
                link.close()
    for fake in rig.hosts.values():
        await fake.stop()
    await asyncio.sleep(0)
