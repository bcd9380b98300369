"""The flip, carried out by the supervisor: once accepted it completes, whether or not control lives."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Final

import structlog

from hotswap.app.workers import Workers
from hotswap.core.routing import RouteTable
from hotswap.ipc.messages import Published, Tripped
from hotswap.ipc.tables import forget_tables, write_table
from hotswap.ipc.words import STABLE_ONLY, Epoch

log = structlog.get_logger("hotswap.supervisor")

ACK_SECONDS: Final = 0.25
DIRECTORY: Final = 0


class Publisher:
    """The last committed table of each model, and the words that name their revisions."""

    def __init__(self, runtime_dir: str, epoch: Epoch, workers: Workers) -> None:
        self.tables: dict[int, RouteTable] = {}
        #: index -> the breaker that tripped on a test which the committed table still has
        self.tripped: dict[int, Tripped] = {}
        #: index -> the test that control took out of the route
        self.lowered: dict[int, str] = {}
        self._runtime_dir = runtime_dir
        self._epoch = epoch
        self._workers = workers

    def restore(self, table: RouteTable) -> None:
        """A table of the run before: before any worker exists."""
        write_table(self._runtime_dir, table)
        self.tables[table.index] = table
        self._epoch.commit(table.index, table.revision)
        self._epoch.commit(DIRECTORY, self._epoch.revision(DIRECTORY) + 1)

    def restore_lowered(self, lowered: Mapping[int, str], tripped: Iterable[Tripped]) -> None:
        """What was out of the route in the run before: after its tables are back."""
        for each in tripped:
            self.trip(each)
        for index, test in lowered.items():
            table = self.tables.get(index)
            if table is not None and table.split is not None and table.split.test == test:
                self.stable_only(index)

    async def publish(self, table: RouteTable) -> Published:
        """Write where workers find it, push it, wait a moment for those who can, store the word.

        The order is the guarantee: a worker that reads the new word can always find the table,
        and one that does not read it yet answers by the old table, whose hosts still run.
        """
        index, revision = table.index, table.revision
        before = self.tables.get(index)
        if before is not None and before.revision >= revision:
            return self._answer(
                table, 0.0, 0.0, 0, f"revision {revision} is not newer than {before.revision}"
            )
        start = time.perf_counter()
        try:
            write_table(self._runtime_dir, table)
        except OSError as exc:
            return self._answer(
                table, 0.0, 0.0, 0, f"the route table could not be written: {exc.strerror}"
            )
        self._workers.published(index, before.revision if before is not None else revision)
        self._workers.push(table)
        acks = await self._workers.wait_acks(index, revision, ACK_SECONDS)
        now = self.tables.get(index)
        if now is not None and now.revision >= revision:  # the word must never go back
            return self._answer(
                table, 0.0, 0.0, acks, f"revision {now.revision} was published meanwhile"
            )
        began = time.perf_counter()
        # A flip that was under way when its candidate was taken out must not put it back.
        kept = STABLE_ONLY if self._still_tripped(table) else 0
        self._epoch.commit(index, revision | kept)
        if before is None:
            self._epoch.commit(DIRECTORY, self._epoch.revision(DIRECTORY) + 1)
        end = time.perf_counter()
        self.tables[index] = table
        forget_tables(self._runtime_dir, index, revision - 1)
        return self._answer(table, (end - began) * 1000, (end - start) * 1000, acks, "")

    def _answer(
        self, table: RouteTable, flip_ms: float, publish_ms: float, acks: int, error: str
    ) -> Published:
        live = sum(worker.listening for worker in self._workers.live)
        return Published(table.index, table.revision, flip_ms, publish_ms, acks, live, error)

    def _still_tripped(self, table: RouteTable) -> bool:
        test = None if table.split is None else table.split.test
        if self.lowered.get(table.index) == test is not None:
            return True
        self.lowered.pop(table.index, None)
        tripped = self.tripped.get(table.index)
        if tripped is None:
            return False
        if table.split is not None and table.split.test == tripped.test:
            return True
        del self.tripped[table.index]  # that test is over
        return False

    def trip(self, tripped: Tripped) -> bool:
        """A breaker took a candidate out: every worker must, at once. False if its test is over."""
        table = self.tables.get(tripped.index)
        if table is None or table.split is None or table.split.test != tripped.test:
            return False
        self.tripped.setdefault(tripped.index, tripped)
        self._epoch.stable_only(tripped.index)
        return True

    def stable_only(self, index: int) -> bool:
        """Lower exposure: needs no table and waits for nothing. A flip that is under way meanwhile
        and still has the candidate must not raise it again. False if it was lowered already.
        """
        self._epoch.stable_only(index)
        table = self.tables.get(index)
        if table is None or table.split is None or self.lowered.get(index) == table.split.test:
            return False
        self.lowered[index] = table.split.test
        return True
