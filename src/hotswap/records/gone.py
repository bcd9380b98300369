"""Up to when records had to go for lack of room: their labels can decide nothing any more."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Final

import msgspec

from hotswap.records.files import Location, Part

_FILE: Final = "gone.json"


def note_gone(place: Location, root: Path, model: str, part: Part) -> None:
    """A compacted file is about to be removed. One that cannot be read or noted is not."""
    from pyarrow import parquet

    with contextlib.suppress(Exception):  # whatever is wrong with it: it goes all the same
        with place.fs.open(part.path, "rb") as source:
            found = parquet.ParquetFile(source).metadata
        at = found.schema.names.index("time")
        groups = [found.row_group(number).column(at) for number in range(found.num_row_groups)]
        newest = max(group.statistics.max.timestamp() for group in groups)
        known = _read(root)
        known[model] = max(newest, known.get(model, 0.0))
        hidden = root / f".{_FILE}"
        hidden.write_bytes(msgspec.json.encode(known))
        os.replace(hidden, root / _FILE)


def gone_until(root: Path, model: str) -> float:
    """Unix time of the newest of a model's records that had to go; 0 if none had.

    >>> gone_until(Path("/nowhere"), "fraud")
    0.0
    """
    return _read(root).get(model, 0.0)


def _read(root: Path) -> dict[str, float]:
    with contextlib.suppress(OSError, msgspec.DecodeError):
        return msgspec.json.decode((root / _FILE).read_bytes(), type=dict[str, float])
    return {}


__all__ = ["gone_until", "note_gone"]
