"""A clock that a test moves by hand."""

from __future__ import annotations


class ManualClock:
    """`hotswap.ports.Clock` that stands still until `advance`.

    >>> clock = ManualClock()
    >>> before = clock.monotonic(), clock.wall()
    >>> clock.advance(2.5)
    >>> clock.monotonic() - before[0], clock.wall() - before[1]
    (2.5, 2.5)
    """

    def __init__(self, monotonic: float = 1_000.0, wall: float = 1_700_000_000.0) -> None:
        self._monotonic = monotonic
        self._wall = wall

    def advance(self, seconds: float) -> None:
        """Let so many seconds pass; they cannot be taken back."""
        if seconds < 0:
            raise ValueError("time does not go back: advance by zero seconds or more")
        self._monotonic += seconds
        self._wall += seconds

    def monotonic(self) -> float:
        """Seconds since some beginning."""
        return self._monotonic

    def wall(self) -> float:
        """Unix time."""
        return self._wall
