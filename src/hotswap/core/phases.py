"""The phase that people are shown, derived from the status by one pure function."""

from __future__ import annotations

from typing import Final

from hotswap.core.rollout import Status

_PHASES: Final = {
    "queued": "Preparing",
    "preparing": "Preparing",
    "running": "Progressing",
    "promoting": "Promoting",
    "baking": "Baking",
    "watching": "Healthy",
    "healthy": "Healthy",
    "completed": "Completed",
    "rolling_back": "RollingBack",
    "rolled_back": "RolledBack",
    "failed": "Failed",
    "degraded": "Degraded",
}

#: Which of several reasons to hold is shown: people first.
_ORDER: Final = (
    "user",
    "approval",
    "capacity",
    "store",
    "metrics_outage",
    "sample_ratio",
    "insufficient",
)


def phase(status: Status) -> str:
    """One of the phases of the glossary.

    >>> phase(Status("running", holds={"user": 0.0})), phase(Status("running"))
    ('Paused', 'Progressing')
    """
    if status.state == "running" and status.holds:
        return "Paused"
    return _PHASES[status.state]


def reason(status: Status) -> str:
    """Why it is in that phase, as one word.

    >>> reason(Status("running", holds={"insufficient": 0.0, "user": 1.0}))
    'user'
    """
    if status.holds and status.state in ("running", "baking", "promoting"):
        return next((each for each in _ORDER if each in status.holds), min(status.holds))
    return status.reason or status.state
