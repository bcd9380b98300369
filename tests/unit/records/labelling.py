"""Records of made-up requests under a test, with labels, and what a cohort counts of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from hotswap.core.label_evidence import Labels
from hotswap.records import dataset, schema
from hotswap.records.cohorts import Cohort, count
from hotswap.records.files import LABELS

START = 1_700_000_000
KEYS = ("accuracy", "log_loss", "brier", "absolute", "absolute*1.05", "squared", "auc")


def record(number: int, **more: Any) -> dict[str, Any]:
    """One row: v1 says 1 and v2 says 0, a second after the one before."""
    row = {
        "time": (START + number) * 1_000_000,
        "request_id": f"r{number}", "row": 0, "rows": 1, "version": "v1", "arm": "baseline",
        "test": "t.1", "stage": 1, "outcome": "ok", "other_version": "v2", "other_outcome": "ok",
        "output_predict": 1, "output_predict_proba": [0.2, 0.8],
        "other_output_predict": 0, "other_output_predict_proba": [0.7, 0.3],
    }  # fmt: skip
    return row | more


def alone(number: int, candidate: bool, **more: Any) -> dict[str, Any]:
    """One row that one version alone was asked for."""
    arm, version = ("candidate", "v2") if candidate else ("baseline", "v1")
    nothing = {"other_version": None, "other_outcome": None, "other_output_predict": None,
               "other_output_predict_proba": None}  # fmt: skip
    return record(number, arm=arm, version=version, **nothing, **more)


def write(root: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Records as they are kept."""
    fixed = schema.fixed()
    dynamic = {
        "output_predict": pa.int64(), "output_predict_proba": pa.list_(pa.float64()),
        "other_output_predict": pa.int64(), "other_output_predict_proba": pa.list_(pa.float64()),
    }  # fmt: skip
    columns = {
        field.name: pa.array([row.get(field.name) for row in rows], field.type) for field in fixed
    }
    columns |= {
        name: pa.array([row.get(name) for row in rows], kind) for name, kind in dynamic.items()
    }
    dataset.write_parquet(root, "m", pa.table(columns))


def label(root: Path, *given: tuple[str, Any, float]) -> None:
    """(request, label, seconds after START at which it came)."""
    rows = [
        {"request_id": name, "row": 0, "received": int((START + at) * 1e6) + order,
         "label": value if isinstance(value, int | float) else None,
         "label_text": value if isinstance(value, str) else None}
        for order, (name, value, at) in enumerate(given)
    ]  # fmt: skip
    columns = {
        field.name: pa.array([row.get(field.name) for row in rows], field.type)
        for field in schema.labels()
    }
    dataset.write_parquet(root, LABELS, pa.table(columns))


def counted(
    root: Path,
    *stretches: tuple[float, float],
    maturity: float = 100.0,
    keys: tuple[str, ...] = KEYS,
    paired: tuple[int, ...] = (1,),
) -> Labels:
    """After these stretches (seconds after START)."""
    labels = Labels()
    for since, until in stretches:
        cohort = Cohort(
            "t.1", "v2", START + since, START + until, maturity, keys, {1: 1000}, paired
        )
        with dataset.open(root, "m") as opened:
            labels = count(opened, cohort, labels)
    return labels


def pairs(labels: Labels) -> dict[int, int]:
    """Of accuracy: 500 for worse, -500 for better, 0 for a tie."""
    return labels.differences("accuracy")
