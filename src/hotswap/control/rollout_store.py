"""Rollouts and their journals in the store. What is not saved did not happen, but for lowering."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import structlog

from hotswap.core.journal import Entry
from hotswap.core.rollout import Rollout
from hotswap.core.rollout_views import HistoryView, PointView
from hotswap.core.units import Units
from hotswap.errors import Conflict, StoreError
from hotswap.ports import Store

log = structlog.get_logger("hotswap.control")

_KIND = "rollout"
_UNITS_A_CHUNK = 50_000


class Document(msgspec.Struct, frozen=True):
    """What is kept of a rollout. ``entries``: how many its journal has; ``last``: the newest, so
    that one write says both what is so and that it was written down. ``units``: saved chunks.
    ``commands``: by idempotency key. ``restarts``: how often the candidate's processes had died
    before the attempt. ``shown``: the last stage that a table was seen to show. ``closed``: it is
    over, and nothing of it is left. ``series``: how the evidence went.
    """

    rollout: Rollout
    entries: int = 0
    last: Entry | None = None
    history: tuple[HistoryView, ...] = ()
    units: int = 0
    commands: dict[str, str] = {}
    restarts: int = 0
    shown: int = 0
    closed: bool = False
    series: tuple[PointView, ...] = ()


class RolloutStore:
    """Writes are in the order in which they make sense after any cut between them: unit chunks,
    entries that could not be written before, the document with its newest entry, that entry.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._generations: dict[str, int] = {}

    async def load(self) -> list[tuple[Document, Units]]:
        """Every rollout, oldest first. A newest entry that was cut off is written now."""
        found = []
        for key, value, generation in await self._store.scan(_KIND):
            try:
                document = msgspec.msgpack.decode(value, type=Document)
            except msgspec.MsgspecError as exc:
                log.error(
                    "a rollout cannot be read and is left alone", rollout=key, reason=str(exc)
                )
                continue
            self._generations[key] = generation
            if document.last is not None:
                await self._complete(key, document.last)
            units = Units()
            if not document.rollout.final:
                for name, chunk, _ in await self._store.scan(_units_of(document.rollout)):
                    if int(name) < document.units:
                        units.add(msgspec.msgpack.decode(chunk, type=list[tuple[int, int]]))
            found.append((document, units))
        return sorted(found, key=lambda pair: pair[0].rollout.created_at)

    async def save(
        self, document: Document, units: Units, entries: Sequence[Entry] = ()
    ) -> tuple[Document, list[Entry]]:
        """Save it, with journal entries that are not written yet; the last is the newest.

        The document as it is saved, and the entries that could still not be written: they must
        come with the next save. Raises `StoreError` if the document is not saved.
        """
        rollout = document.rollout
        fresh = list(units.fresh)
        chunks = document.units
        for at in range(0, len(fresh), _UNITS_A_CHUNK):
            part = msgspec.msgpack.encode(fresh[at : at + _UNITS_A_CHUNK])
            await self._store.put(_units_of(rollout), f"{chunks:08d}", part)
            chunks += 1
        document = msgspec.structs.replace(document, units=chunks)
        for entry in entries[:-1]:
            await self._append(rollout.id, entry)
        if entries:
            newest = entries[-1]
            document = msgspec.structs.replace(document, entries=newest.number, last=newest)
        await self._put(rollout.id, msgspec.msgpack.encode(document))
        # Not before: chunks that no document counts are not read, and are written again.
        del units.fresh[: len(fresh)]
        try:
            if entries:
                await self._append(rollout.id, entries[-1])
        except StoreError as exc:  # the document has it
            log.warning("a journal entry waits", rollout=rollout.id, reason=str(exc))
            return document, [entries[-1]]
        return document, []

    async def _put(self, id: str, value: bytes) -> None:
        known = self._generations.get(id, 0)
        try:
            self._generations[id] = await self._store.put(_KIND, id, value, known)
        except Conflict:
            # Nobody else writes it: a write of ours was carried out whose answer never came.
            found = await self._store.get(_KIND, id)
            known = found[1] if found is not None else 0
            self._generations[id] = await self._store.put(_KIND, id, value, known)

    async def _append(self, id: str, entry: Entry) -> None:
        """Writing the same entry again changes nothing."""
        await self._store.put(_journal_of(id), _key(entry), msgspec.msgpack.encode(entry))

    async def _complete(self, id: str, entry: Entry) -> None:
        found = await self._store.get(_journal_of(id), _key(entry))
        if found is None or found[0] != msgspec.msgpack.encode(entry):
            await self._append(id, entry)

    async def forget_units(self, document: Document) -> Document:
        """Nothing of its attempt will be counted any more. Raises `StoreError`."""
        for chunk in range(document.units):
            await self._store.delete(_units_of(document.rollout), f"{chunk:08d}")
        return msgspec.structs.replace(document, units=0)

    async def journal(self, id: str, unwritten: Sequence[Entry]) -> list[Entry]:
        """Its entries, oldest first, with those that are not written yet."""
        entries = {}
        for _, value, _ in await self._store.scan(_journal_of(id)):
            entry = msgspec.msgpack.decode(value, type=Entry)
            entries[entry.number] = entry
        entries.update((entry.number, entry) for entry in unwritten)
        return [entries[number] for number in sorted(entries)]


def _key(entry: Entry) -> str:
    return f"{entry.number:08d}"


def _journal_of(id: str) -> str:
    return f"journal:{id}"


def _units_of(rollout: Rollout) -> str:
    return f"units:{rollout.test}"
