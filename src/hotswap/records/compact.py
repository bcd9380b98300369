"""From live segments to Parquet by day, from many small files to few, and what is too old away."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hotswap.records import schema
from hotswap.records.files import (
    LABELS,
    Location,
    Part,
    Segment,
    days_folder,
    part_name,
    segments,
)
from hotswap.records.segments import read_segment

if TYPE_CHECKING:
    import pyarrow as pa

#: So many compacted files of a day may lie beside one another before they are merged.
FEW: Final = 16
#: Files of this many bytes are left as they are.
LARGE: Final = 256 * 1024 * 1024
_ROWS: Final = 64 * 1024


def when_of(model: str) -> str:
    """The column by which a day is told."""
    return "received" if model == LABELS else "time"


def write_part(
    place: Location, model: str, day: str, first: int, last: int, table: pa.Table
) -> str:
    """One compacted file, whole or not at all; its path."""
    from pyarrow import parquet

    folder = place.path(f"{days_folder(model)}/day={day}")
    name = part_name(first, last, schema.fingerprint(table.schema))
    path, hidden = f"{folder}/{name}", f"{folder}/.{name}.part"
    place.fs.makedirs(folder, exist_ok=True)
    try:
        with place.fs.open(hidden, "wb") as sink:
            parquet.write_table(
                table.sort_by(when_of(model)),
                sink,
                compression="zstd",
                row_group_size=_ROWS,
                write_page_checksum=True,
            )
        place.fs.mv(hidden, path)
    except BaseException:
        with contextlib.suppress(OSError, FileNotFoundError):
            place.fs.rm(hidden)
        raise
    return path


def compact(place: Location, model: str, segment: Segment) -> str:
    """One closed segment to Parquet, by day; then the segment goes. What is damaged is said, and
    kept aside as ``*.damaged``.

    Raises `OSError` if it cannot be written: the segment is then still there.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    read = read_segment(segment.path)
    if read.batches:
        table = pa.Table.from_batches(read.batches)
        days = pc.strftime(table[when_of(model)], "%Y-%m-%d")
        for day in sorted(set(days.unique().to_pylist())):
            rows = table.filter(pc.equal(days, day))
            write_part(place, model, day, segment.number, segment.number, rows)
    if read.problem:
        segment.path.rename(segment.path.with_suffix(".damaged"))
    else:
        segment.path.unlink(missing_ok=True)
    return read.problem


def merge(place: Location, model: str, day: str) -> int:
    """Many small compacted files of one day and schema to one; how many went into it.

    The one is there before the others go; until then its name says that it holds them.
    """
    import pyarrow as pa
    from pyarrow import parquet

    merged = 0
    by_schema: dict[str, list[Part]] = {}
    for part in place.parts(model):
        if part.day == day and part.size < LARGE:
            by_schema.setdefault(part.schema, []).append(part)
    for parts in by_schema.values():
        batch, size = [], 0
        for part in parts:
            if size + part.size > LARGE:
                break
            batch.append(part)
            size += part.size
        if len(batch) < FEW or not _alone(parts, batch):
            continue
        tables: list[pa.Table] = []
        for part in batch:
            with place.fs.open(part.path, "rb") as source:
                tables.append(parquet.read_table(source))
        write_part(place, model, day, batch[0].first, batch[-1].last, pa.concat_tables(tables))
        for part in batch:
            place.fs.rm(part.path)
        merged += len(batch)
    return merged


def _alone(parts: Sequence[Part], batch: Sequence[Part]) -> bool:
    """Whether nothing else of that schema lies between the first and the last of a batch."""
    inside = {part.path for part in batch}
    low, high = batch[0].first, batch[-1].last
    return not any(part.path not in inside and low <= part.first <= high for part in parts)


def retire(
    place: Location, root: Path, models: Sequence[str], oldest_day: str, most_bytes: int
) -> list[str]:
    """Remove compacted files of days before ``oldest_day``, then the oldest until all together are
    at most ``most_bytes``; live segments count too, and are never removed here. The paths that went.
    """
    gone: list[str] = []
    kept: list[Part] = []
    total = 0
    for model in models:
        total += sum(
            each.path.stat().st_size for each in segments(root, model) if each.path.exists()
        )
        for part in place.parts(model):
            if part.day < oldest_day:
                place.fs.rm(part.path)
                gone.append(part.path)
            else:
                kept.append(part)
                total += part.size
    for part in sorted(kept, key=lambda each: (each.day, each.last)):
        if total <= most_bytes:
            break
        place.fs.rm(part.path)
        gone.append(part.path)
        total -= part.size
    return gone


__all__ = ["FEW", "LARGE", "compact", "merge", "retire", "when_of", "write_part"]
