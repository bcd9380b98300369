"""Deciding again what a journal says was decided: every decision must come out as it stands.

>>> verify([]).decisions
0
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from hotswap.core.analysis import FORMULA
from hotswap.core.commands import commanded
from hotswap.core.decide import decide
from hotswap.core.journal import Record, ordered, record_of
from hotswap.core.rollout import Status, analysed
from hotswap.core.rollout_views import JournalView
from hotswap.errors import HotswapError


class Mismatch(msgspec.Struct, frozen=True):
    """An entry that does not come out as it stands; ``message`` says what differs."""

    number: int
    message: str


class Verification(msgspec.Struct, frozen=True):
    """``decisions``: how many were made again; ``mismatches``: those that differ."""

    decisions: int
    mismatches: tuple[Mismatch, ...]


def verify(entries: Sequence[JournalView]) -> Verification:
    """Make every decision of a journal again, from what was known when it was made."""
    decisions = 0
    found: list[Mismatch] = []
    before: tuple[int, int] | None = None
    for entry in ordered(entries):
        if before is not None and entry.number != before[0] + 1:
            found.append(Mismatch(entry.number, f"entry {before[0] + 1} is missing before it"))
        try:
            record = record_of(entry)
        except msgspec.ValidationError as exc:
            found.append(Mismatch(entry.number, f"its record cannot be read: {exc}"))
            before = (entry.number, entry.generation)
            continue
        if before is not None and record.before.status.generation != before[1]:
            found.append(
                Mismatch(
                    entry.number,
                    f"it begins at generation {record.before.status.generation}, and the entry "
                    f"before it ends at {before[1]}",
                )
            )
        if (record.after.generation, record.after.message) != (entry.generation, entry.message):
            found.append(Mismatch(entry.number, "what is shown is not what was recorded"))
        before = (entry.number, record.after.generation)
        if entry.kind not in ("decided", "commanded"):
            continue
        decisions += 1
        why = _differs(entry, record)
        if why:
            found.append(Mismatch(entry.number, why))
    return Verification(decisions, tuple(found))


def _differs(entry: JournalView, record: Record) -> str:
    if entry.formula != FORMULA:
        return f"it was decided by formula {entry.formula}, and this is formula {FORMULA}"
    try:
        again = _again(entry, record)
    except HotswapError as exc:
        return f"it would be refused: {exc}"
    if _told(again) == _told(record.after):
        return ""
    names = [
        name
        for name in Status.__struct_fields__
        if name != "salt" and getattr(again, name) != getattr(record.after, name)
    ]
    differences = ", ".join(
        f"{name} {getattr(record.after, name)!r} comes out as {getattr(again, name)!r}"
        for name in names[:3]
    )
    return f"decided again, {differences}"


def _told(status: Status) -> Status:
    """Without what chance decided."""
    return msgspec.structs.replace(status, salt="")


def _again(entry: JournalView, record: Record) -> Status:
    if entry.kind == "commanded":
        analysis = analysed(record.before, record.seen)
        why = entry.why
        after = commanded(record.before, entry.command, analysis, force=record.force, why=why)
        return after.status
    return decide(record.before, record.seen, record.seconds).status
