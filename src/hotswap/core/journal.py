"""What is written down of each decision: enough to decide again. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import Any

import msgspec

from hotswap.core.analysis import FORMULA
from hotswap.core.phases import phase, reason
from hotswap.core.rollout import Observation, Rollout, Status
from hotswap.core.rollout_views import JournalView, MetricView


class Record(msgspec.Struct, frozen=True):
    """One decision or command: the rollout before it with its counters, what was seen, how many
    seconds the tick took, and the status after it. ``metrics`` for people. ``digest``: of all of
    it, set when it is made, so that a record that was changed later is found out.
    """

    before: Rollout
    after: Status
    seen: Observation = Observation()
    seconds: float = 0.0
    force: bool = False
    metrics: tuple[MetricView, ...] = ()
    digest: str = ""

    def __post_init__(self) -> None:
        if not self.digest:
            msgspec.structs.force_setattr(self, "digest", sealed(self))


class Entry(msgspec.Struct, frozen=True):
    """One entry of a journal. ``kind``: started, decided or commanded; ``at`` Unix time."""

    number: int
    at: float
    kind: str
    record: Record
    who: str = ""
    command: str = ""
    why: str = ""
    key: str = ""
    formula: str = FORMULA

    def view(self) -> JournalView:
        """As it is shown and verified."""
        after = self.record.after
        return JournalView(
            number=self.number,
            at=self.at,
            kind=self.kind,
            phase=phase(after),
            reason=reason(after),
            message=after.message,
            generation=after.generation,
            step=after.step,
            who=self.who,
            command=self.command,
            why=self.why,
            formula=self.formula,
            record=builtins(self.record),
        )


def builtins(value: object) -> dict[str, Any]:
    """As plain JSON values; keys of objects are strings."""
    found: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(value))
    return found


def sealed(record: Record) -> str:
    """The digest of a record's content, the same before and after it was stored."""
    plain = _PLAIN.decode(msgspec.json.encode(record))
    del plain["digest"]
    return sha256(msgspec.json.encode(plain, order="deterministic")).hexdigest()


def _number(literal: str) -> float:
    """A whole number is the same with and without its point: stores keep no difference."""
    value = float(literal)
    return int(value) if value.is_integer() and abs(value) < 2**53 else value


_PLAIN: msgspec.json.Decoder[dict[str, Any]] = msgspec.json.Decoder(
    dict[str, Any], float_hook=_number
)


def record_of(view: JournalView) -> Record:
    """The record of an entry that was shown. Raises `msgspec.ValidationError`."""
    return msgspec.convert(view.record, Record, strict=False)


def ordered(entries: Sequence[JournalView]) -> list[JournalView]:
    """By number."""
    return sorted(entries, key=lambda entry: entry.number)
