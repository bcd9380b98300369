"""What control knows of the records: where they are, how far they reach, who works on them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from hotswap.control.jobs import JobRunner


class Recorded(msgspec.Struct, frozen=True):
    """``root``: the folder; ``location``: of compacted files, None: below it. ``jobs`` and
    ``ticks``: where work over them is done; what people ask for waits for no count that is due, and
    keeps none waiting. ``models`` gives a new process for what runs a model: it has no credentials,
    and ends with it. ``watermark``: up to when (Unix time) everything that was answered is
    recorded. ``counts``: what became of everything, for metrics and information.
    """

    root: Path
    location: str | None
    jobs: JobRunner
    ticks: JobRunner
    watermark: Callable[[], float]
    counts: Callable[[], Mapping[str, Any]]
    models: Callable[[], JobRunner]
    #: what is kept of inputs, None for all columns: see `hotswap.records.replay_inputs.Kept`
    columns: tuple[str, ...] | None = None
    redacted: tuple[str, ...] = ()
    hashed: tuple[str, ...] = ()
    #: seconds within which a label is expected
    maturity: float = 86400.0
    #: days that records are kept
    days: float = 30.0


__all__ = ["Recorded"]
