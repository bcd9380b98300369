"""The columns of records and labels, the same in live segments and in compacted files.

One line is one row of one request. Columns of inputs and outputs differ by model: ``input_<name>``,
``output_<name>`` and ``other_output_<name>``. See ``docs/reference/records.md``.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final

from hotswap.core.datatypes import NUMPY_OF

if TYPE_CHECKING:
    import pyarrow as pa

INPUT: Final = "input_"
OUTPUT: Final = "output_"
OTHER: Final = "other_output_"

#: Prefixes of the columns that a model's signature brings.
DYNAMIC: Final = (INPUT, OUTPUT, OTHER)


@cache
def fixed() -> pa.Schema:
    """What every record has, whatever the model."""
    import pyarrow as pa

    return pa.schema(
        [
            pa.field("time", pa.timestamp("us", "UTC"), nullable=False),
            pa.field("request_id", pa.string(), nullable=False),
            pa.field("row", pa.int32(), nullable=False),
            pa.field("rows", pa.int32(), nullable=False),
            pa.field("version", pa.string(), nullable=False),
            pa.field("arm", pa.string()),
            pa.field("probability", pa.float32()),
            pa.field("test", pa.string()),
            pa.field("stage", pa.int32()),
            pa.field("outcome", pa.string()),
            pa.field("fallback", pa.string()),
            pa.field("latency_us", pa.int32()),
            pa.field("queue_us", pa.int32()),
            pa.field("compute_us", pa.int32()),
            pa.field("key_hash", pa.uint64()),
            pa.field("other_version", pa.string()),
            pa.field("other_outcome", pa.string()),
            pa.field("other_latency_us", pa.int32()),
        ]
    )


@cache
def labels() -> pa.Schema:
    """What every label has."""
    import pyarrow as pa

    return pa.schema(
        [
            pa.field("request_id", pa.string(), nullable=False),
            pa.field("row", pa.int32(), nullable=False),
            pa.field("label", pa.float64()),
            pa.field("label_text", pa.string()),
            pa.field("reward", pa.float64()),
            pa.field("received", pa.timestamp("us", "UTC"), nullable=False),
        ]
    )


def arrow_type(datatype: str) -> pa.DataType:
    """The column type of one element of a protocol datatype."""
    import pyarrow as pa

    if datatype == "BYTES":
        return pa.string()
    if datatype == "BOOL":
        return pa.bool_()
    return pa.from_numpy_dtype(NUMPY_OF[datatype])


def fingerprint(fields: Iterable[Any]) -> str:
    """Eight characters that tell one list of columns from another, for file names."""
    text = "|".join(f"{field.name}:{field.type}" for field in fields)
    return blake2b(text.encode(), digest_size=4).hexdigest()


__all__ = [
    "DYNAMIC", "INPUT", "OTHER", "OUTPUT", "arrow_type", "fingerprint", "fixed", "labels",
]  # fmt: skip
