"""The real clock: the only place that reads wall time."""

from __future__ import annotations

import time


class SystemClock:
    """`hotswap.ports.Clock` on this machine."""

    def monotonic(self) -> float:
        return time.monotonic()

    def wall(self) -> float:
        return time.time()
