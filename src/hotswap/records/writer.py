"""Appending lines to live segments so that nothing is lost or told twice when the writer is killed.

Each batch says up to which position of each ring it holds what was there. A writer that comes back
reads that from the segments, and leaves out what is in them already.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
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


class _Whole:
    """A file for Arrow that is written in one go, and all of it or none.

    Arrow does not look how much of a piece was taken: on a disk that is nearly full it would go on
    behind a hole.
    """

    closed = False

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._pieces: list[bytes] = []

    def write(self, data: bytes) -> int:
        self._pieces.append(data)
        return len(data)

    def put(self) -> None:
        """Write what was given. Raises `OSError`: there is no room for the rest."""
        pieces, self._pieces = self._pieces, []
        left = memoryview(b"".join(pieces))
        while left:
            left = left[self._file.write(left) :]

    def flush(self) -> None:
        """Nothing is held back for long: see `put`."""

    def close(self) -> None:
        """The file is closed by who opened it."""


class _Stream:
    """One open segment. ``size``: bytes that are whole."""

    def __init__(self, segment: Segment, columns: pa.Schema, opened: float) -> None:
        import pyarrow as pa

        self.segment = segment
        self.opened = opened
        self.file: IO[bytes] = open(segment.path, "xb", buffering=0)  # noqa: SIM115 - held open
        self._whole = _Whole(self.file)
        try:
            self.writer = pa.ipc.new_stream(self._whole, columns)
            self._whole.put()
            self.size = self.file.tell()
        except BaseException:
            self.file.close()
            segment.path.unlink(missing_ok=True)
            raise

    def write(self, batch: pa.RecordBatch, positions: Positions) -> None:
        """Raises `OSError`; what was half written is taken back."""
        try:
            self.writer.write_batch(batch, custom_metadata={_META: msgspec.json.encode(positions)})
            self._whole.put()
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
                self._whole.put()
        with contextlib.suppress(OSError):
            self.file.close()


class Writer:
    """All open segments below ``root``. Raises `OSError` where a folder cannot be made."""

    def __init__(self, root: Path, run: str, now: float) -> None:
        self.root = root
        self._run = run
        self._open: dict[tuple[str, str], _Stream] = {}
        #: files that are appended to, or are just about to be there
        self._live: set[Path] = set()
        #: when the newest label that is in a segment came, µs
        self.label_us = 0
        root.mkdir(parents=True, exist_ok=True)
        self._next = self._highest(now) + 1
        #: (model, schema) -> ring -> up to where it is in segments of this run already
        self.known: dict[tuple[str, str], dict[str, int]] = {}
        for model in self.models():
            for segment in segments(root, model):
                self._recall(model, segment)

    def models(self) -> list[str]:
        """Whatever has, or had, segments; labels among them."""
        folder = self.root / "segments"
        return [*([p.name for p in folder.iterdir()] if folder.is_dir() else []), LABELS]

    def _highest(self, now: float) -> int:
        """The highest number that any segment had: numbers are never used again.

        Where none is known it is made of the time: what an earlier server without this folder
        left elsewhere must not be written over.
        """
        try:
            highest = int((self.root / _NEXT).read_text())
        except (OSError, ValueError):
            highest = int(now * 100)
        place = Location(self.root)
        for model in self.models():
            highest = max([highest, *(each.number for each in segments(self.root, model))])
        for model in (*place.models(), LABELS):
            highest = max([highest, *(part.last for part in place.parts(model))])
        return highest

    def _recall(self, model: str, segment: Segment) -> None:
        import pyarrow as pa

        # Until its end, or to where it is damaged: however Arrow says so.
        with contextlib.suppress(Exception), pa.OSFile(str(segment.path)) as source:
            reader = pa.ipc.open_stream(source)
            while True:
                batch, said = reader.read_next_batch_with_custom_metadata()
                if model == LABELS and batch.num_rows:
                    self.label_us = max(self.label_us, batch["received"][-1].value)
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
            self._end(key, whole=False)
            raise

    def _end(self, key: tuple[str, str], whole: bool = True) -> None:
        stream = self._open.pop(key)
        stream.close(whole)
        if not stream.size:  # there was no room for its first lines
            with contextlib.suppress(OSError):
                stream.segment.path.unlink()
        self._live.discard(stream.segment.path)

    def _begin(self, model: str, fingerprint: str, columns: pa.Schema, now: float) -> _Stream:
        folder = segment_folder(self.root, model)
        folder.mkdir(parents=True, exist_ok=True)
        number = self._next
        hidden = self.root / f".{_NEXT}"
        hidden.write_text(str(number))
        hidden.replace(self.root / _NEXT)
        self._next += 1
        path = folder / segment_name(number, fingerprint)
        self._live.add(path)
        try:
            return _Stream(Segment(path, number, fingerprint), columns, now)
        except BaseException:
            self._live.discard(path)
            raise

    def rotate(self, now: float, everything: bool = False) -> None:
        """Close segments that are old or large; ``everything``: all."""
        for key, stream in list(self._open.items()):
            # Clocks are set back, too.
            if everything or abs(now - stream.opened) >= AGE or stream.size >= LARGE:
                self._end(key)

    def closed(self, model: str) -> list[Segment]:
        """A model's segments that nothing is appended to any more. For other threads too."""
        listed = segments(self.root, model)
        return [each for each in listed if each.path not in self._live]

    def close(self) -> None:
        """Close all."""
        self.rotate(0.0, everything=True)


__all__ = ["AGE", "LARGE", "Positions", "Writer"]
