"""From a worker's chunk to lines: one a row of a request, in the columns of `hotswap.records.schema`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from hotswap.ipc.frames import Layout, decode_tensor
from hotswap.ipc.records import Chunk, Context, Labels, Other
from hotswap.records import schema
from hotswap.records.privacy import Privacy

if TYPE_CHECKING:
    import pyarrow as pa

Array = np.ndarray[Any, np.dtype[Any]]

#: A tensor of more features than this stays one column of lists.
FEATURES: Final = 1024
_LARGEST: Final = (1 << 31) - 1


def merge(chunks: Sequence[Chunk]) -> list[Chunk]:
    """Chunks joined where their layouts are equal: lines are made of many at once far faster."""
    groups: dict[Any, list[Chunk]] = {}
    for chunk in chunks:
        other = chunk.other.outputs if chunk.other is not None and chunk.other.answered else None
        key = chunk.model, chunk.features, chunk.inputs, chunk.outputs, other
        groups.setdefault(key, []).append(chunk)
    return [each[0] if len(each) == 1 else _joined(each) for each in groups.values()]


def _joined(chunks: Sequence[Chunk]) -> Chunk:
    """Of equal layouts."""

    def all_of(name: str) -> list[Any]:
        return [each for chunk in chunks for each in getattr(chunk, name)]

    contexts: list[Context] = []
    known: dict[Context, int] = {}
    context: list[int] = []
    starts = []
    keyed = any(chunk.keys is not None for chunk in chunks)
    keys: list[int | None] = []
    times: list[int] = []
    for chunk in chunks:
        starts.append(len(context))
        apart = chunk.offset - chunks[0].offset
        times += [at + apart for at in chunk.times] if apart else chunk.times
        places = []
        for each in chunk.contexts:
            at = known.get(each)
            if at is None:
                at = known[each] = len(contexts)
                contexts.append(each)
            places.append(at)
        context += [places[at] for at in chunk.context]
        if keyed:
            keys += chunk.keys if chunk.keys is not None else [None] * len(chunk.ids)
    first = chunks[0]
    return Chunk(
        first.model, first.features, contexts, context, all_of("ids"), all_of("rows"),
        first.offset, times, all_of("latencies"), all_of("queues"), all_of("computes"),
        keys if keyed else None, first.inputs, _pieces([chunk.raws for chunk in chunks]),
        first.outputs, _pieces([chunk.output_raws for chunk in chunks]),
        _joined_others(chunks, starts),
    )  # fmt: skip


def _pieces(columns: Sequence[list[bytes]]) -> list[bytes]:
    return [b"".join(each) for each in zip(*columns, strict=True)]


def _joined_others(chunks: Sequence[Chunk], starts: Sequence[int]) -> Other | None:
    sides = [(at, c.other) for at, c in zip(starts, chunks, strict=True) if c.other is not None]
    if not sides:
        return None
    gave = [other for _, other in sides if other.answered]
    return Other(
        [at + start for start, other in sides for at in other.at],
        [each for _, other in sides for each in other.versions],
        [each for _, other in sides for each in other.outcomes],
        [each for _, other in sides for each in other.latencies],
        [at + start for start, other in sides for at in other.answered],
        gave[0].outputs if gave else (),
        _pieces([other.raws for other in gave]) if gave else [],
    )


def assemble(chunk: Chunk, privacy: Privacy) -> pa.RecordBatch:
    """The chunk's lines. Raises `ValueError` for a chunk that does not add up."""
    import pyarrow as pa

    counts = np.asarray(chunk.rows, dtype=np.int64)
    lines = int(counts.sum())
    single = lines == len(counts) and bool((counts == 1).all())
    of = np.arange(len(counts)) if single else np.repeat(np.arange(len(counts)), counts)
    columns: dict[str, Any] = {}
    times = (np.asarray(chunk.times, dtype=np.int64) + chunk.offset) // 1000
    columns["time"] = _spread(times, of, single)
    columns["request_id"] = _texts(chunk.ids, of, single)
    columns["row"] = np.zeros(lines, np.int32) if single else _within(counts)
    columns["rows"] = _spread(counts.astype(np.int32), of, single)
    context = np.asarray(chunk.context, dtype=np.int64)[of]
    for name in ("version", "arm", "probability", "test", "stage", "outcome", "fallback"):
        said = [getattr(each, name) for each in chunk.contexts]
        columns[name] = _taken(said, context, schema.fixed().field(name).type)
    for name, values in (
        ("latency_us", chunk.latencies), ("queue_us", chunk.queues), ("compute_us", chunk.computes),
    ):  # fmt: skip
        columns[name] = _spread(_microseconds(values), of, single)
    if chunk.keys is not None:
        columns["key_hash"] = pa.array(chunk.keys, pa.uint64()).take(of)
    fields: dict[str, pa.Field] = {}
    for name, made in _inputs(chunk, lines, privacy):
        columns[schema.INPUT + name] = made
    for layout, raw in zip(chunk.outputs, chunk.output_raws, strict=True):
        columns[schema.OUTPUT + layout.name] = column(decode_tensor(raw, layout, lines), layout)
    if chunk.other is not None:
        columns |= _other(chunk.other, counts, of, lines)
    names = [field.name for field in schema.fixed()]
    arrays = []
    for field in schema.fixed():
        given = columns.pop(field.name, None)
        arrays.append(pa.nulls(lines, field.type) if given is None else _typed(given, field.type))
        fields[field.name] = field
    for name, made in columns.items():
        names.append(name)
        arrays.append(made)
        fields[name] = pa.field(name, made.type)
    return pa.record_batch(arrays, schema=pa.schema([fields[name] for name in names]))


def assemble_labels(labels: Labels, after_us: int = 0) -> pa.RecordBatch:
    """The labels' lines. Each is a microsecond after the one before, so that which came last can be
    told; all of them after ``after_us``.
    """
    import pyarrow as pa

    first = max(labels.received, after_us + 1)
    given = labels.labels
    return pa.record_batch(
        [
            pa.array([each.request_id for each in given], pa.string()),
            pa.array([each.row for each in given], pa.int32()),
            pa.array([each.label for each in given], pa.float64()),
            pa.array([each.text for each in given], pa.string()),
            pa.array([each.reward for each in given], pa.float64()),
            pa.array(range(first, first + len(given)), pa.timestamp("us", "UTC")),
        ],
        schema=schema.labels(),
    )


def _inputs(chunk: Chunk, lines: int, privacy: Privacy) -> list[tuple[str, pa.Array]]:
    """(name, column) of the inputs that are kept."""
    found: list[tuple[str, pa.Array]] = []
    for layout, raw in zip(chunk.inputs, chunk.raws, strict=True):
        tensor = decode_tensor(raw, layout, lines)
        size = int(np.prod(layout.shape)) if layout.shape else 1
        alone = len(chunk.inputs) == 1 and len(layout.shape) == 1
        names: Sequence[str] = ()
        if alone:
            told = len(chunk.features) == size
            if chunk.features and not told and privacy.partial:
                continue  # which column is which is not known, and one may be secret
            names = chunk.features if told else [f"x{at}" for at in range(size)]
        if alone and (size <= FEATURES or privacy.tells_apart(names)):
            by_column = np.ascontiguousarray(tensor.T)
            for at, name in enumerate(names):
                single = Layout(name, layout.datatype, ())
                _keep(found, name, by_column[at], single, privacy, layout.name)
        else:
            _keep(found, layout.name, tensor, layout, privacy)
    return found


def _keep(
    found: list[tuple[str, pa.Array]],
    name: str,
    values: Array,
    layout: Layout,
    privacy: Privacy,
    tensor: str | None = None,
) -> None:
    import pyarrow as pa

    if not privacy.keeps(name, tensor):
        return
    if privacy.hides(name, tensor):
        found.append((name, pa.array(privacy.hash(values), pa.uint64())))
    else:
        found.append((name, column(values, layout)))


def column(values: Array, layout: Layout) -> pa.Array:
    """A column of single values, or of lists where a row has several."""
    import pyarrow as pa

    kind = schema.arrow_type(layout.datatype)
    size = int(np.prod(layout.shape)) if layout.shape else 1
    if layout.datatype == "BF16":
        values, kind = (values.astype(np.uint32) << 16).view(np.float32), pa.float32()
    elif layout.datatype == "FP16":
        values, kind = values.astype(np.float32), pa.float32()
    flat = np.ascontiguousarray(values).reshape(-1)
    if layout.datatype == "BYTES":
        texts = [
            each.decode("utf-8", "replace") if isinstance(each, bytes) else str(each)
            for each in flat
        ]
        made = pa.array(texts, pa.string())
    else:
        made = pa.array(flat, kind)
    if size == 1:
        return made
    offsets = pa.array(np.arange(0, len(flat) + 1, size), pa.int32())
    return pa.ListArray.from_arrays(offsets, made)


def _other(other: Other, counts: Array, of: Array, lines: int) -> dict[str, pa.Array]:
    """The other version's columns: null where there was none."""
    import pyarrow as pa

    place = np.full(len(counts), -1, dtype=np.int64)
    place[other.at] = np.arange(len(other.at))
    where = place[of]
    index = pa.array(where, mask=where < 0)
    columns = {
        "other_version": pa.array(other.versions, pa.string()).take(index),
        "other_outcome": pa.array(other.outcomes, pa.string()).take(index),
        "other_latency_us": pa.array(_microseconds(other.latencies)).take(index),
    }
    if not other.answered:
        return columns
    gave = np.zeros(len(counts), dtype=bool)
    gave[other.answered] = True
    given = gave[of]
    rows = int(given.sum())
    at = np.cumsum(given) - 1
    picked = pa.array(at, mask=~given)
    for layout, raw in zip(other.outputs, other.raws, strict=True):
        made = column(decode_tensor(raw, layout, rows), layout)
        columns[schema.OTHER + layout.name] = made.take(picked)
    return columns


def _microseconds(nanoseconds: list[int]) -> Array:
    short: Array = np.asarray(nanoseconds, dtype=np.int64) // 1000
    return np.clip(short, 0, _LARGEST).astype(np.int32)


def _spread(values: Array, of: Array, single: bool) -> Array:
    return values if single else values[of]


def _within(counts: Array) -> Array:
    """0, 1, … within each request."""
    ends = np.cumsum(counts)
    within: Array = np.arange(int(ends[-1])) - np.repeat(ends - counts, counts)
    return within.astype(np.int32)


def _texts(values: list[str], of: Array, single: bool) -> pa.Array:
    import pyarrow as pa

    made = pa.array(values, pa.string())
    return made if single else made.take(of)


def _taken(values: list[Any], at: Array, kind: pa.DataType) -> pa.Array:
    import pyarrow as pa

    return pa.array(values, kind).take(pa.array(at))


def _typed(given: Any, kind: pa.DataType) -> pa.Array:
    import pyarrow as pa

    if isinstance(given, pa.Array | pa.ChunkedArray):
        return given
    return pa.array(given, kind)


__all__ = ["FEATURES", "assemble", "assemble_labels", "column", "merge"]
