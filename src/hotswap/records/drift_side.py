"""One side of a model's records, inputs or outputs: collect a reference, then count what comes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final, NamedTuple

import msgspec

from hotswap.records import drift_columns, drift_counts, drift_reference
from hotswap.records.dataset import Opened
from hotswap.records.drift_columns import Column
from hotswap.records.drift_counts import Choice
from hotswap.records.drift_detect import Detectors, Watch
from hotswap.records.drift_state import Frozen, Side
from hotswap.records.schema import INPUT

#: Of all columns of a model together: rows to a false alarm, at least, on average.
LEAST_ARL: Final = 1e7
_YEAR: Final = 365.0 * 86400.0


class Way(NamedTuple):
    """How one side is watched. ``version``: whose outputs, "" for inputs; ``rows`` of a reference;
    ``slice_us``: the grid of time; ``recorded``: types of what is recorded now, None if unknown;
    ``hidden``: inputs of which nothing is shown now.
    """

    name: str
    version: str
    tolerance: float
    rows: int
    columns: tuple[str, ...]
    one_row: bool
    slice_us: int
    recorded: Mapping[str, str] | None = None
    hidden: frozenset[str] = frozenset()

    def choice(self, types: Mapping[str, str]) -> Choice:
        """Which records count."""
        inputs: tuple[str, ...] = ()
        if self.name == "input":
            inputs = tuple(each for each in types if each.startswith(INPUT))
        return Choice(inputs[: drift_columns.MOST_COLUMNS], self.version, self.one_row)

    def now(self, types: Mapping[str, str]) -> dict[str, str]:
        """Types as they are recorded now, where older files have others; without what is not."""
        if self.name != "input":
            return dict(types)
        there = types if self.recorded is None else self.recorded
        return {
            name: there[name]
            for name in types
            if name in there and name.removeprefix(INPUT) not in self.hidden
        }

    def left_out(self, column: Column) -> str:
        """Why a column of the reference is not watched now, "" if it is."""
        if self.name != "input":
            return ""
        if column.source.removeprefix(INPUT) in self.hidden:
            return f"{column.name} is redacted or hashed now"
        if self.recorded is None:
            return ""
        if column.source not in self.recorded:
            return f"{column.name} is not recorded any more"
        return _other_type(column, self.recorded)

    def after(self, at: int) -> int:
        """Where the next slice begins."""
        return (at // self.slice_us + 1) * self.slice_us


class Counted(NamedTuple):
    """``fresh``: columns that were alarmed now; ``left_out``: which are not watched now, and why;
    ``said``: what else is to be known.
    """

    side: Side
    fresh: tuple[str, ...] = ()
    left_out: Mapping[str, str] = {}
    said: tuple[str, ...] = ()


def collect(side: Side, way: Way, opened: Opened, end: int) -> tuple[Side, int | None]:
    """The side with what came before ``end`` (µs), and the time of the reference's last row if
    there are rows enough now.
    """
    choice = way.choice(opened.columns)
    if way.name == "input" and not choice.inputs:
        return msgspec.structs.replace(side, counted=end), None
    # One at least: fewer may be wanted now than are there.
    missing = max(1, way.rows - side.collected)
    here = drift_counts.there(opened.sql, choice, side.counted)
    last = None
    if here >= missing:
        last = drift_counts.nth(opened.sql, choice, side.counted, missing)
    latest = drift_counts.latest(opened.sql, choice, side.counted) or side.latest
    found = msgspec.structs.replace(
        side, counted=end, collected=side.collected + here, latest=latest
    )
    return found, last


def freeze(side: Side, way: Way, opened: Opened, last: int) -> Frozen:
    """The reference: the records from ``side.since`` to ``last`` (µs)."""
    choice = way.choice(opened.columns)
    columns, skipped = drift_columns.choose(way.now(opened.columns), way.columns, way.name)
    if way.name == "input":
        skipped += drift_columns.check_wanted(way.columns, opened.columns)
    mixed = [each for each in columns if _other_type(each, opened.columns)]
    skipped += [f"{each.name} changed its type in the reference" for each in mixed]
    columns = [each for each in columns if each not in mixed]
    table = drift_counts.take_out(opened.sql, choice, columns, side.since, last + 1)
    found = []
    for column in columns:
        bins = drift_reference.freeze(opened.sql, table, column)
        if bins is None:
            skipped.append(f"{column.name} has no value that is watched in the reference")
        else:
            found.append(bins)
    ((since, rows),) = opened.sql.execute(f"SELECT min(at_us), count(*) FROM {table}").fetchall()
    drift_counts.put_away(opened.sql)
    first = int(since)
    per_second = rows / max(1.0, (last - first) / 1e6)
    # Half of the false alarms that may be for each side.
    arl = 2.0 * max(LEAST_ARL, per_second * _YEAR)
    return Frozen(
        way.name, way.version, first, last, rows, tuple(found), tuple(skipped), way.tolerance, arl,
        way.columns, way.rows, way.one_row,
    )  # fmt: skip


def retold(side: Side, frozen: Frozen, tolerance: float) -> tuple[Side, Frozen]:
    """The same reference with another tolerance; detectors begin anew, from here on."""
    changed = msgspec.structs.replace(frozen, tolerance=tolerance)
    watches = {name: Watch() for name in side.watches}
    return msgspec.structs.replace(side, frozen=changed.digest, watches=watches), changed


def begun(frozen: Frozen, way: Way) -> Side:
    """Nothing is counted yet behind a reference."""
    return Side(
        since=frozen.first, version=frozen.version, frozen=frozen.digest,
        counted=way.after(frozen.last), latest=frozen.last, collected=frozen.rows,
        watches={bins.column.name: Watch() for bins in frozen.columns},
    )  # fmt: skip


def count(side: Side, frozen: Frozen, way: Way, opened: Opened, end: int) -> Counted:
    """The side with the slices before ``end`` (µs). ``side`` itself is changed."""
    bins = []
    left_out: dict[str, str] = {}
    for each in frozen.columns:
        column = each.column
        why = way.left_out(column)
        if not why and column.source not in opened.columns:
            continue  # nothing was recorded at all
        why = why or _other_type(column, opened.columns)
        if why:
            left_out[column.name] = why
            side.watches[column.name] = Watch()  # an alarm would never end
        else:
            bins.append(each)
    detectors = [Detectors(each, frozen.tolerance, frozen.column_arl) for each in bins]
    fresh: list[str] = []
    choice = way.choice(opened.columns)._replace(one_row=frozen.one_row)
    for piece in drift_counts.slices(opened.sql, choice, bins, side.counted, end, way.slice_us):
        side.latest = piece.latest
        for detector in detectors:
            name = detector.bins.column.name
            counts = piece.counts.get(name)
            if counts is not None and detector.update(side.watches[name], counts, piece.end):
                fresh.append(name)
    side.counted = end
    return Counted(
        side, tuple(fresh), left_out, (*_changed(frozen, way), *_new(frozen, way, opened))
    )


def _other_type(column: Column, types: Mapping[str, str]) -> str:
    """That it is, "" if it is not."""
    if drift_columns.same_kind(column, types):
        return ""
    return f"{column.name} is of another type than in the reference: freeze another"


def _changed(frozen: Frozen, way: Way) -> list[str]:
    """What the settings have otherwise than the reference was frozen with."""
    then = {
        "drift_columns": (frozen.wanted, way.columns),
        "drift_reference_rows": (frozen.asked, way.rows),
        "drift_rows": (frozen.one_row, way.one_row),
    }
    return [
        f"{name} was changed after the reference was frozen, and counts for the next: freeze another"
        for name, (was, now) in then.items()
        if was != now
    ]


def _new(frozen: Frozen, way: Way, opened: Opened) -> list[str]:
    """Columns that came after the reference was frozen."""
    known = {bins.column.name for bins in frozen.columns}
    known |= {sentence.partition(" ")[0] for sentence in frozen.skipped}
    columns, _ = drift_columns.choose(way.now(opened.columns), frozen.wanted, frozen.side)
    if len(frozen.columns) >= drift_columns.MOST_COLUMNS:
        return []
    return [
        f"{each.name} is not in the reference: freeze another"
        for each in columns
        if each.name not in known
    ]


def false_alarm_rows(frozen: Mapping[str, Frozen | None]) -> float | None:
    """Rows to a false alarm of any column of both sides, at least, on average."""
    rates = [1.0 / each.arl for each in frozen.values() if each is not None]
    return 1.0 / math.fsum(rates) if rates else None


__all__ = [
    "LEAST_ARL", "Counted", "Way", "begun", "collect", "count", "false_alarm_rows", "freeze",
    "retold",
]  # fmt: skip
