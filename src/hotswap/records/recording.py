"""From the workers' rings to segments, and on to compacted files: what the recorder process does.

Nothing here ever keeps a worker waiting: what cannot be written is counted and gone.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from hotswap.ipc import records as wire
from hotswap.ipc.records import Chunk, Labels
from hotswap.ipc.ring import Ring
from hotswap.records.assemble import assemble, assemble_labels, merge
from hotswap.records.compact import compact, retire, retire_segments
from hotswap.records.compact import merge as merge_days
from hotswap.records.files import LABELS, Location, Segment, day_of, models
from hotswap.records.privacy import Privacy
from hotswap.records.replay_store import expire
from hotswap.records.schema import fingerprint
from hotswap.records.writer import Writer

if TYPE_CHECKING:
    import pyarrow as pa

#: A ring whose writer has said nothing for so long (µs) has none any more.
_SILENT_US: Final = 5_000_000
_DAY: Final = 86400.0
#: What cannot be read for so long never will be.
_STUCK_SECONDS: Final = 5.0
_PROBE: Final = ".probe"
_PROBED: Final = bytes(64 * 1024)
#: After so many failures in a row the place for compacted files is left alone for this time.
_FAILURES: Final = 3


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
        self._stuck: dict[str, float] = {}
        self._told: set[str] = set()

    # --- rings to segments

    def drain(self, now: float) -> int:
        """Write what is in the rings now; how many lines. ``now`` is Unix time."""
        self._look()
        writer = self._ready(now)
        settled = self._settled(int(now * 1e6))
        taken: dict[str, list[tuple[int, Chunk]]] = {}
        labels: list[tuple[str, int, Labels]] = []
        ends: dict[str, int] = {}
        for name, ring in self._rings.items():
            before = 0
            for chunk, position in ring.chunks():
                ends[name] = position
                try:
                    message = wire.decode(chunk)
                except msgspec.DecodeError as error:
                    self._left_out("what a worker noted cannot be read", error, 1)
                    continue
                if isinstance(message, Labels):
                    message.received = before = max(before, message.received)
                    labels.append((name, position, message))
                else:
                    taken.setdefault(name, []).append((position, message))
            self._unblock(name, ring, ends, now)
        labels.sort(key=lambda each: each[2].received)  # of all workers in one order
        lines = 0
        if writer is None:
            self.counts.failed += sum(sum(c.rows) for each in taken.values() for _, c in each)
            self.counts.failed += sum(len(each.labels) for _, _, each in labels)
        else:
            lines = self._write(writer, taken, labels, ends, now)
            self._recovering = False
        if self.counts.problem and not ends:
            self._try_again()
        for name, position in ends.items():
            self._rings[name].release(position, wipe=self._privacy.partial)
        for ring in self._rings.values():
            ring.lose(bool(self.counts.problem))
        self.counts.dropped = sum(ring.dropped for ring in self._rings.values())
        self.counts.watermark = settled / 1e6
        return lines

    def pressed(self) -> bool:
        """Whether a ring fills up: it must not be waited for the next time."""
        return any(4 * ring.filled >= ring.size for ring in self._rings.values())

    def _unblock(self, name: str, ring: Ring, ends: Mapping[str, int], now: float) -> None:
        """Give up on a ring in which something lies that never becomes readable."""
        if name in ends or not ring.filled:
            self._stuck.pop(name, None)
        elif now - self._stuck.setdefault(name, now) >= _STUCK_SECONDS:
            del self._stuck[name]
            ring.skip()
            self.counts.damaged += 1
            self._said(f"the ring {name} is damaged: what was in it is lost")

    def _left_out(self, what: str, error: Exception, lines: int) -> None:
        self.counts.failed += lines
        if what not in self._told:  # each, or the log would be full of it
            self._told.add(what)
            self._said(f"{what}, and is left out: {type(error).__name__}: {error}")

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

    def _ready(self, now: float) -> Writer | None:
        if self._writer is None:
            try:
                self._writer = writer = Writer(self.root, self._run, now)
            except OSError as error:
                self._trouble(error)
            else:
                self._label_us = max(self._label_us, writer.label_us)
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
        for model, batch, rings in self._batches(writer, taken, ends):
            written += self._append(writer, model, batch, rings, now)
        for name, position, message in labels:
            lines = assemble_labels(message, self._label_us)
            if self._recovering and writer.has(LABELS, lines, name, position):
                continue
            self._label_us = max(self._label_us, message.received) + lines.num_rows
            self.counts.labels += self._append(writer, LABELS, lines, {name: position}, now)
        self.counts.lines += written
        return written

    def _batches(
        self, writer: Writer, taken: dict[str, list[tuple[int, Chunk]]], ends: Mapping[str, int]
    ) -> Iterator[tuple[str, pa.RecordBatch, Mapping[str, int]]]:
        """(model, lines, up to where in which rings those are in it).

        Of one model and schema there is one batch, or a position would speak for lines that come
        only behind it. Who comes back looks at each chunk, whether it was written.
        """
        import pyarrow as pa

        if self._recovering:
            for name, each in taken.items():
                for position, chunk in each:
                    for model, batch in self._assembled([chunk]):
                        if not writer.has(model, batch, name, position):
                            yield model, batch, {name: position}
            return
        found: dict[tuple[str, str], list[pa.RecordBatch]] = {}
        chunks = [chunk for each in taken.values() for _, chunk in each]
        for model, batch in self._assembled(chunks):
            found.setdefault((model, fingerprint(batch.schema)), []).append(batch)
        for (model, _), batches in found.items():
            yield model, batches[0] if len(batches) == 1 else pa.concat_batches(batches), ends

    def _assembled(self, chunks: list[Chunk]) -> list[tuple[str, pa.RecordBatch]]:
        """(model, lines); of many chunks together, unless one of them does not add up."""
        if len(chunks) > 1:
            with contextlib.suppress(Exception):
                return [(each.model, assemble(each, self._privacy)) for each in merge(chunks)]
        found = []
        for chunk in chunks:
            try:
                found.append((chunk.model, assemble(chunk, self._privacy)))
            except Exception as error:  # noqa: BLE001 (it must not stop all that come after it)
                what = f"something recorded of model {chunk.model!r} does not add up"
                self._left_out(what, error, sum(chunk.rows))
        return found

    def _append(
        self,
        writer: Writer,
        model: str,
        batch: pa.RecordBatch,
        rings: Mapping[str, int],
        now: float,
    ) -> int:
        try:
            writer.write(model, batch, rings, now)
        except OSError as error:
            self.counts.failed += batch.num_rows
            self._trouble(error)
            return 0
        self._no_trouble()
        return int(batch.num_rows)

    def _trouble(self, error: OSError) -> None:
        problem = f"records cannot be written: {error.strerror or error}"
        if problem != self.counts.problem:
            self.counts.problem = problem
            self._said(f"{problem}; predictions go on without them")

    def _no_trouble(self) -> None:
        if self.counts.problem:
            self.counts.problem = ""
            self._said("records are written again")

    def _try_again(self) -> None:
        """Labels are refused while nothing can be written: nothing would ever show that it can."""
        probe = self.root / _PROBE
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            probe.write_bytes(_PROBED)
            probe.unlink()
        except OSError as error:
            with contextlib.suppress(OSError):
                probe.unlink(missing_ok=True)
            self._trouble(error)
        else:
            self._no_trouble()

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
        problems: list[str] = []

        def step(work: Callable[[], object]) -> bool:
            try:
                work()
            except Exception as error:  # noqa: BLE001 (any storage library's): it is tried again
                problems.append(f"records cannot be compacted: {type(error).__name__}: {error}")
                return False
            return True

        step(lambda: self._compact_all(writer, now, step))
        # What cannot be taken elsewhere must not fill the disk.
        closed = [(model, each) for model in writer.models() for each in writer.closed(model)]
        oldest = now - self._days * _DAY
        gone = retire_segments(self.root, closed, oldest, self._most_bytes)
        self.counts.retired += gone
        problem = problems[0] if problems else ""
        if problem and problem != self.counts.compact_problem:
            self._said(problem)
        self.counts.compact_problem = problem

    def _compact_all(
        self, writer: Writer, now: float, step: Callable[[Callable[[], object]], bool]
    ) -> None:
        """Each ``step`` for itself: one file that is damaged keeps no other from its turn."""
        place = Location(self.root, self._location)
        failures = 0
        for model in writer.models():
            for segment in writer.closed(model):
                if failures < _FAILURES:
                    done = step(partial(self._compact_one, place, model, segment))
                    failures = 0 if done else failures + 1
        known = [*models(self.root, place), LABELS]
        for model in known:
            for day in sorted({part.day for part in place.all(model)}):
                step(partial(merge_days, place, self.root, model, day))
        oldest = day_of(now - self._days * _DAY)
        step(lambda: expire(self.root, oldest))
        gone = retire(place, self.root, known, oldest, self._most_bytes)
        self.counts.retired += len(gone)

    def _compact_one(self, place: Location, model: str, segment: Segment) -> None:
        damaged = compact(place, model, segment)
        if damaged:
            self.counts.damaged += 1
            of = "labels" if model == LABELS else f"model {model!r}"
            self._said(f"a segment of {of} is damaged, and kept aside: {damaged}")

    def close(self) -> None:
        """Close the segments."""
        if self._writer is not None:
            self._writer.close()


__all__ = ["Counts", "Recording"]
