"""Rollouts and their journals in the store. What is not saved did not happen, but for lowering."""

from __future__ import annotations

import msgspec
import structlog

from hotswap.core.journal import Entry
from hotswap.core.rollout import Rollout
from hotswap.core.rollout_views import HistoryView
from hotswap.core.units import Units
from hotswap.errors import StoreError
from hotswap.ports import Store

log = structlog.get_logger("hotswap.control")

_KIND = "rollout"
_UNITS_A_CHUNK = 50_000


class Document(msgspec.Struct, frozen=True):
    """What is kept of a rollout. ``entries``: how many its journal has; ``last``: the newest, so
    that one write says both what is so and that it was written down. ``units``: saved chunks.
    """

    rollout: Rollout
    entries: int = 0
    last: Entry | None = None
    history: tuple[HistoryView, ...] = ()
    units: int = 0


class RolloutStore:
    """Writes are in the order in which they make sense after any cut between them: unit chunks,
    the document with its newest entry, the entry itself.
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
                await self._append(key, document.last)
            units = Units()
            if not document.rollout.final:
                for name, chunk, _ in await self._store.scan(_units_of(document.rollout)):
                    if int(name) < document.units:
                        units.add(msgspec.msgpack.decode(chunk, type=list[tuple[int, int]]))
            found.append((document, units))
        return sorted(found, key=lambda pair: pair[0].rollout.created_at)

    async def save(
        self, document: Document, units: Units | None = None, entry: Entry | None = None
    ) -> Document:
        """Save it, with a new journal entry if there is one. Raises `StoreError`."""
        rollout = document.rollout
        if units is not None and units.fresh:
            fresh = list(units.fresh)
            chunks = document.units
            for at in range(0, len(fresh), _UNITS_A_CHUNK):
                part = msgspec.msgpack.encode(fresh[at : at + _UNITS_A_CHUNK])
                await self._store.put(_units_of(rollout), f"{chunks:08d}", part)
                chunks += 1
            document = msgspec.structs.replace(document, units=chunks)
            del units.fresh[: len(fresh)]
        if entry is not None:
            document = msgspec.structs.replace(document, entries=entry.number, last=entry)
        self._generations[rollout.id] = await self._store.put(
            _KIND,
            rollout.id,
            msgspec.msgpack.encode(document),
            self._generations.get(rollout.id, 0),
        )
        if entry is not None:
            try:
                await self._append(rollout.id, entry)
            except StoreError as exc:  # the document has it: it is appended at the next start
                log.warning("a journal entry waits", rollout=rollout.id, reason=str(exc))
        return document

    async def _append(self, id: str, entry: Entry) -> None:
        """Writing the same entry again changes nothing."""
        key = f"{entry.number:08d}"
        await self._store.put(_journal_of(id), key, msgspec.msgpack.encode(entry))

    async def journal(self, id: str, last: Entry | None) -> list[Entry]:
        """Its entries, oldest first."""
        entries = {}
        for _, value, _ in await self._store.scan(_journal_of(id)):
            entry = msgspec.msgpack.decode(value, type=Entry)
            entries[entry.number] = entry
        if last is not None:
            entries.setdefault(last.number, last)
        return [entries[number] for number in sorted(entries)]


def _journal_of(id: str) -> str:
    return f"journal:{id}"


def _units_of(rollout: Rollout) -> str:
    return f"units:{rollout.test}"
