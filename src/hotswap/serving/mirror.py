"""Copies of requests for the other version, off the path: bounded, and dropped before they are sent.

A copy never delays an answer: it is sent after the answer was given (a mirror) or beside it (a
pair), and what is not sent for lack of room is counted without asking how the request went. Each
copy holds its table until it is done.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final

from hotswap.core.outcome import Outcome
from hotswap.core.routing import place
from hotswap.errors import Overloaded, Unavailable
from hotswap.ports import Array
from hotswap.serving.attempt import BASELINE, CANDIDATE, Attempt, First
from hotswap.serving.compare import compare, count
from hotswap.serving.link import Pending, Reply
from hotswap.serving.payload import KIND_OF, Payload
from hotswap.stats.buckets import TIMEOUT, bucket

if TYPE_CHECKING:
    from hotswap.ipc.tally import Block
    from hotswap.serving.division import Division
    from hotswap.serving.notes import Note
    from hotswap.serving.plane import WorkerPlane
    from hotswap.serving.route import Route
    from hotswap.serving.windows import OpenWindow

#: Rows of copies that one worker has outstanding at most.
ROWS: Final = 256
_now_ns = time.monotonic_ns


class Pairing:
    """One request that both versions are asked. Compared when both have their outcome."""

    __slots__ = ("_baseline", "_candidate", "_counted", "_mirror", "_note", "_window")

    def __init__(self, mirror: Mirror, window: OpenWindow, note: Note | None = None) -> None:
        self._mirror = mirror
        self._note = note
        self._window = window
        self._baseline: Attempt | None = None
        self._candidate: Attempt | None = None
        self._counted = False
        window.running.add(self)

    def decided(self, attempt: Attempt, *, candidate: bool) -> None:
        """One of the two has its outcome."""
        if self._counted:
            return
        if candidate:
            self._candidate = attempt
        else:
            self._baseline = attempt
        if self._baseline is not None and self._candidate is not None:
            self._mirror.later(self)

    def took(self, ns: int | None) -> None:
        """The candidate's copy was answered after ``ns``; None: not within its budget."""
        if self._counted:
            return  # the window is reported
        latency = self._window.pairs().latency
        at = TIMEOUT if ns is None else bucket(ns)
        latency[at] = latency.get(at, 0) + 1

    def overdue(self) -> None:
        """Whoever has not answered now has failed."""
        self.count()

    def count(self) -> None:
        """Compare and count, once."""
        if self._counted:
            return
        self._counted = True
        self._window.running.discard(self)
        pairs = self._window.pairs()
        pairs.total += 1
        ours, theirs = _answer(self._baseline), _answer(self._candidate)
        self._tell()
        # A copy holds its pairing: without this each would be left to the cycle collector, which
        # stops the loop for milliseconds.
        self._baseline = self._candidate = None
        if ours is not None and theirs is not None:
            count(pairs, compare(ours, theirs))
        elif ours is not None:
            pairs.worse += 1
        elif theirs is not None:
            pairs.better += 1
        else:
            pairs.neither += 1

    def _tell(self) -> None:
        """What both said, for the recorder."""
        note, self._note = self._note, None
        if note is None:
            return
        for attempt, arm in ((self._baseline, BASELINE), (self._candidate, CANDIDATE)):
            if attempt is not None:
                note.said(attempt, attempt.division.arms[arm].entry.version)
        note.done()


def _answer(attempt: Attempt | None) -> dict[str, Array] | None:
    """What it gave, if that is valid and was in time."""
    if attempt is None or attempt.outcome != "ok" or attempt.reply is None:
        return None
    return outputs_of(attempt.reply)


def outputs_of(reply: Reply) -> dict[str, Array]:
    """One request's own rows, by output."""
    start, stop = reply.start, reply.stop
    return {name: array[start:stop] for name, array in reply.outputs}


class Copy(Attempt):
    """A request that is also asked of another arm. Holds its room and its table until done."""

    __slots__ = ("_block", "_candidate", "_mirror", "_pairing", "_route", "_rows")

    def __init__(
        self,
        mirror: Mirror,
        route: Route,
        division: Division,
        payload: Payload,
        budget_ns: int,
        pairing: Pairing,
        arm: int,
    ) -> None:
        super().__init__(division, payload.outputs, _now_ns(), budget_ns)
        self._mirror = mirror
        self._route = route
        self._rows = payload.rows
        self._pairing = pairing
        self._candidate = arm == CANDIDATE
        self._block: Block = division.shadow_block(division.arms[arm].entry.version)
        self._block.begin()
        mirror.rows += payload.rows
        route.leases += 1

    def _decide(self, outcome: Outcome, reason: str, ns: int) -> None:
        super()._decide(outcome, reason, ns)
        if self._candidate and outcome in ("ok", "timeout"):
            self._pairing.took(ns if outcome == "ok" else None)
        self._pairing.decided(self, candidate=self._candidate)

    def _finish(self) -> None:
        super()._finish()
        ns = _now_ns() - self.began
        if self.outcome == "ok" and self.reply is not None:
            reply = self.reply
            wall_ms = self._mirror.plane.wall_ms
            self._block.succeed(ns, self._rows, reply.queue_ns, reply.compute_ns, wall_ms)
        else:
            self._block.fail(ns, KIND_OF.get(self.reason, "model"))
        self._mirror.rows -= self._rows
        self._mirror.plane.released(self._route)


class Mirror:
    """All copies of one worker. ``rows``: of those that are outstanding."""

    def __init__(self, plane: WorkerPlane) -> None:
        self.plane = plane
        self.rows = 0
        self._loop = asyncio.get_running_loop()
        self._offered: list[tuple[First, Route, Payload]] = []
        self._compared: list[Pairing] = []
        self._scheduled = False

    def offer(self, first: First) -> None:
        """A first attempt of the baseline has its outcome: perhaps ask the candidate too."""
        division = first.division
        split = division.split
        if division.trial.breaker.tripped or place(self.plane.coin()) >= split.mirror:
            return
        route, payload = first.source
        if first.note is not None:
            first.note.waits += 1
        route.leases += 1  # until it is sent: the request's own lease may be over before that
        self._offered.append((first, route, payload))
        self._schedule()

    def later(self, pairing: Pairing) -> None:
        """Compare it once the answers that are under way have been given."""
        self._compared.append(pairing)
        self._schedule()

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            # Two steps: behind everything that this step of the loop still wakes.
            self._loop.call_soon(self._loop.call_soon, self._flush)

    def _flush(self) -> None:
        self._scheduled = False
        offered, self._offered = self._offered, []
        compared, self._compared = self._compared, []
        for first, route, payload in offered:
            self._mirrored(first, route, payload)
            self.plane.released(route)
        for pairing in compared:
            pairing.count()

    def _mirrored(self, first: First, route: Route, payload: Payload) -> None:
        division = first.division
        window = self.plane.windows.at(division.split, _now_ns())
        if not self._has_room(division, window, payload, CANDIDATE):
            if first.note is not None:
                first.note.done()
            return
        pairing = Pairing(self, window, first.note)
        pairing.decided(first, candidate=False)
        window.counts.mirrored += 1
        self._send(route, division, payload, division.budget_ns, pairing, CANDIDATE)

    def pair(self, first: First, route: Route, payload: Payload) -> None:
        """Ask the other version too, at once and beside the first attempt."""
        division = first.division
        other = BASELINE if first.arm == CANDIDATE else CANDIDATE
        if division.trial.breaker.tripped:
            return
        if not self._has_room(division, first.window, payload, other):
            return
        if first.note is not None:
            first.note.waits += 1
        first.pairing = pairing = Pairing(self, first.window, first.note)
        first.window.counts.mirrored += 1
        if first.outcome is not None:
            pairing.decided(first, candidate=first.arm == CANDIDATE)
        self._send(route, division, payload, first.budget_ns, pairing, other)

    def _has_room(self, division: Division, window: OpenWindow, payload: Payload, arm: int) -> bool:
        if not self.rows or self.rows + payload.rows <= ROWS:
            target = division.arms[arm]
            if not target.is_up():
                return True  # it is asked, and has failed
            try:
                self.plane.room(target, payload.rows)
                return True
            except Overloaded:
                pass
        window.counts.dropped += 1
        division.shadow_block(division.arms[arm].entry.version).drop()
        return False

    def _send(
        self,
        route: Route,
        division: Division,
        payload: Payload,
        budget_ns: int,
        pairing: Pairing,
        arm: int,
    ) -> None:
        copy = Copy(self, route, division, payload, budget_ns, pairing, arm)
        target = division.arms[arm]
        if not target.is_up():
            copy.set_exception(Unavailable("no process of this version is up"))
            return
        copy.link = link = self.plane.room(target, payload.rows)
        deadline = (copy.began + budget_ns) / 1e9
        copy.timer = self._loop.call_later(budget_ns / 1e9, copy.expire)
        copy.number = link.call(
            Pending(
                payload.layout, payload.outputs, payload.raws, payload.rows, deadline, copy,
                resend=False, shadow=True,
            )
        )  # fmt: skip


__all__ = ["ROWS", "Copy", "Mirror", "Pairing", "outputs_of"]
