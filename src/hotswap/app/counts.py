"""What workers counted, on its way to control: numbered, and kept until control has saved it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

import structlog

from hotswap.core.windows import Window
from hotswap.ipc.messages import Counted

log = structlog.get_logger("hotswap.supervisor")

#: So many windows are kept for a control that does not save; beyond, the oldest are dropped.
WINDOWS: Final = 100_000
_LOG_SECONDS: Final = 60.0


class Counts:
    """The unsaved batches, in order. ``send`` reaches control; nothing is sent while it is closed."""

    def __init__(self, send: Callable[[Counted], object], most: int = WINDOWS) -> None:
        self.is_open = False
        self.dropped = 0
        self._send = send
        self._most = most
        self._kept: deque[Counted] = deque()
        self._windows = 0
        self._sequence = 0
        self._logged = 0.0

    def add(self, windows: list[Window]) -> None:
        """A worker's batch: it gets the next number."""
        self._sequence += 1
        batch = Counted(windows, self._sequence)
        self._kept.append(batch)
        self._windows += len(windows)
        while self._windows > self._most and len(self._kept) > 1:
            oldest = self._kept.popleft()
            self._windows -= len(oldest.windows)
            self.dropped += len(oldest.windows)
        if self.is_open:
            self._send(batch)

    def saved(self, sequence: int) -> None:
        """Control has saved all up to this number."""
        while self._kept and self._kept[0].sequence <= sequence:
            self._windows -= len(self._kept.popleft().windows)

    def open(self) -> None:
        """A control that has just begun gets all that none has saved, in order."""
        self.is_open = True
        for batch in self._kept:
            self._send(batch)

    def close(self) -> None:
        """Control is gone."""
        self.is_open = False

    def check(self, now: float) -> None:
        """Once a minute: say what was dropped. ``now`` in monotonic seconds."""
        if self.dropped and now - self._logged >= _LOG_SECONDS:
            log.warning(
                "evidence was dropped: control has not saved it for too long",
                windows=self.dropped,
            )
            self._logged = now
            self.dropped = 0
