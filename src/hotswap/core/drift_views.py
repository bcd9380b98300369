"""Drift of records from a frozen reference: what is wanted, and what operators are shown. Values."""

from __future__ import annotations

import msgspec


class DriftSettings(msgspec.Struct, frozen=True):
    """``seconds``: between two looks. ``tolerance``: how far a share may be from the reference's. ``rows``: of a reference.
    ``columns``: names of those that are watched, all if empty. ``one_row``: of each request one
    row counts. ``slice_seconds``: records are counted in such pieces of time. ``budget_seconds``:
    a look that has taken so long leaves the rest to the next. ``memory_mb``: what it may hold.
    """

    seconds: float = 300.0
    tolerance: float = 0.1
    rows: int = 5000
    columns: tuple[str, ...] = ()
    one_row: bool = True
    slice_seconds: float = 60.0
    budget_seconds: float = 10.0
    memory_mb: int = 512


class ColumnDrift(msgspec.Struct, frozen=True):
    """One column of the records now, against its reference.

    ``column`` as in the records (``input_age``, ``output_predict``); of probabilities, the
    positive class alone: ``output_predict_proba[1]``. ``kind``: number or category. ``distance``:
    the largest difference between the shares below a value (of numbers) or of a category, over the
    last ``n`` rows, None without any; ``bound``: what it is at least, at 95 %, as long as only
    this column is looked at once. ``tolerance``: how far it may be without being called drift.
    ``evidence`` and ``needed``: natural logarithms, of the detector now and where it alarms.
    ``alarmed_since``: Unix time of the alarm, None without one; ``cause``: what alarmed, in a
    sentence. ``psi`` and ``js`` (Jensen–Shannon, nats) describe, and decide nothing. ``missing``
    and ``missing_reference``: shares of rows without a value.
    """

    column: str
    side: str
    kind: str
    distance: float | None
    bound: float | None
    tolerance: float
    evidence: float
    needed: float
    alarmed_since: float | None
    cause: str
    psi: float | None
    js: float | None
    missing: float | None
    missing_reference: float
    n: int


class DriftReference(msgspec.Struct, frozen=True):
    """What columns are held against. ``state``: watching, or collecting (``rows`` of ``wanted``
    are there). ``version``: whose outputs, "" for inputs. Times are Unix times.
    """

    side: str
    state: str
    version: str
    rows: int
    wanted: int
    first: float | None = None
    last: float | None = None
    digest: str = ""
    columns: int = 0


class DriftView(msgspec.Struct, frozen=True):
    """A model's drift. ``state``: watching, collecting (no reference yet), waiting (not looked at
    yet) or off; ``message`` says it in a sentence.

    ``columns``: those that alarmed first, then the farthest first. ``skipped``: columns that are
    not watched, and why; ``problems``: what could not be read. ``counted_until``: records up to
    then are in it; ``latest``: the newest of them; ``behind``: there are more, which the next look
    counts. ``false_alarm_rows``: rows to a false alarm of any column, at least, on average.
    ``fresh``: which alarms are new since the look before.
    """

    model: str
    state: str
    message: str
    tolerance: float
    references: tuple[DriftReference, ...] = ()
    columns: tuple[ColumnDrift, ...] = ()
    skipped: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    counted_until: float | None = None
    latest: float | None = None
    looked_at: float | None = None
    behind: bool = False
    false_alarm_rows: float | None = None
    fresh: tuple[str, ...] = ()

    def alarmed(self, side: str = "") -> tuple[ColumnDrift, ...]:
        """Columns that are alarmed; of one side (input, output) if it is given."""
        return tuple(
            each
            for each in self.columns
            if each.alarmed_since is not None and side in ("", each.side)
        )


__all__ = ["ColumnDrift", "DriftReference", "DriftSettings", "DriftView"]
