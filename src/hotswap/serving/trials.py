"""The tests that one worker takes part in: what it knows of each, and what it reports of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from hotswap.core.routing import RouteTable, Split, VersionEntry
from hotswap.core.windows import Window
from hotswap.serving.attempt import First
from hotswap.serving.division import BlockOf, Division
from hotswap.serving.link import HostLink
from hotswap.serving.route import Arm, Route
from hotswap.serving.windows import Trial, Windows

Counted = Callable[[list[Window]], object]
TrippedAt = Callable[[int, str, str, int], object]


class Trials:
    """See `hotswap.serving.plane.WorkerPlane` for the callbacks."""

    def __init__(
        self,
        worker: str,
        block_of: BlockOf,
        offer: Callable[[First], None],
        on_counted: Counted,
        on_tripped: TrippedAt,
    ) -> None:
        self.windows = Windows(worker)
        self._block_of = block_of
        self._offer = offer
        self._on_counted = on_counted
        self._on_tripped = on_tripped
        self._trials: dict[str, Trial] = {}

    def division(
        self, table: RouteTable, split: Split, arms: dict[str, Arm], twins: list[HostLink]
    ) -> Division:
        """A table's split, with what earlier tables of the same test left behind."""
        baseline = arms.get(split.baseline) or Arm(VersionEntry(split.baseline, ""), [])
        candidate = arms.get(split.candidate) or Arm(VersionEntry(split.candidate, ""), [])
        twin = Arm(baseline.entry, twins)
        trial = self._trial(table.index, split)
        return Division(
            table, split, (baseline, twin, candidate), trial, self._block_of, self._offer
        )

    def _trial(self, index: int, split: Split) -> Trial:
        trial = self._trials.get(split.test)
        if trial is None:

            def on_trip(failures: int) -> None:
                why = f"version {split.candidate!r} failed {failures} times in a row"
                self._on_tripped(index, split.test, why, failures)

            trial = self._trials[split.test] = Trial(split.test, on_trip)
        return trial

    def report(self, routes: Iterable[Route]) -> None:
        """Say what was counted in the windows that are complete; forget the tests that are over."""
        complete = self.windows.due(time.monotonic_ns())
        if complete:
            self._on_counted(complete)
        if self._trials:
            alive = {r.table.split.test for r in routes if r.table.split is not None}
            alive |= self.windows.tests()
            for test in self._trials.keys() - alive:
                del self._trials[test]


__all__ = ["Counted", "Trials", "TrippedAt"]
