"""Which events of keyed units are the first of their unit. Exact, over all workers."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from hotswap.core.windows import UnitEvent, Window


class Units:
    """The units of one attempt. ``fresh`` are (kind, unit) that were not saved yet.

    >>> units = Units()
    >>> event = UnitEvent(7, 2, 0)
    >>> units.first([event, event]), units.first([event])
    ([UnitEvent(unit=7, arm=2, kind=0, latency=-1, value=-1)], [])
    """

    def __init__(self) -> None:
        self._seen: set[tuple[int, int]] = set()
        self.fresh: list[tuple[int, int]] = []

    def __len__(self) -> int:
        return len(self._seen)

    def add(self, saved: Iterable[tuple[int, int]]) -> None:
        """What an earlier control process had counted."""
        self._seen.update((kind, unit) for kind, unit in saved)

    def first(self, events: Iterable[UnitEvent]) -> list[UnitEvent]:
        """Those events that nobody reported before."""
        found = []
        for event in events:
            key = (event.kind, event.unit)
            if key not in self._seen:
                self._seen.add(key)
                self.fresh.append(key)
                found.append(event)
        return found

    def window(self, window: Window) -> Window:
        """The window with those of its unit events alone."""
        if not window.units:
            return window
        return msgspec.structs.replace(window, units=self.first(window.units))
