"""From the workers' rings to segments, and on to compacted files: what the recorder process does.

Nothing here ever keeps a worker waiting: what cannot be written is counted and gone.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from hotswap.ipc import records as wire
from hotswap.ipc.records import Chunk, Labels
from hotswap.ipc.ring import Ring
from hotswap.records.assemble import assemble, assemble_labels, merge
from hotswap.records.compact import compact, retire
from hotswap.records.compact import merge as merge_days
from hotswap.records.files import LABELS, Location, day_of, models
from hotswap.records.privacy import Privacy
from hotswap.records.writer import Writer

#: A ring whose writer has said nothing for so long (µs) has none any more.
_SILENT_US: Final = 5_000_000
_DAY: Final = 86400.0


class Counts(msgspec.Struct):
    """What became of everything, since the recorder's server began. ``watermark``: up to when (Unix
    time) all that was answered is written. ``problem``: why nothing can be written now, else "".
    ``failed``: lines that could not be written; ``dropped``: requests that found no room in a ring.
    """

    run: str = ""
    lines: int = 0
    labels: int = 0
    failed: int = 0
    dropped: int = 0
    damaged: int = 0
    retired: int = 0
    watermark: float = 0.0
    problem: str = ""
    compact_problem: str = ""


class Recording:
    """``rings``: the folder of the workers' rings. ``said`` is called with a sentence when something
    goes wrong, and when it is right again.
    """

    def __init__(
        self,
        rings: Path,
        root: Path,
        run: str,
        privacy: Privacy,
        location: str | None,
        days: float,
        most_bytes: int,
        said: Callable[[str], object],
        counts: Counts | None = None,
    ) -> None:
        self.counts = counts or Counts(run)
        self.root = root
        self._folder = rings
        self._run = run
        self._privacy = privacy
        self._location = location
        self._days = days
        self._most_bytes = most_bytes
        self._said = said
        self._rings: dict[str, Ring] = {}
        self._writer: Writer | None = None
        self._recovering = True
        self._label_us = 0

    # --- rings to segments

    def drain(self, now: float) -> int:
        """Write what is in the rings now; how many lines. ``now`` is Unix time."""
        self._look()
        writer = self._ready()
        settled = self._settled(int(now * 1e6))
        taken: dict[str, list[tuple[int, Chunk]]] = {}
        labels: list[tuple[str, int, Labels]] = []
        ends: dict[str, int] = {}
        for name, ring in self._rings.items():
            for chunk, position in ring.chunks():
                ends[name] = position
                with contextlib.suppress(msgspec.DecodeError):
                    message = wire.decode(chunk)
                    if isinstance(message, Labels):
                        labels.append((name, position, message))
                    else:
                        taken.setdefault(name, []).append((position, message))
        lines = 0
        if writer is None:
            self.counts.failed += sum(sum(c.rows) for each in taken.values() for _, c in each)
            self.counts.failed += sum(len(each.labels) for _, _, each in labels)
        else:
            lines = self._write(writer, taken, labels, ends, now)
            self._recovering = False
        for name, position in ends.items():
            self._rings[name].release(position)
        self.counts.dropped = sum(ring.dropped for ring in self._rings.values())
        self.counts.watermark = settled / 1e6
        return lines

    def _look(self) -> None:
        """Map rings that are new."""
        for path in self._folder.iterdir() if self._folder.is_dir() else ():
            if path.name not in self._rings and not path.name.startswith("."):
                with contextlib.suppress(OSError, ValueError):
                    self._rings[path.name] = Ring(path)

    def _settled(self, now_us: int) -> int:
        """Up to when every writer that lives has put in everything."""
        beats = [ring.written_at for ring in self._rings.values()]
        return min([now_us, *(at for at in beats if now_us - at < _SILENT_US)])

    def _ready(self) -> Writer | None:
        if self._writer is None:
            try:
                self._writer = Writer(self.root, self._run)
            except OSError as error:
                self._trouble(error)
        return self._writer

    def _write(
        self,
        writer: Writer,
        taken: dict[str, list[tuple[int, Chunk]]],
        labels: list[tuple[str, int, Labels]],
        ends: dict[str, int],
        now: float,
    ) -> int:
        written = 0
        if self._recovering:
            jobs = [
                (chunk, {name: position})
                for name, each in taken.items()
                for position, chunk in each
            ]
        else:
            chunks = [chunk for each in taken.values() for _, chunk in each]
            jobs = [(chunk, ends) for chunk in merge(chunks)]
        for chunk, rings in jobs:
            try:
                batch = assemble(chunk, self._privacy)
            except (ValueError, KeyError, IndexError) as error:
                self.counts.failed += sum(chunk.rows)
                self._said(
                    f"records of model {chunk.model!r} do not add up and are left out: {error}"
                )
                continue
            ((ring, position),) = rings.items() if self._recovering else (("", 0),)
            if self._recovering and writer.has(chunk.model, batch, ring, position):
                continue
            written += self._append(writer, chunk.model, batch, rings, now)
        for name, position, message in labels:
            batch = assemble_labels(message, self._label_us)
            if self._recovering and writer.has(LABELS, batch, name, position):
                continue
            self._label_us = max(self._label_us, message.received) + batch.num_rows
            self.counts.labels += self._append(writer, LABELS, batch, {name: position}, now)
        self.counts.lines += written
        return written

    def _append(self, writer, model, batch, rings, now) -> int:  # type: ignore[no-untyped-def]
        try:
            writer.write(model, batch, rings, now)
        except OSError as error:
            self.counts.failed += batch.num_rows
            self._trouble(error)
            return 0
        if self.counts.problem:
            self.counts.problem = ""
            self._said("records are written again")
        return int(batch.num_rows)

    def _trouble(self, error: OSError) -> None:
        problem = f"records cannot be written: {error.strerror or error}"
        if problem != self.counts.problem:
            self.counts.problem = problem
            self._said(f"{problem}; predictions go on without them")

    # --- segments to compacted files

    def rotate(self, now: float, everything: bool = False) -> None:
        """Close segments that are due."""
        if self._writer is not None:
            self._writer.rotate(now, everything)

    def compact(self, now: float) -> None:
        """Compact what is closed, merge small files, and let go of what is too old or too much.

        Takes time, and touches nothing that `drain` does.
        """
        writer = self._writer
        if writer is None:
            return
        try:
            place = Location(self.root, self._location)
            for model, segment in list(writer.closed()):
                damaged = compact(place, model, segment)
                if damaged:
                    self.counts.damaged += 1
                    self._said(f"a segment of {model} is damaged and kept aside: {damaged}")
            known = [*models(self.root, place), LABELS]
            for model in known:
                for day in {part.day for part in place.parts(model)}:
                    merge_days(place, model, day)
            oldest = day_of(now - self._days * _DAY)
            gone = retire(place, self.root, known, oldest, self._most_bytes)
            self.counts.retired += len(gone)
        except Exception as error:  # noqa: BLE001 (any storage library's): it is tried again
            problem = f"records cannot be compacted: {type(error).__name__}: {error}"
            if problem != self.counts.compact_problem:
                self._said(problem)
            self.counts.compact_problem = problem
        else:
            self.counts.compact_problem = ""

    def close(self) -> None:
        """Close the segments."""
        if self._writer is not None:
            self._writer.close()


__all__ = ["Counts", "Recording"]
