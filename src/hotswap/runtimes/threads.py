"""How many threads the numeric libraries may use, held to for every calling thread."""

from __future__ import annotations

import contextlib
import threading
from typing import Any


class ThreadLimit:
    """Holds BLAS and OpenMP to ``threads`` in whichever thread calls it.

    OpenMP's limit belongs to the calling thread, so that it is set once in each.
    """

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._done = threading.local()

    def __call__(self) -> None:
        """Apply the limit to this thread, the first time."""
        if getattr(self._done, "limited", False):
            return
        self._done.limited = True
        with contextlib.suppress(ImportError):
            from threadpoolctl import threadpool_limits

            limits: Any = threadpool_limits
            limits(limits=self._threads)
