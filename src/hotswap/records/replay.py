"""A version over recorded inputs: what it would have answered, beside what was answered."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from hotswap.core.datatypes import datatype_of
from hotswap.core.signature import Signature
from hotswap.errors import BadInput, InvalidOutput, NotFound
from hotswap.ipc.frames import Layout
from hotswap.records import replay_inputs, schema
from hotswap.records.assemble import column as column_of
from hotswap.records.dataset import Opened, named, quoted
from hotswap.records.replay_inputs import Array
from hotswap.records.replay_values import Done, Kept, Planned

if TYPE_CHECKING:
    import pyarrow as pa

#: Most rows of one call; a version's own limit may be lower.
BATCH: Final = 1024
#: So many rows are written at once.
WRITTEN: Final = 50_000
_READ: Final = 16 * 1024
_PROBLEMS: Final = 5
_LARGEST: Final = (1 << 31) - 1
#: What a record says of how it was divided is not so of its replay.
_NOT_SO: Final = ("arm", "probability", "test", "stage", "fallback", "key_hash")
_OTHERS: Final = ("other_version", "other_outcome", "other_latency_us")

Predict = Callable[[dict[str, Array], int], Mapping[str, Array]]
"""Called with the inputs by name and the number of rows; gives the outputs by name."""


def plan(
    opened: Opened,
    model: str,
    signature: Signature,
    *,
    max_rows: int,
    by: str | None = None,
    kept: Kept | None = None,
) -> Planned:
    """What to run: the newest ``max_rows`` rows, whole requests, that have all inputs.

    Raises `NotFound` if nothing is recorded, `Conflict` if not all inputs are, `BadInput` if ``by``
    is none of them.
    """
    total = _count(opened, "true")
    if not total:
        raise NotFound(f"nothing of model {model!r} is recorded in that time")
    kept = kept or Kept()
    if by is not None and by in (*kept.redacted, *kept.hashed):
        raise BadInput(f"input {by!r} is not shown: it is redacted, or recorded as a hash")
    if by is not None and schema.INPUT + by not in opened.columns:
        names = [n.removeprefix(schema.INPUT) for n in opened.columns if n.startswith(schema.INPUT)]
        raise BadInput(f"no input {by!r} is recorded; there are: {', '.join(names[:30]) or 'none'}")
    found = replay_inputs.sources(model, signature, opened.columns, kept)
    whole = replay_inputs.complete(found, opened.columns)
    where = f"({whole}){_newest(opened, whole, max_rows)}"
    answered = {
        row[0]: (row[1], row[2])
        for row in opened.sql.execute(
            'SELECT version, count(*), count(*) FILTER ("row" = 0) FROM records '
            f"WHERE {where} GROUP BY 1 ORDER BY 2 DESC, 1"
        ).fetchall()
    }
    left_out = _count(opened, f"NOT coalesce({whole}, false)")
    if not answered and left_out < total:
        raise BadInput(
            f"the newest request of model {model!r} has more than {max_rows:,} rows: allow more"
        )
    if not answered:
        raise NotFound(
            f"of model {model!r} {total:,} rows are recorded in that time, and of none all inputs"
        )
    return Planned(
        found, where,
        sum(rows for rows, _ in answered.values()),
        sum(requests for _, requests in answered.values()),
        left_out,
        {version: rows for version, (rows, _) in answered.items()},
    )  # fmt: skip


def _count(opened: Opened, where: str) -> int:
    # Fetched to the end: a result that is not finished keeps the connection.
    found = opened.sql.execute(f"SELECT count(*) FROM records WHERE {where}").fetchall()
    return int(found[0][0])


def _newest(opened: Opened, whole: str, max_rows: int) -> str:
    """SQL: and after the first request that is too many; all lines of a request have one time."""
    found = opened.sql.execute(
        f"SELECT epoch_us(time), request_id FROM records WHERE {whole} "
        f"ORDER BY time DESC, request_id DESC LIMIT 1 OFFSET {max_rows}"
    ).fetchall()
    if not found:
        return ""
    at, name = int(found[0][0]), quoted(found[0][1])
    return f" AND (epoch_us(time) > {at} OR (epoch_us(time) = {at} AND request_id > {name}))"


def asked(version: str, answered: str) -> str:
    """What the replayed version is called beside the one that answered: not like itself.

    >>> asked("v2", "v1"), asked("v1", "v1")
    ('v2', 'v1 (replayed)')
    """
    return f"{version} (replayed)" if version == answered else version


def take(opened: Opened, planned: Planned, path: Path, hidden: Sequence[str] = ()) -> None:
    """Write what is to be run to a file, oldest rows first, without inputs that are ``hidden``."""
    from pyarrow import parquet

    never = {schema.INPUT + name for name in hidden}
    columns = [name for name in opened.columns if _is_kept(name) and name not in never]
    reader: Any = opened.sql.sql(
        f"SELECT {', '.join(named(name) for name in columns)} FROM records "
        f'WHERE {planned.where} ORDER BY time, request_id, "row"'
    ).to_arrow_reader(_READ)
    with parquet.ParquetWriter(path, reader.schema, compression="zstd") as writer:
        for batch in reader:
            writer.write_batch(batch)


def taken(path: Path, batch_rows: int = BATCH) -> Iterator[pa.RecordBatch]:
    """What `take` wrote, in batches."""
    from pyarrow import parquet

    with parquet.ParquetFile(path) as file:
        yield from file.iter_batches(max(1, min(batch_rows, BATCH)))


def run(
    batches: Iterable[pa.RecordBatch],
    planned: Planned,
    version: str,
    predict: Predict,
    write: Callable[[pa.Table], object],
    *,
    finite: bool = False,
    describe: Callable[[BaseException], str] = str,
    progress: Callable[[int, int], object] = lambda *_: None,
) -> Done:
    """Ask the version batch by batch, and ``write`` records in which it is the other version.

    ``finite``: NaN and infinity are no answer. ``describe``: an exception for people. ``progress``
    is called with (rows done, rows in all), often.
    """
    asking = _Asking(predict, finite, describe)
    pending = _Pending(write)
    done = 0
    for batch in batches:
        for lines in replay_inputs.alike(planned.sources, batch):
            inputs = replay_inputs.rebuilt(planned.sources, lines)
            alive = partial(_alive, progress, done, planned.rows)
            pending.add(_lines(lines, version, asking.ask(inputs, lines.num_rows, alive)))
            done += lines.num_rows
            progress(done, planned.rows)
    pending.flush()
    said = tuple(
        f"{text} ({many:,} row{'s' * (many != 1)})" for text, many in asking.problems.items()
    )
    return Done(asking.errors, asking.seconds, said)


def _alive(progress: Callable[[int, int], object], before: int, rows: int, more: int) -> None:
    progress(before + more, rows)


def _is_kept(name: str) -> bool:
    return not name.startswith(schema.OTHER) and name not in _NOT_SO and name not in _OTHERS


class _Answers(NamedTuple):
    """``outputs``: of the rows that are ``ok``, one after another."""

    outcomes: list[str]
    latencies_us: Array
    outputs: Mapping[str, Array]


class _Asking:
    """The version, whose failures are counted."""

    def __init__(
        self, predict: Predict, finite: bool, describe: Callable[[BaseException], str]
    ) -> None:
        self.errors = 0
        self.seconds = 0.0
        self.problems: dict[str, int] = {}
        self._predict = predict
        self._finite = finite
        self._describe = describe

    def ask(self, inputs: dict[str, Array], rows: int, alive: Callable[[int], object]) -> _Answers:
        """A batch; if it raises, row by row."""
        try:
            outputs, seconds = self._once(inputs, rows)
        except (Exception, SystemExit) as problem:  # noqa: BLE001 - a model may raise anything
            return self._singly(inputs, rows, problem, alive)
        each = min(_LARGEST, round(seconds / rows * 1e6))
        return _Answers(["ok"] * rows, np.full(rows, each, np.int32), outputs)

    def _once(self, inputs: dict[str, Array], rows: int) -> tuple[dict[str, Array], float]:
        began = time.perf_counter()
        try:
            given = self._predict(inputs, rows)
        finally:
            seconds = time.perf_counter() - began
            self.seconds += seconds
        return _checked(given, rows, self._finite), seconds

    def _singly(
        self,
        inputs: dict[str, Array],
        rows: int,
        problem: BaseException,
        alive: Callable[[int], object],
    ) -> _Answers:
        outcomes: list[str] = []
        latencies = np.zeros(rows, np.int32)
        found: list[dict[str, Array]] = []
        for at in range(rows):
            began = time.perf_counter()
            try:
                if rows == 1:
                    raise problem
                one = {name: array[at : at + 1] for name, array in inputs.items()}
                outputs, _ = self._once(one, 1)
                _check_like(outputs, found)
            except (Exception, SystemExit) as alone:  # noqa: BLE001
                outcomes.append("invalid" if isinstance(alone, InvalidOutput) else "error")
                self._count(alone)
            else:
                outcomes.append("ok")
                found.append(outputs)
            latencies[at] = min(_LARGEST, round((time.perf_counter() - began) * 1e6))
            alive(at + 1)
        names: Mapping[str, Array] = found[0] if found else {}
        joined = {name: np.concatenate([each[name] for each in found]) for name in names}
        return _Answers(outcomes, latencies, joined)

    def _count(self, problem: BaseException) -> None:
        self.errors += 1
        text = self._describe(problem)
        if text in self.problems or len(self.problems) < _PROBLEMS:
            self.problems[text] = self.problems.get(text, 0) + 1


def _checked(given: Mapping[str, Array], rows: int, finite: bool) -> dict[str, Array]:
    """Raises `InvalidOutput` for what a server would not answer with."""
    outputs = {name: np.asarray(array) for name, array in given.items()}
    if not outputs:
        raise InvalidOutput("it gave no output")
    for name, array in outputs.items():
        if array.ndim == 0 or array.shape[0] != rows:
            got = "no rows" if array.ndim == 0 else f"{array.shape[0]} rows"
            raise InvalidOutput(f"output {name!r} has {got} for {rows} rows of input")
        if finite and array.dtype.kind == "f" and not np.isfinite(array).all():
            raise InvalidOutput(f"output {name!r} is not finite")
    return outputs


def _check_like(outputs: Mapping[str, Array], found: Sequence[Mapping[str, Array]]) -> None:
    if found and {n: a.shape for n, a in outputs.items()} != {
        n: a.shape for n, a in found[0].items()
    }:
        raise InvalidOutput("its outputs have another shape than those of other rows")


def _lines(lines: pa.RecordBatch, version: str, answers: _Answers) -> pa.Table:
    """The records with the version's side."""
    import pyarrow as pa

    rows = lines.num_rows
    answered = lines.column("version").to_pylist()
    columns: dict[str, Any] = {}
    for field in schema.fixed():
        there = field.name in lines.schema.names
        columns[field.name] = (
            lines.column(field.name).cast(field.type) if there else pa.nulls(rows, field.type)
        )
    kind = schema.fixed().field
    columns["other_version"] = pa.array([asked(version, each) for each in answered], pa.string())
    columns["other_outcome"] = pa.array(answers.outcomes, pa.string())
    columns["other_latency_us"] = pa.array(answers.latencies_us, kind("other_latency_us").type)
    ok = np.array([each == "ok" for each in answers.outcomes], dtype=bool)
    place = pa.array(np.cumsum(ok) - 1, pa.int64(), mask=~ok)
    for name, column in zip(lines.schema.names, lines.columns, strict=True):
        columns.setdefault(name, column)
    for name, array in answers.outputs.items():
        layout = Layout(name, datatype_of(array.dtype), tuple(array.shape[1:]))
        columns[schema.OTHER + name] = column_of(array, layout).take(place)
    for name, column in zip(lines.schema.names, lines.columns, strict=True):
        if name.startswith(schema.OUTPUT):  # there, too, where no row was answered
            other = schema.OTHER + name.removeprefix(schema.OUTPUT)
            columns.setdefault(other, pa.nulls(rows, _plain(column.type)))
    return pa.table(columns)


def _plain(kind: pa.DataType) -> pa.DataType:
    """A list's elements have a name, which readers choose differently."""
    import pyarrow as pa

    return pa.list_(kind.value_type) if pa.types.is_list(kind) else kind


class _Pending:
    """Lines that are written many at once; of one table a column has one type."""

    def __init__(self, write: Callable[[pa.Table], object]) -> None:
        self._write = write
        self._tables: list[pa.Table] = []
        self._types: dict[str, Any] = {}
        self._rows = 0

    def add(self, table: pa.Table) -> None:
        types = {field.name: field.type for field in table.schema}
        if any(self._types.get(name, kind) != kind for name, kind in types.items()):
            self.flush()
        self._tables.append(table)
        self._types |= types
        self._rows += table.num_rows
        if self._rows >= WRITTEN:
            self.flush()

    def flush(self) -> None:
        import pyarrow as pa

        if self._tables:
            self._write(pa.concat_tables(self._tables, promote_options="default"))
        self._tables, self._types, self._rows = [], {}, 0


__all__ = ["BATCH", "Done", "Planned", "Predict", "asked", "plan", "run", "take", "taken"]
