"""Records of made-up traffic, for tests of drift."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from hotswap.core.drift_views import ColumnDrift, DriftSettings, DriftView
from hotswap.records import dataset
from hotswap.records.drift import look

#: The beginning of a day.
START = 1_700_006_400
SETTINGS = DriftSettings(rows=2000, budget_seconds=600.0)


class Traffic:
    """A model's records below ``root``; time goes on with each `serve`."""

    def __init__(self, root: Path, seed: int = 0) -> None:
        self.root = root
        self.rng = np.random.default_rng(seed)
        self.now = float(START)
        self.served = 0

    def serve(
        self,
        rows: int,
        *,
        seconds: float = 600.0,
        version: str = "v1",
        shift: float = 0.0,
        missing: float = 0.2,
        shares: Sequence[float] = (0.7, 0.2, 0.1),
        positive: float = 0.3,
        more: Mapping[str, Any] | None = None,
        without: Sequence[str] = (),
    ) -> None:
        """Record so many requests of one row, spread over so many seconds."""
        rng = self.rng
        times = np.sort(self.now + rng.random(rows) * seconds)
        x = rng.normal(shift, 1.0, rows)
        x[rng.random(rows) < missing] = np.nan
        score = np.clip(rng.normal(positive, 0.1, rows), 0.0, 1.0)
        columns: dict[str, Any] = {
            "time": pa.array((times * 1e6).astype("int64")).cast(pa.timestamp("us", "UTC")),
            "request_id": [f"r{self.served + at}" for at in range(rows)],
            "row": pa.array([0] * rows, pa.int32()),
            "rows": pa.array([1] * rows, pa.int32()),
            "version": [version] * rows,
            "arm": pa.array([None] * rows, pa.string()),
            "outcome": ["ok"] * rows,
            "input_x": x,
            "input_kind": rng.choice(["a", "b", "c"], rows, p=shares),
            "output_predict": pa.array((rng.random(rows) < positive).astype("int64")),
            "output_predict_proba": pa.array([[1.0 - p, p] for p in score.tolist()]),
        } | dict(more or {})
        for name in without:
            del columns[name]
        dataset.write_parquet(self.root, "m", pa.table(columns))
        self.now += seconds
        self.served += rows

    def look(
        self, settings: DriftSettings = SETTINGS, stable: str | None = "v1", **more: Any
    ) -> DriftView:
        """What drift says now."""
        return look(self.root, "m", stable, settings, until=self.now, **more)

    @property
    def folder(self) -> Path:
        """Where drift keeps what it knows of the model."""
        return self.root / "drift" / "m"


def column(view: DriftView, name: str) -> ColumnDrift:
    """That column of a view."""
    return next(each for each in view.columns if each.column == name)


def names(view: DriftView) -> list[str]:
    """The columns that are alarmed."""
    return [each.column for each in view.alarmed()]
