"""A version over recorded inputs, before it sees any traffic: values that are shown."""

from __future__ import annotations

import msgspec

from hotswap.core.quality_views import Quality


class Replay(msgspec.Struct, frozen=True):
    """A run of ``version`` over the newest recorded inputs, beside what was answered.

    ``rows`` of ``requests`` were run; on ``errors`` of them it raised or gave no valid answer, why
    is in ``problems`` (the first few). ``agreement``: the share of the rows answered by both that
    were answered alike; None where none were. ``left_out``: rows of that time that could not be
    run, as not all of their inputs are recorded. ``ms_per_row``: of the version alone, in batches;
    ``seconds``: all of it, loading included. ``quality``: the report, in which ``candidate`` is the
    version.
    """

    model: str
    version: str
    rows: int
    requests: int
    errors: int
    agreement: float | None
    ms_per_row: float
    seconds: float
    quality: Quality
    left_out: int = 0
    problems: tuple[str, ...] = ()


__all__ = ["Replay"]
