"""Appending lines to live segments so that nothing is lost or told twice when the writer is killed.

Each batch says up to which position of each ring it holds what was there. A writer that comes back
reads that from the segments, and leaves out what is in them already.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final

import msgspec

from hotswap.records import schema
from hotswap.records.files import (
    LABELS,
    Location,
    Segment,
    segment_folder,
    segment_name,
    segments,
)

if TYPE_CHECKING:
    import pyarrow as pa

#: A segment is closed, and then compacted, when it is that old (seconds) or that large (bytes).
AGE: Final = 300.0
LARGE: Final = 64 * 1024 * 1024
_META: Final = b"hotswap"
_NEXT: Final = "next"


class Positions(msgspec.Struct, frozen=True):
    """Up to where each ring of a supervisor's run is in the segment."""

    run: str
    rings: dict[str, int]


class _Stream:
    """One open segment. ``size``: bytes that are whole."""

    def __init__(self, segment: Segment, columns: pa.Schema, opened: float) -> None:
        import pyarrow as pa

        self.segment = segment
        self.opened = opened
        self.file: IO[bytes] = open(segment.path, "xb", buffering=0)  # noqa: SIM115 - held open
        try:
            self.writer = pa.ipc.new_stream(self.file, columns)
            self.size = self.file.tell()
        except BaseException:
            self.file.close()
            raise

    def write(self, batch: pa.RecordBatch, positions: Positions) -> None:
        """Raises `OSError`; what was half written is taken back."""
        try:
            self.writer.write_batch(batch, custom_metadata={_META: msgspec.json.encode(positions)})
            self.size = self.file.tell()
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self.file.fileno(), self.size)
            raise

    def close(self, whole: bool = True) -> None:
        """``whole``: with the mark of a complete stream."""
        with contextlib.suppress(OSError):
            if whole:
                self.writer.close()
        with contextlib.suppress(OSError):
            self.file.close()


class Writer:
    """All open segments below ``root``. Raises `OSError` where a folder cannot be made."""

    def __init__(self, root: Path, run: str) -> None:
        self.root = root
        self._run = run
        self._open: dict[tuple[str, str], _Stream] = {}
        root.mkdir(parents=True, exist_ok=True)
        self._next = self._highest() + 1
        #: (model, schema) -> ring -> up to where it is in segments of this run already
        self.known: dict[tuple[str, str], dict[str, int]] = {}
        for model in self._models():
            for segment in segments(root, model):
                self._recall(model, segment)

    def _models(self) -> list[str]:
        folder = self.root / "segments"
        return [*([p.name for p in folder.iterdir()] if folder.is_dir() else []), LABELS]

    def _highest(self) -> int:
        """The highest number that any segment had: numbers are never used again."""
        highest = 0
        with contextlib.suppress(OSError, ValueError):
            highest = int((self.root / _NEXT).read_text())
        place = Location(self.root)
        for model in self._models():
            highest = max([highest, *(each.number for each in segments(self.root, model))])
        for model in (*place.models(), LABELS):
            highest = max([highest, *(part.last for part in place.parts(model))])
        return highest

    def _recall(self, model: str, segment: Segment) -> None:
        import pyarrow as pa

        damaged = (pa.ArrowException, OSError, EOFError, ValueError, StopIteration)
        with contextlib.suppress(*damaged), pa.OSFile(str(segment.path)) as source:
            reader = pa.ipc.open_stream(source)
            while True:
                said = reader.read_next_batch_with_custom_metadata().custom_metadata
                if said is None or _META not in said:
                    continue
                positions = msgspec.json.decode(said[_META], type=Positions)
                if positions.run == self._run:
                    known = self.known.setdefault((model, segment.schema), {})
                    for ring, at in positions.rings.items():
                        known[ring] = max(at, known.get(ring, 0))

    def has(self, model: str, batch: pa.RecordBatch, ring: str, position: int) -> bool:
        """Whether what a ring had up to there is in a segment already."""
        known = self.known.get((model, schema.fingerprint(batch.schema)))
        return known is not None and position <= known.get(ring, -1)

    def write(
        self, model: str, batch: pa.RecordBatch, rings: Mapping[str, int], now: float
    ) -> None:
        """Append lines. Raises `OSError`: none of them was."""
        key = model, schema.fingerprint(batch.schema)
        stream = self._open.get(key)
        if stream is None:
            stream = self._open[key] = self._begin(model, key[1], batch.schema, now)
        try:
            stream.write(batch, Positions(self._run, dict(rings)))
        except OSError:
            del self._open[key]
            stream.close(whole=False)
            raise

    def _begin(self, model: str, fingerprint: str, columns: pa.Schema, now: float) -> _Stream:
        folder = segment_folder(self.root, model)
        folder.mkdir(parents=True, exist_ok=True)
        number = self._next
        (self.root / _NEXT).write_text(str(number))
        self._next += 1
        path = folder / segment_name(number, fingerprint)
        return _Stream(Segment(path, number, fingerprint), columns, now)

    def rotate(self, now: float, everything: bool = False) -> None:
        """Close segments that are old or large; ``everything``: all."""
        for key, stream in list(self._open.items()):
            if everything or now - stream.opened >= AGE or stream.size >= LARGE:
                del self._open[key]
                stream.close()

    def closed(self) -> Iterable[tuple[str, Segment]]:
        """(model, segment) of those that nothing is appended to any more."""
        live = {stream.segment.path for stream in self._open.values()}
        for model in self._models():
            for segment in segments(self.root, model):
                if segment.path not in live:
                    yield model, segment

    def close(self) -> None:
        """Close all."""
        self.rotate(0.0, everything=True)


__all__ = ["AGE", "LARGE", "Positions", "Writer"]
