"""Has what a model is asked, or what it answers, moved away from a frozen reference?

Each look counts the records that came since the look before, in slices of time that are over,
freezes a reference when there are rows enough, and says what is so. What it knows lies in two
files a model (`hotswap.records.drift_state`); cut short at any point, the next look comes to the
same state.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from hotswap.core.drift_views import DriftSettings, DriftView
from hotswap.records import dataset, drift_columns, drift_side
from hotswap.records.dataset import Opened
from hotswap.records.drift_account import account
from hotswap.records.drift_side import Way
from hotswap.records.drift_state import (
    REFERENCE,
    SIDES,
    STATE,
    Frozen,
    Reference,
    Side,
    State,
    load,
    save,
)

#: Records of so much time are opened at once (µs).
_SPAN: Final = 24 * 3600 * 1_000_000
_Found = TypeVar("_Found")
_replace = msgspec.structs.replace


def look(
    root: Path,
    model: str,
    stable: str | None,
    settings: DriftSettings,
    *,
    until: float,
    location: str | None = None,
    reset: bool = False,
    hidden: Sequence[str] = (),
    clock: Callable[[], float] = time.monotonic,
) -> DriftView:
    """Count a model's records up to ``until`` (Unix time), and say what is so.

    ``root``, ``location``: where records are; ``stable``: the version whose outputs are watched,
    None for none. ``reset``: freeze new references, of what comes from ``until`` on.
    ``hidden``: inputs that are redacted or hashed now, which are neither watched nor shown. Raises
    `OSError` if its files cannot be read or written.
    """
    found = _Look(root, model, stable or "", settings, until, location, hidden, clock)
    found.read(reset)
    for name in SIDES:
        found.advance(name)
        found.check(name)
    found.keep()
    return account(
        model, settings.tolerance, settings.rows, found.reference, found.state,
        fresh=found.fresh, left_out=found.left_out, skipped=found.skipped, problems=found.problems,
        behind=found.behind,
    )  # fmt: skip


class _Look:
    """One look: what it may do, and what it found."""

    def __init__(
        self,
        root: Path,
        model: str,
        stable: str,
        settings: DriftSettings,
        until: float,
        location: str | None,
        hidden: Sequence[str],
        clock: Callable[[], float],
    ) -> None:
        slice_us = max(1, round(settings.slice_seconds * 1e6))
        self.until = int(until * 1e6) // slice_us * slice_us
        self.folder = root / "drift" / model
        self.reference = Reference()
        self.state = State()
        self.fresh: list[str] = []
        self.left_out: dict[str, str] = {}
        self.skipped: list[str] = []
        self.problems: list[str] = []
        self.behind = False
        self._root = root
        self._model = model
        self._location = location
        self._memory_mb = settings.memory_mb
        self._clock = clock
        self._deadline = clock() + settings.budget_seconds
        recorded = drift_columns.recorded(root, model, location)
        self._ways = {
            name: Way(
                name, stable if name == "output" else "", settings.tolerance, settings.rows,
                settings.columns, settings.one_row, slice_us, recorded,
                frozenset(hidden),
            )
            for name in SIDES
        }  # fmt: skip

    # --- what is kept

    def read(self, reset: bool) -> None:
        """Read what is kept; what is damaged is named, and made anew."""
        reference, broken = load(self.folder, REFERENCE, Reference)
        state, torn = load(self.folder, STATE, State)
        if broken:
            self.problems.append(f"{broken}: another is frozen, of what comes from now on")
        elif torn:
            self.problems.append(f"{torn}: records are counted again, from the reference on")
        self.reference, self.state = reference or Reference(), state or State()
        for name in SIDES:
            if reset or broken:
                self._begin(name, self.until)
            else:
                self._settle(name)

    def _settle(self, name: str) -> None:
        """What of a side's state is not its reference's, or not the stable version's, goes."""
        side, frozen, way = self.state.side(name), self.reference.side(name), self._ways[name]
        wanted = way.version if way.version or name == "input" else side.version
        if frozen is None and side.frozen:
            self.problems.append(
                f"the reference of {name}s is gone: another is frozen, of what comes from now on"
            )
            self._begin(name, self.until)
        elif frozen is None and side.version != wanted:
            self._begin(name, side.counted)
        elif frozen is not None and side.frozen != frozen.digest:
            self._put(name, frozen, drift_side.begun(frozen, way))
        frozen = self.reference.side(name)
        if frozen is not None and name == "output" and frozen.version != wanted:
            self._begin(name, self.state.side(name).counted)
        elif frozen is not None and frozen.tolerance != way.tolerance:
            side, frozen = drift_side.retold(self.state.side(name), frozen, way.tolerance)
            self._put(name, frozen, side)

    def _begin(self, name: str, since: int) -> None:
        """Collect another reference, of what comes from then on (µs)."""
        self._put(name, None, Side(since=since, counted=since, version=self._ways[name].version))

    def _put(self, name: str, frozen: Frozen | None, side: Side) -> None:
        self.reference = _replace(self.reference, **{name: frozen})
        self.state = _replace(self.state, **{name: side})

    def keep(self) -> None:
        """Write both files; the reference first, as the state names it."""
        if not (self.state.input.counted or self.state.output.counted):
            return  # there is nothing to be kept, of a model without records
        save(self.folder, REFERENCE, self.reference)
        save(self.folder, STATE, self.state)

    # --- looking

    def advance(self, name: str) -> None:
        """Collect and freeze a side's reference, and count what came since."""
        way = self._ways[name]
        if name == "output" and not way.version:
            return
        if not self.state.side(name).counted and not self._first(name):
            return
        while self.state.side(name).counted < self.until:
            if self._clock() >= self._deadline:
                self.behind = True
                return
            side, frozen = self.state.side(name), self.reference.side(name)
            end = min(self.until, way.after(side.counted + _SPAN - 1))
            if frozen is None:
                self._collect(name, way, side, end)
            else:
                counted = self._count(side, frozen, way, end)
                self._put(name, frozen, counted.side)
                self.fresh += counted.fresh
                self.left_out |= counted.left_out
                self.skipped += [each for each in counted.said if each not in self.skipped]
            self.keep()

    def check(self, name: str) -> None:
        """Which columns of the reference are not watched, also if nothing came to be counted."""
        frozen = self.reference.side(name)
        for each in () if frozen is None else frozen.columns:
            why = self._ways[name].left_out(each.column)
            if why:
                self.left_out[each.column.name] = why

    def _first(self, name: str) -> bool:
        """Go to where the records begin. False if there are none."""
        at = self._asked(0, self.until, lambda opened: _earliest(opened, self._ways[name].slice_us))
        if at is None:
            return False
        side = self.state.side(name)
        self._put(
            name, None, _replace(side, since=at, counted=at, version=self._ways[name].version)
        )
        return True

    def _collect(self, name: str, way: Way, side: Side, end: int) -> None:
        found, last = self._asked(
            side.counted, end, lambda opened: drift_side.collect(side, way, opened, end)
        )
        if last is None:
            self._put(name, None, found)
            return
        frozen = self._asked(
            side.since, last + 1, lambda opened: drift_side.freeze(side, way, opened, last)
        )
        self._put(name, frozen, drift_side.begun(frozen, way))

    def _count(self, side: Side, frozen: Frozen, way: Way, end: int) -> drift_side.Counted:
        kept = msgspec.msgpack.encode(side)
        return self._asked(
            side.counted,
            end,
            # Of a copy: where a file turns out to be damaged, all of it is counted once more.
            lambda opened: drift_side.count(
                msgspec.msgpack.decode(kept, type=Side), frozen, way, opened, end
            ),
        )

    def _asked(self, since: int, until: int, ask: Callable[[Opened], _Found]) -> _Found:
        """Ask the records; once more, checking each file, if one of them cannot be read."""
        import duckdb

        try:
            return self._ask(since, until, ask, verify=False)
        except duckdb.Error:
            return self._ask(since, until, ask, verify=True)

    def _ask(
        self, since: int, until: int, ask: Callable[[Opened], _Found], *, verify: bool
    ) -> _Found:
        opened = dataset.open(
            self._root, self._model, since=since / 1e6 if since else None, until=until / 1e6,
            memory_mb=self._memory_mb, location=self._location, verify=verify,
        )  # fmt: skip
        with opened:
            found = ask(opened)
            self.problems += [each for each in opened.skipped if each not in self.problems]
            return found


def _earliest(opened: Opened, slice_us: int) -> int | None:
    """The beginning (µs) of the slice of the first record."""
    ((at,),) = opened.sql.execute("SELECT min(epoch_us(time)) FROM records").fetchall()
    return None if at is None else int(at) // slice_us * slice_us


__all__ = ["DriftSettings", "look"]
