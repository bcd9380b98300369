"""What a worker counts of a trial, window by window, reported once it is complete.

A request is counted in the window in which it arrived, when its first attempt is decided. A
window is reported on the worker's timer once it is over and all of its requests are decided, or
once every budget in it has passed: what still runs then is a timeout by definition.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Protocol

from hotswap.core.routing import Split
from hotswap.core.windows import (
    ARMS,
    ERROR,
    FIRST,
    INVALID,
    WINDOW_NS,
    ArmCounts,
    PairCounts,
    UnitEvent,
    Window,
)
from hotswap.serving.breaker import Breaker
from hotswap.stats.buckets import TIMEOUT, bucket

if TYPE_CHECKING:
    from hotswap.serving.attempt import First

#: Longer than the timers that keep budgets are ever late.
SLACK_NS: Final = 100_000_000
#: So many keyed units one worker remembers for a trial; of others every event is reported.
UNITS: Final = 2_000_000
#: Latency is taken of one request in so many nanoseconds. A process that is held up holds up all
#: that wait for it: requests so close to one another tell the same thing, and a coin tossed for
#: each of them would count one accident many times.
LATENCY_GAP_NS: Final = 50_000_000


_BASELINE: Final = ARMS.index("baseline")


class Running(Protocol):
    """What a window waits for."""

    def overdue(self) -> None:
        """The window ends now: be decided, at once."""
        ...


class Trial:
    """One test in one worker, over all its tables and stages: its breaker, the units seen.

    ``on_trip(failures)`` is called once, when the breaker trips.
    """

    __slots__ = ("_timed_from", "breaker", "on_trip", "seen", "test")

    def __init__(self, test: str, on_trip: Callable[[int], None]) -> None:
        self.test = test
        self.on_trip = on_trip
        self.breaker = Breaker()
        self.seen: dict[int, int] = {}
        self._timed_from = [0, 0]

    def is_timed(self, arm: int, twin: bool, now_ns: int) -> bool:
        """Whether this request's latency is taken: decided before it is run, and by time alone.

        Arms that are compared share one turn, so that which of them gets it is the coin's choice;
        a baseline that has a twin has its own.
        """
        own = 1 if twin and arm == _BASELINE else 0
        if now_ns < self._timed_from[own]:
            return False
        self._timed_from[own] = now_ns + LATENCY_GAP_NS
        return True

    def is_new(self, unit: int, kind: int) -> bool:
        """Whether this worker has not seen such an event of the unit, as far as it remembers."""
        bit = 1 << kind
        bits = self.seen.get(unit, 0)
        if bits & bit:
            return False
        if bits or len(self.seen) < UNITS:
            self.seen[unit] = bits | bit
        return True


class OpenWindow:
    """One window of one stage. ``limit_ns``: when every budget in it has passed."""

    __slots__ = ("counts", "end_ns", "limit_ns", "running")

    def __init__(self, counts: Window, budget_ns: int) -> None:
        self.counts = counts
        self.end_ns = (counts.number + 1) * WINDOW_NS
        self.limit_ns = self.end_ns + budget_ns + SLACK_NS
        self.running: set[Running] = set()

    def assigned(self, first: First, arm: int, unit: int | None, trial: Trial) -> bool:
        """A request was assigned; whether it is the first of its unit."""
        self.running.add(first)
        self._plain(arm, 0)
        fresh = unit is None or trial.is_new(unit, FIRST)
        if fresh:  # of a unit that was seen no latency counts: it must not take the turn
            first.timed = trial.is_timed(arm, self.counts.twin_weight > 0, first.began)
        if unit is not None:
            return fresh
        counts = self.counts.arms.get(ARMS[arm])
        if counts is None:
            counts = self.counts.arms[ARMS[arm]] = ArmCounts()
        counts.requests += 1
        return False

    def decided(self, first: First, ns: int) -> None:
        """Its first attempt has its outcome, after ``ns``."""
        self.running.discard(first)
        outcome = first.outcome
        if outcome != "ok":
            self._plain(first.arm, 1)
        latency = -1
        value: int | None = None
        if outcome == "timeout":
            latency = TIMEOUT if first.timed else -1
        elif outcome == "ok":
            latency = bucket(ns) if first.timed else -1
            if first.reply is not None:
                value = first.division.value(first.reply, first.wanted)
        if first.unit is not None:
            self._unit(first, first.unit, latency, value)
            return
        counts = self.counts.arms[ARMS[first.arm]]
        if outcome == "error":
            counts.errors += 1
        elif outcome == "timeout":
            counts.timeouts += 1
        elif outcome == "invalid":
            counts.invalid += 1
        if latency >= 0:
            counts.latency[latency] = counts.latency.get(latency, 0) + 1
        if value is not None:
            counts.values[value] = counts.values.get(value, 0) + 1

    def _plain(self, arm: int, failed: int) -> None:
        plain = self.counts.plain
        if not plain:
            plain = self.counts.plain = [0] * (2 * len(ARMS))
        plain[2 * arm + failed] += 1

    def _unit(self, first: First, unit: int, latency: int, value: int | None) -> None:
        events = self.counts.units
        trial = first.division.trial
        if first.fresh:
            found = -1 if value is None else value
            events.append(UnitEvent(unit, first.arm, FIRST, latency, found))
        if first.outcome in ("error", "timeout"):
            if trial.is_new(unit, ERROR):
                events.append(UnitEvent(unit, first.arm, ERROR))
        elif first.outcome == "invalid" and trial.is_new(unit, INVALID):
            events.append(UnitEvent(unit, first.arm, INVALID))

    def fell_back(self, reason: str) -> None:
        """The baseline answers for the candidate."""
        fallbacks = self.counts.fallbacks
        fallbacks[reason] = fallbacks.get(reason, 0) + 1

    def pairs(self) -> PairCounts:
        """Its counters of pairs, made at first use."""
        if self.counts.pairs is None:
            self.counts.pairs = PairCounts()
        return self.counts.pairs

    def is_empty(self) -> bool:
        """Whether nothing in it would tell anything."""
        counts = self.counts
        return not (
            counts.arms or counts.units or counts.plain or counts.pairs or counts.fallbacks
            or counts.excluded or counts.mirrored or counts.dropped
        )  # fmt: skip


class Windows:
    """The open windows of one worker. ``worker`` names its process among all that ever ran."""

    def __init__(self, worker: str) -> None:
        self._worker = worker
        self._open: dict[tuple[str, int, int], OpenWindow] = {}

    def at(self, split: Split, now_ns: int) -> OpenWindow:
        """The window in which a request arrives now."""
        number = now_ns // WINDOW_NS
        key = (split.test, split.stage, number)
        found = self._open.get(key)
        if found is None:
            counts = Window(
                split.test, split.stage, self._worker, number, split.weight, split.twin_weight
            )
            found = self._open[key] = OpenWindow(counts, int(split.budget_ms * 1e6))
        return found

    def due(self, now_ns: int) -> list[Window]:
        """The windows that are complete now, oldest first. They are reported once."""
        if not self._open:
            return []
        complete: list[Window] = []
        for key, window in list(self._open.items()):
            if now_ns <= window.end_ns or (window.running and now_ns <= window.limit_ns):
                continue
            for each in list(window.running):
                each.overdue()
            del self._open[key]
            if not window.is_empty():
                complete.append(window.counts)
        return complete

    def tests(self) -> set[str]:
        """The tests with windows that are still open."""
        return {test for test, _, _ in self._open}


__all__ = ["OpenWindow", "Trial", "Windows"]
