"""What a worker notes of each answered request, for the recorder: kept briefly, never waited for.

Most requests are noted by one tuple. A `Note` is for those of which more becomes known: who was
assigned, and what the other version said. Every sixty-four, or when the worker ticks, they are put
into the ring by column.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from hashlib import blake2b
from typing import TYPE_CHECKING, Final

import numpy as np
import structlog

from hotswap.core.datatypes import OIP_OF
from hotswap.core.routing import WHOLE, Split, place
from hotswap.ipc import records
from hotswap.ipc.frames import Array, Layout, encode_bytes
from hotswap.ipc.records import Chunk, Context, Label, Labels, Other
from hotswap.ipc.ring import Ring

if TYPE_CHECKING:
    from hotswap.core.signature import Signature
    from hotswap.serving.attempt import Attempt
    from hotswap.serving.link import Outputs, Reply
    from hotswap.serving.payload import Payload

#: So many are put into the ring at once: few enough not to hold up the loop.
GROUP: Final = 64
#: Inputs of more bytes than this are not kept: one request must not push out thousands.
INPUT_BYTES: Final = 1 << 20
#: Outputs of more bytes than this, of one row, are left out.
OUTPUT_BYTES: Final = 1 << 20
_HELD_BYTES: Final = 4 << 20

log = structlog.get_logger("hotswap.notes")

_now_ns = time.monotonic_ns

#: One noted request: id, began (monotonic ns), nanoseconds, rows, layout and bytes of the inputs,
#: reply, model, context, hash of the key, other side, and the signature that it was read by: the
#: model's may be another one when it is written.
Line = tuple[
    str, int, int, int, tuple[Layout, ...], list[bytes], "Reply", str, Context, "int | None",
    "Said | None", "Signature",
]  # fmt: skip
Said = tuple[str, str, int, "Reply | None"]
"""The other version's side: version, outcome, nanoseconds, reply."""


class Note:
    """A request under a split, until all is known of it. ``waits``: for how many things yet."""

    __slots__ = (
        "_answer", "_key", "_notes", "_payload", "_request_id", "_said", "_signature", "_split",
        "waits",
    )  # fmt: skip

    def __init__(
        self,
        notes: Notes,
        request_id: str,
        payload: Payload,
        split: Split,
        key: bytes | None,
        signature: Signature,
    ) -> None:
        self._notes = notes
        self._request_id = request_id
        self._payload = payload
        self._split = split
        self._key = key
        self._signature = signature
        self._answer: tuple[int, int, Reply, str, Context] | None = None
        self._said: list[Said] = []
        self.waits = 1
        notes.waiting.add(self)

    def answered(
        self,
        began: int,
        ns: int,
        reply: Reply,
        model: str,
        arm: int,
        outcome: str,
        version: str,
        fallback: str | None,
    ) -> None:
        """The caller has an answer."""
        context = self._notes.context(self._split, arm, outcome, version, fallback)
        self._answer = (began, ns, reply, model, context)

    def said(self, attempt: Attempt, version: str) -> None:
        """What a version gave that was asked too, or instead."""
        outcome = attempt.outcome or "timeout"
        reply = attempt.reply if outcome == "ok" else None
        self._said.append((version, outcome, attempt.ns, reply))

    def done(self) -> None:
        """One of the things that it waited for has come."""
        self.waits -= 1
        if not self.waits:
            self.end()

    def end(self) -> None:
        """Nothing more is waited for."""
        self._notes.waiting.discard(self)
        answer, self._answer = self._answer, None
        if answer is None:
            return
        began, ns, reply, model, context = answer
        payload, notes = self._payload, self._notes
        notes.add(
            self._request_id, began, ns, payload.rows, payload.layout, payload.raws, reply, model,
            context, self._signature, self._key, self._other(context),
        )  # fmt: skip

    def _other(self, context: Context) -> Said | None:
        """The version that did not answer, as far as the two can be compared.

        Where the answer was given in the candidate's place it is the same version's second one. If
        its first, beside the candidate's, failed as well, both have: they are told apart by nothing.
        """
        other: Said | None = None
        for said in self._said:
            if said[0] != context.version:
                other = said
            elif said[1] != "ok" and context.fallback is not None:
                return None
        return other


class Notes:
    """All of one worker's. ``share`` of the requests are noted, ``input_share`` of those with inputs.

    ``secret``: with which keys are hashed. ``coin`` gives 64 random bits.
    """

    def __init__(
        self,
        ring: Ring,
        *,
        secret: bytes,
        wall: Callable[[], float],
        coin: Callable[[], int],
        share: float = 1.0,
        input_share: float = 1.0,
    ) -> None:
        self._ring = ring
        self._secret = secret
        self._coin = coin
        self._share = round(share * WHOLE)
        #: whether every request is noted
        self.all = self._share >= WHOLE
        self._input_share = round(input_share * WHOLE)
        self._lines: list[Line] = []
        self._held = 0
        self._contexts: dict[tuple[object, ...], Context] = {}
        #: requests of which not all is known yet
        self.waiting: set[Note] = set()
        self._wall = wall
        self._offset_ns = 0
        self.sync()

    def sync(self) -> None:
        """Look at the wall clock again."""
        self._offset_ns = int(self._wall() * 1e9) - _now_ns()

    # --- contexts

    def plain(self, version: str, pinned: bool) -> Context:
        """Of a request that nothing divided."""
        key = (version, pinned)
        found = self._contexts.get(key)
        if found is None:
            found = self._context(key, Context(version, "pinned" if pinned else None))
        return found

    def context(
        self, split: Split, arm: int, outcome: str, version: str, fallback: str | None
    ) -> Context:
        """Of one that a split assigned; ``arm`` as `hotswap.core.windows.ARMS` has them."""
        weights = (split.weight, split.twin_weight)
        key = (split.test, split.stage, weights, arm, outcome, version, fallback)
        found = self._contexts.get(key)
        if found is None:
            shares = (WHOLE - split.weight - split.twin_weight, split.twin_weight, split.weight)
            name = ("baseline", "twin", "candidate")[arm]
            made = Context(
                version, name, shares[arm] / WHOLE, split.test, split.stage, outcome, fallback
            )
            found = self._context(key, made)
        return found

    def _context(self, key: tuple[object, ...], made: Context) -> Context:
        if len(self._contexts) > 1024:
            self._contexts.clear()
        self._contexts[key] = made
        return made

    # --- records

    def wants(self) -> bool:
        """Whether the next request is one of the share that is noted."""
        return self.all or place(self._coin()) < self._share

    def add(
        self,
        request_id: str,
        began: int,
        ns: int,
        rows: int,
        layout: tuple[Layout, ...],
        raws: list[bytes],
        reply: Reply,
        model: str,
        context: Context,
        signature: Signature,
        key: bytes | None = None,
        other: Said | None = None,
    ) -> None:
        """Note an answered request."""
        size = len(raws[0]) if len(raws) == 1 else sum(map(len, raws))
        if size > INPUT_BYTES or (
            self._input_share < WHOLE and place(self._coin()) >= self._input_share
        ):
            layout, raws, size = (), [], 0
        self._held += size
        hashed = None if key is None else self.hash(key)
        lines = self._lines
        lines.append(
            (
                request_id, began, ns, rows, layout, raws, reply, model, context, hashed, other,
                signature,
            )
        )  # fmt: skip
        if len(lines) >= GROUP or self._held > _HELD_BYTES:
            self.flush()

    def hash(self, key: bytes) -> int:
        """Which key it was, without saying it."""
        digest = blake2b(key, digest_size=8, key=self._secret).digest()
        return int.from_bytes(digest, "big")

    def flush(self) -> None:
        """Put what was noted into the ring; what finds no room is counted and gone."""
        lines, self._lines = self._lines, []
        self._held = 0
        wall_us = (_now_ns() + self._offset_ns) // 1000
        if lines:
            for group in [lines] if _alike(lines) else _groups(lines):
                self._put(group)
        self._ring.settle(wall_us)

    def finish(self) -> None:
        """Flush, with those too that still wait for what another version says."""
        for note in list(self.waiting):
            note.end()
        self.flush()

    def _put(self, group: list[Line]) -> None:
        model, signature = group[0][7], group[0][11]
        try:
            encoded = records.encode(_chunk(group, signature, self._offset_ns))
            size = self._ring.size
            if len(encoded) > size // 4 and len(group) > 1:
                half = len(group) // 2
                self._put(group[:half])
                self._put(group[half:])
            elif len(encoded) > size // 2:
                self._put_without_outputs(group[0])
            else:
                self._ring.put([encoded], len(group))
        except Exception:
            # Whatever it is: the caller has an answer, and must get it.
            self._ring.drop(len(group))
            log.exception("answered requests could not be noted", model=model)

    def _put_without_outputs(self, line: Line) -> None:
        """One request that the ring has no room for otherwise."""
        chunk = _chunk([line], line[11], self._offset_ns)
        chunk.outputs, chunk.output_raws = (), []
        if chunk.other is not None:
            chunk.other.outputs, chunk.other.raws, chunk.other.answered = (), [], []
        self._ring.put([records.encode(chunk)], 1)

    def label(self, labels: list[Label]) -> bool:
        """Take in labels; False if there is no room for them now: whoever sends them can wait."""
        if self._ring.losing:
            return False
        wall_us = (_now_ns() + self._offset_ns) // 1000
        return self._ring.put([records.encode(Labels(wall_us, labels))], 0)


def _alike(lines: list[Line]) -> bool:
    """Whether all can be one chunk, as most of the time they can."""
    first = lines[0]
    layout, signature, outputs, shape = first[4], first[11], first[6].outputs, _shape(first[6])
    model = first[7]
    for line in lines:
        reply = line[6]
        if reply.outputs is not outputs:
            outputs = reply.outputs
            if _shape(reply) != shape:
                return False
        if (
            line[4] != layout
            or line[11] is not signature
            or line[7] != model
            or line[10] is not None
        ):
            return False
    return True


def _groups(lines: list[Line]) -> list[list[Line]]:
    """Lines that can be one chunk: of one model, with equal layouts."""
    groups: dict[tuple[object, ...], list[Line]] = {}
    for line in lines:
        other = line[10]
        reply = None if other is None else other[3]
        key = (
            line[7], id(line[11]), tuple(map(id, line[4])), _shape(line[6]),
            None if reply is None else _shape(reply),
        )  # fmt: skip
        found = groups.get(key)
        if found is None:
            groups[key] = [line]
        else:
            found.append(line)
    return list(groups.values())


def _shape(reply: Reply) -> tuple[object, ...]:
    """What a batch's outputs look like; the same object for all requests of a batch."""
    outputs = reply.outputs
    found = outputs.shape
    if found is None:
        found = outputs.shape = tuple(
            (name, array.dtype, array.shape[1:]) for name, array in outputs
        )
    return found


def _chunk(lines: list[Line], signature: Signature, offset_ns: int) -> Chunk:
    ids, began, ns, rows, layouts, raws, replies, models, contexts, keys, others, _ = zip(
        *lines, strict=True
    )
    halves = frozenset(spec.name for spec in signature.outputs if spec.datatype == "BF16")
    listed, context = _told_once(contexts)
    layout = layouts[0]
    inputs = [b"".join(column) for column in zip(*raws, strict=True)] if layout else []
    outputs, output_raws = _outputs(list(replies), halves)
    return Chunk(
        models[0],
        signature.feature_names,
        listed,
        context,
        list(ids),
        list(rows),
        offset_ns,
        list(began),
        list(ns),
        [reply.queue_ns for reply in replies],
        [reply.compute_ns for reply in replies],
        None if keys.count(None) == len(keys) else list(keys),
        layout,
        inputs,
        outputs,
        output_raws,
        _other(others, halves),
    )


def _told_once(contexts: tuple[Context, ...]) -> tuple[list[Context], list[int]]:
    """The different ones, and which each record's is."""
    if contexts.count(contexts[0]) == len(contexts):
        return [contexts[0]], [0] * len(contexts)
    known: dict[int, int] = {}
    listed: list[Context] = []
    places = []
    for each in contexts:
        at = known.get(id(each))
        if at is None:
            at = known[id(each)] = len(listed)
            listed.append(each)
        places.append(at)
    return listed, places


def _outputs(
    replies: list[Reply], halves: frozenset[str]
) -> tuple[tuple[Layout, ...], list[bytes]]:
    """Every output's rows of these requests, as bytes; those that are too large are left out."""
    layouts = []
    raws = []
    # Neighbours of one batch are one piece.
    runs: list[tuple[Outputs, int, int]] = []
    batch, start, stop = replies[0].outputs, replies[0].start, replies[0].start
    for reply in replies:
        if reply.outputs is batch and reply.start == stop:
            stop = reply.stop
        else:
            runs.append((batch, start, stop))
            batch, start, stop = reply.outputs, reply.start, reply.stop
    runs.append((batch, start, stop))
    for at, (name, array) in enumerate(replies[0].outputs):
        if array.nbytes // max(1, len(array)) > OUTPUT_BYTES:
            continue
        # A batch that is there whole needs no slice, which costs more than its bytes.
        pieces: list[Array] = [
            outputs[at][1] if stop - start == outputs.rows else outputs[at][1][start:stop]
            for outputs, start, stop in runs
        ]
        datatype = "BF16" if name in halves else OIP_OF.get(array.dtype, "BYTES")
        if datatype == "BYTES":
            joined = np.concatenate(pieces)
            raw = encode_bytes(joined)
            if len(raw) > OUTPUT_BYTES * len(joined):  # of texts this is known only now
                continue
        else:
            try:
                raw = b"".join(pieces)  # type: ignore[arg-type] # arrays are buffers
            except (BufferError, TypeError):  # one of them is no single piece of memory
                raw = b"".join([piece.tobytes() for piece in pieces])
        layouts.append(Layout(name, datatype, array.shape[1:]))
        raws.append(raw)
    return tuple(layouts), raws


def _other(others: tuple[Said | None, ...], halves: frozenset[str]) -> Other | None:
    at = [number for number, other in enumerate(others) if other is not None]
    if not at:
        return None
    sides = [other for other in others if other is not None]
    gave = [
        (number, reply)
        for number, (_, _, _, reply) in zip(at, sides, strict=True)
        if reply is not None
    ]
    replies = [reply for _, reply in gave]
    outputs, raws = _outputs(replies, halves) if replies else ((), [])
    return Other(
        at,
        [side[0] for side in sides],
        [side[1] for side in sides],
        [side[2] for side in sides],
        [number for number, _ in gave],
        outputs,
        raws,
    )


__all__ = ["GROUP", "Note", "Notes", "Said"]
