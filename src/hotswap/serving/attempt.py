"""One call of one version, whose outcome is decided the moment its host answers.

An `Attempt` stands where a future would: the link settles it, and what came of it is fixed then
and there, whether or not the client still waits. `First` is a request's first attempt on its
assigned arm: it is counted once, in the window in which the request arrived.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from hotswap.core.outcome import Outcome, fault, of_answer, of_exception
from hotswap.core.signature import Signature
from hotswap.errors import DeadlineExceeded
from hotswap.serving.link import HostLink, Reply

if TYPE_CHECKING:
    from hotswap.serving.division import Division
    from hotswap.serving.mirror import Pairing
    from hotswap.serving.notes import Note
    from hotswap.serving.payload import Payload
    from hotswap.serving.route import Route
    from hotswap.serving.windows import OpenWindow

_now_ns = time.monotonic_ns

#: Indices of `hotswap.core.windows.ARMS`.
BASELINE: Final = 0
TWIN: Final = 1
CANDIDATE: Final = 2

#: Why another version answers, by the failure of the one that was asked.
REASONS: Final = {
    "DeadlineExceeded": "timeout",
    "InvalidOutput": "invalid",
    "HostLost": "lost",
    "Overloaded": "overload",
    "Unavailable": "unavailable",
}


def fault_of(reply: Reply, wanted: tuple[str, ...], signature: Signature) -> str | None:
    """Why this is no valid answer, None if it is one. A batch is checked once, whole."""
    outputs = reply.outputs
    if outputs.sound is None:
        outputs.sound = fault(dict(outputs), wanted, outputs.rows, signature) is None
    if outputs.sound:
        return None
    start, stop = reply.start, reply.stop
    own = {name: array[start:stop] for name, array in outputs}
    return fault(own, wanted, stop - start, signature)


class Attempt:
    """A `hotswap.serving.link.Promise`. ``began`` and ``budget_ns`` are monotonic nanoseconds.

    ``outcome`` is None until it is decided; ``reason`` is then why it is not ok. ``reply`` and
    ``error`` are what the host gave; a reply that came too late or is not valid is kept. ``ns``:
    how long it took until its outcome was decided.
    """

    __slots__ = (
        "_callbacks",
        "_done",
        "began",
        "budget_ns",
        "division",
        "error",
        "link",
        "ns",
        "number",
        "outcome",
        "reason",
        "reply",
        "timer",
        "waiter",
        "wanted",
    )

    def __init__(
        self, division: Division, wanted: tuple[str, ...], began: int, budget_ns: int
    ) -> None:
        self.division = division
        self.wanted = wanted
        self.began = began
        self.budget_ns = budget_ns
        self.outcome: Outcome | None = None
        self.reason = ""
        self.reply: Reply | None = None
        self.error: BaseException | None = None
        self.waiter: asyncio.Future[None] | None = None
        self.timer: asyncio.TimerHandle | None = None
        self.link: HostLink | None = None
        self.number = 0
        self.ns = 0
        self._callbacks: list[Callable[[Any], object]] = []
        self._done = False

    # --- what a link and the recovery ask of a future

    def done(self) -> bool:
        return self._done

    def add_done_callback(self, fn: Callable[[Any], object], /) -> None:
        self._callbacks.append(fn)

    def set_result(self, reply: Reply, /) -> None:
        """It was answered."""
        self.reply = reply
        if self.outcome is None:
            ns = _now_ns() - self.began
            # What is late is late, whatever it says: only an answer in time is looked at.
            why = None if ns > self.budget_ns else self.division.fault(reply, self.wanted)
            outcome = of_answer(ns, self.budget_ns, why)
            self._decide(outcome, "" if outcome == "ok" else outcome, ns)
        self._finish()

    def set_exception(self, error: BaseException, /) -> None:
        """It was not, and will not be."""
        self.error = error
        if self.outcome is None:
            ns = _now_ns() - self.began
            outcome = "timeout" if ns > self.budget_ns else of_exception(error)
            if outcome == "timeout":
                reason = "timeout"
            else:
                reason = REASONS.get(type(error).__name__, "error")
            self._decide(outcome, reason, ns)
        self._finish()

    def _finish(self) -> None:
        self._done = True
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)
        for callback in self._callbacks:
            callback(self)

    # --- what else can happen to it

    def expire(self) -> None:
        """Its time is over: nobody waits for it any more."""
        if not self._done:
            self.set_exception(DeadlineExceeded("the deadline passed before the model answered"))
            self.withdraw()

    def withdraw(self) -> None:
        """Take it back from where it waits."""
        if self.link is not None:
            self.link.cancel(self.number)

    def lost(self) -> None:
        """The host died with it. It may be sent to another, but this was the first attempt."""
        if self.outcome is None:
            self._decide("error", "lost", _now_ns() - self.began)

    def overdue(self) -> None:
        """Its window ends, long after its budget."""
        if self.outcome is None:
            self._decide("timeout", "timeout", _now_ns() - self.began)

    def _decide(self, outcome: Outcome, reason: str, ns: int) -> None:
        self.outcome = outcome
        self.reason = reason
        self.ns = ns


class First(Attempt):
    """A request's first attempt on its assigned arm.

    ``unit`` is the hash of its key, None without one. ``fresh``: the first request of its unit
    that this worker saw. ``timed``: its latency is the arm's own. ``source`` is what a copy of
    it is made from; set before it is sent. ``note``: what is noted of it for the recorder.
    """

    __slots__ = ("arm", "fresh", "note", "pairing", "source", "timed", "unit", "window")

    def __init__(
        self,
        division: Division,
        wanted: tuple[str, ...],
        began: int,
        budget_ns: int,
        window: OpenWindow,
        arm: int,
        unit: int | None,
    ) -> None:
        super().__init__(division, wanted, began, budget_ns)
        self.window = window
        self.arm = arm
        self.unit = unit
        self.timed = True
        self.pairing: Pairing | None = None
        self.note: Note | None = None
        self.source: tuple[Route, Payload]
        self.fresh = window.assigned(self, arm, unit, division.trial)

    def refuse(self, reason: str) -> None:
        """It is not even sent; that is the arm's failure like any other."""
        self._decide("error", reason, 0)
        self._done = True

    def _decide(self, outcome: Outcome, reason: str, ns: int) -> None:
        self.outcome = outcome
        self.reason = reason
        self.ns = ns
        self.window.decided(self, ns)
        self.division.decided(self)


__all__ = ["BASELINE", "CANDIDATE", "TWIN", "Attempt", "First", "fault_of"]
