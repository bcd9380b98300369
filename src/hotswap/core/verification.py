"""Deciding again what a journal says was decided: every decision must come out as it stands.

>>> verify([]).decisions
0
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from hotswap.core.analysis import FORMULA
from hotswap.core.commands import commanded
from hotswap.core.decide import decide
from hotswap.core.journal import Record, ordered, record_of, sealed
from hotswap.core.phases import phase, reason
from hotswap.core.rollout import FINAL, Status, analysed
from hotswap.core.rollout_views import JournalView
from hotswap.errors import HotswapError

#: Kinds of entries that can be decided again.
DECISIONS: Final = ("decided", "commanded")


_IMPOSSIBLE: Final = (ValueError, LookupError, TypeError, ArithmeticError, AssertionError)


class Mismatch(msgspec.Struct, frozen=True):
    """An entry that does not come out as it stands; ``message`` says what differs."""

    number: int
    message: str


class Verification(msgspec.Struct, frozen=True):
    """``decisions``: how many were made again; ``mismatches``: those that differ."""

    decisions: int
    mismatches: tuple[Mismatch, ...]


def verify(entries: Sequence[JournalView]) -> Verification:
    """Make every decision of a journal again, from what was known when it was made.

    Finds what was changed by accident or by hand, in a counter, a sentence or a status. A journal
    that somebody wrote anew, decisions and digests and all, is a journal like any other.
    """
    decisions = 0
    found: list[Mismatch] = []
    before: tuple[int, int] | None = None
    for entry in ordered(entries):
        why = [] if before is None else _breaks(entry, before)
        generation = entry.generation
        decisions += entry.kind in DECISIONS
        try:
            record = record_of(entry)
        except msgspec.ValidationError as exc:
            why.append(f"its record cannot be read: {exc}")
        else:
            generation = record.after.generation
            why += _faults(entry, record, before)
        if why:
            found.append(Mismatch(entry.number, "; ".join(why)))
        before = entry.number, generation
    return Verification(decisions, tuple(found))


def _breaks(entry: JournalView, before: tuple[int, int]) -> list[str]:
    number = before[0] + 1
    return [] if entry.number == number else [f"entry {number} is missing before it"]


def _faults(entry: JournalView, record: Record, before: tuple[int, int] | None) -> list[str]:
    """What is wrong with an entry; ``before``: number and last generation of the one before."""
    found = []
    began = record.before.status.generation
    if before is not None and began != before[1]:
        found.append(
            f"it begins at generation {began}, and the entry before it ends at {before[1]}"
        )
    if entry.kind in DECISIONS:
        found.append(_differs(entry, record))
    elif not _harmless(entry, record):
        found.append(f"{entry.kind!r} decides nothing like this")
    shown = entry.phase, entry.reason, entry.message, entry.generation, entry.step
    if _shown(record.after) != shown:
        found.append("what is shown is not what was recorded")
    if entry.record.get("digest") != sealed(record):
        found.append("its record was changed after it was written")
    return [why for why in found if why]


def _shown(status: Status) -> tuple[str, str, str, int, int]:
    return phase(status), reason(status), status.message, status.generation, status.step


def _harmless(entry: JournalView, record: Record) -> bool:
    """Whether an entry that is not decided again changes nothing, or ends things alone."""
    if entry.kind == "started":
        return record.after == record.before.status
    return record.after.state in {*FINAL, "rolling_back"}


def _differs(entry: JournalView, record: Record) -> str:
    if entry.formula != FORMULA:
        return f"it was decided by formula {entry.formula}, and this is formula {FORMULA}"
    try:
        again = _again(entry, record)
    except HotswapError as exc:
        return f"it would be refused: {exc}"
    except _IMPOSSIBLE as exc:  # a record that was changed can hold anything
        return f"nothing can be decided from it: {type(exc).__name__}: {exc}"
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
