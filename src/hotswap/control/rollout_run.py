"""One rollout as control runs it: what it saw, what it saved, what it has under way."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import msgspec

from hotswap.control.rollout_store import Document
from hotswap.core.analysis import Analysis, Reading
from hotswap.core.evidence import folded
from hotswap.core.journal import Entry
from hotswap.core.rollout import Exposure, Rollout, Status
from hotswap.core.units import Units
from hotswap.core.windows import Window


class Run:
    """Live state beside the saved document. ``showing``: what tables may show of the candidate
    now; it is raised after a save, and lowered before one. ``barred``: who forbids to raise it
    now, whatever was decided before. ``pending``: entries that are not in the journal yet.
    ``unsaved``: the first report that was counted and is not saved, None for none. ``lock`` is
    held by who moves it.
    """

    def __init__(self, document: Document, units: Units | None = None) -> None:
        self.document = document
        self.units = units or Units()
        self.showing: Exposure | None = None
        self.barred: set[object] = set()
        self.pending: list[Entry] = []
        self.unsaved: int | None = None
        self.dirty = False
        self.lock = asyncio.Lock()
        self.ticked_at: float | None = None
        self.readings: dict[str, Reading] = {}
        #: when they were read (monotonic seconds)
        self.read_then: dict[str, float] = {}
        self.breaker = ""
        self.load_error = ""
        self.analysis: Analysis | None = None
        self.saved_at = 0.0
        self.read_at = 0.0
        #: not before then is a flip tried that failed (monotonic seconds)
        self.flip_at = 0.0
        self.served: tuple[int, int] = (0, 0)
        self._tasks: dict[str, asyncio.Task[None]] = {}

    @property
    def rollout(self) -> Rollout:
        """As it stands."""
        return self.document.rollout

    @property
    def status(self) -> Status:
        """Its status."""
        return self.document.rollout.status

    @property
    def closed(self) -> bool:
        """Whether it is over and nothing of it is left."""
        return self.document.closed

    def note(self, **changes: Any) -> None:
        """Change what is kept beside the rollout; it is saved later."""
        self.document = msgspec.structs.replace(self.document, **changes)
        self.dirty = True

    def become(self, **changes: Any) -> None:
        """Change the rollout in memory; it is saved later or by who calls."""
        rollout = msgspec.structs.replace(self.document.rollout, **changes)
        self.document = msgspec.structs.replace(self.document, rollout=rollout)
        self.dirty = True

    def count(self, windows: list[Window], run: str, sequence: int) -> None:
        """Fold in what workers counted, once."""
        evidence = self.rollout.evidence
        if evidence.run == run and sequence <= evidence.sequence:
            return  # it was counted by an earlier control process
        if self.unsaved is None:
            self.unsaved = sequence
        mine = [self.units.window(window) for window in windows]
        self.become(evidence=folded(evidence, mine))

    def begin(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        """Do this in the background, unless it is being done."""
        task = self._tasks.get(name)
        if task is not None and not task.done():
            work.close()
            return
        task = asyncio.get_running_loop().create_task(work)
        self._tasks[name] = task
        task.add_done_callback(lambda done: done.cancelled() or done.exception())

    def busy(self, name: str) -> bool:
        """Whether that is being done."""
        task = self._tasks.get(name)
        return task is not None and not task.done()

    def cancel(self, name: str) -> None:
        """Give that up."""
        task = self._tasks.pop(name, None)
        if task is not None:
            task.cancel()

    def forget(self) -> None:
        """A new attempt knows nothing of the one before."""
        self.units = Units()
        self.breaker = self.load_error = ""
        self.readings, self.read_then = {}, {}
        self.showing = None
        self.barred = set()
        self.flip_at = 0.0
        self.unsaved = None
        self.analysis = None
        for name in list(self._tasks):
            self.cancel(name)
