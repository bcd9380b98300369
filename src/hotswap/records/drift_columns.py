"""Which columns of a model's records are watched for drift, and how SQL reads each.

>>> columns, skipped = choose({"input_age": "DOUBLE", "input_user": "UBIGINT"})
>>> [column.name for column in columns], skipped
(['input_age'], ['input_user is hashed, or a 64-bit unsigned number: those are not watched'])
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from hotswap.records import schema
from hotswap.records.dataset import named
from hotswap.records.files import Location, Part, Segment, segments

if TYPE_CHECKING:
    import pyarrow as pa

#: More columns than this are not watched unless they are named: each costs at every look.
MOST_COLUMNS: Final = 512
#: Characters by which two strings are told apart.
LETTERS: Final = 128
#: Files that are looked at for what is recorded now.
_LOOK_BACK: Final = 64
_NUMBERS: Final = frozenset(
    ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "UTINYINT", "USMALLINT", "UINTEGER",
     "FLOAT", "DOUBLE")
)  # fmt: skip
_SCORE: Final = f"{schema.OUTPUT}predict_proba"


class Column(msgspec.Struct, frozen=True):
    """``name`` as it is shown; ``source``: the column of the records; ``kind``: number or category;
    ``element``: which of a list's elements it is (from 1), 0 if it is no list.
    """

    name: str
    source: str
    kind: str
    element: int = 0

    @property
    def sql(self) -> str:
        """A DOUBLE or a VARCHAR; NULL where there is no value (a number may also be NaN)."""
        source = named(self.source)
        if self.element:
            value = f"CASE WHEN len({source}) = {max(1, self.element)} THEN {source}[{self.element}] END"
            return f"TRY_CAST({value} AS DOUBLE)"
        if self.kind == "number":
            return f"TRY_CAST({source} AS DOUBLE)"
        return f"left(CAST({source} AS VARCHAR), {LETTERS})"

    @property
    def side(self) -> str:
        """input or output."""
        return "input" if self.source.startswith(schema.INPUT) else "output"


def choose(
    types: Mapping[str, str], wanted: Sequence[str] = (), side: str = "input"
) -> tuple[list[Column], list[str]]:
    """The columns of one side to watch, and sentences about those that cannot be.

    ``types``: name -> DuckDB type. ``wanted``: names, with or without their prefix; all if empty.
    """
    prefix = schema.INPUT if side == "input" else schema.OUTPUT
    columns: list[Column] = []
    skipped: list[str] = []
    for source, kind in types.items():
        if not source.startswith(prefix) or not _is_wanted(source, prefix, wanted):
            continue
        column = _column(source, kind.upper(), side)
        if isinstance(column, str):
            skipped.append(column)
        else:
            columns.append(column)
    if len(columns) > MOST_COLUMNS:
        skipped.append(
            f"{len(columns) - MOST_COLUMNS} more {side} columns are not watched: {MOST_COLUMNS} "
            "are the most; name those that matter in drift_columns"
        )
    return columns[:MOST_COLUMNS], skipped


def _is_wanted(source: str, prefix: str, wanted: Sequence[str]) -> bool:
    return not wanted or source in wanted or source.removeprefix(prefix) in wanted


def _column(source: str, kind: str, side: str) -> Column | str:
    """The column, or why it is not watched."""
    if kind == "UBIGINT":
        return f"{source} is hashed, or a 64-bit unsigned number: those are not watched"
    if kind in _NUMBERS or kind.startswith("DECIMAL"):
        return Column(source, source, "number")
    if kind in ("VARCHAR", "BOOLEAN"):
        return Column(source, source, "category")
    if kind.endswith("]"):
        inner = kind.rpartition("[")[0]
        if side == "output" and inner in _NUMBERS:
            # Of two classes the second is the positive one; other lengths count as no answer.
            if source == _SCORE:
                return Column(f"{source}[1]", source, "number", 2)
            return Column(f"{source}[0]", source, "number", 1)
        return f"{source} is a list: those are not watched"
    return f"{source} is of type {kind}: those are not watched"


def check_wanted(wanted: Sequence[str], types: Mapping[str, str]) -> list[str]:
    """Sentences about names that no column of the records has."""
    have = {name.removeprefix(p) for name in types for p in ("", schema.INPUT, schema.OUTPUT)}
    return [f"drift_columns names {name!r}, which the records do not have"
            for name in wanted if name not in have]  # fmt: skip


def same_kind(column: Column, types: Mapping[str, str]) -> bool:
    """Whether the records still have the column as it was when it was frozen."""
    kind = types.get(column.source)
    return kind is not None and _column(column.source, kind.upper(), column.side) == column


def recorded(root: Path, model: str, location: str | None = None) -> dict[str, str] | None:
    """The columns of the newest file with inputs, name -> type: what is recorded now. None if there
    is none.

    A column that is left out of the records from some day on is not one without values.
    """
    import pyarrow as pa
    from pyarrow import parquet

    place = Location(root, location)
    files: list[tuple[int, Segment | Part]] = [
        (each.number, each) for each in segments(root, model)
    ]
    files += [(part.last, part) for part in place.parts(model)]
    newest = sorted(files, key=lambda each: each[0], reverse=True)
    seen: set[str] = set()
    for _, file in newest[:_LOOK_BACK]:
        if file.schema in seen:
            continue
        seen.add(file.schema)
        try:
            if isinstance(file, Segment):
                with pa.OSFile(str(file.path)) as source:
                    found = pa.ipc.open_stream(source).schema
            else:
                with place.fs.open(file.path, "rb") as source:
                    found = parquet.read_schema(source)
        except (pa.ArrowException, OSError, ValueError):
            continue  # it is named where it is read
        if any(name.startswith(schema.INPUT) for name in found.names):
            return {field.name: _type_of(field.type) for field in found}
    return None


def _type_of(kind: pa.DataType) -> str:
    """One of DuckDB's types that is watched, or not, in the same way."""
    import pyarrow as pa

    if pa.types.is_uint64(kind):
        return "UBIGINT"
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return "DOUBLE"
    if pa.types.is_boolean(kind):
        return "BOOLEAN"
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return "VARCHAR"
    if pa.types.is_dictionary(kind):
        return _type_of(kind.value_type)
    if pa.types.is_list(kind):
        return f"{_type_of(kind.value_type)}[]"
    return str(kind).upper()


__all__ = [
    "LETTERS", "MOST_COLUMNS", "Column", "check_wanted", "choose", "recorded", "same_kind",
]  # fmt: skip
