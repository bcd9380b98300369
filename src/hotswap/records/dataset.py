"""A model's records and labels as tables to ask: compacted files and live segments together.

>>> import tempfile
>>> from pathlib import Path
>>> opened = open(Path(tempfile.mkdtemp()), "fraud")
>>> opened.sql.execute("SELECT count(*) FROM labelled").fetchone()
(0,)
>>> opened.close()
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hotswap.records import schema
from hotswap.records.compact import by_day, when_of, write_part
from hotswap.records.files import LABELS, Location, Part, Segment, segments
from hotswap.records.segments import Read, read_segment

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

MEMORY_MB: Final = 512
_TRIES: Final = 5
_AWAY: Final = " went away"


class Opened:
    """``sql``: a DuckDB connection with the views ``records``, ``labels`` and ``labelled``.

    ``columns``: name -> type of ``records``. ``skipped``: what could not be read, in sentences.
    ``labelled`` leaves out ids that several requests carry: they are ambiguous.
    """

    def __init__(self, sql: duckdb.DuckDBPyConnection, spill: str) -> None:
        self.sql = sql
        self.skipped: list[str] = []
        self.columns: dict[str, str] = {}
        self._spill = spill

    def close(self) -> None:
        """Let go of the memory and of what was spilled."""
        self.sql.close()
        shutil.rmtree(self._spill, ignore_errors=True)

    def __enter__(self) -> Opened:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open(
    root: Path,
    model: str,
    *,
    since: float | None = None,
    until: float | None = None,
    memory_mb: int = MEMORY_MB,
    location: str | None = None,
    verify: bool = False,
    labels_from: tuple[Path, str | None] | None = None,
) -> Opened:
    """Open what there is of a model between two Unix times (``until`` not included).

    ``memory_mb``: what DuckDB may hold; the rest spills to disk. ``location``: where the compacted
    files are, if not below ``root``. ``verify``: check every page of every file first, and leave
    damaged ones out: for when a query said that one is. ``labels_from``: the root and the location
    of the labels, if they are others.
    """
    import duckdb

    place = Location(root, location)
    spill = tempfile.mkdtemp(prefix="hotswap-records-")
    sql = duckdb.connect(
        config={
            "memory_limit": f"{memory_mb}MB",
            "temp_directory": spill,
            "preserve_insertion_order": False,
            "threads": 2,
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
        }
    )
    opened = Opened(sql, spill)
    try:
        sql.execute("SET TimeZone = 'UTC'")
        _reach(sql, place)
        parts, live = _there_is(root, place, model, opened, verify, since, until)
        _define(opened, "all_records", schema.fixed(), place, parts, live)
        sql.execute(
            f"CREATE VIEW records AS SELECT * FROM all_records WHERE {_between(since, until)}"
        )
        if labels_from is not None:
            root, place = labels_from[0], Location(*labels_from)
            _reach(sql, place)
        parts, live = _there_is(root, place, LABELS, opened, verify)
        _define(opened, "all_labels", schema.labels(), place, parts, live)
        sql.execute(_LABELS)
        sql.execute(_LABELLED)
        described = sql.execute("DESCRIBE records").fetchall()
        opened.columns = {row[0]: row[1] for row in described}
    except BaseException:
        opened.close()
        raise
    return opened


def _reach(sql: duckdb.DuckDBPyConnection, place: Location) -> None:
    """Let DuckDB read what lies elsewhere."""
    if place.remote:
        from hotswap.records.shared_reads import SharedReads

        sql.register_filesystem(SharedReads(place.fs))


#: The latest label of each row counts: one that is sent again with another value has changed.
_LABELS: Final = """
CREATE VIEW labels AS
SELECT request_id, "row",
  said.label AS label, said.label_text AS label_text, reward, received
FROM (
  SELECT request_id, "row",
    arg_max({'label': label, 'label_text': label_text}, received)
      FILTER (WHERE label IS NOT NULL OR label_text IS NOT NULL) AS said,
    arg_max(reward, received) AS reward,
    max(received) AS received
  FROM all_labels GROUP BY request_id, "row"
)
"""
_LABELLED: Final = """
CREATE VIEW labelled AS
SELECT r.*, l.label, l.label_text, l.reward, l.received
FROM records r JOIN labels l ON r.request_id = l.request_id AND r."row" = l."row"
QUALIFY count(*) OVER (PARTITION BY r.request_id, r."row") = 1
"""


def _between(since: float | None, until: float | None) -> str:
    tests = []
    if since is not None:
        tests.append(f"epoch_us(time) >= {int(since * 1e6)}")
    if until is not None:
        tests.append(f"epoch_us(time) < {int(until * 1e6)}")
    return " AND ".join(tests) or "true"


def _there_is(
    root: Path,
    place: Location,
    model: str,
    opened: Opened,
    verify: bool,
    since: float | None = None,
    until: float | None = None,
) -> tuple[list[Part], list[pa.Table]]:
    """Compacted files and what is in live segments. In this order nothing is missed: a segment that
    is compacted meanwhile was read before, and a file that is merged meanwhile is looked for again.
    """
    live = [(segment, read_segment(segment.path)) for segment in segments(root, model)]
    sound: list[Part] = []
    skipped: list[str] = []
    for _ in range(_TRIES):
        skipped = []
        parts = place.parts(model, since, until)
        sound = _sound(place, parts, skipped, verify)
        if not any(said.endswith(_AWAY) for said in skipped):
            break
    opened.skipped += [*skipped, *(read.problem for _, read in live if read.problem)]
    return sound, _not_in(sound, live, model)


def _not_in(
    parts: Sequence[Part], live: Sequence[tuple[Segment, Read]], model: str
) -> list[pa.Table]:
    """What is in segments alone, a table a schema. A segment is compacted day by day."""
    import pyarrow as pa
    import pyarrow.compute as pc

    tables: dict[pa.Schema, list[pa.RecordBatch]] = {}
    for segment, read in live:
        own = [p.day for p in parts if p.holds(segment.number, segment.number, segment.schema)]
        for batch in read.batches:
            kept = batch
            if own:
                days = pc.strftime(batch[when_of(model)], "%Y-%m-%d")
                kept = batch.filter(pc.invert(pc.is_in(days, pa.array(own))))
            if kept.num_rows:
                tables.setdefault(batch.schema, []).append(kept)
    return [pa.Table.from_batches(batches) for batches in tables.values()]


def _define(
    opened: Opened,
    name: str,
    columns: pa.Schema,
    place: Location,
    parts: Sequence[Part],
    live: Iterable[pa.Table],
) -> None:
    """A view over all of it; a table without rows where there is nothing."""
    sql = opened.sql
    sql.register(f"{name}_none", columns.empty_table())
    sources = [f"{name}_none"]
    by_schema: dict[str, list[str]] = {}
    for part in parts:
        by_schema.setdefault(part.schema, []).append(quoted(place.url(part.path)))
    sources += [
        f"read_parquet([{', '.join(paths)}], hive_partitioning = false)"
        for paths in by_schema.values()
    ]
    for number, table in enumerate(live):
        sql.register(f"{name}_{number}", table)
        sources.append(f"{name}_{number}")
    # One schema at a time: what types a column has in several of them is settled here.
    selects = _alike(sql, sources) if len(sources) > 2 else [f"SELECT * FROM {s}" for s in sources]
    sql.execute(f"CREATE VIEW {name} AS {' UNION ALL BY NAME '.join(selects)}")


def _alike(sql: duckdb.DuckDBPyConnection, sources: Sequence[str]) -> list[str]:
    """Selects that can be joined: a column that is a list in one source becomes one in all.

    Other types DuckDB settles itself: numbers become the wider one, a number beside a text a text.
    """
    described = []
    for source in sources:
        rows = sql.execute(f"DESCRIBE SELECT * FROM {source}").fetchall()
        described.append({row[0]: row[1] for row in rows})
    listed = {
        name.lower() for kinds in described for name, kind in kinds.items() if kind.endswith("[]")
    }
    selects = []
    for source, kinds in zip(sources, described, strict=True):
        single = [
            name for name, kind in kinds.items()
            if name.lower() in listed and not kind.endswith("[]")
        ]  # fmt: skip
        columns = ", ".join(
            f"CASE WHEN {named(name)} IS NOT NULL THEN [{named(name)}] END AS {named(name)}"
            for name in single
        )
        what = f"* REPLACE ({columns})" if single else "*"
        selects.append(f"SELECT {what} FROM {source}")
    return selects


def quoted(text: str) -> str:
    """A string as SQL has it.

    >>> quoted("it's")
    "'it''s'"
    """
    return "'" + text.replace("'", "''") + "'"


def named(name: str) -> str:
    """A column's name as SQL has it.

    >>> named("input_mean radius")
    '"input_mean radius"'
    """
    return '"' + name.replace('"', '""') + '"'


def _sound(place: Location, parts: Sequence[Part], skipped: list[str], verify: bool) -> list[Part]:
    """Those that can be read; the others are named."""
    sound = []
    for part in parts:
        problem = check_part(place, part, verify)
        if problem:
            skipped.append(problem)
        else:
            sound.append(part)
    return sound


def check_part(place: Location, part: Part, verify: bool) -> str:
    """Why a compacted file cannot be read, "" if it can. ``verify``: page by page."""
    import pyarrow as pa
    from pyarrow import parquet

    name = part.path.rpartition("/")[2]
    try:
        with place.fs.open(part.path, "rb") as source:
            file = parquet.ParquetFile(source, page_checksum_verification=verify)
            if verify:
                for batch in file.iter_batches(batch_size=65_536):
                    batch.validate()
    except FileNotFoundError:
        return f"{name}{_AWAY}"
    except (pa.ArrowException, OSError, ValueError) as error:
        return f"{name} is damaged ({' '.join(str(error).split())[:120]})"
    return ""


def write_parquet(
    root: Path, model: str, table: pa.Table, number: int | None = None, location: str | None = None
) -> str:
    """Write a table of records (or labels) as compacted files, by day; their last path.

    ``number``: of the segments that it stands for; the next free one if None.
    """
    place = Location(root, location)
    if number is None:
        taken = [part.last for part in place.parts(model)]
        number = max(taken, default=0) + 1
    path = ""
    for day, rows in by_day(table, when_of(model)):
        path = write_part(place, model, day, number, number, rows)
    return path


__all__ = [
    "MEMORY_MB", "Opened", "check_part", "named", "open", "quoted", "write_parquet",
]  # fmt: skip
