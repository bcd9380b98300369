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
    keeps none waiting. ``watermark``: up to when (Unix time) everything that was answered is
    recorded. ``counts``: what became of everything, for metrics and information.
    """

    root: Path
    location: str | None
    jobs: JobRunner
    ticks: JobRunner
    watermark: Callable[[], float]
    counts: Callable[[], Mapping[str, Any]]


__all__ = ["Recorded"]
