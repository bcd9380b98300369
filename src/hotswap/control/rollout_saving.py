"""Writing rollouts down: decisions before they are carried out, counters now and then."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import msgspec
import structlog

from hotswap.control.node import Node
from hotswap.control.rollout_run import Run
from hotswap.control.rollout_store import Document, RolloutStore
from hotswap.core.evidence import Evidence
from hotswap.core.journal import Entry, Record
from hotswap.core.phases import phase, reason
from hotswap.core.rollout import Rollout
from hotswap.core.rollout_views import HistoryView
from hotswap.core.units import Units
from hotswap.errors import HotswapError, StoreError
from hotswap.ports import Clock

log = structlog.get_logger("hotswap.control")

_SAVE_SECONDS = 2.0
_HISTORY = 500
_COMMANDS = 100
_LEAST_A_ROUND = 16


class Saving:
    """One write at a time. ``outage``: why the store could not be written, until it can.

    ``sequence``: the last of the supervisor's reports that was counted.
    """

    def __init__(self, node: Node, store: RolloutStore, clock: Clock) -> None:
        self.sequence = 0
        self.outage = ""
        self._node = node
        self._store = store
        self._clock = clock
        self._lock = asyncio.Lock()
        self._told = 0
        self._saved_at = 0.0

    async def record(
        self,
        run: Run,
        after: Rollout,
        kind: str,
        record: Record,
        *,
        must: bool,
        who: str = "",
        command: str = "",
        why: str = "",
        key: str = "",
    ) -> bool:
        """Write down a decision or command and take it on. ``must``: not taken on unless saved.

        What need not be saved first is written down as soon as that is possible.
        """
        async with self._lock:
            document = run.document
            number = document.entries + 1
            entry = Entry(number, self._clock.wall(), kind, record, who, command, why, key)
            same = run.rollout.test == after.test
            # What was counted while this waited for its turn belongs to it.
            counted = run.rollout if same else after
            run_now = self._node.snapshot.run
            evidence = noted(counted, run_now, self.sequence)
            line = HistoryView(
                entry.at, phase(after.status), reason(after.status), after.status.message,
                after.status.step,
            )  # fmt: skip
            changed = msgspec.structs.replace(
                document,
                rollout=msgspec.structs.replace(after, evidence=evidence),
                entries=number,
                last=entry,
                history=(*document.history, line)[-_HISTORY:],
                commands=_with(document.commands, key, command),
                units=document.units if same else 0,
                closed=False,
            )
            entries = [*run.pending, entry]
            # Only people may ask a store that is known to fail: ticks have other rollouts too.
            if kind == "decided" and self.outage:
                return self._kept(run, changed, entries, must)
            unsaved, run.unsaved = run.unsaved, None
            try:
                units = run.units if same else Units()
                saved, left = await self._store.save(changed, units, entries)
            except (HotswapError, asyncio.CancelledError) as exc:
                run.unsaved = unsaved if unsaved is not None else run.unsaved
                if isinstance(exc, asyncio.CancelledError):
                    raise
                self._failed(exc)
                return self._kept(run, changed, entries, must)
            self.outage = ""
            run.pending = left
            now = run.document.rollout
            if same and now.evidence is not document.rollout.evidence:  # counted meanwhile
                rollout = msgspec.structs.replace(saved.rollout, evidence=now.evidence)
                saved = msgspec.structs.replace(saved, rollout=rollout)
                run.dirty = True
            else:
                run.dirty = bool(left)
            run.document = saved
            return True

    def _kept(self, run: Run, changed: Document, entries: list[Entry], must: bool) -> bool:
        if must:
            return False
        rollout = msgspec.structs.replace(changed.rollout, evidence=run.rollout.evidence)
        run.document = msgspec.structs.replace(changed, rollout=rollout, units=run.document.units)
        run.pending = entries
        run.dirty = True
        return True

    def _failed(self, exc: BaseException) -> None:
        if not self.outage:
            log.error("rollouts cannot be saved", reason=str(exc))
        self.outage = f"the store cannot be written: {exc}"

    async def save_due(self, runs: Mapping[str, Run], current: int) -> None:
        """Counters and clocks of rollouts that only go on: each every two seconds, or less often
        the more there are. Of a store that fails only one is tried.
        """
        now = self._clock.monotonic()
        every = _SAVE_SECONDS * max(1.0, current / 100)
        dirty = [run for run in runs.values() if run.dirty]
        if self.outage:
            if now - self._saved_at < _SAVE_SECONDS:
                return
            due = dirty
        else:
            due = [run for run in dirty if now - run.saved_at >= every or run.pending]
        # Spread over the time between two saves of one.
        most = len(due) if len(dirty) <= _LEAST_A_ROUND else max(_LEAST_A_ROUND, len(dirty) // 25)
        for run in sorted(due, key=lambda each: each.saved_at)[:most]:
            self._saved_at = now
            if not await self._save(run):
                return
            run.saved_at = now
        self._tell(runs)

    def _tell(self, runs: Mapping[str, Run]) -> None:
        """What is saved of every rollout need not be kept by the supervisor."""
        unsaved = [run.unsaved for run in runs.values() if run.unsaved is not None]
        sequence = min((self.sequence, *(first - 1 for first in unsaved)))
        if sequence > self._told:
            self._told = sequence
            self._node.counted_saved(sequence)

    async def _save(self, run: Run) -> bool:
        async with self._lock:
            before = run.document
            evidence = noted(before.rollout, self._node.snapshot.run, self.sequence)
            rollout = msgspec.structs.replace(before.rollout, evidence=evidence)
            document = msgspec.structs.replace(before, rollout=rollout)
            unsaved, run.unsaved = run.unsaved, None
            try:
                saved, run.pending = await self._store.save(document, run.units, run.pending)
            except (HotswapError, asyncio.CancelledError) as exc:
                run.unsaved = unsaved if unsaved is not None else run.unsaved
                if isinstance(exc, asyncio.CancelledError):
                    raise
                self._failed(exc)
                return False
            self.outage = ""
            if run.document is before:
                run.document, run.dirty = saved, bool(run.pending)
            else:
                run.document = msgspec.structs.replace(run.document, units=saved.units)
            return True

    async def forget_units(self, run: Run) -> None:
        """It is over: which units it saw is of no use any more."""
        async with self._lock:
            try:
                document = await self._store.forget_units(run.document)
            except StoreError as exc:
                log.warning("units are left in the store", rollout=run.rollout.id, reason=str(exc))
                return
            if document.units != run.document.units:
                run.note(units=document.units)


def noted(rollout: Rollout, run: str, sequence: int) -> Evidence:
    """Its evidence, with how far the reports of the supervisor's run were counted.

    Never less far than it was saved with: after a restart reports come again from the first that
    some rollout had not saved.
    """
    evidence = rollout.evidence
    if evidence.run == run:
        sequence = max(sequence, evidence.sequence)
    return msgspec.structs.replace(evidence, run=run, sequence=sequence)


def _with(commands: dict[str, str], key: str, command: str) -> dict[str, str]:
    if not key or not command:
        return commands
    kept = dict(list(commands.items())[-_COMMANDS + 1 :])
    return {**kept, key: command}
