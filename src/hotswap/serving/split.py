"""One request under a running split: assigned an arm, asked once, answered in any case.

The arm is assigned in `predict`, so that a request which is refused before it is run (bad input)
tosses no coin. The candidate has its budget for one attempt; whatever keeps it from a valid
answer, the baseline gives one in what is left of the caller's time. The outcome of the first
attempt is decided by `hotswap.serving.attempt.First`, by the same rules for every arm, and goes
on to be decided if the client goes away.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from hotswap.core.routing import WHOLE, hashed
from hotswap.core.signature import Signature
from hotswap.errors import HostLost, Overloaded
from hotswap.ports import Array
from hotswap.serving.attempt import BASELINE, CANDIDATE, TWIN, First
from hotswap.serving.link import Pending, Reply
from hotswap.serving.mirror import outputs_of
from hotswap.serving.notes import Note
from hotswap.serving.payload import FAILURES, KIND_OF, Payload
from hotswap.serving.route import Arm, Route

if TYPE_CHECKING:
    from hotswap.serving.division import Division
    from hotswap.serving.plane import WorkerPlane

#: A request that leaves the candidate less than this is no test of it.
LEAST_NS: Final = 2_000_000
_SHORT_NS: Final = 2_000_000_000
_now_ns = time.monotonic_ns


class SplitLease:
    """One request's hold on a revision that has a split (see `hotswap.ports.Lease`)."""

    __slots__ = (
        "_division", "_key", "_plane", "_route", "fallback", "model", "signature", "version",
    )  # fmt: skip

    def __init__(
        self, plane: WorkerPlane, route: Route, division: Division, key: bytes | None
    ) -> None:
        self._plane = plane
        self._route = route
        self._division = division
        self._key = key
        self.model: str = division.model
        self.version: str = division.stable or division.split.baseline
        self.signature: Signature = division.signature
        self.fallback: str | None = None
        route.leases += 1

    def release(self) -> None:
        self._plane.released(self._route)

    async def predict(
        self,
        inputs: Mapping[str, Array],
        outputs: tuple[str, ...],
        rows: int,
        deadline: float,
        request_id: str,
    ) -> dict[str, Array]:
        plane, division = self._plane, self._division
        split = division.split
        began = _now_ns()
        payload = Payload(*plane.encode(self.signature, inputs), outputs, rows)
        left = int(deadline * 1e9) - division.reserve_ns - began
        budget_ns = left if left < division.budget_ns else division.budget_ns
        window = plane.windows.at(split, began)
        if budget_ns < LEAST_NS:
            window.counts.excluded += 1
            reply = await self._baseline(payload, deadline)
            notes = plane.notes
            if notes is not None and notes.wants():
                plain = notes.plain(self.version, False)
                notes.add(
                    request_id, began, _now_ns() - began, rows, payload.layout, payload.raws, reply,
                    self.model, plain, self.signature, self._key,
                )  # fmt: skip
            return outputs_of(reply)
        key = self._key
        if key is None and split.key_input is not None:
            key = division.key_of(inputs)
        # With all the weight there is nothing to choose: each request counts, not each user's first.
        unit = hashed(split.salt, key) if key is not None and split.weight < WHOLE else None
        arm = division.arm(plane.coin() if unit is None else unit)
        first = First(division, outputs, began, budget_ns, window, arm, unit)
        first.source = (self._route, payload)
        notes = plane.notes
        if notes is None or not notes.wants():
            return outputs_of(await self._answered(first, payload, deadline))
        note = first.note = Note(notes, request_id, payload, split, key, self.signature)
        try:
            reply = await self._answered(first, payload, deadline)
            # Where both are asked it is the pairs that are told, or those that failed would be alone.
            if self.fallback is not None and not split.pair:
                note.said(first, split.candidate)
            ns = _now_ns() - began
            outcome = first.outcome or "ok"
            note.answered(began, ns, reply, self.model, arm, outcome, self.version, self.fallback)
        finally:
            note.done()
        return outputs_of(reply)

    async def _answered(self, first: First, payload: Payload, deadline: float) -> Reply:
        """By the arm that it was assigned, or instead of it."""
        if first.arm == CANDIDATE:
            reply = await self._candidate(first, payload)
            return await self._instead(first, payload, deadline) if reply is None else reply
        reply = await self._stable(first, payload, deadline)
        if reply is None:  # its twin could not: its own hosts can
            return await self._baseline(payload, deadline)
        return reply

    # --- the three ways

    async def _candidate(self, first: First, payload: Payload) -> Reply | None:
        """The candidate's answer, None if it gave no valid one within its budget."""
        division = self._division
        block = division.block(CANDIDATE)
        self.version = division.split.candidate
        block.begin()
        reason = division.unable()
        if reason:
            first.refuse(reason)
            self._pair(first, payload)
        else:
            deadline = (first.began + first.budget_ns) / 1e9
            self._send(first, division.arms[CANDIDATE], payload, deadline, resend=False)
            if not first.done():
                first.timer = self._plane.loop.call_later(first.budget_ns / 1e9, first.expire)
            await self._wait(first)
        ns = _now_ns() - first.began
        reply = first.reply
        if first.outcome == "ok" and reply is not None:
            wall_ms = self._plane.wall_ms
            block.succeed(ns, payload.rows, reply.queue_ns, reply.compute_ns, wall_ms)
            return reply
        block.fail(ns, _kind(first))
        return None

    async def _instead(self, first: First, payload: Payload, deadline: float) -> Reply:
        """The baseline answers for the candidate; if there is none, what the candidate gave."""
        division = self._division
        if not division.arms[BASELINE].links:
            if first.reply is not None and first.outcome == "invalid":
                return first.reply  # as without a split
            if first.error is not None:
                raise first.error
            return await self._baseline(payload, deadline)
        self.fallback = first.reason
        division.block(CANDIDATE).fell_back()
        first.window.fell_back(first.reason)
        try:
            reply = await self._baseline(payload, deadline)
        except Exception:
            division.answered_instead(failed=True)
            raise
        division.answered_instead(failed=False)
        return reply

    async def _stable(self, first: First, payload: Payload, deadline: float) -> Reply | None:
        """The baseline's answer, measured as the candidate's is; None if only its twin failed."""
        division = self._division
        self.version = division.split.baseline
        arm = division.arms[BASELINE]
        if first.arm == TWIN:
            if division.arms[TWIN].is_up():
                arm = division.arms[TWIN]
            else:
                first.timed = False  # another host's latency tells nothing of the twin's
        if not arm.is_up():
            # Its request waits for it, as the candidate's does not; but the outcome is by one rule.
            first.refuse("unavailable")
            self._pair(first, payload)
            return await self._baseline(payload, deadline)
        is_twin = arm is division.arms[TWIN]
        block = division.block(first.arm)
        block.begin()
        self._send(first, arm, payload, deadline, resend=not is_twin)
        left = int(deadline * 1e9) - _now_ns()
        if left < _SHORT_NS and not first.done():
            first.timer = self._plane.loop.call_later(left / 1e9, first.expire)
        await self._wait(first)
        ns = _now_ns() - first.began
        reply = first.reply
        if reply is not None:
            wall_ms = self._plane.wall_ms
            block.succeed(ns, payload.rows, reply.queue_ns, reply.compute_ns, wall_ms)
            return reply
        block.fail(ns, _kind(first))
        error = first.error
        assert error is not None
        lost = isinstance(error, HostLost) and division.arms[BASELINE].entry.pure
        if is_twin and (lost or isinstance(error, Overloaded)):
            return None
        raise error

    async def _baseline(self, payload: Payload, deadline: float) -> Reply:
        """An answer that is counted for operation alone."""
        plane, division = self._plane, self._division
        arm = division.baseline()
        self.version = arm.entry.version
        block = division.block(BASELINE if arm is division.arms[BASELINE] else CANDIDATE)
        block.begin()
        began = _now_ns()
        try:
            reply = await plane.ask(
                arm, payload.layout, payload.raws, payload.outputs, payload.rows, deadline
            )
        except BaseException as exc:
            block.fail(_now_ns() - began, FAILURES.get(type(exc).__name__, "model"))
            raise
        ns = _now_ns() - began
        block.succeed(ns, payload.rows, reply.queue_ns, reply.compute_ns, plane.wall_ms)
        return reply

    # --- one attempt

    def _send(
        self, first: First, arm: Arm, payload: Payload, deadline: float, *, resend: bool
    ) -> None:
        """Send the first attempt, and beside it the other half of a pair."""
        try:
            link = self._plane.room(arm, payload.rows)
        except Overloaded as exc:
            first.set_exception(exc)
        else:
            first.waiter = self._plane.loop.create_future()
            first.link = link
            first.number = link.call(
                Pending(
                    payload.layout, payload.outputs, payload.raws, payload.rows, deadline, first,
                    resend,
                )
            )  # fmt: skip
        self._pair(first, payload)

    def _pair(self, first: First, payload: Payload) -> None:
        if self._division.split.pair:
            self._plane.mirror.pair(first, self._route, payload)

    async def _wait(self, first: First) -> None:
        """Until it is done. If the client goes away it goes on, to its end or its budget's."""
        if first.done() or first.waiter is None:
            return
        try:
            await first.waiter
        except asyncio.CancelledError:
            block = self._division.block(first.arm)
            block.fail(_now_ns() - first.began, "cancelled")
            self._go_on(first)
            raise

    def _go_on(self, first: First) -> None:
        left = first.began + first.budget_ns - _now_ns()
        if first.done():
            return
        if first.outcome is not None or left <= 0:
            first.expire()
            return
        route = self._route
        route.leases += 1
        first.add_done_callback(lambda _: self._plane.released(route))
        if first.timer is not None:
            first.timer.cancel()
        first.timer = self._plane.loop.call_later(left / 1e9, first.expire)


def _kind(first: First) -> str:
    """How the operational counters call its failure."""
    if first.error is not None:
        return FAILURES.get(type(first.error).__name__, "model")
    return KIND_OF.get(first.reason, "model")


__all__ = ["LEAST_NS", "SplitLease"]
