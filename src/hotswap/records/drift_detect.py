"""One column's detectors since its reference was frozen, and what is shown of it.

Two watches of `hotswap.stats.shift`: one of the values, one of the share of rows without any, for
which a tolerance of a tenth would be far too much. An alarm starts the watch that raised it again;
it ends when the last rows, as many as the reference has, are within what is tolerated and nothing
alarmed in them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from hotswap.records.drift_reference import Bins
from hotswap.stats import shift

#: The share of rows without a value may rise by half of itself, and by this much in any case.
_MISSING: Final = 0.01


class Kept(msgspec.Struct, frozen=True):
    """A watch's running values; what it claims is known from the reference."""

    wealth: tuple[tuple[float, ...], ...] = ()
    rows: int = 0


class Watch(msgspec.Struct):
    """One column. ``before`` and ``now``: hits of the bins in the last rows; ``alarmed`` (µs of
    Unix time): since when, 0 for no; ``calm``: rows since something alarmed last.
    """

    values: Kept = Kept()
    missing: Kept = Kept()
    before: tuple[int, ...] = ()
    now: tuple[int, ...] = ()
    alarmed: int = 0
    cause: str = ""
    calm: int = 0

    @property
    def recent(self) -> tuple[int, ...]:
        """Hits of the bins in the last rows, those of no value first; empty without rows."""
        if not self.before or not self.now:
            return self.now or self.before
        return tuple(a + b for a, b in zip(self.before, self.now, strict=True))


class Detectors:
    """What watches one column. ``arl``: rows to a false alarm of either watch, on average."""

    def __init__(self, bins: Bins, tolerance: float, arl: float) -> None:
        self.bins = bins
        self.tolerance = tolerance
        self.rows = sum(bins.counts)
        ordered = bins.column.kind == "number"
        self.reference = shift.Reference(self._seen(bins.counts), ordered)
        self._values = shift.start(self.reference, tolerance, arl)
        self.missing_tolerance = 0.0
        self._missing: shift.Watch | None = None
        if bins.column.side == "input":  # an output that was not asked for is not missing
            share = bins.counts[0] / self.rows
            self.missing_tolerance = min(tolerance, max(_MISSING, 0.5 * share))
            gone = shift.Reference((bins.counts[0], self.rows - bins.counts[0]), ordered=True)
            self._missing = shift.start(gone, self.missing_tolerance, arl)

    def _seen(self, counts: Sequence[int]) -> tuple[int, ...]:
        return tuple(counts) if self.bins.column.side == "input" else (0, *counts[1:])

    @property
    def needed(self) -> float:
        """The evidence of an alarm."""
        return shift.threshold(self._values)

    def evidence(self, watch: Watch) -> float:
        """The larger of both watches'."""
        found = [shift.evidence(_with(self._values, watch.values))] if watch.values.rows else [0.0]
        if self._missing is not None and watch.missing.rows:
            found.append(shift.evidence(_with(self._missing, watch.missing)))
        return max(found)

    def shown(self, watch: Watch) -> shift.Distance | None:
        """How far the last rows are from the reference; None without any."""
        recent = self._seen(watch.recent)
        return shift.distance(self.reference, recent) if sum(recent) else None

    def update(self, watch: Watch, counts: Sequence[int], at: int) -> bool:
        """Count one slice, which ended at ``at`` (µs). Whether it raised the alarm."""
        rows = sum(self._seen(counts))
        if not rows:
            return False
        self._remember(watch, counts)
        claims: list[shift.Claim | None] = []
        after = shift.update(_with(self._values, watch.values), self._seen(counts))
        if shift.alarmed(after):
            claims.append(shift.leading(after))
            after = self._values
        watch.values = Kept(after.wealth, after.rows)
        if self._missing is not None:
            gone = shift.update(_with(self._missing, watch.missing), (counts[0], rows - counts[0]))
            if shift.alarmed(gone):
                claims.append(shift.leading(gone))
                gone = self._missing
            watch.missing = Kept(gone.wealth, gone.rows)
        if claims:
            watch.calm = 0
            if not watch.alarmed:
                watch.alarmed, watch.cause = at, self._cause(claims[0], counts)
                watch.before, watch.now = (), tuple(counts)  # what it was before is not shown
                return True
            return False
        watch.calm += rows
        if watch.alarmed and watch.calm >= self.rows and self.within(watch):
            watch.alarmed, watch.cause = 0, ""
        return False

    def within(self, watch: Watch) -> bool:
        """Whether the last rows, as they are, are within what is tolerated."""
        seen = self.shown(watch)
        if seen is None:
            return False
        missing = seen.missing - seen.missing_before
        return seen.estimate <= self.tolerance and missing <= self.missing_tolerance

    def _remember(self, watch: Watch, counts: Sequence[int]) -> None:
        """Keep the last rows' hits: as many rows as the reference has, at most twice as many."""
        if sum(self._seen(watch.now)) >= self.rows:
            watch.before, watch.now = watch.now, ()
        now = watch.now or (0,) * len(counts)
        watch.now = tuple(a + b for a, b in zip(now, counts, strict=True))

    def _cause(self, claim: shift.Claim | None, counts: Sequence[int]) -> str:
        if claim is None:
            return ""
        seen = self._seen(counts)
        known = sum(seen) - seen[0]
        if claim.said == "missing":
            what, share = "no value", seen[0] / max(1, sum(seen))
        elif claim.said in ("below", "above"):
            below = sum(seen[1 : claim.at + 1])
            what = f"{'at most' if claim.said == 'below' else 'above'} {self.bins.cuts[claim.at - 1]:g}"
            share = (below if claim.said == "below" else known - below) / max(1, known)
        else:
            inside = seen[claim.at]
            what = self.bins.label(claim.at)
            what = what if claim.said == "more" else f"not {what}"
            share = (inside if claim.said == "more" else known - inside) / max(1, known)
        return (
            f"{what}: {100 * share:.3g} % of the rows, {100 * claim.before:.3g} % in the reference"
        )


def _with(fresh: shift.Watch, kept: Kept) -> shift.Watch:
    """The watch as it was kept; one that is new, or of another release's claims, begins anew."""
    if len(kept.wealth) != len(fresh.claims):
        return fresh
    return fresh._replace(wealth=kept.wealth, rows=kept.rows)


__all__ = ["Detectors", "Kept", "Watch"]
