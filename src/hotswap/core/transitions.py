"""Small moves of a rollout's status, from which decisions and commands are made. Pure."""

from __future__ import annotations

from typing import Final

import msgspec

from hotswap.core.plan import HALF, Promote
from hotswap.core.rollout import Exposure, Rollout, Status

_replace = msgspec.structs.replace
#: The reason of a promotion that a person insisted on against the evidence.
FORCED: Final = "forced"


def entered(status: Status, state: str, reason: str, message: str) -> Status:
    """In another state, with its clock at zero and nothing holding it."""
    return _replace(
        status, state=state, reason=reason, message=message, state_elapsed=0.0, holds={}
    )


def returned(status: Status, reason: str, message: str) -> Status:
    """On the way back: nothing of the candidate is to be seen from now on."""
    return _replace(entered(status, "rolling_back", reason, message), exposure=None)


def hold(status: Status, reason: str, message: str) -> Status:
    """With one more reason to stay."""
    if reason in status.holds:
        return _replace(status, message=message)
    return _replace(status, holds={**status.holds, reason: 0.0}, message=message)


def unheld(status: Status, *reasons: str) -> Status:
    """Without these reasons to stay."""
    left = {reason: lasted for reason, lasted in status.holds.items() if reason not in reasons}
    return _replace(status, holds=left)


def next_step(status: Status, message: str = "") -> Status:
    """At the next step, its clock at zero."""
    return _replace(
        unheld(status, "insufficient", "approval"),
        step=status.step + 1,
        step_elapsed=0.0,
        extended=0,
        approved=False,
        message=message or status.message,
    )


def exposed(status: Status, **shape: int | bool) -> Status:
    """With another exposure wanted: another stage, unless it is as it was."""
    now = status.exposure
    wanted = Exposure(0, **shape)  # type: ignore[arg-type]
    if now is not None and _replace(now, stage=0) == wanted:
        return status
    stage = status.stage + 1
    return _replace(status, stage=stage, exposure=_replace(wanted, stage=stage))


def twinned(rollout: Rollout, weight: int) -> bool:
    """Whether stable needs a second set of hosts for latency to be compared at this weight."""
    return weight < HALF or (weight == HALF and (rollout.instances > 1 or rollout.apart))


def promoting(rollout: Rollout, status: Status, why: str, reason: str = "flip") -> Status:
    """About to become stable. ``reason``: `FORCED` if a person insisted against the evidence."""
    at = next(n for n, step in enumerate(rollout.steps) if isinstance(step, Promote))
    skipped = tuple(range(status.step, at))
    status = _replace(
        status,
        step=at,
        step_elapsed=0.0,
        passed=(*status.passed, *skipped),
        forced=reason == FORCED,
    )
    return entered(status, "promoting", reason, f"{rollout.spec.version} is taking over: {why}")
