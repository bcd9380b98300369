"""Takes a candidate that fails outright out of the route at once, before any statistics. Pure.

It trips after k consecutive first-attempt failures of the candidate, k such that a candidate no
worse than stable would do so with a probability below 1e-9 at any one request: p^k < 1e-9 for
stable's own failure rate p (with one failure and one success added). While stable itself fails
in half or more of its requests, it never trips: that is no fault of the candidate.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Final

#: However well stable does, fewer failures in a row prove nothing.
LEAST: Final = 5
_CHANCE: Final = math.log(1e-9)
#: Stable's requests of the last 30 seconds or so are looked at, and at least so many.
_SPANS: Final = 28
_ENOUGH: Final = 2_000
_SPAN_SHIFT: Final = 30  # nanoseconds: spans of 1.07 seconds


class Breaker:
    """One candidate in one worker. Times are monotonic nanoseconds.

    >>> breaker = Breaker()
    >>> def one_of_each():
    ...     breaker.stable(failed=False, now_ns=0)
    ...     return breaker.candidate(failed=True)
    >>> [one_of_each() for _ in range(10)].index(True)
    8
    """

    __slots__ = (
        "_failures", "_latest", "_requests", "_run_failures", "_run_requests", "_spans",
        "run", "tripped",
    )  # fmt: skip

    def __init__(self) -> None:
        self.tripped = False
        self.run = 0
        self._requests = 0
        self._failures = 0
        # What stable did since the candidate's run of failures began.
        self._run_requests = 0
        self._run_failures = 0
        self._latest = [0, 0, 0]  # span, requests, failures
        self._spans: deque[list[int]] = deque([self._latest])

    def stable(self, failed: bool, now_ns: int) -> None:
        """A first attempt of stable or its twin was decided, or stable answered for a candidate."""
        latest = self._latest
        if now_ns >> _SPAN_SHIFT > latest[0]:
            latest = self._begin(now_ns >> _SPAN_SHIFT)
        latest[1] += 1
        self._requests += 1
        self._run_requests += 1
        if failed:
            latest[2] += 1
            self._failures += 1
            self._run_failures += 1

    def _begin(self, span: int) -> list[int]:
        spans = self._spans
        while spans and spans[0][0] < span - _SPANS and self._requests - spans[0][1] >= _ENOUGH:
            _, requests, failures = spans.popleft()
            self._requests -= requests
            self._failures -= failures
        self._latest = [span, 0, 0]
        spans.append(self._latest)
        return self._latest

    def needed(self) -> int | None:
        """How many failures in a row trip it now; None while no number would."""
        rate = (self._failures + 1) / (self._requests + 2)
        if rate >= 0.5:
            return None
        return max(LEAST, math.ceil(_CHANCE / math.log(rate)))

    def candidate(self, failed: bool) -> bool:
        """A first attempt of the candidate was decided; whether the breaker trips on it."""
        if not failed:
            self.run = 0
            return False
        if not self.run:
            self._run_requests = self._run_failures = 0
        self.run += 1
        if self.tripped or self.run < LEAST or self._run_failures * 2 >= self._run_requests:
            return False
        needed = self.needed()
        self.tripped = needed is not None and self.run >= needed
        return self.tripped
