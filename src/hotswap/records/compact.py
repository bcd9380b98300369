"""From live segments to Parquet by day, from many small files to few, and what is too old away."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Final

from hotswap.records import schema
from hotswap.records.files import (
    LABELS,
    Location,
    Part,
    Segment,
    day_of,
    days_folder,
    part_name,
    segments,
)
from hotswap.records.gone import note_gone
from hotswap.records.segments import read_segment

if TYPE_CHECKING:
    import pyarrow as pa

#: So many compacted files of a day may lie beside one another before they are merged.
FEW: Final = 16
#: Files of this many bytes are left as they are.
LARGE: Final = 256 * 1024 * 1024
#: What could not be read of a segment is kept aside under this name.
DAMAGED: Final = ".damaged"
_PART: Final = ".part"
_ROWS: Final = 64 * 1024
#: A dictionary pays where a column has few values; one that grows is given up early, which takes
#: about half the time of Arrow's own limit (1 MiB), and makes smaller files where values differ.
_HOW: Final[dict[str, Any]] = {
    "compression": "zstd",
    "dictionary_pagesize_limit": 64 * 1024,
    "write_page_checksum": True,
}


def when_of(model: str) -> str:
    """The column by which a day is told."""
    return "received" if model == LABELS else "time"


def by_day(table: pa.Table, when: str) -> Iterator[tuple[str, pa.Table]]:
    """(UTC day, its rows), in order."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not table.num_rows:
        return
    ends = pc.min_max(table[when].cast(pa.int64()))
    first, last = (day_of(ends[at].as_py() / 1e6) for at in ("min", "max"))
    if first == last:  # nearly always: to look at each row's day costs more than all the rest
        yield first, table
        return
    days = pc.strftime(table[when], "%Y-%m-%d")
    for day in sorted(days.unique().to_pylist()):
        yield day, table.filter(pc.equal(days, day))


def write_part(
    place: Location, model: str, day: str, first: int, last: int, table: pa.Table
) -> str:
    """One compacted file, whole or not at all; its path."""
    from pyarrow import parquet

    folder = place.path(f"{days_folder(model)}/day={day}")
    name = part_name(first, last, schema.fingerprint(table.schema))
    with _hidden(place, folder, name) as sink:
        # As it came: nearly in order of time, which is all that looking for a time needs.
        parquet.write_table(table, sink, row_group_size=_ROWS, **_HOW)
    return f"{folder}/{name}"


@contextlib.contextmanager
def _hidden(place: Location, folder: str, name: str) -> Iterator[Any]:
    """A file that has its name only once it is whole, and on the disk."""
    hidden = f"{folder}/.{name}{_PART}"
    place.fs.makedirs(folder, exist_ok=True)
    try:
        with place.fs.open(hidden, "wb") as sink:
            yield sink
            if not place.remote:
                sink.flush()
                os.fsync(sink.fileno())
        place.fs.mv(hidden, f"{folder}/{name}")
    except BaseException:
        with contextlib.suppress(OSError):
            place.fs.rm(hidden)
        raise


def compact(place: Location, model: str, segment: Segment) -> str:
    """One closed segment to Parquet, by day; then the segment goes. What is damaged is said, and
    kept aside as ``*.damaged``.

    Raises `OSError` if it cannot be written: the segment is then still there.
    """
    import pyarrow as pa

    read = read_segment(segment.path)
    problem = read.problem
    if read.batches:
        try:
            table = pa.Table.from_batches(read.batches)
            for day, rows in by_day(table, when_of(model)):
                write_part(place, model, day, segment.number, segment.number, rows)
        except pa.ArrowException as error:
            problem = f"{segment.path.name} cannot be compacted ({error})"
    if problem or read.cut:
        segment.path.rename(segment.path.with_suffix(DAMAGED))
    else:
        segment.path.unlink(missing_ok=True)
    return problem


def merge(place: Location, root: Path, model: str, day: str) -> int:
    """Many small compacted files of one day and schema to one; how many went into it.

    The one is there before the others go; until then its name says that it holds them.
    """
    tidy(place, model, day)
    by_schema: dict[str, list[Part]] = {}
    for part in place.parts(model):
        if part.day == day:
            by_schema.setdefault(part.schema, []).append(part)
    live = [each.number for each in segments(root, model)]
    merged = 0
    for parts in by_schema.values():
        batch = _batch(parts, live)
        if not batch:
            continue
        _join(place, model, day, batch)
        for part in batch:
            _remove(place, part)
        merged += len(batch)
    return merged


def _batch(parts: Sequence[Part], live: Sequence[int]) -> list[Part]:
    """The first neighbours, oldest first, that are worth a merge; nothing may lie between them,
    not even a segment that is not compacted yet: the name would say that it is inside.
    """
    batch: list[Part] = []
    size = 0
    for part in parts:
        apart = bool(batch) and any(batch[-1].last < number < part.first for number in live)
        # What is large already is not read again for every few that are small.
        whole = part.size >= LARGE // 2 or size + part.size > LARGE
        if apart or whole:
            if len(batch) >= FEW:
                return batch
            batch, size = [], 0
        if part.size < LARGE // 2:
            batch.append(part)
            size += part.size
    return batch if len(batch) >= FEW else []


def _join(place: Location, model: str, day: str, batch: Sequence[Part]) -> None:
    """One file of several, a few lines at a time. They are in order each, and follow one another."""
    import pyarrow as pa
    from pyarrow import parquet

    folder = place.path(f"{days_folder(model)}/day={day}")
    name = part_name(batch[0].first, batch[-1].last, batch[0].schema)
    with place.fs.open(batch[0].path, "rb") as source:
        columns = parquet.read_schema(source)
    with (
        _hidden(place, folder, name) as sink,
        parquet.ParquetWriter(sink, columns, **_HOW) as writer,
    ):
        for part in batch:
            with place.fs.open(part.path, "rb") as source:
                for lines in parquet.ParquetFile(source).iter_batches(_ROWS):
                    alike = pa.RecordBatch.from_arrays(lines.columns, schema=columns)
                    writer.write_batch(alike, _ROWS)


def tidy(place: Location, model: str, day: str) -> None:
    """Remove what who was stopped in the middle has left of a day: files that lie within another,
    and half-written ones.
    """
    counted = {part.path for part in place.parts(model)}
    for part in list(place.all(model)):
        if part.day == day and part.path not in counted:
            _remove(place, part)
    for path in place.fs.ls(place.path(f"{days_folder(model)}/day={day}"), detail=False):
        name = PurePosixPath(path).name
        if name.startswith(".") and name.endswith(_PART):
            place.fs.rm(path)


def retire(
    place: Location, root: Path, models: Sequence[str], oldest_day: str, most_bytes: int
) -> list[str]:
    """Remove compacted files of days before ``oldest_day``, then the oldest until all together are
    at most ``most_bytes``; live segments count too, and are never removed here. The paths that went.
    """
    gone: list[str] = []
    kept: list[tuple[Part, str]] = []
    total = 0
    for model in models:
        total += sum(_size(each.path) for each in segments(root, model))
        for part in place.all(model):
            if part.day < oldest_day:
                _remove(place, part)
                gone.append(part.path)
            else:
                kept.append((part, model))
                total += part.size
    # Of files of one day those within another go first, or they would count again without it.
    kept.sort(key=lambda each: (each[0].day, each[0].last, -each[0].first))
    for part, model in kept:
        if total <= most_bytes:
            break
        if model != LABELS:
            note_gone(place, root, model, part)
        _remove(place, part)
        gone.append(part.path)
        total -= part.size
    return gone


def retire_segments(
    root: Path, closed: Sequence[tuple[str, Segment]], oldest: float, most_bytes: int
) -> int:
    """Remove what cannot be compacted, oldest first, while it takes more than ``most_bytes``, and
    what was put aside as damaged before ``oldest`` (Unix time); how many files went.
    """
    gone = 0
    total = sum(_size(segment.path) for _, segment in closed)
    for _, segment in sorted(closed, key=lambda each: each[1].number):
        if total <= most_bytes:
            break
        total -= _size(segment.path)
        segment.path.unlink(missing_ok=True)
        gone += 1
    for path in root.rglob(f"*{DAMAGED}"):
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_mtime < oldest:
                path.unlink()
                gone += 1
    return gone


def _remove(place: Location, part: Part) -> None:
    """It, and its day's folder once that is empty."""
    with contextlib.suppress(FileNotFoundError):
        place.fs.rm(part.path)
    if not place.remote:
        with contextlib.suppress(OSError):
            Path(part.path).parent.rmdir()


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


__all__ = [
    "DAMAGED", "FEW", "LARGE", "compact", "merge", "retire", "retire_segments", "tidy", "when_of",
    "write_part",
]  # fmt: skip
