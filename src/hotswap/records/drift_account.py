"""A model's drift as it is shown: what is kept, in words and numbers for people."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

from hotswap.core.drift_views import ColumnDrift, DriftReference, DriftView
from hotswap.records.drift_detect import Detectors, Watch
from hotswap.records.drift_side import false_alarm_rows
from hotswap.records.drift_state import SIDES, Frozen, Reference, Side, State

#: Where the reference covers less than this, the hours of the day look like drift.
_DAY: float = 86400.0


def account(
    model: str,
    tolerance: float,
    wanted: int,
    reference: Reference,
    state: State,
    *,
    fresh: Sequence[str] = (),
    left_out: Mapping[str, str] | None = None,
    skipped: Sequence[str] = (),
    problems: Sequence[str] = (),
    behind: bool = False,
) -> DriftView:
    """The view of what is kept; ``looked_at`` is for who asked. ``left_out``: columns that are not
    watched now, and why: what was last known of them is not shown.
    """
    left_out = left_out or {}
    columns: list[ColumnDrift] = []
    references: list[DriftReference] = []
    why: list[str] = []
    for name in SIDES:
        side, frozen = state.side(name), reference.side(name)
        references.append(_reference(name, side, frozen, wanted))
        if frozen is not None:
            columns += _columns(side, frozen, left_out)
            why += [each for each in frozen.skipped if each not in why]
    why += [each for each in (*left_out.values(), *skipped) if each not in why]
    watching = any(each is not None for each in (reference.input, reference.output))
    counted = [s.counted for s in (state.input, state.output) if s.counted]
    latest = max(state.input.latest, state.output.latest)
    columns.sort(
        key=lambda each: (each.alarmed_since is None, -(each.distance or 0.0), each.column)
    )
    return DriftView(
        model,
        "watching" if watching else "collecting",
        _message(columns, references),
        tolerance,
        tuple(references),
        tuple(columns),
        tuple(why),
        tuple(problems),
        counted_until=min(counted) / 1e6 if counted else None,
        latest=latest / 1e6 if latest else None,
        behind=behind,
        false_alarm_rows=false_alarm_rows({name: reference.side(name) for name in SIDES}),
        fresh=tuple(fresh),
    )


def _reference(name: str, side: Side, frozen: Frozen | None, wanted: int) -> DriftReference:
    if frozen is None:
        return DriftReference(name, "collecting", side.version, side.collected, wanted)
    return DriftReference(
        name, "watching", frozen.version, frozen.rows, frozen.rows, frozen.first / 1e6,
        frozen.last / 1e6, frozen.digest, len(frozen.columns),
    )  # fmt: skip


def _columns(side: Side, frozen: Frozen, left_out: Collection[str]) -> list[ColumnDrift]:
    found = []
    for bins in frozen.columns:
        if bins.column.name in left_out:
            continue
        watch = side.watches.get(bins.column.name, Watch())
        detectors = Detectors(bins, frozen.tolerance, frozen.column_arl)
        seen = detectors.shown(watch)
        rows = sum(watch.recent)
        enough = seen is not None and math.isfinite(seen.low)
        found.append(
            ColumnDrift(
                bins.column.name, frozen.side, bins.column.kind,
                None if seen is None else seen.estimate,
                None if seen is None or not enough else seen.low,
                frozen.tolerance, detectors.evidence(watch), detectors.needed,
                watch.alarmed / 1e6 if watch.alarmed else None, watch.cause,
                None if seen is None else seen.psi,
                None if seen is None else seen.jensen_shannon,
                watch.recent[0] / rows if rows else None,
                bins.counts[0] / max(1, sum(bins.counts)), rows,
            )
        )  # fmt: skip
    return found


def _message(columns: Sequence[ColumnDrift], references: Sequence[DriftReference]) -> str:
    """What is so, in a sentence or two."""
    alarmed = [each.column for each in columns if each.alarmed_since is not None]
    collecting = [
        f"{each.rows:,} of the {each.wanted:,} rows of the reference of {each.side}s are there"
        for each in references
        if each.state == "collecting"
    ]
    if not any(each.rows for each in references):
        return "no records were seen yet"
    said = []
    if alarmed:
        more = f" and {len(alarmed) - 5} more" if len(alarmed) > 5 else ""
        verb = "has" if len(alarmed) == 1 else "have"
        said.append(f"{', '.join(alarmed[:5])}{more} {verb} drifted from the reference")
    elif columns:
        said.append("nothing has drifted from the reference")
    elif any(each.state == "watching" for each in references):
        said.append("no column is recorded as it is in the reference")
    said += collecting
    short = [
        each for each in references
        if each.first is not None and each.last is not None and each.last - each.first < _DAY
    ]  # fmt: skip
    if short and alarmed:
        said.append(
            "the reference covers less than a day, so what changes with the hour counts too"
        )
    return "; ".join(said)


__all__ = ["account"]
