"""From recorded columns back to a model's inputs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from hotswap.core.datatypes import NUMPY_OF
from hotswap.core.signature import Signature, TensorSpec
from hotswap.errors import Conflict
from hotswap.records.dataset import named
from hotswap.records.replay_values import Kept, Source
from hotswap.records.schema import INPUT

if TYPE_CHECKING:
    import pyarrow as pa

Array = np.ndarray[Any, np.dtype[Any]]

#: What a hash is recorded as; mixed with whole numbers it becomes the wider one.
_HASHES: Final = ("UBIGINT", "HUGEINT", "UHUGEINT")
_BY_PLACE: Final = re.compile(re.escape(INPUT) + r"x(\d+)")
_NAMED: Final = 5


def sources(
    model: str, signature: Signature, columns: Mapping[str, str], kept: Kept
) -> tuple[Source, ...]:
    """Where each input is. ``columns``: name -> DuckDB's type of what is recorded.

    Raises `Conflict` naming the inputs that are not there as they were given.
    """
    if signature.unvalidated or not signature.inputs:
        raise Conflict(f"model {model!r} cannot be replayed: nothing tells what it takes")
    if not any(name.startswith(INPUT) for name in columns):
        raise Conflict(
            f"model {model!r} cannot be replayed: no inputs of it are recorded (--records-inputs, "
            "--records-input-share)"
        )
    found = tuple(_source(spec, signature, columns) for spec in signature.inputs)
    problems = [
        _why(name.removeprefix(INPUT), columns.get(name), source, kept)
        for source in found
        for name in source.columns
    ]
    said = [each for each in problems if each]
    if said:
        more = f", and {len(said) - _NAMED} more" if len(said) > _NAMED else ""
        raise Conflict(f"model {model!r} cannot be replayed: {', '.join(said[:_NAMED])}{more}")
    for source in found:
        if sum(size < 0 for size in source.spec.shape[1:]) > 1:
            raise Conflict(
                f"model {model!r} cannot be replayed: the shape of input {source.spec.name!r} is not "
                "recorded, and cannot be told from the number of its values"
            )
    return found


def _source(spec: TensorSpec, signature: Signature, columns: Mapping[str, str]) -> Source:
    whole = Source(spec, (INPUT + spec.name,))
    if len(signature.inputs) > 1 or len(spec.shape) != 2:
        return whole
    names = tuple(INPUT + name for name in signature.feature_names)
    size = spec.shape[1] if spec.shape[1] >= 0 else len(names)
    if names and len(names) == size and all(name in columns for name in names):
        return Source(spec, names, by_feature=True)
    places = [int(match[1]) for name in columns if (match := _BY_PLACE.fullmatch(name))]
    count = spec.shape[1] if spec.shape[1] >= 0 else max(places, default=-1) + 1
    by_place = tuple(f"{INPUT}x{at}" for at in range(count))
    if by_place and all(name in columns for name in by_place):
        return Source(spec, by_place, by_feature=True)
    if whole.columns[0] in columns:
        return whole
    return Source(spec, names if names and len(names) == size else by_place, by_feature=True)


def _why(name: str, kind: str | None, source: Source, kept: Kept) -> str:
    """Why an input cannot be used, "" if it can."""
    datatype = source.spec.datatype
    either = {name, source.spec.name}
    if not either.isdisjoint(kept.redacted):
        return f"input {name!r} is redacted (--records-redact)"
    if not either.isdisjoint(kept.hashed):
        return f"of input {name!r} only a hash is recorded (--records-hash)"
    if kind is None:
        if kept.columns is not None and either.isdisjoint(kept.columns):
            return f"input {name!r} is not among those that are recorded (--records-inputs)"
        return f"input {name!r} is not recorded"
    base = kind.removesuffix("[]")
    if base in _HASHES and datatype != "UINT64":
        return f"of input {name!r} a hash is recorded, at least for a part of that time"
    if (base == "VARCHAR") != (datatype == "BYTES"):
        return f"input {name!r} is recorded as {base}, and the model takes {datatype}"
    return ""


def complete(found: Sequence[Source], columns: Mapping[str, str]) -> str:
    """SQL: whether a line has all inputs."""
    tests = []
    for source in found:
        for name in source.columns:
            tests.append(f"{named(name)} IS NOT NULL")
            size = 1 if source.by_feature else source.size
            if columns[name].endswith("[]") and size is not None:
                tests.append(f"len({named(name)}) = {size}")
            elif size is not None and size != 1:
                tests.append("false")  # single values, where each row has several now
    return " AND ".join(tests)


def rebuilt(found: Sequence[Source], lines: pa.RecordBatch) -> dict[str, Array]:
    """The inputs of these lines, by name."""
    given = {}
    for source in found:
        spec, rows = source.spec, lines.num_rows
        if source.by_feature:
            joined = np.empty((rows, len(source.columns)), NUMPY_OF[spec.datatype])
            for at, name in enumerate(source.columns):
                joined[:, at] = _values(lines.column(name), spec.datatype)
            given[spec.name] = joined
        else:
            flat = _values(lines.column(source.columns[0]), spec.datatype)
            given[spec.name] = flat.reshape(rows, *spec.shape[1:])
    return given


def alike(found: Sequence[Source], lines: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """The lines in stretches that can be one batch: of equal numbers of values in every row."""
    import pyarrow as pa
    import pyarrow.compute as pc

    apart = np.zeros(max(0, lines.num_rows - 1), dtype=bool)
    for source in found:
        column = lines.column(source.columns[0])
        if source.size is None and not source.by_feature and pa.types.is_list(column.type):
            apart |= np.diff(pc.list_value_length(column).to_numpy(zero_copy_only=False)) != 0
    edges = [0, *(np.flatnonzero(apart) + 1).tolist(), lines.num_rows]
    for start, end in pairwise(edges):
        if end > start:
            yield lines.slice(start, end - start)


def _values(column: pa.Array, datatype: str) -> Array:
    """One element after another."""
    import pyarrow as pa

    if pa.types.is_list(column.type):
        column = column.flatten()
    if datatype == "BYTES":
        texts = np.empty(len(column), dtype=object)
        texts[:] = [each.encode() for each in column.to_pylist()]
        return texts
    values: Array = column.to_numpy(zero_copy_only=False)
    if datatype == "BF16":
        words: Array = (values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
        return words
    return values.astype(NUMPY_OF[datatype], copy=False)


__all__ = ["Kept", "Source", "alike", "complete", "rebuilt", "sources"]
