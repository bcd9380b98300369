"""Records and labels written for tests of reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from hotswap.core.quality_views import Quality
from hotswap.records import dataset, quality, schema
from hotswap.records.files import LABELS

START = 1_700_000_000
LISTS = pa.list_(pa.float64())


def records(
    root: Path,
    outputs: Mapping[str, Any],
    other: Mapping[str, Any] | None = None,
    *,
    inputs: Mapping[str, Any] | None = None,
    model: str = "m",
    rows: int = 1,
    first: int = 0,
    **more: Any,
) -> list[str]:
    """One line a value: of v1, and of v2 too if ``other`` is given (None where it gave nothing).

    ``rows`` of every request; ``more``: columns as they should be. The lines' request ids.
    """
    many = len(next(iter(outputs.values())))
    ids = [f"r{first + at // rows}" for at in range(many)]
    columns: dict[str, Any] = {
        "time": [(START + first + at // rows) * 1_000_000 for at in range(many)],
        "request_id": ids,
        "row": [at % rows for at in range(many)],
        "rows": [rows] * many,
        "version": ["v1"] * many,
        "outcome": ["ok"] * many,
        "latency_us": [1000 + at % 100 for at in range(many)],
    }
    if other is not None:
        said = next(iter(other.values()))
        columns["other_version"] = ["v2"] * many
        columns["other_outcome"] = ["error" if each is None else "ok" for each in said]
        columns["other_latency_us"] = [2000 + at % 100 for at in range(many)]
        columns |= {"test": ["t.1"] * many, "stage": [0] * many, "arm": ["baseline"] * many}
    columns |= more
    made = {}
    for field in schema.fixed():
        given = columns.get(field.name)
        made[field.name] = (
            pa.nulls(many, field.type) if given is None else pa.array(given, field.type)
        )
    made |= {f"input_{name}": pa.array(each) for name, each in (inputs or {}).items()}
    made |= {f"output_{name}": _column(each) for name, each in outputs.items()}
    made |= {f"other_output_{name}": _column(each) for name, each in (other or {}).items()}
    dataset.write_parquet(root, model, pa.table(made))
    return ids


def _column(values: Any) -> pa.Array:
    if isinstance(values, np.ndarray) and values.ndim == 2:
        return pa.array(values.tolist(), LISTS)
    listed = list(values)
    if any(isinstance(each, (list, np.ndarray)) for each in listed):
        return pa.array([None if each is None else list(each) for each in listed], LISTS)
    return pa.array(listed)


def label(
    root: Path, ids: Sequence[str], values: Sequence[Any], rows: Sequence[int] | None = None
) -> None:
    """The truth, an hour after START."""
    texts = [each if isinstance(each, str) else None for each in values]
    numbers = [None if isinstance(each, str) else float(each) for each in values]
    table = pa.table(
        {
            "request_id": pa.array(list(ids), pa.string()),
            "row": pa.array(list(rows) if rows is not None else [0] * len(ids), pa.int32()),
            "label": pa.array(numbers, pa.float64()),
            "label_text": pa.array(texts, pa.string()),
            "reward": pa.nulls(len(ids), pa.float64()),
            "received": pa.array(
                [(START + 3600) * 1_000_000 + at for at in range(len(ids))],
                pa.timestamp("us", "UTC"),
            ),
        }
    )
    dataset.write_parquet(root, LABELS, table)


def judge(root: Path, **asked: Any) -> Quality:
    """The report of what was written."""
    given: dict[str, Any] = {"stable": "v1"}
    with dataset.open(root, "m") as opened:
        return quality.measure(opened, "m", **(given | asked))
